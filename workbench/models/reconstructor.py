"""What training and reconstruction ask of a network, and how any network is made to answer."""

from collections.abc import Mapping
from itertools import chain
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from workbench.models.operator import parts_of, power, root


class Reconstructor(nn.Module):
    """Base of the networks: from masked k-space to images."""

    name: str = ""  # of its entry in the registry
    config: Any = None  # the numbers that it was built with
    job: Mapping[str, Any] = MappingProxyType({})
    """The job that its weights' file says it has learned by; empty where it says none."""
    low_memory: bool = False
    """Keep as little as possible for the backward pass, and compute it a second time there."""
    bf16: bool = False
    """Convolve in bfloat16, with float32 weights."""
    tf32: bool = False
    """Whether ``speed.use_tf32`` belongs to these weights."""
    crop_readout: bool = False
    """Drop the readout beyond the ``rows`` that are asked for, and a margin, before the network.

    fastMRI oversamples it twofold, so that half the work goes. Other numbers: train with it.
    Released weights want the whole readout.
    """
    readout_margin: int = 16  # rows that it leaves on each side
    neighbours: int = 1
    """Slices that the network sees, an odd number, stacked on the axis of coils.

    It reconstructs the middle one.
    """

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        tensors = chain(self.parameters(), self.buffers())
        return next((each.device for each in tensors), torch.device("cpu"))

    def for_acquisition(self, acquisition: str) -> Self:
        """Return the network for a sequence, named as in a file's header; itself for most."""
        return self

    def forward(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct: by default the root sum of squares of ``coil_images``.

        Args:
            masked_kspace: (batch, coils, H, W, 2), H the readout, W the phase encode; with
                ``neighbours`` the coils of each slice in turn.
            mask: (batch or 1, 1, 1 or H, W, 1) bool; where k-space was sampled.
            num_low_frequencies: number of ACS columns, one or (batch,); None or 0 reads it off
                the mask.
            rows: how many rows about the centre are wanted; for ``crop_readout`` alone.

        Returns:
            Magnitude images, (batch, H, W), with fewer rows where the readout is cropped.
        """
        coils = self.coil_images(masked_kspace, mask, num_low_frequencies, rows)
        return root(power(parts_of(coils)), empty=0.0)

    def central_image(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None,
        size: tuple[int, int],
    ) -> Tensor:
        """Reconstruct an image whose centre of ``size`` (height, width) alone is wanted.

        Training and reconstruction call this, and crop what it returns: (batch, H, W), or less of
        it around the same centre. A network that is to see the cropped image has its own.
        """
        return self(masked_kspace, mask, num_low_frequencies, rows=size[0])

    def own_loss(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None,
        size: tuple[int, int],
        target: Tensor,
    ) -> Tensor | None:
        """Return the loss of a batch where the job names none; None leaves it at 1 - SSIM.

        The arguments are those of ``central_image``, and ``target`` (batch, height, width).
        """
        return None

    def start_at_zero_filled(self) -> None:
        """Choose first weights with which it returns what it begins with, or close to it.

        ValueError where it has no such weights.
        """
        raise ValueError(f"first_estimate: {self._called} begins with no image")

    @property
    def begins_with(self) -> str:
        """Name of the classical reconstruction that it begins with; "" for none."""
        return ""

    def begin_with(self, first: "Reconstructor | None") -> None:
        """Choose the reconstruction that it begins with; None is the zero-filled image.

        ValueError where it begins with no image.
        """
        if first is not None:
            raise ValueError(f"first_estimate: {self._called} begins with no image")

    def coil_images(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct what each coil would have seen, (batch, coils, H, W) complex.

        The arguments are those of ``forward``, which returns their root sum of squares. Maps of
        uncertainty need it; ValueError where the network forms one image alone.
        """
        raise ValueError(f"{self._called} forms no images of single coils")

    @property
    def _called(self) -> str:
        return self.name or type(self).__name__

    @property
    def forms_coil_images(self) -> bool:
        """Whether it has a ``coil_images`` of its own."""
        return type(self).coil_images is not Reconstructor.coil_images


class Adapted(Reconstructor):
    """A network with fastMRI's forward, ``(masked_kspace, mask, num_low_frequencies) -> image``."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self.training = own.training

    def forward(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct, as ``Reconstructor`` says; the readout is never cropped."""
        return self.own(masked_kspace, mask, num_low_frequencies)


def as_reconstructor(network: nn.Module) -> Reconstructor:
    """Return a network that answers to all of ``Reconstructor``; itself where it does already."""
    return network if isinstance(network, Reconstructor) else Adapted(network)
