"""What came of the demo: ``summary.json``, the table, and one page that shows it all."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.compute.runs import open_run
from workbench.models import NETWORKS
from workbench.progress import duration
from workbench.recon.asked import read_order
from workbench.recon.metrics import (
    METRICS,
    Scores,
    counted,
    deviations,
    mean_scores,
    of_fewer,
)
from workbench.recon.results import Results
from workbench.settings import shown
from workbench.stores.disk import write_text
from workbench_demo.pages import Picture, pictures, render
from workbench_demo.seeds import FIRST, other_seeds
from workbench_demo.sizes import Part
from workbench_demo.stages import Demo, Stage, page_of

_NAME, _WIDTH = 32, 9  # of a row's name, of a metric's column
SPREAD = (
    "The network's figures are of one short training: python -m workbench_demo --seeds 3 shows\n"
    "how far other seeds move them. Machines also round differently, which moves them as well."
)


@dataclass(frozen=True)
class PartReport:
    """What came of one anatomy.

    Attributes:
        model: "brain" or "knee".
        results: of each validation volume that has a target, the trained network's.
        beside: those of the methods that learn nothing, on the same volumes.
    """

    model: str
    results: Results
    beside: tuple[Results, ...] = ()

    @property
    def methods(self) -> dict[str, tuple[str, list[Scores]]]:
        """Name and label of every method, and its metrics of each volume; the trained one last."""
        filled = (
            self.results.labels["zero_filled"],
            list(self.results.scores("zero_filled").values()),
        )
        found = {
            _name(each): (
                each.labels["reconstruction"],
                list(each.scores("reconstruction").values()),
            )
            for each in (*self.beside, self.results)
        }
        return {"zero_filled": filled} | found

    @property
    def trained(self) -> Scores:
        """The trained network's means over volumes."""
        return mean_scores(self.results.scores("reconstruction").values())

    @property
    def summary(self) -> dict[str, Any]:
        """Each method's means over volumes, how many are in each, and how many there are."""
        methods = self.methods.items()
        return {name: mean_scores(scores) for name, (_, scores) in methods} | {
            "counted": {name: counted(scores) for name, (_, scores) in methods},
            "volumes": len(self.results),
            "slices": sum(result.slices for result in self.results),
        }


def part_report(demo: Demo, part: Part) -> PartReport:
    """Read the results of a part's validation volumes, sampled as in its training.

    Raises:
        FileNotFoundError: there are none.
    """
    run, own = open_run(demo.run_name(part)), None
    beside: list[Results] = []
    for file in sorted(run.folder.glob("reconstructions/*/reconstruction.json")):
        order = read_order(file.parent)
        if order.split == "val" and order.sampling == run.job.sampling:
            if order.weights:
                own = own or Results(file.parent).scored
            else:
                beside.append(Results(file.parent).scored)
    if own is None:
        raise FileNotFoundError(f"{shown(run.folder)} has no reconstructed validation volumes")
    beside.sort(key=lambda each: [*NETWORKS].index(each[0].network))
    return PartReport(part.model, own, tuple(beside))


def _name(results: Results) -> str:
    """Name a method for programs: its network, and options that are not the usual ones."""
    return ", ".join(filter(None, (results[0].network, results[0].unusual)))


def summary(reports: Sequence[PartReport], seconds: Mapping[str, float]) -> dict[str, Any]:
    """Sum up the demo for programs; means over no volume are None."""
    return {report.model: _known(report.summary) for report in reports} | {"seconds": dict(seconds)}


def _known(value: Any) -> Any:
    """Replace numbers that JSON does not have, NaN and infinity, by None."""
    if isinstance(value, Mapping):
        return {name: _known(each) for name, each in value.items()}
    return value if math.isfinite(value) else None


