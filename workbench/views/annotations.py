"""fastMRI+: what radiologists found in fastMRI's volumes, and where (arXiv:2109.03812).

A CSV of https://github.com/microsoft/fastmri-plus has the columns file, slice, study_level, x, y,
width, height, label. A line is a box on a slice or, with study_level "Yes", a finding of the whole
volume without a box. Boxes were drawn on upright images: y counts pixels from the top, and (x, y)
is the upper left corner.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from workbench.data.images import crop_size
from workbench.data.volume import Volume
from workbench.settings import resolve, shown
from workbench.views.style import COLOURS, SMALL, Look

COLUMNS = ("file", "slice", "study_level", "x", "y", "width", "height", "label")
_MOST_REMARKS = 20


@dataclass(frozen=True)
class Box:
    """A rectangle on the upright image, in pixels of the target: upper left corner and size."""

    x: float
    y: float
    width: float
    height: float

    def inside(self, shape: tuple[int, ...]) -> tuple[slice, ...]:
        """Return its rows and columns in a stored (upside down) image (h, w); at least one each."""
        bottom = shape[0] - self.y - self.height
        found = []
        for start, length, size in zip(
            (bottom, self.x), (self.height, self.width), shape, strict=True
        ):
            first = min(max(math.floor(start), 0), size - 1)
            found.append(slice(first, max(min(math.ceil(start + length), size), first + 1)))
        return tuple(found)


@dataclass(frozen=True)
class Annotation:
    """A finding.

    Attributes:
        volume: file name with ``.h5``, or path within the dataset.
        slice: slice number, from 0.
        label: such as "Meniscus Tear".
        box: the place, a point or a line where it has no extent; None for the whole study.
        line: of the CSV.
    """

    volume: str
    slice: int
    label: str
    box: Box | None
    line: int = field(default=0, compare=False)

    def stored(self, shape: tuple[int, ...], shown: tuple[int, ...]) -> dict[str, Any]:
        """Return its box for ``draw_boxes`` and the viewer: y is a stored row.

        Boxes lie on the target, of ``shape``; an image of which another centre is ``shown`` has
        them elsewhere.
        """
        box = self.box or Box(0, 0, 0, 0)
        down, right = (
            (part - whole) // 2 if part >= whole else -((whole - part) // 2)
            for whole, part in zip(shape, shown, strict=True)
        )
        place = {"x": box.x + right, "y": shape[0] - box.y - box.height + down}
        return {"slice": self.slice, "label": self.label, **asdict(box), **place}

    def misplaced(self, volume: Volume) -> str:
        """Say why it cannot be on a volume; "" if it can."""
        if self.slice >= volume.slices:
            return f"{volume.path} has slices 0 to {volume.slices - 1}"
        height, width = volume.target.shape[-2:] if volume.target else volume.recon[:2]
        box = self.box
        if box and not (-box.width <= box.x < width and -box.height <= box.y < height):
            return f"the box lies outside the image of {height} x {width} pixels"
        return ""


@dataclass(frozen=True)
class Annotations:
    """The findings of a file.

    Attributes:
        source: the CSV.
        findings: in the file's order.
        passed_over: lines that are not shown, each with the reason.
        unclear: file name in the CSV -> paths of the several volumes with that name.
    """

    source: Path
    findings: Sequence[Annotation]
    passed_over: Sequence[str] = ()
    unclear: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def _all_of(self, volume: str) -> list[Annotation]:
        names = (volume, volume.rpartition("/")[2])
        return [each for each in self.findings if each.volume in names]

    def of(self, volume: str, number: int | None = None) -> list[Annotation]:
        """Return the boxes of a volume, given by its path, or of one of its slices."""
        boxes = [each for each in self._all_of(volume) if each.box is not None]
        return [each for each in boxes if number in (None, each.slice)]

    def study_labels(self, volume: str) -> list[str]:
        """Return the findings of a whole volume."""
        return list(dict.fromkeys(each.label for each in self._all_of(volume) if each.box is None))

    def boxes(
        self, volume: Volume, shown: tuple[int, ...], number: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the boxes of a volume or one of its slices, counted in stored rows.

        ``shown`` is the size (h, w) of the images that they are drawn on.
        """
        crop = crop_size(volume.matrix, volume.recon[:2])
        shape = volume.target.shape[-2:] if volume.target else crop
        return [each.stored(shape, shown) for each in self.of(volume.path, number)]

    def within(self, volumes: Iterable[Volume]) -> "Annotations":
        """Return the findings on the volumes of a dataset, where several may share a file name.

        fastMRI+ names files without their folders. A finding that fits several volumes is shown on
        none; a path in the column ``file`` says which is meant. The test volumes that fastMRI
        published twice, undersampled and in full, are the same scans and share their findings.
        Findings on no slice of their volume, or outside its image, are passed over.
        """
        named: dict[str, list[Volume]] = defaultdict(list)
        for volume in volumes:
            for name in {volume.name, volume.path}:
                named[name].append(volume)
        findings, passed_over, unclear = [], dict.fromkeys(self.passed_over), {}
        for each in self.findings:
            found = named.get(each.volume, [])
            if len(found) > 1 and sorted(v.split for v in found) != ["test", "test_full"]:
                unclear[each.volume] = [volume.path for volume in found]
                continue
            for volume in found:
                if reason := each.misplaced(volume):
                    place = f"{each.volume}, slice {each.slice}, {each.label}"
                    passed_over[f"line {each.line} ({place}): {reason}"] = None
                else:
                    findings.append(replace(each, volume=volume.path))
        return Annotations(self.source, findings, tuple(passed_over), unclear)

    @property
    def remarks(self) -> list[str]:
        """What is not shown, and what to do, as sentences."""
        few, name = list(self.passed_over[:_MOST_REMARKS]), self.source.name
        if (more := len(self.passed_over) - len(few)) > 0:
            few.append(f"and {more} more lines")
        return [f"{name}: passed over {each}" for each in few] + [
            f"{name} has findings for {file}, but {len(paths)} volumes have that name: "
            f"{', '.join(paths)}. They are not shown: write a volume's path in the column file."
            for file, paths in self.unclear.items()
        ]


