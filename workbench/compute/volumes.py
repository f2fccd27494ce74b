"""Which volumes of a dataset a job trains on and validates on."""

from workbench.compute.jobs import TrainingJob
from workbench.dataset.cache import DatasetCache
from workbench.settings import shown


def training_volumes(job: TrainingJob, cache: DatasetCache) -> tuple[DatasetCache, DatasetCache]:
    """Return the volumes that a job trains on and those that it validates on.

    Raises:
        ValueError: a split is empty, or a volume of it has no target.
    """
    train, val = cache.split("train"), cache.split("val")
    for name, part in (("train", train), ("val", val)):
        if not part.volumes:
            held = ", ".join(f"{split} {count[0]}" for split, count in cache.counts.items())
            raise ValueError(
                f"{shown(cache.root)} has no {name} volumes (volumes by split: {held or 'none'}): "
                f"ingest the dataset's {name} archives"
            )
        untargeted = [volume.path for volume in part if volume.target is None]
        if untargeted:
            raise ValueError(
                f"{len(untargeted)} {name} volumes of {shown(cache.root)} have no target to learn "
                f"from, such as {untargeted[0]}: move them out of the {name} folder"
            )
    return (
        train.sample_volumes(job.volume_sample_rate, job.seed),
        val.sample_volumes(job.val_volume_sample_rate, job.seed),
    )
