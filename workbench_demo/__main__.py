"""``workbench demo``: the main job from the email's links to pictures, on a synthetic phantom."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event

from workbench.progress import duration
from workbench.settings import shown
from workbench_demo.lanes import StageFailedError, in_lanes
from workbench_demo.seeds import other_seeds
from workbench_demo.sizes import SIZES
from workbench_demo.stages import Demo, Records, Stage


def run(demo: Demo, seeds: int = 1) -> int:
    """Run a demo's stages, those that are done already aside, and report.

    Args:
        demo: what to run.
        seeds: how many seeds to train with; from 2 on, the report says how the figures spread.

    Returns:
        The exit code.
    """
    began = time.monotonic()
    records = Records(demo)
    print(
        "The main job on a phantom: synthetic brains and knees in fastMRI's format are packed,\n"
        "served and ingested as fastMRI's own are, then trained on and reconstructed.\n"
        "None of it is patient data, and the figures say nothing of the method on patients.\n"
        f"It takes {demo.size.cost}; all of it goes to {shown(demo.folder)}/.\n"
        "Interrupt it at any time: the next run goes on from there.\n",
        flush=True,
    )
    rounds = [*([[stage]] for stage in demo.first), demo.lanes, other_seeds(demo, seeds).lanes]
    every = [stage for lanes in rounds for lane in lanes for stage in lane]
    numbers = {stage.name: number for number, stage in enumerate(every, start=1)}

    def do(stage: Stage, stop: Event) -> None:
        head = f"{numbers[stage.name]:2} of {len(every)}  {stage.name}"
        if records.done(stage):
            before = duration(records.seconds[stage.name])
            print(f"{head}: done before, in {before}\n", end="", flush=True)
            return
        print(f"{head}\n", end="", flush=True)
        with records.timed(stage):
            stage.work(stop)
        print(f"{stage.prefix}{duration(records.seconds[stage.name])}\n", end="", flush=True)

    try:
        for lanes in rounds:
            in_lanes(lanes, demo.size.at_once, do)
    except StageFailedError as failure:
        print(f"\n{failure.stage.name} failed: {failure}", file=sys.stderr)
        print(
            f"The notebook, with the whole error: {shown(str(failure.stage.page))}", file=sys.stderr
        )
        return 1
    return _report(demo, records, time.monotonic() - began, seeds)


def _report(demo: Demo, records: Records, seconds: float, seeds: int) -> int:
    # Its imports take seconds, which a person waits for better here than at the start.
    from workbench_demo.report import seed_table, table, write_report

    command = shown(Path(sys.prefix, "bin", "workbench"))
    next_steps = {
        "Train again, on 8 processes that stand for 8 machines": (
            f"{command} train model=brain nodes=8"
        ),
        "Open the notebooks": f"{command} lab",
    }
    reports = write_report(demo, records.seconds, next_steps)
    print(f"\n{table(reports)}")
    if seeds > 1:
        print(f"\n{seed_table(demo, seeds)}")
    print(f"\nDone in {duration(seconds)}. Look at")
    for name, what in (
        ("index.html", "figures and pictures, with links to every executed notebook"),
        ("summary.json", "the figures for programs"),
    ):
        print(f"    {shown(demo.folder / name)}: {what}")
    for what, command in next_steps.items():
        print(f"{what}:\n    {command}")
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run the demo that the command line, or else ``words``, asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m workbench_demo", description=__doc__)
    parser.add_argument("size", nargs="?", default="small", choices=SIZES)
    parser.add_argument(
        "--seeds", type=int, default=1, help="train with so many seeds, to see how figures spread"
    )
    asked = parser.parse_args(words)
    if not 1 <= asked.seeds <= 20:
        parser.error(f"--seeds {asked.seeds}: give 1 to 20")
    demo = Demo(SIZES[asked.size])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(demo, asked.seeds)
    except KeyboardInterrupt:
        print("\nInterrupted: run it again to go on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
