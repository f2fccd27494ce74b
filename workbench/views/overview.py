"""What a dataset holds: tables and figures of its cache."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.catalog import DATASETS, SPLITS
from workbench.data.cache import DatasetCache
from workbench.data.volume import Problem, Volume
from workbench.progress import amount
from workbench.views.header import is_finite
from workbench.views.style import BLUE, GREEN, ORANGE, PINK, SKY, new_figure, tidy
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

SPLIT_COLOURS = {
    "train": BLUE,
    "val": ORANGE,
    "test": GREEN,
    "challenge": PINK,
    "test_full": SKY,
}
# Quantity -> the axis's label, the title, and whether the most frequent values come first.
_QUANTITIES = {
    "acquisition": ("acquisition", "volumes by acquisition", True),
    "coils": ("receive coils", "{span} receive coils a volume", False),
    "matrix": (
        "readout × phase encodes",
        "{count} k-space sizes; only slices of one size fit in a batch",
        True,
    ),
    "slices": ("slices in the volume", "{span} slices a volume", False),
}
# Column of ``_volumes`` -> its title in the table of acquisitions.
_SIZES = {
    "slices": "slices a volume",
    "coils": "coils",
    "readout": "readout",
    "width": "phase encodes",
    "acquired": "of them acquired",
}
_MOST_BARS = 16


def official_counts(cache: DatasetCache, dataset: str = "") -> dict[str, tuple[int, int]]:
    """Return fastMRI's own (volumes, slices) by split, empty where it publishes none.

    The dataset is looked up by its folder's name, or by another name to compare with.
    """
    found = DATASETS.get(dataset or cache.name)
    return found.counts if found else {}


def split_table(cache: DatasetCache, official: Mapping[str, tuple[int, int]]) -> pandas.DataFrame:
    """Tabulate volumes, slices and sizes by split, against fastMRI's official counts.

    Volumes with NaN or infinity in their attributes are counted in a column of their own.
    """

    def unknown(volume: Volume) -> bool:
        return not all(map(is_finite, volume.attributes.values()))

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
            "with NaN or Inf": f"{sum(map(unknown, part)):,}",
            "folders": ", ".join(sorted({v.path.rpartition("/")[0] or "." for v in part})),
        }
    table = pandas.DataFrame.from_dict(rows, orient="index").rename_axis("split")
    sound = not any(map(unknown, cache))
    return table.drop(columns="with NaN or Inf", errors="ignore") if sound else table


def acquisition_table(cache: DatasetCache) -> pandas.DataFrame:
    """Tabulate volumes by split and acquisition: how many, and of what sizes."""
    volumes = _volumes(cache)
    if volumes.empty:
        return pandas.DataFrame(columns=["volumes", "slices"])
    groups = volumes.groupby(["split", "acquisition"], observed=True)
    table = groups.size().map("{:,}".format).to_frame("volumes")
    table["slices"] = groups["slices"].sum().map("{:,}".format)
    for name, title in _SIZES.items():
        table[title] = groups[name].agg(_span)
    table["image"] = groups["image"].agg(lambda sizes: ", ".join(sorted(set(sizes))))
    return table


def volume_table(cache: DatasetCache) -> "Styler":
    """Tabulate a converted dataset's volumes: size, what is in them, how they were made."""
    rows = [
        {
            "volume": volume.path,
            "acquisition": volume.acquisition,
            "slices": volume.slices,
            "coils": volume.coils,
            "k-space": f"{volume.matrix[0]}x{volume.matrix[1]}",
            "image": f"{volume.recon[0]}x{volume.recon[1]}",
            "target": "yes" if volume.target else "no",
            "remarks": str(volume.attributes.get("remarks", "")).replace("\n", "; "),
        }
        for volume in cache
    ]
    return styled_table(pandas.DataFrame(rows), index=False, left=True)


def problem_table(problems: Iterable[Problem]) -> "Styler":
    """Tabulate files and what is wrong with them, with the whole text of each reason."""
    rows = [(problem.path, problem.reason) for problem in problems]
    table = pandas.DataFrame(rows, columns=["file", "reason"])
    return styled_table(table, index=False, left=True)


