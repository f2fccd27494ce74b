"""``make bench``: every figure against fastMRI's, into ``outputs/bench.json`` and ``bench.md``."""

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.pairs import DiffersError, Pair, Row, measure
from benchmarks.report import machine, markdown, write_report
from benchmarks.sizes import SIZES, Size
from workbench.settings import resolve, shown


def _memory(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.memory import memory_pairs

    return memory_pairs(size)


def _inference(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.networks import inference_pairs

    return inference_pairs(size)


def _training(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.networks import training_pairs

    return training_pairs(size)


def _feed(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.epochs import feed_pair
    from benchmarks.study import make_study

    yield feed_pair(size, make_study(size, folder))


def _reading(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.reading import reading_pairs
    from benchmarks.study import make_study

    return reading_pairs(size, make_study(size, folder))


def _remote(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.remote import remote_pairs, storage
    from benchmarks.study import make_study

    study = make_study(size, folder)
    return remote_pairs(size, study, stack.enter_context(storage(study.root)))


def _scoring(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.scoring import scoring_pairs

    return scoring_pairs(size)


def _epoch(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.epochs import epoch_pair

    yield epoch_pair(size, folder)


GROUPS: tuple[tuple[Callable[[Size, Path, ExitStack], Iterator[Pair]], tuple[str, ...]], ...] = (
    (_memory, tuple(f"train_memory/knee{kind}" for kind in ("", "/peak", "/low", "/low/peak"))),
    (_inference, ("inference/knee", "inference/brain", "inference/flair")),
    (_training, ("train_step/knee", "train_step/knee/low")),
    (_feed, ("feed/local",)),
    (_reading, ("cache/local", "sample/local", "sample/local/cold", "transform")),
    (_remote, ("cache/remote", "sample/remote")),
    (_scoring, ("ssim/loss", "ssim/eval", "adam")),
    (_epoch, ("epoch/demo",)),
)
"""What yields pairs, and their names; what is not asked for is not made."""


def rows_of(number: int, size: str, folder: Path, only: str, threads: int | None) -> list[Row]:
    """Check the pairs of a group whose names match, then measure them.

    Raises:
        DiffersError: one differs from fastMRI's; none of the group is measured then.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    make, _ = GROUPS[number]
    rows = []
    with ExitStack() as stack:
        found = make(SIZES[size], folder, stack)
        chosen = [pair for pair in found if fnmatch(pair.name, only)]
        for pair in chosen:
            pair.check()
        for pair in chosen:
            rows.append(measure(pair))
            print(f"{pair.name}: {rows[-1].ratio:.2f}", flush=True)
    return rows


def _forget_spawning() -> None:
    """Let a spawned process start loader processes as any other does."""
    multiprocessing.set_start_method(None, force=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", dest="size", action="store_const", const="full", help="real sizes")
    how.add_argument("--toy", dest="size", action="store_const", const="toy", help="seconds")
    parser.set_defaults(size="quick")
    parser.add_argument("--only", default="*", help="rows whose name matches, such as 'ssim/*'")
    parser.add_argument("--threads", type=int, help="of torch; as many as it likes by default")
    parser.add_argument("--out", default="outputs", help="folder of bench.json and bench.md")
    options = parser.parse_args(arguments)
    if options.threads is not None and options.threads < 1:
        parser.error(f"--threads {options.threads}: give 1 or more")
    wanted = [
        number
        for number, (_, names) in enumerate(GROUPS)
        if any(fnmatch(name, options.only) for name in names)
    ]
    if not wanted:
        parser.error(f"--only {options.only}: no row has such a name")

    import torch

    from benchmarks.exactness import exactness_table

    if options.threads:
        torch.set_num_threads(options.threads)
    folder = resolve(options.out)
    where = machine()
    print("Each result is held against fastMRI's before it is measured ...", flush=True)
    rows: list[Row] = []
    # In processes of their own: what a group leaves in memory makes others slower, or faster.
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), _forget_spawning, max_tasks_per_child=1
    ) as processes:
        try:
            for number in wanted:
                group = number, options.size, folder / "bench", options.only, options.threads
                rows += processes.submit(rows_of, *group).result()
        except DiffersError as error:
            print(f"{error}. Nothing was written.", file=sys.stderr)
            return 1
    size = SIZES[options.size]
    more = exactness_table(size) if any(row.roofline for row in rows) else ""
    write_report(folder, size.name, rows, where, more=more)
    print(f"\n{markdown(size.name, rows, where)}\n\n{more}".rstrip())
    print(f"\nWritten to {shown(folder / 'bench.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
