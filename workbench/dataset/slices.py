"""Slices for training and evaluation: read by byte range, masked as fastMRI masks them."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from fastmri.data.transforms import VarNetSample
from torch.utils.data import Dataset, get_worker_info

from workbench.dataset.masks import draw_mask
from workbench.dataset.sampling import Sampling, seed_of_draw, seed_of_file
from workbench.dataset.source import FetchedFile, Source
from workbench.dataset.volume import ArrayLayout, Volume


def read_slice(path: Path, name: str, layout: ArrayLayout, index: int) -> np.ndarray:
    """Read one slice of an array: one ranged read where its offset is known, h5py otherwise.

    Args:
        path: the volume's file.
        name: the array's name in the file.
        layout: where it lies.
        index: slice number, 0 first.

    Returns:
        The slice, of ``layout.shape[1:]``.

    Raises:
        OSError: the file ends before the slice does, or cannot be read; the error names it.
    """
    if layout.offset is None:
        with h5py.File(path, "r") as file:
            return file[name][index]
    values = np.empty(layout.shape[1:], layout.dtype)
    view = values.reshape(-1).view(np.uint8).data
    position = layout.offset + index * len(view)
    file_number = os.open(path, os.O_RDONLY)
    try:
        while view:
            count = os.preadv(file_number, [view], position)
            if not count:
                raise OSError(
                    f"{path} ends before slice {index} of {name} does: the file was changed or cut "
                    "after its dataset cache was built; fetch it again and refresh the cache"
                )
            view, position = view[count:], position + count
    finally:
        os.close(file_number)
    return values


def fetch_slice(source: Source, name: str, layout: ArrayLayout, index: int) -> np.ndarray:
    """Read one slice of an array from far away: one request where its offset is known.

    Args:
        source: the volume's bytes.
        name: the array's name in the file.
        layout: where it lies.
        index: slice number, 0 first.

    Returns:
        The slice, of ``layout.shape[1:]``; read-only where it came in one request.

    Raises:
        OSError: the source ends before the slice does.
    """
    if layout.offset is None:

        def parse(file: FetchedFile) -> np.ndarray:
            with h5py.File(file, "r") as volume:
                return volume[name][index]

        return FetchedFile(source).parse(parse)
    count = int(np.prod(layout.shape[1:])) * np.dtype(layout.dtype).itemsize
    content = source.read(layout.offset + index * count, count)
    if len(content) < count:
        raise OSError(
            f"slice {index} of {name} ends early: the file was changed or cut after its dataset "
            "cache was built; fetch it again and refresh the cache"
        )
    return np.frombuffer(content, layout.dtype).reshape(layout.shape[1:])


@dataclass(frozen=True)
class SliceItem:
    """A slice of a dataset, and the epoch that its mask is drawn for.

    The epoch travels with the index, so that loader processes that live on draw new masks.
    """

    index: int
    epoch: int


class SliceDataset(Dataset):
    """The slices of some volumes as fastMRI's ``VarNetSample``, values equal to its transform's.

    Args:
        root: the dataset's folder.
        volumes: what to read, in order.
        sampling: how to undersample; None takes each file's own mask (test and challenge).
        seed: None draws fastMRI's validation masks, one per file name; a number draws training
            masks, one per slice and epoch.
        slices: (volume number, slice number) of each item; None takes every slice.
        open_source: gives a volume's bytes where they are not under ``root``, such as in a blob.

    Raises:
        ValueError: no sampling was given and a volume has no mask of its own.
    """

    def __init__(
        self,
        root: Path,
        volumes: Sequence[Volume],
        sampling: Sampling | None,
        *,
        seed: int | None = None,
        slices: Sequence[tuple[int, int]] | None = None,
        open_source: Callable[[Volume], Source] | None = None,
    ) -> None:
        self.open_source = open_source
        self.root, self.volumes = root, tuple(volumes)
        self.sampling, self.seed = sampling, seed
        if slices is None:
            slices = [(v, s) for v, volume in enumerate(volumes) for s in range(volume.slices)]
        self.slices = tuple(slices)
        unmasked = [volume.path for volume in volumes if volume.mask is None]
        if sampling is None and unmasked:
            raise ValueError(f"{unmasked[0]} has no mask of its own: give an acceleration")

    def __len__(self) -> int:
        return len(self.slices)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the k-space and target shape of an item; items of one batch share it."""
        volume = self.volumes[self.slices[index][0]]
        return (*volume.kspace.shape[1:], *(volume.target.shape[1:] if volume.target else ()))

    def values(self, index: int) -> int:
        """Return how many k-space values an item has, which is what it costs."""
        return math.prod(self.volumes[self.slices[index][0]].kspace.shape[1:])

    def __getitem__(self, item: int | SliceItem) -> VarNetSample:
        """Read, mask and return one slice.

        Returns:
            ``masked_kspace`` (coils, readout, phase encode, 2) float32, ``mask``
            (1, 1, phase encode, 1) bool, ``num_low_frequencies``, ``target`` (height, width)
            float32 or a scalar 0 where the volume has none, ``fname``, ``slice_num``,
            ``max_value`` (the volume's largest target value, 0 without) and ``crop_size``.
        """
        index, epoch = (item.index, item.epoch) if isinstance(item, SliceItem) else (item, 0)
        number, slice_number = self.slices[index]
        volume = self.volumes[number]
        kspace, target = self.read(volume, slice_number)
        return self.transform(index, epoch, kspace, target)

    def read(self, volume: Volume, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return one slice's k-space ([coils,] readout, phase encode) and target, if it has one."""
        source = self.open_source(volume) if self.open_source else None

        def array(name: str, layout: ArrayLayout) -> np.ndarray:
            if source is None:
                return read_slice(self.root / volume.path, name, layout, number)
            return fetch_slice(source, name, layout, number)

        if volume.target is None or volume.target_name is None:
            return array("kspace", volume.kspace), None
        if source is None:
            return array("kspace", volume.kspace), array(volume.target_name, volume.target)
        with ThreadPoolExecutor(1) as executor:  # far away two requests cost the time of one
            target = executor.submit(array, volume.target_name, volume.target)
            return array("kspace", volume.kspace), target.result()

    def transform(
        self, index: int, epoch: int, kspace: np.ndarray, target: np.ndarray | None
    ) -> VarNetSample:
        """Mask a slice that was read, in place if it can be, and say what it is.

        See ``__getitem__``.
        """
        number, slice_number = self.slices[index]
        volume = self.volumes[number]
        if kspace.ndim == 2:
            kspace = kspace[None]
        mask, low_frequencies = self._mask(index, epoch, volume)
        if self.sampling is not None:
            kspace = keep_columns(kspace, mask, in_place=kspace.flags.writeable)
        return VarNetSample(
            masked_kspace=torch.view_as_real(_tensor(kspace)),
            mask=torch.from_numpy(mask).view(1, 1, -1, 1),
            num_low_frequencies=low_frequencies,
            target=torch.tensor(0) if target is None else _tensor(target),
            fname=volume.name,
            slice_num=slice_number,
            max_value=float(volume.attributes.get("max", 0)) if volume.target else 0.0,
            crop_size=volume.recon[:2],
        )

    def _mask(self, index: int, epoch: int, volume: Volume) -> tuple[np.ndarray, int]:
        acquired = volume.acquired
        if self.sampling is None:
            mask = np.zeros(volume.matrix[1], bool)
            mask[list(volume.mask or ())] = True
            mask[: acquired[0]] = mask[acquired[1] :] = False
            return mask, 0
        seed = (
            seed_of_file(volume.name)
            if self.seed is None
            else seed_of_draw(self.seed, epoch, index)
        )
        return draw_mask(self.sampling, volume.matrix[1], seed, acquired)

    def sampled(self, fraction: float, seed: int) -> "SliceDataset":
        """Return a dataset of a seeded share of the slices, in their order; at least one."""
        if not 0 < fraction <= 1:
            raise ValueError(f"sample_rate={fraction:g}: give a share in (0, 1]")
        if fraction == 1:
            return self
        count = max(1, round(fraction * len(self.slices)))
        chosen = np.random.default_rng(seed).permutation(len(self.slices))[:count]
        return SliceDataset(
            self.root,
            self.volumes,
            self.sampling,
            seed=self.seed,
            slices=[self.slices[i] for i in sorted(chosen)],
            open_source=self.open_source,
        )


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def keep_columns(kspace: np.ndarray, mask: np.ndarray, *, in_place: bool = False) -> np.ndarray:
    """Return k-space (..., phase encode) with the columns outside ``mask`` set to zero."""
    if kspace.dtype != np.complex64 or not kspace.flags.c_contiguous:
        return np.where(mask, kspace, np.zeros((), kspace.dtype))
    # A column is kept or cleared bit by bit: one pass, and what is not a number stays out.
    bits = np.where(mask, np.uint64(2**64 - 1), np.uint64(0))
    values = kspace.view(np.uint64)
    return np.bitwise_and(values, bits, out=values if in_place else None).view(np.complex64)


def _stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack large tensors: one alone is not copied, several in a loader process only once."""
    if len(tensors) == 1:
        return tensors[0][None]
    out = None
    if get_worker_info() is not None:  # what leaves that process does so in shared memory
        shape = (len(tensors), *tensors[0].shape)
        storage = torch.UntypedStorage._new_shared(
            math.prod(shape) * tensors[0].element_size(), device="cpu"
        )
        out = torch.empty(0, dtype=tensors[0].dtype).set_(storage).view(shape)
    return torch.stack(list(tensors), out=out)


def collate(samples: Sequence[VarNetSample]) -> VarNetSample:
    """Stack samples of one shape into a batch; names, slices and crops become lists.

    Returns:
        A ``VarNetSample`` with ``masked_kspace`` (batch, coils, readout, phase encode, 2), ``mask``
        (batch, 1, 1, phase encode, 1), ``num_low_frequencies`` (batch,) int64, ``target``
        (batch, height, width) and ``max_value`` (batch,) float32.
    """
    first = samples[0]
    return first._replace(
        masked_kspace=_stack([sample.masked_kspace for sample in samples]),
        mask=torch.stack([sample.mask for sample in samples]),
        num_low_frequencies=torch.tensor([sample.num_low_frequencies for sample in samples]),
        target=_stack([sample.target for sample in samples]),
        fname=[sample.fname for sample in samples],
        slice_num=[sample.slice_num for sample in samples],
        max_value=torch.tensor([sample.max_value for sample in samples], dtype=torch.float32),
        crop_size=[sample.crop_size for sample in samples],
    )