def completeness_figure(cache: DatasetCache, official: Mapping[str, tuple[int, int]]) -> Figure:
    """Draw how much of fastMRI's volumes is here, by split, of a dataset that it has counted."""
    names = [split for split in SPLITS if split in official]
    here = [len(cache.split(split)) for split in names]
    wanted = [official[split][0] for split in names]
    held = sum(map(min, here, wanted))  # one too many in a split is none of another's
    title = f"{_share(held, sum(wanted))} of fastMRI's volumes are here"
    figure, axes = _bars(len(names), cache, title)
    shares = [100 * count / total for count, total in zip(here, wanted, strict=True)]
    axes.barh(names, [100] * len(names), color="0.93")
    axes.barh(names, shares, color=[SPLIT_COLOURS[split] for split in names])
    for row, (count, total) in enumerate(zip(here, wanted, strict=True)):
        text, place = f"{count:,} of {total:,} volumes", ("axes fraction", "data")
        axes.annotate(text, (1, row), (6, 0), place, "offset points", va="center")
    axes.set(xlim=(0, max(100, *shares)), xlabel="fastMRI's volumes that are here (%)")
    return figure


def distribution_figure(cache: DatasetCache, quantity: str) -> Figure:
    """Draw how many volumes there are by "acquisition", "coils", "matrix" or "slices"."""
    label, title, by_size = _QUANTITIES[quantity]
    volumes = _volumes(cache)
    order = volumes[quantity].value_counts()
    order = order if by_size else order.sort_index()
    title = title.format(count=len(order), span=_span(order.index)) if len(order) else "no volumes"
    counts = pandas.crosstab(volumes[quantity], volumes["split"]).reindex(order.index)
    if by_size and len(counts) > _MOST_BARS:
        rest = counts[_MOST_BARS:]
        counts = counts[:_MOST_BARS]
        counts.loc[f"{len(rest)} others"] = rest.sum()
    figure, axes = _bars(len(counts), cache, title)
    labels, left = counts.index.map(str), [0] * len(counts)
    for split in cache.counts:
        axes.barh(labels, counts[split], left=left, color=SPLIT_COLOURS[split], label=split)
        left = [start + width for start, width in zip(left, counts[split], strict=True)]
    for row, count in enumerate(left):
        axes.annotate(f"{count:,}", (count, row), (4, 0), textcoords="offset points", va="center")
    axes.set(xlabel="volumes", ylabel=label)
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(counts):
        axes.legend(title="split", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _volumes(cache: DatasetCache) -> pandas.DataFrame:
    """Return one row for each volume; an acquisition that is not finite is "–"."""
    rows = []
    for volume in (each for split in cache.counts for each in cache.split(split)):
        (height, width), (left, right) = volume.matrix, volume.acquired
        known = is_finite(volume.acquisition)
        rows.append(
            {
                "split": volume.split,
                "acquisition": (volume.acquisition or "not said") if known else "–",
                "slices": volume.slices,
                "coils": volume.coils,
                "matrix": f"{height} × {width}",
                "readout": height,
                "width": width,
                "acquired": right - left,
                "image": f"{volume.recon[0]}×{volume.recon[1]}",
            }
        )
    table = pandas.DataFrame(rows, columns=None if rows else [*_QUANTITIES, "split"])
    table["split"] = pandas.Categorical(table["split"], list(cache.counts))
    return table


def _bars(rows: int, cache: DatasetCache, title: str) -> tuple[Figure, Axes]:
    """Make a figure for horizontal bars, the first on top."""
    rows, title = max(rows, 2), f"{cache.name}: {title}"
    figure = new_figure(8, 1.5 + 0.32 * rows, title=title, synthetic=cache.synthetic)
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="y")
    axes.set_ylim(rows - 0.5, -0.5)
    return figure, axes


def _span(values: Iterable[Any]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def _share(part: int, whole: int) -> str:
    share = 100 * part / whole
    if 0 < part < whole:  # neither nothing nor all
        share = min(max(share, 0.1), 99.9)
    return "100 %" if part == whole else f"{share:.0f} %" if 1 <= share < 99 else f"{share:.1f} %"
