"""What an ingest found, did and could not do, for people."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field

from workbench import catalog
from workbench.ingest.factory import Activity
from workbench.ingest.plan import IngestPlan, PlannedArchive
from workbench.progress import amount, duration
from workbench.stores import Store


class IngestError(Exception):
    """Archives that could not be brought in; the message lists each with what to do."""


@dataclass
class Outcome:
    """How far one archive is, written by its threads, and in the end what became of it."""

    archive: str
    dataset: str
    size: int  # bytes
    there: int = 0  # bytes of it that were here, or in the container, before
    state: str = "waits"
    """In words, such as "downloading"; in the end "unpacked", "was there" or "failed"."""
    downloaded: int = 0  # bytes of it, in this run
    through: int = 0  # bytes of it that were verified and unpacked
    problem: str = ""  # what went wrong and what to do
    check: str = ""  # "verified", "mismatch", "not listed", or "" where it did not come whole
    members: int = 0  # that are there
    written: int = 0  # members, in this run
    bytes_written: int = 0
    activities: Sequence[Activity] = ()  # every attempt of the Data Factory


@dataclass
class IngestReport:
    """What a run does, and in the end what it did."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Of each archive, in the plan's order."""
    volumes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """Dataset -> split -> (volumes found, volumes that fastMRI publishes)."""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def problems(self) -> list[str]:
        """Every problem with what to do."""
        return [outcome.problem for outcome in self.outcomes if outcome.problem]

    @property
    def activities(self) -> list[Activity]:
        """Every attempt of every activity of the Data Factory, where there was one."""
        return [activity for outcome in self.outcomes for activity in outcome.activities]

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
        results = [outcome.state for outcome in self.outcomes]
        speed = f", {amount(came / self.seconds, 'B')}/s over all" if came and self.seconds else ""
        return (
            f"{results.count('unpacked')} archives brought in, {results.count('was there')} were "
            f"there, {len(self.problems)} failed: "
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


def table(header: str, rows: Sequence[Sequence[object]]) -> str:
    """Write a table as HTML; every cell is escaped. The header's cells stand between commas."""

    def row(tag: str, cells: Sequence[object]) -> str:
        left = 'style="text-align:left"'
        made = (f"<{tag} {left}>{html.escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{''.join(made)}</tr>"

    # MathJax leaves these classes alone: "$" in a name begins no formula.
    text = 'class="tex2jax_ignore mathjax_ignore"'
    head, body = row("th", header.split(", ")), "".join(row("td", cells) for cells in rows)
    return f"<table {text}><thead>{head}</thead><tbody>{body}</tbody></table>"


def plan_html(plan: IngestPlan) -> str:
    """Show a plan: how much of the email is there, datasets, archives, space, notes."""
    email = f"<p>The email's lines: {html.escape('; '.join(plan.email))}.</p>" if plan.email else ""
    datasets = table(
        "dataset, links of, archives, missing from the email",
        [
            (p.name, p.generation, len(p.archives), ", ".join(p.missing) or "none: complete")
            for p in plan.datasets
        ],
    )

    def cells(archive: PlannedArchive) -> Sequence[object]:
        about = ("" if archive.exact else "about ") + amount(archive.unpacked, "B")
        fetch = "go on downloading" if archive.there else "download"
        fetch = "copy by Data Factory" if plan.factory else fetch
        ends = archive.link.expires
        return (
            archive.link.name,
            archive.kind or "?",
            amount(archive.size, "B") if archive.size else "?",
            about if archive.unpacked else "-",
            fetch if archive.download else archive.action.value,
            f"{ends:%Y-%m-%d %H:%M} UTC" if ends else "?",
            "listed" if archive.sha256 else "not listed",
            archive.problem,
        )

    header = "archive, kind, size, unpacks to, to do, link ends, hash, problem"
    lines = [plan.space(), *(f"Note: {note}" for note in plan.notes)]
    said = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    return email + datasets + table(header, [cells(archive) for archive in plan.archives]) + said


def progress_html(report: IngestReport) -> str:
    """Show how far each archive is; "" before there is one."""

    def share(done: int, total: int) -> str:
        if not total:
            return "-"
        return f"{amount(done, 'B')} of {amount(total, 'B')} ({min(done / total, 1):.0%})"

    def cells(o: Outcome) -> Sequence[object]:
        through = share(o.through, o.size) if o.through else "-"
        return o.archive, o.state, share(o.there + o.downloaded, o.size), through, o.problem

    rows = [cells(outcome) for outcome in report.outcomes]
    return table("archive, state, came, verified and unpacked, problem", rows) if rows else ""


def report_html(report: IngestReport) -> str:
    """Show a report: archives, volumes against the official counts, problems."""

    def cells(o: Outcome) -> Sequence[object]:
        size, written = amount(o.size, "B"), amount(o.bytes_written, "B")
        return o.archive, o.state, o.check or "-", size, o.members, o.written, written

    header = "archive, result, hash, size, members, written now, bytes written"
    archives = table(header, [cells(outcome) for outcome in report.outcomes])
    rows = [
        (dataset, split, found, official or "not published")
        for dataset, splits in report.volumes.items()
        for split, (found, official) in splits.items()
    ]
    volumes = table("dataset, split, volumes here, volumes of fastMRI", rows) if rows else ""
    problems = "".join(f"<li>{html.escape(problem)}</li>" for problem in report.problems)
    notes = "".join(f"<p>Note: {html.escape(note)}</p>" for note in report.notes)
    said = f"<p>Problems:</p><ul>{problems}</ul>" if problems else "<p>No problems.</p>"

    def activity(a: Activity) -> Sequence[object]:
        read, written = amount(a.read, "B"), amount(a.written, "B")
        speed = f"{amount(a.read / (a.seconds or 1), 'B')}/s"
        return (
            *(a.archive, a.name, a.status, read, written, a.files, duration(a.seconds)),
            *(speed, a.error),
        )

    header = "archive, activity, status, read, written, files, took, speed, error"
    activities = table(header, [activity(each) for each in report.activities])
    shown = f"<p>Activities of the factory:</p>{activities}" if report.activities else ""
    return f"<p>{html.escape(report.summary())}</p>{archives}{volumes}{notes}{said}{shown}"
