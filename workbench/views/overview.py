"""What a dataset holds: tables and figures of its cache."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.catalog import DATASETS, SPLITS
from workbench.data.cache import DatasetCache
from workbench.data.volume import Problem, Volume
from workbench.progress import amount
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from pandas.io.formats.style import Styler

# The Okabe-Ito colours, told apart by colour-blind readers too.
SPLIT_COLOURS = {
    "train": "#0072B2",
    "val": "#E69F00",
    "test": "#009E73",
    "challenge": "#CC79A7",
    "test_full": "#56B4E9",
}
_MOST_BARS = 16


@dataclass(frozen=True)
class _Quantity:
    of: Callable[[Volume], Any]
    axis: str
    title: str
    by_size: bool = False


QUANTITIES: Mapping[str, _Quantity] = {
    "acquisition": _Quantity(
        lambda volume: volume.acquisition or "not said",
        "acquisition",
        "volumes by acquisition",
        by_size=True,
    ),
    "coils": _Quantity(
        lambda volume: volume.coils, "receive coils", "{span} receive coils a volume"
    ),
    "matrix": _Quantity(
        lambda volume: volume.matrix,
        "readout × phase encodes",
        "{count} k-space sizes; only slices of one size fit in a batch",
        by_size=True,
    ),
    "slices": _Quantity(
        lambda volume: volume.slices, "slices in the volume", "{span} slices a volume"
    ),
}


def official_counts(cache: DatasetCache, dataset: str = "") -> dict[str, tuple[int, int]]:
    """Return fastMRI's own (volumes, slices) by split, empty where it publishes none.

    Args:
        cache: the dataset, looked up by its folder's name.
        dataset: another dataset's name to compare with.

    Raises:
        ValueError: there is no dataset of the name given.
    """
    if dataset and dataset not in DATASETS:
        raise ValueError(f"dataset={dataset!r}: give one of {', '.join(DATASETS)}")
    found = DATASETS.get(dataset or cache.name)
    return found.counts if found else {}


def split_table(cache: DatasetCache, official: Mapping[str, tuple[int, int]]) -> "DataFrame":
    """Tabulate volumes, slices and sizes by split, against fastMRI's official counts."""
    import pandas

    rows = {}
    for split in [name for name in SPLITS if name in cache.counts or name in official]:
        part = cache.split(split)
        volumes, slices = official.get(split, (0, 0))
        rows[split] = {
            "volumes": f"{len(part):,}",
            "of fastMRI's": f"{volumes:,} ({_share(len(part), volumes)})" if volumes else "",
            "slices": f"{part.slices:,}",
            "of fastMRI's ": f"{slices:,} ({_share(part.slices, slices)})" if slices else "",
            "on disk": amount(sum(volume.size for volume in part), "B"),
            "with target": f"{sum(volume.target is not None for volume in part):,}",
            "with mask": f"{sum(volume.mask is not None for volume in part):,}",
            "folders": ", ".join(sorted({v.path.rpartition("/")[0] or "." for v in part})),
        }
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def acquisition_table(cache: DatasetCache) -> "DataFrame":
    """Tabulate what volumes there are by split and acquisition: how many, and of what sizes."""
    import pandas

    rows = []
    for split in cache.counts:
        part = cache.split(split)
        for acquisition in part.acquisitions:
            volumes = part.only(acquisition=acquisition)
            rows.append(
                {
                    "split": split,
                    "acquisition": acquisition or "not said",
                    "volumes": f"{len(volumes):,}",
                    "slices": f"{volumes.slices:,}",
                    "slices a volume": _span(v.slices for v in volumes),
                    "coils": _span(v.coils for v in volumes),
                    "readout": _span(v.matrix[0] for v in volumes),
                    "phase encodes": _span(v.matrix[1] for v in volumes),
                    "of them acquired": _span(_acquired(v) for v in volumes),
                    "image": ", ".join(sorted({f"{v.recon[0]}×{v.recon[1]}" for v in volumes})),
                }
            )
    return (
        pandas.DataFrame(rows).set_index(["split", "acquisition"])
        if rows
        else (pandas.DataFrame(columns=["volumes", "slices"]))
    )


