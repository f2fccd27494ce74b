"""The end of a training: all ranks of all nodes reconstruct the run's splits, and measure them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from workbench.compute.evaluation import FOLDER
from workbench.compute.runs import Run, kept_cache, only_writer
from workbench.progress import count_of
from workbench.recon.orders import begin, keep_scores, order_of_run
from workbench.recon.reconstruction import reconstruct_share
from workbench.recon.training import gather
from workbench.recon.weights import load_network

Value = TypeVar("Value")

# A rank that is through waits for the others, however long their largest volumes take.
_PATIENCE = timedelta(days=1)


def evaluate(folder: Path, splits: Sequence[str]) -> None:
    """Reconstruct splits with a run's best checkpoint; what is there already is kept.

    Called by every rank. The first one alone needs the checkpoint and the earlier results; each
    leaves its own results on its own node, and the first the table of all.

    ``folder`` is the run's on this node.
    """
    run = Run(folder)
    cache = kept_cache(run.job.dataset, folder)
    among = distributed.is_available() and distributed.is_initialized()
    group = distributed.new_group(timeout=_PATIENCE) if among else None
    first = not among or distributed.get_rank() == 0

    def from_first(make: Callable[[], Value]) -> Value:
        found: list[Any] = [make() if first else None]
        if among:
            distributed.broadcast_object_list(found, src=0, group=group)
        return found[0]

    network = from_first(lambda: load_network(run.best))
    for split in splits:
        order, part, place = from_first(lambda split=split: order_of_run(run, split, cache))  # type: ignore[misc]
        # Each node has its own place for the results, and its own way to the dataset.
        part, place = cache.with_volumes(part), folder / FOLDER / place.name
        place.mkdir(parents=True, exist_ok=True)
        # reconstruct.ipynb may be at work on the same split.
        with only_writer(Run(place), wait=True) if first else nullcontext():
            if first:
                begin(order, part, place)
                print(
                    f"reconstructing {split}: {count_of(len(order.volumes))}, "
                    f"{len(part) - len(order.volumes)} there already",
                    flush=True,
                )
            rows = gather(list(reconstruct_share(order, part, place, network)), group)
            if first:
                keep_scores(part, place, rows)
                print(f"{split} is reconstructed: {count_of(len(part))}", flush=True)
