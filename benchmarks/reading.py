"""Files on this machine: the dataset cache, a sample, and the transform alone."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import torch
from fastmri.data.transforms import VarNetSample

from benchmarks.pairs import DiffersError, Pair
from benchmarks.sizes import Size
from benchmarks.study import (
    FOLDER,
    SAMPLING,
    Study,
    reference_dataset,
    reference_transform,
    require_same,
)
from workbench.data.cache import DatasetCache, build_cache
from workbench.data.masks import mask_of
from workbench.data.reading import read_both
from workbench.data.slices import SliceDataset
from workbench_kernels import rows


def quiet_cache(root: Path) -> DatasetCache:
    """Build the cache of a dataset anew, file and all, without a word and away from the dataset."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return build_cache(root, refresh=False, path=Path(folder, "cache.json"))


def require_same_volumes(name: str, cache: DatasetCache, raw_samples: list) -> None:
    """Raise unless a cache knows of each slice what fastMRI's dataset found out.

    Raises:
        DiffersError: they differ.
    """
    found = {
        (volume.name, number): (
            volume.encoded,
            volume.recon,
            volume.padding_left,
            volume.padding_right,
            volume.attributes["max"],
        )
        for volume in cache
        for number in range(volume.slices)
    }
    expected = {
        (Path(sample.fname).name, sample.slice_ind): (
            sample.metadata["encoding_size"],
            sample.metadata["recon_size"],
            sample.metadata["padding_left"],
            sample.metadata["padding_right"],
            sample.metadata["max"],
        )
        for sample in raw_samples
    }
    if found != expected:
        raise DiffersError(f"{name}: the volumes differ from those that fastMRI finds")


def dropped(path: Path) -> bool:
    """Drop a file from the system's page cache; say whether it is no longer there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # what is not written yet cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.preadv(descriptor, [bytearray(1)], path.stat().st_size // 2, os.RWF_NOWAIT)
    except BlockingIOError:  # it would have to be waited for
        return True
    except (OSError, AttributeError):  # another system, or a file system without such reads
        pass
    finally:
        os.close(descriptor)
    return False


def reading_pairs(size: Size, study: Study) -> Iterator[Pair]:
    """Yield cache creation, a sample and the transform; the page cache is warm but for one row."""
    cache = quiet_cache(study.few)
    ours = SliceDataset(cache, SAMPLING)
    reference = reference_dataset(study.few / FOLDER)
    shape = "x".join(map(str, cache.volumes[0].kspace.shape[1:]))

    yield Pair(
        "cache/local",
        f"index {size.volumes} volumes on the local disk",
        lambda: reference_dataset(study.root / FOLDER),
        lambda: quiet_cache(study.root),
        lambda: require_same_volumes(
            "cache/local",
            quiet_cache(study.root),
            reference_dataset(study.root / FOLDER).raw_samples,
        ),
        size.repeats,
    )
    path, number, metadata = reference.raw_samples[1]
    for name, state, before in (
        ("sample/local", "warm", lambda: None),
        ("sample/local/cold", "cold", partial(dropped, path)),
    ):
        if state == "cold" and not dropped(path):
            continue
        yield Pair(
            name,
            f"read and mask a slice {shape} from the local disk, {state}",
            lambda: reference[1],
            lambda: ours[1],
            lambda: require_same("sample/local", ours[1], reference[1]),
            size.short_repeats,
            before=before,
        )

    transform = reference_transform()

    # Masking works in the array that was read.
    with closing(cache.source(cache.volumes[0])) as source:
        kspace, target = read_both(source, cache.volumes[0], number)

    def transformed() -> VarNetSample:
        return transform(kspace, None, target, metadata, path.name, number)

    def masked() -> np.ndarray:
        mask, _ = mask_of(cache.volumes[0], SAMPLING)
        rows.keep_columns(kspace, mask, kspace)
        return kspace

    def require_same_masked() -> None:
        expected = torch.view_as_complex(transformed().masked_kspace).numpy()
        if not np.array_equal(masked(), expected):
            raise DiffersError("transform: the masked k-space differs from fastMRI's")

    yield Pair(
        "transform",
        f"mask a slice {shape} that was read",
        transformed,
        masked,
        require_same_masked,
        size.short_repeats,
    )