def table(reports: Sequence[PartReport]) -> str:
    """Write the means of each method over volumes, and their deviations, as lines of text."""
    headings = "".join(f"{metric.label:>{_WIDTH}}" for metric in METRICS)
    groups = ("mean over volumes", "standard deviation")
    lines = [
        f"{'':{_NAME}}" + "".join(f"{group:>{len(headings)}}" for group in groups),
        f"{'':{_NAME}}" + headings * len(groups),
    ]
    for report in reports:
        total = len(report.results)
        lines.append(f"{report.model}, {total} validation volume{'s' * (total != 1)}")
        for label, scores in report.methods.values():
            lines.append(line(f"    {label}", [mean_scores(scores), deviations(scores)]))
            if any(count < total for count in counted(scores).values()):
                text = (f"{counted(scores)[metric.name]:{_WIDTH}}" for metric in METRICS)
                lines.append(f"{'        volumes in each mean':{_NAME}}{''.join(text)}")
    return "\n".join([*lines, SPREAD])


def seed_table(demo: Demo, count: int) -> str:
    """Write the network's means over volumes for each seed, and how they spread over seeds."""
    others = other_seeds(demo, count)
    lines = [f"{'':{_NAME}}" + "".join(f"{metric.label:>{_WIDTH}}" for metric in METRICS)]
    for part in demo.size.parts:
        same = [each for each in others.size.parts if each.model == part.model]
        reports = [part_report(demo, part), *(part_report(others, each) for each in same)]
        means = [report.trained for report in reports]
        lines += [
            line(f"{part.model}, seed {FIRST + number}", [each])
            for number, each in enumerate(means)
        ]
        lines.append(line(f"{part.model}, mean of {count} seeds", [mean_scores(means)]))
        lines.append(line("    standard deviation over seeds", [deviations(means)]))
    return "\n".join(lines)


def write_report(
    demo: Demo, seconds: Mapping[str, float], next_steps: Mapping[str, str]
) -> list[PartReport]:
    """Write ``summary.json`` and ``index.html`` into the demo's folder.

    Args:
        demo: the demo, all of whose stages are done.
        seconds: by stage.
        next_steps: what to do next -> the command for it.
    """
    reports = [part_report(demo, part) for part in demo.size.parts]
    summed = summary(reports, seconds)
    write_text(demo.folder / "summary.json", json.dumps(summed, indent=2, allow_nan=False) + "\n")
    pages = [stage for stage in demo.stages if stage.page]
    for stage in pages:
        render(page_of(stage))
    write_text(demo.folder / "index.html", _index(reports, pages, seconds, next_steps))
    return reports


def _index(
    reports: Sequence[PartReport],
    pages: Sequence[Stage],
    seconds: Mapping[str, float],
    next_steps: Mapping[str, str],
) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["duration"] = duration
    return environment.get_template("index.html.j2").render(
        reports=reports,
        metrics=METRICS,
        of_fewer=of_fewer,
        deviations=deviations,
        spread=SPREAD,
        kinds=reports[0].results.labels,
        pictures=list(_story(pages)),
        pages={stage.name: page_of(stage) for stage in pages},
        seconds=seconds,
        longest=max(seconds.values()),
        next_steps=next_steps,
    )


# Which of each notebook's pictures tell the story, its end first; the others are in the notebook.
_SHOWN = {"reconstruct": (2, 0), "train": (0,), "explore": (9, 4), "convert": (0,)}


def _story(pages: Sequence[Stage]) -> Iterator[tuple[Stage, list[Picture]]]:
    """Yield the notebooks whose pictures the page shows, and these."""
    for kind, places in _SHOWN.items():
        for stage in pages:
            if stage.name.endswith(f" {kind}"):
                found = list(pictures(page_of(stage)))
                yield stage, [found[place] for place in places if place < len(found)]


def line(name: str, scores: Iterable[Scores]) -> str:
    """Write metrics of several kinds of image in one line of a table."""
    values = (f"{m.text(each[m.name], m.short):>{_WIDTH}}" for each in scores for m in METRICS)
    return f"{name:{_NAME}}{''.join(values)}"
