"""Slices for training and evaluation: read by byte range, masked as fastMRI masks them."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from workbench.data.augment import Augmentation
from workbench.data.cache import DatasetCache
from workbench.data.masks import as_measured, mask_of
from workbench.data.reading import keep_columns, read_stack
from workbench.data.sampling import Sampling, seed_of_draw
from workbench.data.volume import Volume, check_neighbours, neighbours_of
from workbench.stores import Source

Room = Callable[[Sequence[int], np.dtype], np.ndarray]
"""Makes an array of a shape and type, to be filled."""


class Sample(NamedTuple):
    """A slice, or a batch of slices: fastMRI's ``VarNetSample`` and which volume it is of."""

    # (coils, readout, phase encode, 2) float32; of ``neighbours`` slices the coils of each in turn
    masked_kspace: torch.Tensor
    mask: torch.Tensor  # (1, 1, phase encode, 1) bool
    num_low_frequencies: Any  # ACS columns; 0 to read them off the mask
    target: torch.Tensor  # (height, width) float32; a scalar 0 where the volume has none
    fname: Any  # which two volumes may share
    slice_num: Any
    max_value: Any  # the volume's largest target value, 0 without a target
    crop_size: Any  # the header's (height, width) of the image
    volume: Any  # path within the dataset, which no two volumes share
    neighbours: int = 1  # slices that are stacked in the k-space; all else is the middle one's
    acquisition: Any = ""  # sequence, by which some networks choose their numbers

    @property
    def middle(self) -> torch.Tensor:
        """K-space of the slice itself, ([batch,] coils, readout, phase encode, 2)."""
        stacked = self.masked_kspace.unflatten(-4, (self.neighbours, -1))
        return stacked.select(-5, self.neighbours // 2)


class SliceDataset(Dataset):
    """The slices of some volumes as ``Sample``, values equal to those of fastMRI's transform.

    Args:
        cache: the volumes.
        sampling: how to undersample; None takes each file's own mask (test and challenge). On a
            file that is undersampled already, only what it holds of the drawn columns is sampled.
        seed: None draws fastMRI's validation masks, one per file name; a number draws training
            masks, one per slice and epoch.
        slices: (volume number, slice number) of each item; None takes every slice.
        neighbours: slices whose k-space an item has, an odd number, stacked on the axis of coils
            under one mask, the item's own in the middle; ``model.neighbours`` says how many a
            network sees. Beyond a volume's ends its outermost slice is repeated.
        augmentation: transforms slices before the mask; their k-space has to be fully sampled.

    Raises:
        ValueError: no sampling was given and a volume has no mask of its own, or ``neighbours`` is
            no odd number.
    """

    def __init__(
        self,
        cache: DatasetCache,
        sampling: Sampling | None,
        *,
        seed: int | None = None,
        slices: Sequence[tuple[int, int]] | None = None,
        neighbours: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.cache, self.volumes = cache, cache.volumes
        self.sampling, self.seed, self.augmentation = sampling, seed, augmentation
        self.neighbours = check_neighbours(neighbours)
        # The slices read last, by volume and number: among them are neighbours of the next.
        self._recent: dict[tuple[int, int], np.ndarray] = {}
        if slices is None:
            slices = [(v, s) for v, volume in enumerate(cache) for s in range(volume.slices)]
        self.slices = tuple(slices)
        if sampling is None:
            for volume in cache:
                mask_of(volume, None)

    def __len__(self) -> int:
        return len(self.slices)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the k-space and target shape of an item; items of one batch share it."""
        volume = self.volumes[self.slices[index][0]]
        return (*volume.kspace.shape[1:], *(volume.target.shape[1:] if volume.target else ()))

    def values(self, index: int) -> int:
        """Return how many k-space values an item has, which is what it costs."""
        own = math.prod(self.volumes[self.slices[index][0]].kspace.shape[1:])
        return self.neighbours * own

    def __getitem__(self, item: int | tuple[int, int]) -> Sample:
        """Read, mask and return one slice.

        Args:
            item: its index; with the epoch that its mask is drawn for, so that loader processes
                that live on draw new masks.

        Raises:
            OSError: its file cannot be read; the message names it.
            ValueError: its k-space is all zero and its target is not.
        """
        index, epoch = item if isinstance(item, tuple) else (item, 0)
        number, slice_number = self.slices[index]
        volume = self.volumes[number]
        seed = None if self.seed is None else seed_of_draw(self.seed, epoch, index)
        transform = None
        if self.augmentation:
            transform = self.augmentation.draw(epoch, index, volume.matrix)
        seen = transform.volume(volume) if transform else volume
        drawn, low_frequencies = mask_of(seen, self.sampling, seed)
        tensors: list[torch.Tensor] = []

        def room(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
            of_torch = torch.complex64 if dtype == np.complex64 else torch.float32
            tensors.append(_room(shape, of_torch))
            return tensors[-1].numpy()

        with closing(self.cache.source(volume)) as source:
            self._read(source, number, slice_number, None if transform else drawn, room)
        stack, target = (*tensors, torch.tensor(0))[:2]
        if transform:
            there = volume.target is not None
            whole, image = transform.apply(stack.numpy(), volume.recon[:2], target=there)
            stack.numpy()[...] = keep_columns(whole, drawn)
            if image is not None:
                target.numpy()[...] = image
        kspace = stack[self.neighbours // 2]
        middle = kspace[..., volume.matrix[0] // 2, :]  # answers at once where there is anything
        if not (middle.any() or kspace.any()) and target.any():
            raise ValueError(
                f"slice {slice_number} of kspace in {source} holds nothing but zeros, and its "
                "target does not: it was never written, as where a conversion broke off; write "
                "the file anew, or take it out of the dataset"
            )
        mask, low_frequencies = as_measured(volume, drawn, low_frequencies, kspace.numpy())
        return Sample(
            masked_kspace=torch.view_as_real(stack if stack.ndim == 3 else stack.flatten(0, 1)),
            mask=torch.from_numpy(mask).view(1, 1, -1, 1),
            num_low_frequencies=low_frequencies,
            target=target,
            fname=volume.name,
            slice_num=slice_number,
            max_value=volume.largest,
            crop_size=volume.recon[:2],
            volume=volume.path,
            neighbours=self.neighbours,
            acquisition=volume.acquisition,
        )

    def _read(
        self, source: Source, number: int, slice_number: int, keep: np.ndarray | None, room: Room
    ) -> None:
        """Read an item's slices and target into ``room``.

        In order, each slice is read once: those of the item before are kept. Not in training, where
        each item has a mask of its own.
        """
        volume = self.volumes[number]
        numbers = neighbours_of(slice_number, volume.slices, self.neighbours)
        recent = {n: self._recent[number, n] for n in numbers if (number, n) in self._recent}
        stack, _ = read_stack(source, volume, numbers, keep=keep, room=room, known=recent)
        if self.neighbours > 1 and self.seed is None and not self.augmentation:
            # Copies: whoever has an item may do with it what they like.
            self._recent = {
                (number, n): recent[n] if n in recent else values.copy()
                for n, values in zip(numbers, stack, strict=True)
            }

    def slice_of(self, volume: Volume, number: int) -> Sample:
        """Read, mask and return one slice of a volume, as ``dataset[index]`` does.

        Args:
            volume: one of this dataset's.
            number: of the slice, 0 first.

        Raises:
            IndexError: it is no slice of this dataset.
        """
        numbers = [n for v, n in self.slices if self.volumes[v] == volume]
        if number not in numbers:
            there = f"slices {min(numbers)} to {max(numbers)}" if numbers else "none of that volume"
            raise IndexError(f"slice {number} of {volume.path}: this dataset has {there}")
        return self[self.slices.index((self.volumes.index(volume), number))]

    def sampled(self, fraction: float, seed: int) -> "SliceDataset":
        """Return a dataset of a seeded share of the slices, in their order; at least one."""
        if not 0 < fraction <= 1:
            raise ValueError(f"sample_rate={fraction:g}: give a share in (0, 1]")
        if fraction == 1:
            return self
        count = max(1, round(fraction * len(self.slices)))
        chosen = np.random.default_rng(seed).permutation(len(self.slices))[:count]
        kept = [self.slices[i] for i in sorted(chosen)]
        return SliceDataset(
            self.cache,
            self.sampling,
            seed=self.seed,
            slices=kept,
            neighbours=self.neighbours,
            augmentation=self.augmentation,
        )


def _room(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor to be filled: in a loader process in memory that the reader shares."""
    if get_worker_info() is None:
        return torch.empty(*shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize, device="cpu")
    return torch.empty(0, dtype=dtype).set_(storage).view(*shape)


def _stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors; one alone is not copied."""
    if len(tensors) == 1:
        return tensors[0][None]
    return torch.stack(
        list(tensors), out=_room((len(tensors), *tensors[0].shape), tensors[0].dtype)
    )


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples of one shape into a batch; names, slices and crops become lists.

    Returns:
        A ``Sample`` with ``masked_kspace`` (batch, coils, readout, phase encode, 2), ``mask``
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
        volume=[sample.volume for sample in samples],
        acquisition=[sample.acquisition for sample in samples],
    )
