"""Which volumes a run trains on, and which splits it reconstructs afterwards, and where.

``workbench.recon.results`` describes what a folder of results holds.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from workbench.catalog import OWN_MASKS, SPLITS
from workbench.compute.jobs import TrainingJob
from workbench.compute.runs import Run, volumes_of
from workbench.data.cache import CacheFileError, DatasetCache, load_cache
from workbench.data.doubts import zeros_sampled
from workbench.data.sampling import Sampling

FOLDER = "reconstructions"
ORDER = "reconstruction.json"
SCORES = "scores.csv"
NO_SPLIT = "none"
_JUDGED = ("val", "test", "test_full")


def training_volumes(job: TrainingJob, cache: DatasetCache) -> tuple[DatasetCache, DatasetCache]:
    """Return the volumes that a job trains on and those that it validates on.

    Raises:
        ValueError: a split is empty, or a volume of it has no target and the job needs one.
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
        if untargeted and job.learning == "supervised":
            raise ValueError(
                f"{len(untargeted)} {name} volumes of {cache.address} have no target to learn "
                f"from, such as {untargeted[0]}: move them out of the {name} folder, or give "
                "learning=self-supervised"
            )
    return (
        train.sample_volumes(job.volume_sample_rate, job.seed),
        val.sample_volumes(job.val_volume_sample_rate, job.seed),
    )


def own_masks(part: DatasetCache) -> bool:
    """Say whether all volumes are undersampled already, each by its own mask."""
    return all(volume.own_mask is not None for volume in part)


def without_targets(part: DatasetCache) -> DatasetCache:
    """Return the same volumes as if they had no targets, so that none is read."""
    return part.with_volumes(
        replace(volume, target_name=None, target=None) for volume in part.volumes
    )


def parse_splits(text: str | None) -> tuple[str, ...] | None:
    """Read splits written as "val, test", or "none"; None where nothing is written.

    Raises:
        ValueError: one of them is unknown.
    """
    if not isinstance(text, str | None):
        raise ValueError(f"reconstruct={text!r}: give splits separated by commas, such as 'val'")
    splits = dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip())
    if NO_SPLIT in splits and len(splits) == 1:
        return ()
    if not splits.keys() <= set(SPLITS):
        given = ", ".join((*SPLITS, NO_SPLIT))
        raise ValueError(f"reconstruct={text!r}: give one or several of {given}")
    return tuple(splits) or None


def judged_splits(cache: DatasetCache) -> tuple[str, ...]:
    """Return the splits that a network is judged by: each volume has its target or its mask."""
    found = []
    for split in _JUDGED:
        part = cache.split(split)
        measured = own_masks(part) if split in OWN_MASKS else all(each.target for each in part)
        if part.volumes and measured:
            found.append(split)
    return tuple(found)


def split_volumes(
    cache: DatasetCache, split: str, sampling: Sampling | None, *, first: int | None = None
) -> DatasetCache:
    """Return the (first) volumes of a split, which can all be undersampled as asked.

    Without a sampling each takes its file's own mask.

    Raises:
        ValueError: the split is empty, or a volume cannot be undersampled so.
    """
    from workbench.data.masks import check_masks, mask_of  # imports torch

    part = cache.split(split)
    if not part.volumes:
        there = ", ".join(cache.counts) or "none at all"
        raise ValueError(f"{cache.address} has no {split} volumes; it has {there}")
    part = replace(part, volumes=part.volumes[:first])
    if sampling is None:
        for volume in part:
            mask_of(volume, None)
    else:
        check_masks(sampling, (volume.matrix[1] for volume in part))
    return part


def sampled_less(part: DatasetCache, sampling: Sampling) -> Iterator[str]:
    """Say which volumes are undersampled already, so that they have less than a sampling draws."""
    left = {}
    for volume in part:
        own = volume.own_mask
        if own is None:
            continue
        from workbench.data.masks import mask_of  # imports torch

        drawn, _ = mask_of(volume, sampling)
        if (drawn & ~own).any():
            left[volume.path] = len(own) / max((drawn & own).sum(), 1)
    if left:
        first, rate = next(iter(left.items()))
        yield (
            f"{len(left)} of {len(part)} {part[0].split} volumes have masks of their own: where "
            f"nothing was measured beyond those, {sampling} samples less there than it says, such "
            f"as one column of {rate:.3g} in {first}"
        )


def zeros_as_measured(part: DatasetCache) -> Iterator[str]:
    """Say where zeros count as measured: in the first volume of each acquisition, or nowhere."""
    kinds = {(each.acquisition, each.mask is None): each for each in reversed(part.volumes)}
    for volume in kinds.values():
        with suppress(OSError):  # whoever reads the slice says so
            zeros, sampled = zeros_sampled(part, volume)
            if zeros:
                whose = "its header calls acquired" if volume.mask is None else "its mask samples"
                yield (
                    f"{zeros} of the {sampled} columns of {volume.path} that {whose} hold zeros "
                    "alone, and count as measured: give the file a mask, 1 where a column was "
                    "sampled and 0 elsewhere"
                )


def split_sampling(job: TrainingJob, split: str) -> Sampling | None:
    """Return how a run's split is undersampled; None for each file's own mask."""
    return None if split in OWN_MASKS else job.sampling


def results_folder(run: Run, split: str, sampling: Sampling | None) -> Path:
    """Return the folder of a run's results."""
    name = split
    if sampling is not None:
        rates = "-".join(f"{rate:g}x" for rate in sampling.accelerations)
        centres = "-".join(f"{fraction:g}" for fraction in sampling.center_fractions)
        name = f"{split}-{sampling.mask}-{rates}-{centres}"
    return run.folder / FOLDER / name


def evaluated(run: Run) -> tuple[str, ...]:
    """Return the splits that the run's best checkpoint has reconstructed, as after a training."""
    missing = unevaluated(run, SPLITS)
    return tuple(split for split in SPLITS if split not in missing)


def unevaluated(
    run: Run, splits: Iterable[str], cache: DatasetCache | None = None
) -> tuple[str, ...]:
    """Return the splits that the run's best checkpoint has yet to reconstruct, whole.

    Args:
        run: the run.
        splits: which.
        cache: the dataset as it is now; None for what was there when they were reconstructed.
    """
    weights = sha256_of(run.best) if splits and run.best.exists() else ""
    missing = []
    for split in splits:
        folder = results_folder(run, split, split_sampling(run.job, split))
        try:
            made_by = json.loads((folder / ORDER).read_text()).get("weights_sha256")
        except (OSError, ValueError, AttributeError, RecursionError):
            made_by = None
        if not (folder / SCORES).exists() or made_by != weights or _grown(folder, split, cache):
            missing.append(split)
    return tuple(missing)


def _grown(folder: Path, split: str, cache: DatasetCache | None) -> bool:
    """Say whether a split holds volumes, as they are now, that are not among a folder's results."""
    if cache is None:
        return False
    try:
        made = load_cache(folder, earlier=True)
    except CacheFileError:
        return True
    return made is None or not volumes_of(cache, [split]) <= volumes_of(made, [split])


def sha256_of(path: Path) -> str:
    """Return a file's SHA256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
