"""What an ingest found, did and could not do, for people."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench import catalog
from workbench.ingest.factory import Activity
from workbench.progress import amount, duration
from workbench.stores import Store

if TYPE_CHECKING:
    from workbench.ingest.plan import IngestPlan, PlannedArchive


class IngestError(Exception):
    """Archives that could not be brought in; the message lists each with what to do."""


@dataclass(frozen=True)
class Outcome:
    """What became of one archive.

    Attributes:
        archive: its name.
        dataset: where it belongs.
        result: "unpacked", "was there" or "failed".
        check: "verified", "mismatch", "not listed", or "" where it did not come whole.
        size: bytes of the archive.
        members: members that are there.
        written: members written in this run.
        bytes_written: their bytes.
        replaced: members that took the place of a file of another size.
        downloaded: bytes that came in this run.
        problem: what went wrong and what to do, or "".
    """

    archive: str
    dataset: str
    result: str
    check: str
    size: int
    members: int
    written: int
    bytes_written: int
    replaced: int
    downloaded: int
    problem: str


@dataclass(frozen=True)
class IngestReport:
    """What a run did.

    Attributes:
        outcomes: one an archive.
        volumes: dataset -> split -> (volumes found, volumes that fastMRI publishes).
        notes: what the reader should know of the email.
        seconds: how long it took.
        activities: every attempt of every activity of the Data Factory, where there was one.
    """

    outcomes: tuple[Outcome, ...]
    volumes: dict[str, dict[str, tuple[int, int]]]
    notes: tuple[str, ...]
    seconds: float
    activities: tuple[Activity, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Every problem with what to do."""
        return [outcome.problem for outcome in self.outcomes if outcome.problem]

    def raise_for_problems(self) -> None:
        """Fail where an archive failed.

        Raises:
            IngestError: lists every problem.
        """
        if self.problems:
            count = f"{len(self.problems)} of {len(self.outcomes)} archives"
            raise IngestError("\n".join([f"{count} could not be brought in:", *self.problems]))

    def summary(self) -> str:
        """Say in one line how much came, and how fast."""
        came = sum(outcome.downloaded for outcome in self.outcomes)
        written = sum(outcome.bytes_written for outcome in self.outcomes)
        done = sum(outcome.result == "unpacked" for outcome in self.outcomes)
        there = sum(outcome.result == "was there" for outcome in self.outcomes)
        speed = f", {amount(came / self.seconds, 'B')}/s over all" if came and self.seconds else ""
        return (
            f"{done} archives brought in, {there} were there, {len(self.problems)} failed: "
            f"{amount(came, 'B')} downloaded and {amount(written, 'B')} unpacked "
            f"in {duration(self.seconds)}{speed}"
        )


def count_volumes(store: Store, dataset: str) -> dict[str, tuple[int, int]]:
    """Count a dataset's ``.h5`` files per split, beside the number that fastMRI publishes.

    A name counts once in a split: batches and releases may hold it again.
    """
    found: dict[str, set[str]] = {}
    for entry in store.folder(dataset).list():
        folder, _, name = entry.path.rpartition("/")
        split = catalog.split_of_folder(folder)
        if split and name.endswith(".h5") and not name.startswith("."):
            found.setdefault(split, set()).add(name)
    official = catalog.DATASETS[dataset].counts
    return {
        split: (len(found.get(split, ())), official.get(split, (0, 0))[0])
        for split in catalog.SPLITS
        if split in found or split in official
    }


# ---- tables ------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Write a table as HTML; every cell is escaped."""
    head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:left">{html.escape(str(cell))}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    # MathJax leaves these classes alone: "$" in a name begins no formula.
    text = 'class="tex2jax_ignore mathjax_ignore"'
    return f"<table {text}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def plan_html(plan: "IngestPlan") -> str:
    """Show a plan: datasets, archives, space, notes."""
    datasets = table(
        ("dataset", "links of", "archives", "missing from the email"),
        [
            (p.name, p.generation, len(p.archives), ", ".join(p.missing) or "none: complete")
            for p in plan.datasets
        ],
    )
    archives = table(
        ("archive", "kind", "size", "unpacks to", "to do", "link ends", "hash", "problem"),
        [
            (
                archive.link.name,
                archive.kind or "?",
                amount(archive.size, "B") if archive.size else "?",
                ("" if archive.exact else "about ") + amount(archive.unpacked, "B")
                if archive.unpacked
                else "-",
                _to_do(archive, plan),
                f"{archive.link.expires:%Y-%m-%d %H:%M} UTC" if archive.link.expires else "?",
                "listed" if archive.sha256 else "not listed",
                archive.problem,
            )
            for archive in plan.archives
        ],
    )
    space = f"<p>{html.escape(plan.space())}</p>" + "".join(
        f"<p>Note: {html.escape(note)}</p>" for note in plan.notes
    )
    return datasets + archives + space


def _to_do(archive: "PlannedArchive", plan: "IngestPlan") -> str:
    if archive.download and plan.factory:
        return "copy by Data Factory"
    if archive.download:
        return "go on downloading" if archive.there else "download"
    return archive.action.value


def report_html(report: IngestReport) -> str:
    """Show a report: archives, volumes against the official counts, problems."""
    archives = table(
        ("archive", "result", "hash", "size", "members", "written now", "bytes written"),
        [
            (
                o.archive,
                o.result,
                o.check or "-",
                amount(o.size, "B"),
                o.members,
                o.written,
                amount(o.bytes_written, "B"),
            )
            for o in report.outcomes
        ],
    )
    rows = [
        (dataset, split, found, official or "not published")
        for dataset, splits in report.volumes.items()
        for split, (found, official) in splits.items()
    ]
    volumes = table(("dataset", "split", "volumes here", "volumes of fastMRI"), rows)
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in report.problems)
    parts = [f"<p>{html.escape(report.summary())}</p>", archives, volumes if rows else ""]
    parts.append(f"<p>Problems:</p><ul>{problems}</ul>" if problems else "<p>No problems.</p>")
    if report.activities:
        parts += ["<p>Activities of the factory:</p>", _activities(report.activities)]
    return "".join(parts)


def _activities(activities: Sequence[Activity]) -> str:
    header = ("archive", "activity", "status", "read", "written", "files", "took", "speed", "error")
    rows = [
        (
            each.archive,
            each.name,
            each.status,
            amount(each.read, "B"),
            amount(each.written, "B"),
            each.files,
            duration(each.seconds),
            f"{amount(each.read / each.seconds if each.seconds else 0, 'B')}/s",
            each.error,
        )
        for each in activities
    ]
    return table(header, rows)
