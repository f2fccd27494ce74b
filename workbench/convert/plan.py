"""What a conversion will do: every file of a source, what it becomes, or why it is refused."""

import csv
import hashlib
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from workbench.catalog import split_of_folder
from workbench.convert.people import pseudonym, read_key, read_shares, split_people
from workbench.convert.readers import scans_of
from workbench.convert.scan import Choices, RefusedError, Scan
from workbench.convert.source import content_of, files_of_source
from workbench.convert.write import slices_of
from workbench.data.images import zero_filled
from workbench.data.volume import Problem
from workbench.progress import count_of
from workbench.settings import shown
from workbench.stores.disk import write_text

RECORD = "conversion.json"
"""What a dataset's folder says of its conversion; nothing of people or of the source's names."""
USUAL_LARGEST = 3e-4
"""Largest value of fastMRI's images, about."""
_SCALED_BY = 16  # scans whose middle slice decides the factor, at most
PEOPLE = ("auto", "header", "folder", "file")
"""What tells people apart: the header's patient, the folder below the source, or each file."""


@dataclass(frozen=True)
class Ask:
    """What is to be converted, and how."""

    source: Path
    dataset: Path  # the folder to make
    private: Path  # folder of the key, and of the table from names to pseudonyms
    form: str | None = None
    choices: Choices = field(default_factory=Choices)
    person: str = "auto"
    shares: str = "0.8, 0.1, 0.1"
    seed: int = 42
    scale: float | None = None  # None: one factor that brings images to fastMRI's scale
    flip: bool = False
    acquisition: str | None = None

    @property
    def root(self) -> Path:
        """Folder that the files' names are relative to."""
        return self.source if self.source.is_dir() else self.source.parent


@dataclass(frozen=True)
class Item:
    """One scan of one file, and the volume that it becomes."""

    source: str  # relative to the source's folder
    scan: Scan
    person: str  # pseudonym
    split: str
    path: str  # relative to the dataset's folder
    mark: str  # changes with the file, and with what is said of the scan
    file: str  # pseudonym of the file's whole path
    content: str  # pseudonym of what the file holds
    done: bool


@dataclass(frozen=True)
class Plan:
    """All of it, before anything is written."""

    ask: Ask
    items: tuple[Item, ...]
    refusals: tuple[Problem, ...]
    scale: float
    extremes: tuple[float, float] | None  # of some images' largest values; None: nothing to do
    told_apart: str  # of PEOPLE
    key: str  # pseudonym of the key itself
    record: Mapping[str, Any]  # what the dataset's folder said

    @property
    def to_do(self) -> tuple[Item, ...]:
        """What is not converted yet."""
        return tuple(item for item in self.items if not item.done)

    @property
    def size(self) -> int:
        """Bytes of k-space that will be written."""
        return sum(item.scan.size for item in self.to_do)


def plan_conversion(ask: Ask) -> Plan:
    """Look into every file of a source, print its name, and say what it becomes.

    Headers and lines' counters are read, and one slice of each of some scans; nothing of the
    dataset is written. The key of the pseudonyms is made where there is none.

    Raises:
        FileNotFoundError: there is no such source.
        ValueError: a choice is none, or it differs from that of an earlier conversion into the
            same folder.
    """
    shares = read_shares(ask.shares)
    if not ask.source.exists():
        raise FileNotFoundError(f"source={str(ask.source)!r}: no such file or folder")
    if ask.private.resolve().is_relative_to(ask.dataset.resolve()):
        raise ValueError(
            f"private={shown(ask.private)}: it lies in the dataset, and would tell who gets that "
            "who is who: give a folder outside"
        )
    record = _read_record(ask)
    found, contents, refusals = _look(ask)
    if not found:
        why = f": {refusals[0].path} {refusals[0].reason}" if refusals else ", it holds no file"
        raise ValueError(f"source={str(ask.source)!r}: nothing of it becomes a volume{why}")
    key = read_key(ask.private / "key")
    key_name = pseudonym(key, "key", "")
    if record.get("key", key_name) != key_name:
        raise ValueError(
            f"private={shown(ask.private)}: its key is not the one that {shown(ask.dataset)} was "
            "made with, so people would get other names and splits: give that one's folder, or "
            "another dataset"
        )
    told_apart, names = _people(ask, found, record.get("people"))
    people = {name: pseudonym(key, "person", name) for name in set(names)}
    known = {value["person"]: value["split"] for value in record["volumes"].values()}
    for name, (_, scan) in zip(names, found, strict=True):
        if scan.split:
            known.setdefault(people[name], scan.split)
    splits = split_people(people.values(), shares, ask.seed, known)
    items = []
    for name, (source, scan) in zip(names, found, strict=True):
        person, split = people[name], splits[people[name]]
        if scan.split not in (None, split):
            said = f"its source gives it to {scan.split}; of the same person are scans in {split}"
            scan = replace(scan, remarks=(*scan.remarks, said))
        stem = f"scan_{pseudonym(key, 'scan', f'{source} {scan.name}')[:16]}"
        path = f"multicoil_{split}/{stem}.h5"
        before, mark = record["volumes"].get(path, {}), _mark(ask, source, scan)
        file = pseudonym(key, "file", str((ask.root / source).resolve()))
        content = pseudonym(key, "content", contents[source])
        same = (before.get("source"), before.get("content", content)) == (mark, content)
        if before and not same and before.get("file", file) != file:
            raise ValueError(
                f"{source}: {shown(ask.dataset)} holds a file of that name from another folder: "
                "convert from the folder that holds both, or into another dataset"
            )
        done = same and (ask.dataset / path).is_file()
        items.append(Item(source, scan, person, split, path, mark, file, content, done))
    _refuse_twice(ask, items, record)
    refusals = [_with_what_stays(ask, each, key, record) for each in refusals]
    peaks = _peaks([item.scan for item in items if not item.done])
    usual = statistics.median(peaks) if peaks else 0.0
    scale = (
        record["scale"] or ask.scale or (float(f"{USUAL_LARGEST / usual:.3g}") if usual else 1.0)
    )
    extremes = (scale * min(peaks), scale * max(peaks)) if peaks else None
    return Plan(ask, tuple(items), tuple(refusals), scale, extremes, told_apart, key_name, record)


