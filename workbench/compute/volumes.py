"""Which volumes of a dataset a job trains on and validates on."""

from pathlib import Path

from workbench.compute.jobs import TrainingJob
from workbench.data.cache import (
    CACHE_NAME,
    CacheFileError,
    DatasetCache,
    load_cache,
    open_cache,
)
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
                f"{cache.address} has no {name} volumes (volumes by split: {held or 'none'}): "
                f"ingest the dataset's {name} archives"
            )
        untargeted = [volume.path for volume in part if volume.target is None]
        if untargeted:
            raise ValueError(
                f"{len(untargeted)} {name} volumes of {cache.address} have no target to learn "
                f"from, such as {untargeted[0]}: move them out of the {name} folder"
            )
    return (
        train.sample_volumes(job.volume_sample_rate, job.seed),
        val.sample_volumes(job.val_volume_sample_rate, job.seed),
    )


def keep_cache(cache: DatasetCache, folder: Path, *, goes_on: bool) -> None:
    """Leave the dataset cache that a plan was made with in a run's folder, for all of its ranks.

    Args:
        cache: the dataset.
        folder: the run's folder.
        goes_on: whether the run has learned from that dataset already.

    Raises:
        ValueError: it has learned from other volumes, or this cannot be told.
    """
    try:
        before = load_cache(folder, earlier=True) if goes_on else None
    except CacheFileError as error:
        raise ValueError(
            f"{error}, so nobody can tell whether the run has trained on the volumes that "
            f"{cache.address} holds now: remove that file if it has"
        ) from None
    if before is not None and _content(before) != _content(cache):
        raise ValueError(
            f"{shown(folder)} has trained on other volumes than {cache.address} holds now: "
            "give another name, or bring the dataset back as it was"
        )
    cache.save(folder)


def kept_cache(root: str | Path, folder: Path) -> DatasetCache:
    """Return the dataset cache that was left for a run's ranks, or else the dataset's own."""
    return load_cache(root, folder / CACHE_NAME, earlier=True) or open_cache(root)


def _content(cache: DatasetCache) -> set[tuple[str, tuple[int, ...]]]:
    """What a run learns from: the volumes, wherever the dataset is mounted."""
    learned = ("train", "val")
    return {(volume.path, volume.kspace.shape) for volume in cache if volume.split in learned}