def problem_table(problems: Iterable[Problem]) -> "Styler":
    """Tabulate files and what is wrong with them, with the whole text of each reason."""
    import pandas

    rows = [{"file": problem.path, "reason": problem.reason} for problem in problems]
    table = pandas.DataFrame(rows, columns=["file", "reason"])
    return styled_table(table, index=False).set_properties(**{"text-align": "left"})


def completeness_figure(cache: DatasetCache, official: Mapping[str, tuple[int, int]]) -> "Figure":
    """Draw how much of fastMRI's volumes is here, by split, in per cent.

    Raises:
        ValueError: there is nothing to compare with.
    """
    names = [split for split in SPLITS if split in official]
    here = [len(cache.split(split)) for split in names]
    wanted = [official[split][0] for split in names]
    if not names:
        raise ValueError(f"official={official}: fastMRI publishes no counts to compare with")
    figure, axes = _figure(
        len(names), cache, f"{_share(sum(here), sum(wanted))} of fastMRI's volumes are here"
    )
    shares = [100 * count / total for count, total in zip(here, wanted, strict=True)]
    axes.barh(names, [100] * len(names), color="0.93")
    axes.barh(names, shares, color=[SPLIT_COLOURS[split] for split in names])
    for row, (count, total) in enumerate(zip(here, wanted, strict=True)):
        text, place = f"{count:,} of {total:,} volumes", ("axes fraction", "data")
        axes.annotate(text, (1, row), (6, 0), place, "offset points", va="center")
    axes.set(xlim=(0, max(100, *shares)), xlabel="fastMRI's volumes that are here (%)")
    return figure


def distribution_figure(cache: DatasetCache, quantity: str) -> "Figure":
    """Draw how many volumes there are by "acquisition", "coils", "matrix" or "slices".

    Raises:
        ValueError: the quantity is none of these.
    """
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity={quantity!r}: give one of {', '.join(QUANTITIES)}")
    from matplotlib.ticker import MaxNLocator

    shown = QUANTITIES[quantity]
    total = Counter(shown.of(volume) for volume in cache)
    order = [value for value, _ in total.most_common()] if shown.by_size else sorted(total)
    most = _MOST_BARS if shown.by_size else len(order)
    bars, rest = order[:most], order[most:]
    labels = [_label(value) for value in bars] + ([f"{len(rest)} others"] if rest else [])
    span = _span(order) if order and not shown.by_size else ""
    title = shown.title.format(count=len(order), span=span) if order else "no volumes"
    figure, axes = _figure(len(labels), cache, title)
    left = [0] * len(labels)
    for split in cache.counts:
        counts = Counter(shown.of(volume) for volume in cache.split(split))
        widths = [counts[value] for value in bars]
        widths += [sum(counts[value] for value in rest)] if rest else []
        axes.barh(labels, widths, left=left, color=SPLIT_COLOURS[split], label=split)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, count in enumerate(left):
        axes.annotate(f"{count:,}", (count, row), (4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="volumes", ylabel=shown.axis)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if order:
        axes.legend(title="split", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _figure(rows: int, cache: DatasetCache, title: str) -> tuple["Figure", "Axes"]:
    from workbench.views.style import new_figure, tidy

    figure = new_figure(
        8, 1.5 + 0.32 * max(rows, 2), title=f"{cache.name}: {title}", synthetic=cache.synthetic
    )
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(max(rows, 2) - 0.5, -0.5)
    return figure, axes


def _label(value: Any) -> str:
    return " × ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _acquired(volume: Volume) -> int:
    return min(volume.padding_right, volume.matrix[1]) - max(volume.padding_left, 0)


def _span(values: Iterable[int]) -> str:
    found = set(values)
    low, high = min(found), max(found)
    return f"{low}" if low == high else f"{low} to {high}"


def _share(part: int, whole: int) -> str:
    share = 100 * part / whole
    return "100 %" if part == whole else f"{share:.0f} %" if 1 <= share < 99 else f"{share:.1f} %"
