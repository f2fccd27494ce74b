"""Which rows there are, in groups that are measured each in a process of its own."""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.pairs import Pair, Row, measure
from benchmarks.sizes import SIZES, Size


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


def _promptmr(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.promptmr import promptmr_pairs

    return promptmr_pairs(size)


def _unet(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.unet import unet_pairs

    return unet_pairs(size)


def _classical(size: Size, folder: Path, stack: ExitStack) -> Iterator[Pair]:
    from benchmarks.bart import bart_pairs
    from benchmarks.study import make_study

    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = stack.enter_context(tempfile.TemporaryDirectory(dir=memory))
    return bart_pairs(size, make_study(size, folder), Path(place))


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
    (_unet, ("unet/slice", "unet/step")),
    (_classical, ("classical/sense", "classical/wavelet", "classical/tv")),
    (_promptmr, ("promptmr/memory", "promptmr/slice", "promptmr/volume")),
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


def forget_spawning() -> None:
    """Let a spawned process start loader processes as any other does."""
    multiprocessing.set_start_method(None, force=True)