def _refuse_twice(ask: Ask, items: Iterable[Item], record: Mapping[str, Any]) -> None:
    """Refuse files of which the dataset holds volumes that this conversion would not write.

    Converted from a folder above or below the one that was given before, or under another name, a
    file would be there twice, perhaps in two splits.
    """
    written = {item.path for item in items}
    there = {
        value[name]: path
        for path, value in record["volumes"].items()
        for name in ("file", "content")
        if name in value and path not in written and (ask.dataset / path).is_file()
    }
    for item in items:
        if path := there.get(item.file) or there.get(item.content):
            raise ValueError(
                f"{item.source}: {shown(ask.dataset)} holds {path} of the same file, which was "
                "converted from another folder or under another name, or held other scans: convert "
                "it as before, into another dataset, or remove that volume first"
            )


def _with_what_stays(ask: Ask, refusal: Problem, key: bytes, record: Mapping[str, Any]) -> Problem:
    """Name the volumes of a refused file that an earlier conversion left in the dataset."""
    file = pseudonym(key, "file", str((ask.root / refusal.path).resolve()))
    left = [path for path, value in record["volumes"].items() if value.get("file") == file]
    return Problem(refusal.path, refusal.reason + said_of_what_stays(ask, left))


def said_of_what_stays(ask: Ask, paths: Iterable[str]) -> str:
    """Return the end of a refusal: which of some volumes are in the dataset all the same."""
    there = [path for path in paths if (ask.dataset / path).is_file()]
    return f"; of it as it was before {', '.join(there)} is still there" if there else ""


def _look(ask: Ask) -> tuple[list[tuple[str, Scan]], dict[str, str], list[Problem]]:
    """Find the scans of all files of a source, and what each of the files holds; copies once."""
    found: list[tuple[str, Scan]] = []
    seen: dict[str, str] = {}
    files, refusals = files_of_source(ask.source)
    for name in files:
        try:
            scans = scans_of(ask.root / name, ask.choices, ask.form)
            first = seen.setdefault(content_of(ask.root / name), name) if scans else name
        except (RefusedError, OSError) as error:
            refusals.append(Problem(name, str(error)))
            continue
        if first != name:
            refusals.append(Problem(name, f"is a copy of {first}, which is converted once"))
            continue
        print(f"{name}: {count_of(len(scans))}")
        if ask.acquisition:
            scans = [replace(scan, acquisition=ask.acquisition) for scan in scans]
        if split := next(filter(None, map(split_of_folder, reversed(_folders(name)))), None):
            scans = [replace(scan, split=scan.split or split) for scan in scans]
        found += [(name, scan) for scan in scans]
    return found, {name: content for content, name in seen.items()}, refusals


def _people(ask: Ask, found: list[tuple[str, Scan]], before: str | None) -> tuple[str, list[str]]:
    """Say by what people are told apart, and who each scan is of.

    By itself it trusts the headers where each file says who it is, and not all the same: scanners
    anonymise by writing one name for everybody. A dataset keeps the rule that it was made with
    (``before``): by another one the same people would get other splits.
    """
    files = {source for source, _ in found}
    said = {scan.person for _, scan in found}
    rule = before if before and ask.person == "auto" else ask.person
    if before and rule != before:
        raise ValueError(
            f"person={rule}: {shown(ask.dataset)} was made with person={before}: give that, or "
            "another dataset"
        )
    if rule == "auto":
        folders = any(_person_of(source) != source for source in files)
        one = len(said) == 1 and len(files) > 1
        rule = "header" if said and "" not in said and not one else "folder" if folders else "file"
    if rule == "header" and "" in said:
        nameless = next(source for source, scan in found if not scan.person)
        raise ValueError(
            f"person=header: {nameless} does not say whose it is: give folder (one folder a "
            "person) or file"
        )
    if rule == "header":
        return rule, [scan.person for _, scan in found]
    return rule, [_person_of(source) if rule == "folder" else source for source, _ in found]


