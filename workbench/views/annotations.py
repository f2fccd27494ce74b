"""fastMRI+: what radiologists found in fastMRI's volumes, and where (arXiv:2109.03812).

A CSV of https://github.com/microsoft/fastmri-plus has the columns file, slice, study_level, x, y,
width, height, label; a line is a box on a slice, or, with study_level "Yes", a finding of the whole
volume without a box. Boxes were drawn on images that had been turned over: y counts pixels from the
top of the upright image, (x, y) is the box's upper left corner.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from matplotlib.axes import Axes

from workbench.dataset.volume import Volume
from workbench.settings import resolve, shown

COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")
_BOX = COLUMNS[3:7]


@dataclass(frozen=True)
class Box:
    """A rectangle of the upright image, pixels of the target: left, top, width, height."""

    left: float
    top: float
    width: float
    height: float

    def rows(self, height: int, margin: float = 0) -> slice:
        """Return its rows in an image as stored, upside down, of some height; at least one."""
        start = math.floor(height - self.top - self.height - margin)
        stop = math.ceil(height - self.top + margin)
        return _inside(start, stop, height)

    def columns(self, width: int, margin: float = 0) -> slice:
        """Return its columns in an image of some width; at least one."""
        start, stop = math.floor(self.left - margin), math.ceil(self.left + self.width + margin)
        return _inside(start, stop, width)


def _inside(start: int, stop: int, size: int) -> slice:
    start = min(max(start, 0), size - 1)
    return slice(start, max(min(stop, size), start + 1))


@dataclass(frozen=True)
class Annotation:
    """A finding.

    Attributes:
        volume: file name, with ``.h5``, or path within the dataset.
        slice: slice number, 0 first.
        label: such as "Meniscus Tear".
        box: where; None for a finding of the whole study.
    """

    volume: str
    slice: int
    label: str
    box: Box | None


@dataclass(frozen=True)
class Annotations:
    """The findings of a file.

    Attributes:
        source: the CSV.
        by_volume: file name or path -> its findings, in the file's order.
        unclear: file name in the CSV -> the paths of the volumes that have it, where there are
            several; such findings are nobody's.
    """

    source: Path
    by_volume: Mapping[str, Sequence[Annotation]]
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def of(self, volume: str, number: int | None = None) -> list[Annotation]:
        """Return the boxes of a volume, by its path, or of one of its slices."""
        return [
            each
            for each in self._all_of(volume)
            if each.box is not None and number in (None, each.slice)
        ]

    def study_labels(self, volume: str) -> list[str]:
        """Return the findings of a whole volume."""
        found = (each.label for each in self._all_of(volume) if each.box is None)
        return list(dict.fromkeys(found))

    def within(self, volumes: Iterable[Volume]) -> "Annotations":
        """Return the findings as they hold in a dataset, where a file name may be of several.

        fastMRI+ names files without their folders. A finding is shown on no volume rather than on
        the wrong one; a path in the column ``file`` says which is meant. The test volumes that
        fastMRI published twice, undersampled and in full, are the same scans.
        """
        found: dict[str, list[Volume]] = defaultdict(list)
        for volume in volumes:
            if volume.name in self.by_volume:
                found[volume.name].append(volume)
        unclear = {
            name: [volume.path for volume in called]
            for name, called in found.items()
            if len(called) > 1 and sorted(each.split for each in called) != ["test", "test_full"]
        }
        return replace(self, unclear=unclear)

    @property
    def remarks(self) -> list[str]:
        """What is not shown, and what to do, as sentences."""
        return [
            f"{self.source.name} has findings for {name}, but {len(paths)} volumes have that name: "
            f"{', '.join(paths)}. They are not shown: write a volume's path in the column file."
            for name, paths in self.unclear.items()
        ]

    def _all_of(self, volume: str) -> list[Annotation]:
        name = volume.rpartition("/")[2]
        bare = () if name in self.unclear or name == volume else self.by_volume.get(name, ())
        return [*self.by_volume.get(volume, ()), *bare]


def read_annotations(path: str | Path) -> Annotations:
    """Read and check a CSV of fastMRI+.

    Args:
        path: the file; a relative one counts from the project's root.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a column is missing, or a line makes no sense; the message names the line.
    """
    if not isinstance(path, str | Path) or not str(path).strip():
        raise ValueError(f"annotations={path!r}: give the path of fastMRI+'s knee.csv or brain.csv")
    file = resolve(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"annotations={shown(file)}: no such file; fastMRI+ has knee.csv and brain.csv in "
            "https://github.com/microsoft/fastmri-plus (Annotations)"
        )
    found: dict[str, list[Annotation]] = defaultdict(list)
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            reader = csv.DictReader(lines)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"{shown(file)} has no column {', '.join(missing)}: fastMRI+'s files have "
                    f"{', '.join(COLUMNS)}"
                )
            for row in reader:
                annotation = _annotation(row, f"{shown(file)}, line {reader.line_num}")
                found[annotation.volume].append(annotation)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{shown(file)} is no CSV: {error}") from None
    return Annotations(file, dict(found))


def _annotation(row: Mapping[str, str | None], where: str) -> Annotation:
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    for name in ("file", "label"):
        if not text[name]:
            raise ValueError(f"{where}: {name} is empty")
    volume = text["file"].removesuffix(".h5") + ".h5"
    whole_study = text["study_level"].lower() in ("yes", "true", "1")
    number = int(_number(text["slice"] or ("0" if whole_study else ""), "slice", where))
    if whole_study:
        return Annotation(volume, number, text["label"], None)
    x, y, width, height = (_number(text[name], name, where) for name in _BOX)
    if width <= 0 or height <= 0:
        raise ValueError(f"{where}: a box of {width:g}x{height:g} pixels")
    return Annotation(volume, number, text["label"], Box(x, y, width, height))


def _number(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{where}: {name}={text!r} is no number") from None
    if not math.isfinite(value) or (name == "slice" and (value < 0 or value != int(value))):
        raise ValueError(
            f"{where}: {name}={text!r} is no {'slice' if name == 'slice' else 'place'}"
        )
    return value


def draw_boxes(
    axes: Axes, annotations: Sequence[Annotation], height: int, *, labels: bool = True
) -> None:
    """Draw boxes over an image that ``show_image`` drew, and once for each kind its label.

    Args:
        axes: where the image is.
        annotations: of its slice.
        height: rows of the target that boxes are counted on.
        labels: whether labels are written.
    """
    from matplotlib.patches import Rectangle

    from workbench.views.style import COLOURS, SMALL

    kinds = list(dict.fromkeys(each.label for each in annotations))
    for each in annotations:
        if each.box is None:
            continue
        box, colour = each.box, COLOURS[(1 + kinds.index(each.label)) % len(COLOURS)]
        # Rows as stored: the box's top is its highest row there.
        corner = (box.left - 0.5, height - box.top - box.height - 0.5)
        axes.add_patch(
            Rectangle(corner, box.width, box.height, fill=False, edgecolor=colour, linewidth=1.3)
        )
    for place, kind in enumerate(kinds if labels else ()):
        axes.text(
            0.02,
            0.98 - 0.06 * place,
            kind,
            color=COLOURS[(1 + place) % len(COLOURS)],
            fontsize=SMALL,
            fontweight="bold",
            va="top",
            transform=axes.transAxes,
            bbox={"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1},
        )
