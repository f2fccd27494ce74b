"""Every network on one phantom: ``python -m benchmarks.models [--toy]``, 40 minutes on 2 cores.

Each network that is trained is trained from three seeds, on the same volumes for the same number
of epochs, with its own recipe and its own small size for the phantom. All reconstruct the same
validation volumes, undersampled 4x. The table goes to ``outputs/bench/models/models.md`` and
``models.json``, a slice by every method to ``models.png``, SSIM over the time of a step to
``models_cost.png``. A killed run goes on where it was.

A phantom of few, smooth tissues flatters methods that expect them, total variation and wavelets.
The table tells whether a network works here and what it costs; it says nothing of patients.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import machine, write_document
from workbench.compute.jobs import run_folder
from workbench.models import trains
from workbench.recon.metrics import METRICS, Scores, deviations, mean_scores

NAME = "bench/models"
SEEDS = (42, 43, 44)


@dataclass(frozen=True)
class Method:
    """What reconstructs, and how it is trained."""

    label: str
    network: str
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trains(self) -> bool:
        """Whether it learns from data."""
        return trains(self.network)

    @property
    def place(self) -> str:
        """What its runs are called."""
        return "-".join([self.network, *map(str, self.training.values())])


METHODS = (
    Method("SENSE", "sense"),
    Method("total variation", "tv"),
    Method("wavelet", "wavelet"),
    Method("U-Net", "unet"),
    Method("VarNet", "varnet"),
    Method("PromptMR, small", "promptmr"),
    Method("VarNet, self-supervised", "varnet", {"learning": "self-supervised"}),
)


@dataclass(frozen=True)
class Size:
    """A phantom, and how long the networks learn on it."""

    study: Mapping[str, Any]
    training: Mapping[str, Any]
    seeds: tuple[int, ...]


SIZES = {
    "quick": Size(
        {"volumes": {"train": 12, "val": 4}, "recon": 96, "slices": 6, "coils": (4, 5)},
        {"epochs": 8, "nodes": 2},
        SEEDS,
    ),
    "toy": Size(
        {"volumes": {"train": 1, "val": 1}, "recon": 32, "slices": 2, "coils": (2,), "workers": 1},
        {"epochs": 1, "nodes": 1},
        SEEDS[:1],
    ),
}


@dataclass(frozen=True)
class Found:
    """A method's means over the validation volumes from each seed, and what a slice costs.

    ``step`` is of one slice: forward, loss and backward, seconds; 0 for what does not train.
    """

    label: str
    scores: Sequence[Scores]
    parameters: int = 0
    seconds: float = 0.0
    step: float = 0.0
    megabytes: float = 0.0
    folder: str = ""  # of the first seed's results


def measure(size: Size, methods: Iterable[Method], say: Callable[[str], None]) -> list[Found]:
    """Train and reconstruct with every method; the zero-filled images come first."""
    from workbench_demo.phantom.study import write_study

    dataset = run_folder(NAME) / "dataset"
    write_study(dataset, "brain_multicoil", **size.study)
    first = Method("VarNet", "varnet")
    _train(first, size, dataset, size.seeds[0], say)  # its run's masks are everybody's
    found = []
    for method in methods:
        scores: list[Scores] = []
        folders: list[str] = []
        for seed in size.seeds if method.trains else size.seeds[:1]:
            if method.trains:
                _train(method, size, dataset, seed, say)
            results = _reconstruct(method, first, size, seed, say)
            scores.append(mean_scores(results.scores("reconstruction").values()))
            folders.append(str(results.folder))
        cost = _cost(method, size, dataset)
        found.append(Found(method.label, scores, **cost, folder=folders[0]))
        say(_row(found[-1]))
    filled = mean_scores(results.scores("zero_filled").values())
    return [Found("zero-filled", [filled]), *found]


def _run_name(method: Method, seed: int) -> str:
    return f"{NAME}/{method.place}-{seed}"


def _train(
    method: Method, size: Size, dataset: Path, seed: int, say: Callable[[str], None]
) -> None:
    from workbench.compute.training import plan_training, train

    name, where = _run_name(method, seed), {"target": "local", "local_dataset": str(dataset)}
    choices = {"network": method.network, "seed": seed, **size.training, **method.training}
    say(f"training {name}")
    for _ in train(plan_training(model="brain", name=name, **where, **choices)):
        pass


def _reconstruct(
    method: Method, first: Method, size: Size, seed: int, say: Callable[[str], None]
) -> Any:
    from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
    from workbench.recon.results import Results

    name = _run_name(method if method.trains else first, seed)
    asked = {} if method.trains else {"network": method.network}
    say(f"reconstructing with {method.label}, {name}")
    plan = plan_reconstruction(run=name, nodes=size.training["nodes"], **asked)
    for _ in reconstruct(plan):
        pass
    return Results(plan.folder)


def _cost(method: Method, size: Size, dataset: Path) -> dict[str, Any]:
    """Measure one slice in a process of its own."""
    weights = run_folder(_run_name(method, size.seeds[0])) if method.trains else ""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.models"),
            *("--slice", method.network, str(weights), str(dataset)),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def cost_of_a_slice(network: str, weights: str, dataset: str) -> dict[str, float]:
    """Reconstruct a slice and take a step on it: seconds, the best of three; peak memory, MB."""
    from benchmarks.memory import give_back, resident
    from workbench.compute.jobs import TrainingJob
    from workbench.data.cache import open_dataset
    from workbench.data.sampling import Sampling
    from workbench.data.slices import SliceDataset, collate
    from workbench.models import build, find_network
    from workbench.recon.arrays import reconstruct
    from workbench.recon.training import Training
    from workbench.recon.weights import load_model

    entry = find_network(network)
    model = load_model(weights) if weights else build(network, entry.configured(entry.phantom))
    cache = open_dataset(dataset).split("val")
    sample = SliceDataset(cache, Sampling(), neighbours=model.neighbours)[0]
    reconstruct(model.eval(), sample)
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    found = {
        "parameters": sum(each.numel() for each in model.parameters()),
        "seconds": _best(lambda: reconstruct(model, sample)),
        "megabytes": max(resident("VmHWM") - before, 0.0),
    }
    if weights:
        module = Training(TrainingJob.from_json((Path(weights) / "job.json").read_text()))
        batch = collate([sample])
        found["step"] = _best(lambda: module.training_step(batch, 0).backward())
    return found


def _best(work: Callable[[], object]) -> float:
    """Return the seconds of the best of three calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def picture(found: Iterable[Found]) -> bytes:
    """Draw a slice by every method, the first seed's, as a PNG file."""
    from workbench.recon.results import Results
    from workbench.views.comparison import methods_figure
    from workbench.views.style import png

    figure = methods_figure([Results(each.folder) for each in found if each.folder])
    assert figure is not None  # they are of the same volumes
    return png(figure, dpi=60)


