"""``make bench``: every figure against fastMRI's, into ``outputs/bench.json`` and ``bench.md``."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.pairs import DiffersError, Pair, measure
from benchmarks.report import machine, markdown, write_report
from benchmarks.sizes import SIZES, Size
from workbench.settings import resolve, shown


def pairs(size: Size, folder: Path, only: str, stack: ExitStack) -> Iterator[Pair]:
    """Yield the pairs whose names match; what none of them needs is not made."""
    from benchmarks.epochs import epoch_pair, feed_pair
    from benchmarks.memory import memory_pairs
    from benchmarks.networks import network_pairs
    from benchmarks.reading import reading_pairs
    from benchmarks.remote import remote_pairs, storage
    from benchmarks.scoring import scoring_pairs
    from benchmarks.study import make_study

    def wanted(*names: str) -> bool:
        return any(fnmatch(name, only) for name in names)

    found: list[Iterator[Pair]] = []
    memory = [f"train_memory/knee{kind}" for kind in ("", "/peak", "/low", "/low/peak")]
    if wanted(*memory):
        found.append(memory_pairs(size))
    training = "train_step/knee", "train_step/knee/low"
    if wanted("inference/knee", "inference/brain", "inference/flair", *training):
        found.append(network_pairs(size))
    local = "cache/local", "sample/local", "sample/local/cold", "transform", "feed/local"
    if wanted(*local, "cache/remote", "sample/remote"):
        study = make_study(size, folder / "bench")
        if wanted("feed/local"):
            found.append(iter([feed_pair(size, study)]))
        if wanted("cache/local", "sample/local", "sample/local/cold", "transform"):
            found.append(reading_pairs(size, study))
        if wanted("cache/remote", "sample/remote"):
            found.append(remote_pairs(size, study, stack.enter_context(storage(study.root))))
    if wanted("ssim/loss", "ssim/eval", "adam"):
        found.append(scoring_pairs(size))
    if wanted("epoch/demo"):
        found.append(iter([epoch_pair(size, folder / "bench")]))
    for some in found:
        yield from (pair for pair in some if wanted(pair.name))


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

    import torch

    from benchmarks.exactness import exactness_table

    if options.threads:
        torch.set_num_threads(options.threads)
    size, where, folder = SIZES[options.size], machine(), resolve(options.out)
    with ExitStack() as stack:
        chosen = list(pairs(size, folder, options.only, stack))
        if not chosen:
            parser.error(f"--only {options.only}: no row has such a name")
        print(f"Checking {len(chosen)} results against fastMRI's ...", flush=True)
        try:
            for pair in chosen:
                pair.check()
        except DiffersError as error:
            print(f"{error}. Nothing was measured.", file=sys.stderr)
            return 1
        rows = []
        for pair in chosen:
            rows.append(measure(pair))
            print(f"{pair.name}: {rows[-1].ratio:.2f}", flush=True)
    more = exactness_table(size) if any(row.roofline for row in rows) else ""
    write_report(folder, size.name, rows, where, more=more)
    print(f"\n{markdown(size.name, rows, where)}\n\n{more}".rstrip())
    print(f"\nWritten to {shown(folder / 'bench.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
