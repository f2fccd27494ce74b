"""One rank of a training run, started by ``workbench.compute.ranks``: FOLDER [SPLIT...].

The splits are reconstructed and measured, by the same ranks, once the run is trained.
"""

import importlib.metadata
import json
import logging
import math
import os
import platform
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.warnings import PossibleUserWarning
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import record

from workbench.compute.evaluation import FOLDER, own_masks, training_volumes, without_targets
from workbench.compute.jobs import TrainingJob
from workbench.compute.loggers import names_of
from workbench.compute.runs import Run, kept_cache, only_writer
from workbench.data.augment import Augmentation
from workbench.data.cache import DatasetCache
from workbench.data.images import crop_size
from workbench.data.loading import SliceData, check_shared_memory, naming_shared_memory
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.progress import count_of
from workbench.recon.orders import begin, keep_scores, order_of_run
from workbench.recon.reconstruction import reconstruct_share
from workbench.recon.record import RunCheckpoints, RunRecord, WholeCheckpoints
from workbench.recon.speed import compile_unets, compiles, device_memory, saves_memory, use_tf32
from workbench.recon.start import begin_with
from workbench.recon.tracking import Tracking
from workbench.recon.training import Training, WeightAverage, gather
from workbench.recon.weights import load_network, require_checkpoint
from workbench.stores.disk import naming, write_text
from workbench_kernels.compiled import obstacle

# The network itself convolves in bfloat16, so that a reconstruction does exactly the same.
_PRECISIONS = {"32": "32-true", "bf16": "32-true", "16": "16-mixed"}
# A rank that is through waits for the others, however long their largest volumes take.
_PATIENCE = timedelta(days=1)
_PACKAGES = ("torch", "pytorch-lightning", "fastmri", "numpy", "h5py", "fastmri-workbench")

Value = TypeVar("Value")


def datasets(
    job: TrainingJob, cache: DatasetCache, neighbours: int = 1
) -> tuple[SliceDataset, SliceDataset]:
    """Form a job's training and validation slices, with as many neighbours as its network sees.

    Self-supervised training sees no target, and volumes that are all undersampled already under
    their own masks.
    """
    train, val = training_volumes(job, cache)
    samplings: list[Sampling | None] = [job.sampling, job.sampling]
    if job.learning == "self-supervised":
        train = without_targets(train)
        val = val if all(volume.target for volume in val) else without_targets(val)
        samplings = [None if own_masks(part) else job.sampling for part in (train, val)]
    slices = SliceDataset(
        train,
        samplings[0],
        seed=job.seed,
        neighbours=neighbours,
        augmentation=Augmentation(job.augment, job.epochs, job.seed) if job.augment else None,
    )
    return (
        slices.sampled(job.sample_rate, job.seed),
        SliceDataset(val, samplings[1], neighbours=neighbours),
    )