def read_annotations(path: str | Path) -> Annotations:
    """Read and check a CSV of fastMRI+; a relative path counts from the project's root.

    Lines that cannot be read are passed over and named in ``remarks``. A box without extent, of
    which fastMRI+ has some, is a point. Columns may come in any order, among others, with commas,
    semicolons or tabs between them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or no line can be read; the message names the first.
    """
    file = resolve(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"annotations={shown(file)}: no such file; fastMRI+ has knee.csv and brain.csv in "
            "https://github.com/microsoft/fastmri-plus (Annotations)"
        )
    findings: list[Annotation] = []
    wrong: list[str] = []
    try:
        for line, text in _rows(file.read_text(encoding="utf-8-sig"), shown(file)):
            try:
                findings.append(_annotation(text, line))
            except ValueError as error:
                place = f"{text['file']}, slice {text['slice']}, {text['label']}"
                wrong.append(f"line {line} ({place}): {error}")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(file)} is no CSV in UTF-8: save it as such ({error})") from None
    except csv.Error as error:
        raise ValueError(f"{shown(file)} is no CSV: {error}") from None
    if wrong and not findings:
        raise ValueError(f"{shown(file)}, {wrong[0]}")
    return Annotations(file, findings, tuple(wrong))


def _rows(content: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line that is not empty, and its values by column."""
    head, _, body = content.partition("\n")
    delimiter = max(",", ";", "\t", key=head.count)
    names = [each.strip().lower() for each in next(csv.reader([head], delimiter=delimiter), ())]
    if missing := [each for each in COLUMNS if each not in names]:
        raise ValueError(
            f"{name} has no column {', '.join(missing)}: fastMRI+'s files have {', '.join(COLUMNS)}"
        )
    if twice := [each for each in COLUMNS if names.count(each) > 1]:
        raise ValueError(f"{name} has a column {twice[0]} twice: keep one of them")
    reader = csv.DictReader(body.splitlines(keepends=True), names, delimiter=delimiter)
    for row in reader:
        text = {each: (row[each] or "").strip() for each in COLUMNS}
        if delimiter != ",":  # numbers may have a decimal comma
            numbers = set(COLUMNS) - {"file", "study_level", "label"}
            text |= {each: text[each].replace(",", ".") for each in numbers}
        if any(text.values()):
            yield reader.line_num + 1, text


def _annotation(text: Mapping[str, str], line: int) -> Annotation:
    """Read a line; a ValueError says what is wrong with it."""
    for name in ("file", "label"):
        if not text[name]:
            raise ValueError(f"{name} is empty")
    whole_study = text["study_level"].lower() in ("yes", "true", "1")
    named = {name: text[name] for name in ("slice", "x", "y", "width", "height")}
    if whole_study:
        named = {"slice": text["slice"] or "0"}
    numbers = {}
    for name, value in named.items():
        try:
            numbers[name] = number = float(value)
        except ValueError:
            raise ValueError(f"{name}={value!r} is no number") from None
        if not math.isfinite(number) or (name == "slice" and (number < 0 or number % 1)):
            raise ValueError(f"{name}={value!r} is no {'slice' if name == 'slice' else 'place'}")
    number = int(numbers.pop("slice"))
    box = None if whole_study else Box(**numbers)
    if box and (box.width < 0 or box.height < 0):
        raise ValueError(f"a box of {box.width:g}x{box.height:g} pixels")
    return Annotation(text["file"].removesuffix(".h5") + ".h5", number, text["label"], box, line)


def grades_of(volume: Volume) -> list[int]:
    """Return the PI-RADS grade of each slice, as converted prostate scans have it; else nothing."""
    found = volume.attributes.get("pirads")
    if not isinstance(found, list) or len(found) != volume.slices:
        return []
    return found if all(isinstance(grade, int) for grade in found) else []


def grades_in_words(volume: Volume, number: int) -> str:
    """Say the PI-RADS grade of a slice and of the volume, and where the highest one is."""
    grades = grades_of(volume)
    if not grades:
        return ""
    worst = max(grades)
    found = [str(n) for n, grade in enumerate(grades) if grade == worst]
    where = f"slice{'s' * (len(found) > 1)} {', '.join(found)}"
    place = f", on {where}" if worst > min(grades) else ""
    return f"PI-RADS of slice {number}: {grades[number]}; the highest is {worst}{place}"


def draw_boxes(axes: Axes, boxes: Sequence[Mapping[str, Any]], *, labels: bool = True) -> None:
    """Draw boxes (``Annotations.boxes``) over an image of ``show_image``, and each label once."""
    kinds = list(dict.fromkeys(box["label"] for box in boxes))
    colours = {kind: COLOURS[(1 + place) % len(COLOURS)] for place, kind in enumerate(kinds)}
    for box in boxes:
        (x, y), (width, height) = (box["x"] - 0.5, box["y"] - 0.5), (box["width"], box["height"])
        colour = colours[box["label"]]
        if not width * height:
            axes.plot(x + width / 2, y + height / 2, "+", color=colour, markersize=9)
        outline: Look = {"fill": False, "edgecolor": colour, "linewidth": 1.3}
        axes.add_patch(Rectangle((x, y), width, height, **outline))
    ground = {"facecolor": "black", "alpha": 0.6, "edgecolor": "none", "pad": 1}
    style: Look = {"fontsize": SMALL, "fontweight": "bold", "va": "top", "bbox": ground}
    for place, kind in enumerate(kinds if labels else ()):
        high = 0.98 - 0.06 * place
        axes.text(0.02, high, kind, color=colours[kind], transform=axes.transAxes, **style)
