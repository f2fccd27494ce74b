"""The U-Net baseline of fastMRI: one U-Net on the zero-filled magnitude image.

Zbontar et al. 2018, arXiv:1811.08839. Weights, input and loss are those of ``fastmri.models.Unet``,
``fastmri.data.transforms.UnetDataTransform`` and ``fastmri.pl_modules.UnetModule``.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.data.images import center_crop, cropped
from workbench.models.operator import inverse, parts_of, power, root
from workbench.models.reconstructor import Reconstructor
from workbench.models.unet import UNet

_MOST = 6  # standard deviations off the mean that input and target are clamped to
_EPSILON = 1e-11  # added to the standard deviation


class UNetBaseline(Reconstructor):
    """U-Net on the root sum of squares of the coils' zero-filled images.

    It sees the image as it is cropped, less its mean and over its standard deviation.
    """

    def __init__(self, chans: int = 32, pools: int = 4) -> None:
        super().__init__()
        self.unet = UNet(1, 1, chans, pools)

    def forward(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct the whole image, as ``Reconstructor`` says; nothing is cropped."""
        size = int(masked_kspace.shape[-3]), int(masked_kspace.shape[-2])
        return self.central_image(masked_kspace, mask, num_low_frequencies, size)

    def central_image(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None,
        size: tuple[int, int],
    ) -> Tensor:
        """Reconstruct the image that is cropped to ``size``, (batch, *size)."""
        image, mean, deviation = self._run(masked_kspace, size)
        return image * deviation + mean

    def own_loss(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None,
        size: tuple[int, int],
        target: Tensor,
    ) -> Tensor:
        """Return L1 where the input has the mean 0 and the standard deviation 1.

        The target is clamped in that unit, as fastMRI has it: brighter spots count as 6.
        """
        image, mean, deviation = self._run(masked_kspace, size)
        image, target = cropped(image, target)
        return F.l1_loss(image, ((target - mean) / (deviation + _EPSILON)).clamp(-_MOST, _MOST))

    def _run(self, masked_kspace: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Run the U-Net.

        Returns:
            Its output (batch, *size) in the unit of its input, and the mean and standard deviation
            of each zero-filled image, (batch, 1, 1).
        """
        image = _zero_filled(torch.view_as_complex(masked_kspace.contiguous()), size)
        mean = image.mean((1, 2), keepdim=True)
        deviation = image.std((1, 2), keepdim=True)
        normal = ((image - mean) / (deviation + _EPSILON)).clamp(-_MOST, _MOST)
        half = torch.autocast(image.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with half:
            output = self.unet(normal[:, None])
        return output[:, 0].to(image.dtype), mean, deviation


def _zero_filled(kspace: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the central root sum of squares, (batch, *size), of k-space (batch, coils, H, W)."""
    rows = center_crop(inverse(kspace, (-2,)), (size[0], kspace.shape[-1]))
    images = center_crop(inverse(rows, (-1,)), size)
    return root(power(parts_of(images)), empty=0.0)
