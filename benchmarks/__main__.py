"""``make bench``: every figure against fastMRI's, into ``outputs/bench.json`` and ``bench.md``."""

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatch

from benchmarks.groups import GROUPS, forget_spawning, rows_of
from benchmarks.pairs import DiffersError, Row
from benchmarks.report import machine, markdown, write_report
from benchmarks.sizes import SIZES
from workbench.settings import resolve, shown


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--full", dest="size", action="store_const", const="full", help="real sizes")
    how.add_argument("--toy", dest="size", action="store_const", const="toy", help="seconds")
    alone = parser.add_mutually_exclusive_group()
    alone.add_argument("--gpu", action="store_true", help="the network on an NVIDIA card, each way")
    alone.add_argument("--cpu", action="store_true", help="the network here, in each precision")
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

    if options.threads:
        torch.set_num_threads(options.threads)
    folder = resolve(options.out)
    if options.gpu or options.cpu:
        there = torch.cuda.is_available()
        if options.gpu and not there:
            parser.error(f"--gpu: torch {torch.__version__} sees no NVIDIA GPU on this machine")
        if options.cpu and there:
            parser.error("--cpu: hide the GPU, with CUDA_VISIBLE_DEVICES=''")
        from benchmarks.gpu import measure

        print(f"\n{measure(SIZES[options.size or 'full'], folder)}")
        return 0
    from benchmarks.exactness import exactness_table

    options.size = options.size or "quick"
    where = machine()
    print("Each result is held against fastMRI's before it is measured ...", flush=True)
    rows: list[Row] = []
    # In processes of their own: what a group leaves in memory makes others slower, or faster.
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), forget_spawning, max_tasks_per_child=1
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
