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

from workbench.data.volume import Volume
from workbench.settings import resolve, shown

COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")
_BOX = COLUMNS[3:7]
_MOST_REMARKS = 20


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
        box: where, a point or a line where it has no extent; None for the whole study.
        line: of the CSV.
    """

    volume: str
    slice: int
    label: str
    box: Box | None
    line: int = field(default=0, compare=False)

    @property
    def where(self) -> str:
        """The line of the CSV, and what it is about."""
        return f"line {self.line} ({self.volume}, slice {self.slice}, {self.label})"


@dataclass(frozen=True)
class Annotations:
    """The findings of a file.

    Attributes:
        source: the CSV.
        by_volume: file name or path -> its findings, in the file's order.
        unclear: file name in the CSV -> the paths of the volumes that have it, where there are
            several; such findings are nobody's.
        passed_over: the lines that are not shown, each with the reason.
    """

    source: Path
    by_volume: Mapping[str, Sequence[Annotation]]
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)
    passed_over: Sequence[str] = ()

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
        fastMRI published twice, undersampled and in full, are the same scans. Findings on no slice
        of their volume, or outside its image, are passed over.
        """
        found: dict[str, list[Volume]] = defaultdict(list)
        by_volume, passed_over = dict(self.by_volume), dict.fromkeys(self.passed_over)
        for volume in volumes:
            if volume.name in self.by_volume:
                found[volume.name].append(volume)
            for name in {volume.path, volume.name} & by_volume.keys():
                asked = [(each, _outside(each, volume)) for each in by_volume[name]]
                by_volume[name] = [each for each, reason in asked if not reason]
                passed_over |= {f"{each.where}: {why}": None for each, why in asked if why}
        unclear = {
            name: [volume.path for volume in called]
            for name, called in found.items()
            if len(called) > 1 and sorted(each.split for each in called) != ["test", "test_full"]
        }
        return replace(self, by_volume=by_volume, unclear=unclear, passed_over=tuple(passed_over))

    @property
    def remarks(self) -> list[str]:
        """What is not shown, and what to do, as sentences."""
        few, count = self.passed_over[:_MOST_REMARKS], len(self.passed_over)
        more = [f"and {count - len(few)} more lines"] if count > len(few) else []
        lines = [f"{self.source.name}: passed over {each}" for each in [*few, *more]]
        return lines + [
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

    A line that makes no sense is passed over and named in ``remarks``; a box without extent, of
    which fastMRI+ has some, is a point. Commas, semicolons or tabs stand between the columns, in
    any order, further ones among them.

    Args:
        path: the file; a relative one counts from the project's root.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a column is missing, or no line makes sense; the message names the first.
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
    wrong: list[str] = []
    with file.open(newline="", encoding="utf-8-sig") as lines:
        try:
            head = lines.readline()
            apart = max(",", ";", "\t", key=head.count)
            names = [name.strip().lower() for name in next(csv.reader([head], delimiter=apart), ())]
            reader = csv.DictReader(lines, names, delimiter=apart)
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise ValueError(
                    f"{shown(file)} has no column {', '.join(missing)}: fastMRI+'s files have "
                    f"{', '.join(COLUMNS)}"
                )
            if twice := [name for name in COLUMNS if names.count(name) > 1]:
                raise ValueError(f"{shown(file)} has a column {twice[0]} twice: keep one of them")
            for row in reader:
                line = reader.line_num + 1
                text = {name: (row[name] or "").strip() for name in COLUMNS}
                if not any(text.values()):
                    continue
                if apart != ",":  # where numbers may have a comma as their point
                    text |= {name: text[name].replace(",", ".") for name in ("slice", *_BOX)}
                try:
                    annotation = _annotation(text, line)
                except ValueError as error:
                    place = f"{text['file']}, slice {text['slice']}, {text['label']}"
                    wrong.append(f"line {line} ({place}): {error}")
                else:
                    found[annotation.volume].append(annotation)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{shown(file)} is no CSV in UTF-8: save it as such ({error})"
            ) from None
        except csv.Error as error:
            raise ValueError(f"{shown(file)} is no CSV: {error}") from None
    if wrong and not found:
        raise ValueError(f"{shown(file)}, {wrong[0]}")
    return Annotations(file, dict(found), passed_over=tuple(wrong))


def _outside(annotation: Annotation, volume: Volume) -> str:
    """Say why a finding cannot be on a volume; "" where it can."""
    if annotation.slice >= volume.slices:
        return f"{volume.path} has slices 0 to {volume.slices - 1}"
    height, width = volume.target.shape[-2:] if volume.target else volume.recon[:2]
    box = annotation.box
    if box and not (
        box.left < width and box.top < height and box.left + box.width >= 0 <= box.top + box.height
    ):
        return f"the box lies outside the image of {height} x {width} pixels"
    return ""


def _annotation(text: Mapping[str, str], line: int) -> Annotation:
    for name in ("file", "label"):
        if not text[name]:
            raise ValueError(f"{name} is empty")
    volume = text["file"].removesuffix(".h5") + ".h5"
    whole_study = text["study_level"].lower() in ("yes", "true", "1")
    number = int(_number(text["slice"] or ("0" if whole_study else ""), "slice"))
    if whole_study:
        return Annotation(volume, number, text["label"], None, line)
    x, y, width, height = (_number(text[name], name) for name in _BOX)
    if width < 0 or height < 0:
        raise ValueError(f"a box of {width:g}x{height:g} pixels")
    return Annotation(volume, number, text["label"], Box(x, y, width, height), line)


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is no number") from None
    if not math.isfinite(value) or (name == "slice" and (value < 0 or value != int(value))):
        raise ValueError(f"{name}={text!r} is no {'slice' if name == 'slice' else 'place'}")
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
        if not box.width * box.height:
            middle = (corner[0] + box.width / 2, corner[1] + box.height / 2)
            axes.plot(*middle, "+", color=colour, markersize=9)
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