def _person_of(source: str) -> str:
    """Return the first folder of a file that names no split, or else the file."""
    return next((folder for folder in _folders(source) if not split_of_folder(folder)), source)


def _folders(source: str) -> list[str]:
    return source.split("/")[:-1]


def _peaks(scans: Sequence[Scan]) -> list[float]:
    """Return the largest value of the middle slice's image of some scans, first to last.

    Slices that cannot be read, or are not finite, say nothing; the writer refuses them.
    """
    largest = []
    for scan in scans[:: math.ceil(len(scans) / _SCALED_BY) or 1]:
        try:
            (kspace,) = slices_of(scan, (scan.shape[0] // 2,))
        except (RefusedError, OSError):
            continue
        peak = float(np.abs(kspace).max())
        if 0 < peak < math.inf:  # and no NaN; of huge and tiny values the squares are neither
            largest.append(peak * float(zero_filled(kspace / peak, scan.header.recon[:2]).max()))
    return largest


def _mark(ask: Ask, source: str, scan: Scan) -> str:
    """Return what tells whether a file's scan is the one that was converted, and so described."""
    said = [scan.shape, scan.header, scan.target, scan.acquisition, scan.attributes]
    said += [None if scan.sampled is None else scan.sampled.tolist(), scan.calibration is None]
    digest = hashlib.sha256(repr(said).encode()).hexdigest()[:16]
    return f"{_stamp(ask, source)} {digest}"


def _stamp(ask: Ask, source: str) -> str:
    known = (ask.root / source).stat()
    return f"{known.st_size} {known.st_mtime_ns}"


def check_unchanged(ask: Ask, item: Item) -> None:
    """Refuse a scan whose file has become another one since it was planned: lines are elsewhere."""
    if not item.mark.startswith(f"{_stamp(ask, item.source)} "):
        raise RefusedError(
            "was changed after this began, as by a copy that goes on: run this again"
        )


def _choices_of(ask: Ask) -> dict[str, Any]:
    """Return those choices that every volume of a dataset shares."""
    return {"flip": ask.flip, "seed": ask.seed, "shares": ask.shares, **asdict(ask.choices)}


def _read_record(ask: Ask) -> dict[str, Any]:
    """Read what was converted into the dataset's folder before."""
    file = ask.dataset / RECORD
    record = json.loads(file.read_text()) if file.exists() else {"volumes": {}}
    if not any((ask.dataset / path).is_file() for path in record["volumes"]):
        for other in ask.dataset.glob("*/*.h5"):
            if split_of_folder(other.parent.name):
                raise ValueError(
                    f"{shown(ask.dataset)} holds {other.name}, which no conversion wrote: its "
                    "people and its scale are not known, so give another dataset"
                )
        return {"scale": None, "choices": _choices_of(ask), "volumes": {}}
    wanted = json.loads(json.dumps(_choices_of(ask)))
    for name, value in wanted.items():
        before = record["choices"].get(name)
        if before != value:
            raise ValueError(
                f"{name}={value!r}: {shown(ask.dataset)} was made with {name}={before!r}, and its "
                "volumes belong together: give that, or another dataset"
            )
    if ask.scale and ask.scale != record["scale"]:
        raise ValueError(
            f"scale={ask.scale:g}: {shown(ask.dataset)} was made with scale={record['scale']:g}: "
            "leave it out, or give another dataset"
        )
    return record


def check_current(plan: Plan) -> None:
    """Refuse a plan since which another conversion has written into the dataset's folder.

    It chose the scale, the people and their splits, and this plan others.
    """
    if _read_record(plan.ask) != plan.record:
        raise RuntimeError(
            f"another conversion has written into {shown(plan.ask.dataset)} since this one was "
            "planned: run this again"
        )


def remember(plan: Plan, item: Item, *, whole: bool) -> None:
    """Write what the dataset's folder holds now, or is about to: a volume that is not whole yet."""
    record = _read_record(plan.ask)
    record |= {"scale": plan.scale, "people": plan.told_apart, "key": plan.key}
    record["volumes"][item.path] = {
        "person": item.person,
        "split": item.split,
        "source": item.mark if whole else "",
        "file": item.file,
        "content": item.content,
    }
    write_text(plan.ask.dataset / RECORD, json.dumps(record, indent=1) + "\n")


def write_names(plan: Plan) -> None:
    """Write the private table of who is who; what other sources left in it stays."""
    file, known = plan.ask.private / "names.csv", {}
    if file.exists():
        with file.open(encoding="utf-8", newline="") as lines:
            known = {row[0]: row for row in list(csv.reader(lines))[1:]}
    for item in plan.items:
        known[item.path] = [item.path, item.source, item.scan.name, item.scan.person]
    table = io.StringIO()
    csv.writer(table).writerows([["volume", "file", "scan", "person"], *known.values()])
    write_text(file, table.getvalue())
