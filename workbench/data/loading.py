"""What a training run loads: order, batches and ranks, all of it a function of seed and epoch."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import DataLoader, Sampler

from workbench.data.slices import SliceDataset, collate
from workbench.progress import amount

SHARED_MEMORY = "/dev/shm"
_PREFETCHED = 2  # batches that each loader process holds ready: torch's default
_MORE_ROOM = "enlarge it (docker run --shm-size=8g), or give fewer workers; workers=0 needs none"


def check_shared_memory(data: "SliceData", ranks: int) -> None:
    """Check that what the loader processes of a machine's ranks hold ready fits in shared memory.

    Where it does not, the system ends them with a bus error in the middle of a training.

    Raises:
        ValueError: it does not fit.
    """
    if not data.workers or not os.path.isdir(SHARED_MEMORY):  # noqa: PTH112
        return
    found = os.statvfs(SHARED_MEMORY)
    room = found.f_bavail * found.f_frsize
    slices = (data.train.values(index) for index in range(len(data.train)))
    ready = min(_PREFETCHED * data.workers * data.batch_size, len(data.train))
    needed = ranks * ready * 8 * max(slices)
    if needed > room:
        raise ValueError(
            f"workers={data.workers}: the loader processes hold up to {amount(needed, 'B')} in "
            f"{SHARED_MEMORY}, which has {amount(room, 'B')} free: {_MORE_ROOM}"
        )


@contextmanager
def naming_shared_memory() -> Iterator[None]:
    """Have a loader process that found no room in shared memory say so, in one line."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if re.search(r"Bus error|</torch_|shared memory", str(error)):
            raise RuntimeError(f"no room in {SHARED_MEMORY}: {_MORE_ROOM}") from error
        raise


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """The batches of a rank: shuffled each epoch, slices of one shape to a batch.

    All ranks have the same number of batches; where slices are short, the first ones come again.
    In each step the ranks get batches of like cost: they wait for the slowest of them, and a slice
    of a brain can have 4 coils or 20. Which of the like ones, and in which step, is shuffled.

    The last batch of a shape can be smaller. An interrupted run has done ``start`` batches of the
    first epoch.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
        start: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.ranks = rank, ranks
        self._epoch: int | None = None
        self._start = start
        self._length = len(self._batches(0))

    @property
    def sampler(self) -> "TrainingBatches":
        """Itself: where Lightning looks for the sampler that it tells the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        if self._epoch not in (None, epoch):
            self._start = 0
        self._epoch = epoch

    def __len__(self) -> int:
        """Batches of a whole epoch on one rank."""
        return self._length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self._epoch or 0
        for batch in self._batches(epoch)[self._start :]:
            yield [(index, epoch) for index in batch]

    def _batches(self, epoch: int) -> list[list[int]]:
        rng = np.random.default_rng((self.seed, epoch))
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index in rng.permutation(len(self.dataset)):
            by_shape[self.dataset.shape(int(index))].append(int(index))
        batches = [
            indices[first : first + self.batch_size]
            for indices in by_shape.values()
            for first in range(0, len(indices), self.batch_size)
        ]
        order = [batches[place] for place in rng.permutation(len(batches))]
        if self.ranks == 1:
            return order
        per_rank = -(-len(order) // self.ranks)
        repeated = [order[place % len(order)] for place in range(per_rank * self.ranks)]
        repeated.sort(key=lambda batch: len(batch) * self.dataset.values(batch[0]))
        return [repeated[step * self.ranks + self.rank] for step in rng.permutation(per_rank)]


def slices_of_rank(dataset: SliceDataset, rank: int, ranks: int) -> range:
    """Return the slices that a rank evaluates: each slice on exactly one rank."""
    return range(rank, len(dataset), ranks)


class SliceData(pl.LightningDataModule):
    """Training and validation slices for Lightning, on any number of ranks.

    A rank and step take ``batch_size`` slices in training, one in validation. ``batches_done`` says
    how many batches of the first epoch an interrupted run has done.
    """

    def __init__(
        self,
        train: SliceDataset,
        val: SliceDataset,
        *,
        batch_size: int,
        seed: int,
        workers: int,
        batches_done: Callable[[pl.Trainer], int],
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self._batches_done = batches_done

    def batches_of_epoch(self, ranks: int) -> int:
        """Return how many batches each of so many ranks trains on in an epoch."""
        return len(TrainingBatches(self.train, self.batch_size, self.seed, 0, ranks))

    def train_dataloader(self) -> DataLoader:
        """Load the training batches of this rank."""
        trainer = cast(pl.Trainer, self.trainer)
        rank, ranks = trainer.global_rank, trainer.world_size
        start = self._batches_done(trainer)
        batches = TrainingBatches(self.train, self.batch_size, self.seed, rank, ranks, start)
        return self._loader(self.train, batch_sampler=batches)

    def val_dataloader(self) -> DataLoader:
        """Load the validation slices of this rank."""
        trainer = cast(pl.Trainer, self.trainer)
        own = slices_of_rank(self.val, trainer.global_rank, trainer.world_size)
        return self._loader(self.val, sampler=own)

    def _loader(self, dataset: SliceDataset, **order: Iterable) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=collate,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=cast(pl.Trainer, self.trainer).strategy.root_device.type == "cuda",
            **order,  # type: ignore[arg-type]
        )