def fit(job: TrainingJob, folder: Path) -> Training:
    """Train in a run's folder; goes on from ``checkpoints/last.ckpt`` where there is one.

    Returns the trained module, with the metrics of the last validation.
    """
    pl.seed_everything(job.seed, verbose=False)
    module = Training(job)
    train, val = datasets(job, kept_cache(job.dataset, folder), module.network.neighbours)
    gpus = torch.cuda.device_count()
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    last = checkpoints / "last.ckpt"
    resumed = last.exists()
    if resumed:
        require_checkpoint(last)
    run_record = RunRecord(folder, job.images)
    kept = RunCheckpoints(checkpoints, job.checkpoint_minutes, run_record, job.patience)
    tracking = Tracking(job, folder, run_record)
    callbacks: list[pl.Callback] = [run_record, kept, tracking, EndOnRequest()]
    if job.ema:
        here = int(os.environ.get("LOCAL_RANK", 0))
        device = torch.device("cuda", here) if gpus else torch.device("cpu")
        callbacks.insert(0, WeightAverage(job.ema, device))  # before a checkpoint is written
    trainer = pl.Trainer(
        accelerator="gpu" if gpus else "cpu",
        devices=local,
        num_nodes=world // local,
        strategy=_exchange(job) if world > 1 else "auto",
        precision=_PRECISIONS[job.precision],  # type: ignore[arg-type]
        max_epochs=job.epochs,
        accumulate_grad_batches=job.accumulate,
        gradient_clip_val=job.clip,
        logger=TensorBoardLogger(folder, name="tensorboard", version="")
        if "tensorboard" in names_of(job.logger)
        else False,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = SliceData(
        train,
        val,
        batch_size=job.batch_size,
        seed=job.seed,
        workers=job.workers if job.workers is not None else (4 if gpus else 0),
        batches_done=_batches_done,
    )
    check_shared_memory(data, local)
    if job.start_from and not resumed:
        begin_with(module.network, job, folder)
    how = _prepare(module, job, data, local)
    if trainer.is_global_zero:
        write_text(folder / "versions.json", json.dumps(versions(), indent=2))
        print(
            f"training on {len(train)} slices, validating on {len(val)}, {world} rank(s) on "
            f"{'GPU' if gpus else 'CPU'}, {sum(p.numel() for p in module.parameters()):,} "
            f"parameters{how}{', going on from ' + last.name if resumed else ''}",
            flush=True,
        )
        if job.start_from and not resumed:
            print(job.start_from.remark(["val"]), flush=True)
    with warnings.catch_warnings():
        # Lightning advises on loader processes and logging: the job has chosen those.
        warnings.simplefilter("ignore", PossibleUserWarning)
        # Of 1x1 convolutions, whose gradients are a few kilobytes: torch copies those.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        trainer.fit(module, data, ckpt_path=last if resumed else None, weights_only=True)
    if trainer.local_rank == 0:
        run_record.publish()  # a run that was killed after its last checkpoint has not done so
    return module


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


class EndOnRequest(pl.Callback):
    """Ends a rank on SIGTERM, as any process: last.ckpt is on the disk, and nothing is lost.

    Lightning's own handler asks the other ranks first, in the middle of what they exchange: they
    wait for each other then, or take its answer for numbers.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undo what Lightning has just set."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exchange(job: TrainingJob) -> DDPStrategy:
    """Say how ranks exchange gradients: 120 MB of them, in their buckets alone.

    A bucket of 25 MB holds those of two to three cascades: they travel while the backward pass
    goes on, and little is left to travel after it. Every parameter takes part in every step; yet
    torch cannot skip an exchange, as accumulating does, before it has seen a static graph once.
    """
    return DDPStrategy(
        static_graph=job.accumulate == 1, gradient_as_bucket_view=True, bucket_cap_mb=25
    )


def _prepare(module: Training, job: TrainingJob, data: SliceData, local: int) -> str:
    """Choose how the network runs on this machine; say what is not as usual."""
    use_tf32(job.tf32)
    largest = max(data.train.volumes, key=lambda volume: math.prod((volume.coils, *volume.matrix)))
    size = crop_size(largest.matrix, largest.recon[:2])
    shape = largest.coils, *largest.matrix
    module.network.low_memory = saves_memory(job, shape, device_memory(local), size)
    steps = job.epochs * len(data.train) // (job.batch_size * job.accumulate)
    compiled = compiles(job, steps)
    if compiled:
        compile_unets(module.network)
    chosen = {
        "bfloat16 convolutions": module.network.bf16,
        "TF32": job.tf32,
        "readout cropped": job.crop_readout,
        "low memory": module.network.low_memory,
        "compiled": compiled,
    }
    if not torch.cuda.is_available() and (why := obstacle()):
        chosen[f"without the faster kernels ({why})"] = True
    return "".join(f", {name}" for name, on in chosen.items() if on)


def _batches_done(trainer: pl.Trainer) -> int:
    """Return how many batches of its epoch a resumed run has done; 0 at an epoch's end."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return 0 if progress.is_last_batch else progress.current.ready


def versions() -> dict[str, str]:
    """Return what runs: packages, Python, platform, GPU."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    found |= {"python": platform.python_version(), "platform": platform.platform()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


@record
def main() -> None:
    """Run the job of the folder that the command line names."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    folder = Path(sys.argv[1])
    with naming(folder), naming_shared_memory():
        fit(TrainingJob.from_json((folder / "job.json").read_text()), folder)
        if splits := sys.argv[2:]:
            evaluate(folder, splits)


if __name__ == "__main__":
    main()