def cost_picture(found: Sequence[Found]) -> bytes:
    """Draw SSIM over the time of a training step; methods that do not train are lines."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    from workbench.views.style import COLOURS, GREY, LABEL, SMALL, SYNTHETIC_NOTE, png, tidy

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(y=0.08)
    if steps := [method.step for method in found if method.step]:
        axes.set_xlim(min(steps) / 2, 2 * max(steps))  # of one method alone, too
    colours, side = iter(COLOURS), ("left", "right")
    for method in found:
        values = [scores[METRICS[0].name] for scores in method.scores]
        mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
        text = {"textcoords": "offset points", "fontsize": SMALL}
        if method.step:
            colour = next(colours)
            axes.errorbar(method.step, mean, spread, fmt="o", capsize=3, color=colour)
            place = (method.step, mean)
            axes.annotate(method.label, place, (0, 7), ha="center", color=colour, **text)
        else:  # side by side, for some are close
            axes.axhline(mean, color=GREY, linewidth=0.8, linestyle="--")
            place = (float(side[0] == "right"), mean)
            across = {"xycoords": ("axes fraction", "data"), "ha": side[0], "color": GREY}
            above = 3 if side[0] == "left" else -11
            axes.annotate(method.label, place, (0, above), **across, **text)
            side = side[::-1]
    axes.set_title(
        f"{METRICS[0].heading} over the time of a step ({SYNTHETIC_NOTE})", fontsize=LABEL
    )
    axes.set_xlabel("seconds a slice: forward, loss and backward, two cores", fontsize=SMALL)
    axes.set_ylabel(f"{METRICS[0].heading}, 4x, validation volumes", fontsize=SMALL)
    tidy(axes)
    return png(figure)


def table(found: Sequence[Found]) -> str:
    """Write what was found as a Markdown table."""
    heads = " | ".join(metric.heading for metric in METRICS)
    lines = [
        f"| | {heads} | parameters | s a slice | MB a slice | s a step |",
        f"| --- |{' ---: |' * (len(METRICS) + 4)}",
    ]
    return "\n".join([*lines, *map(_row, found)])


def _row(found: Found) -> str:
    means, spread = mean_scores(found.scores), deviations(found.scores)
    cells = [
        metric.text(means[metric.name], metric.short)
        + (f" ± {metric.text(spread[metric.name], metric.short)}" if len(found.scores) > 1 else "")
        for metric in METRICS
    ]
    cost = ["", "", "", ""]
    if found.seconds:
        cost[:3] = [f"{found.parameters:,}", f"{found.seconds:.2f}", f"{found.megabytes:.0f}"]
    if found.step:
        cost[3] = f"{found.step:.2f}"
    return f"| {' | '.join([found.label, *cells, *cost])} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="seconds, to see that it runs")
    parser.add_argument("--only", nargs="*", help="methods by what their runs are called")
    parser.add_argument("--slice", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.slice:
        print(json.dumps(cost_of_a_slice(*asked.slice)))
        return 0
    size = "toy" if asked.toy else "quick"
    methods = [m for m in METHODS if not asked.only or m.place in asked.only]
    began = time.monotonic()
    found = measure(SIZES[size], methods, lambda line: print(line, flush=True))
    folder, text = run_folder(NAME), table(found)
    document = {"size": size, "machine": machine(), "rows": [asdict(each) for each in found]}
    write_document(folder, "models", document, text)
    (folder / "models.png").write_bytes(picture(found))
    (folder / "models_cost.png").write_bytes(cost_picture(found))
    print(f"\n{text}\n\n{(time.monotonic() - began) / 60:.0f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
