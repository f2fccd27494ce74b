"""The U-Net: fastMRI's parameters, a forward of its own."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench_kernels import functions as kernels

_SLOPE = 0.2  # of the leaky ReLU
_EPSILON = 1e-5  # of the instance normalisation


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each followed by instance normalisation and leaky ReLU (0.2)."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        # The names and places of the parameters are fastMRI's: layers.0 and layers.4.
        self.layers = nn.ModuleDict(
            {
                "0": nn.Conv2d(channels_in, channels, kernel_size=3, padding=1, bias=False),
                "4": nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
            }
        )

    def forward(self, image: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels, H, W).

        Args:
            image: the first input channels, or all.
            skip: the rest of them.
        """
        if kernels.fit(image):
            first, second = _weight(self.layers["0"]), _weight(self.layers["4"])
            inner = kernels.activate(kernels.convolve(image, skip, first), _EPSILON, _SLOPE)
            return kernels.activate(kernels.convolve(inner, None, second), _EPSILON, _SLOPE)
        if skip is not None:
            image = torch.cat([image, skip], dim=1)
        image = image.contiguous(memory_format=layout(image))
        return _activate(self.layers["4"](_activate(self.layers["0"](image))))


class UpBlock(nn.Module):
    """Doubles height and width by a transposed convolution, then normalises and activates."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {"0": nn.ConvTranspose2d(channels_in, channels, kernel_size=2, stride=2, bias=False)}
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels, 2H, 2W)."""
        if kernels.fit(image):
            weight = _weight(self.layers["0"])
            # Each input pixel becomes 2x2 of its own: a product of matrices, then woven.
            pixels = image.flatten(2)
            with torch.autocast("cpu", enabled=False):
                product = torch.bmm(weight.flatten(1).t().expand(len(image), -1, -1), pixels)
            planes = product.unflatten(2, image.shape[2:])
            return kernels.activate_woven(planes, _EPSILON, _SLOPE)
        return _activate(self.layers["0"](image))


class UNetBase(nn.Module):
    """Base of the U-Nets, each of which is compiled as one graph."""

    @property
    def last(self) -> nn.Conv2d:
        """The layer that its output comes from."""
        raise NotImplementedError


class UNet(UNetBase):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) as fastMRI shapes it.

    It has ``chans`` channels after the first convolution; each pooling doubles them.
    """

    def __init__(self, channels_in: int, channels_out: int, chans: int, pools: int) -> None:
        super().__init__()
        widths = [chans * 2**level for level in range(pools + 1)]
        # Made in fastMRI's order, so that one seed gives both networks the same weights.
        self.down_sample_layers = nn.ModuleList(
            ConvBlock(*pair)
            for pair in zip([channels_in, *widths[: pools - 1]], widths[:pools], strict=True)
        )
        self.conv = ConvBlock(widths[pools - 1], widths[pools])
        self.up_conv = nn.ModuleList()
        self.up_transpose_conv = nn.ModuleList()
        for width in reversed(widths[:pools]):
            self.up_transpose_conv.append(UpBlock(2 * width, width))
            block = ConvBlock(2 * width, width)
            last = width == widths[0]
            self.up_conv.append(
                nn.Sequential(block, nn.Conv2d(width, channels_out, kernel_size=1))
                if last
                else block
            )

    @property
    def last(self) -> nn.Conv2d:
        """The layer that its output comes from."""
        return cast(nn.Conv2d, cast(nn.Sequential, self.up_conv[-1])[1])

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H, W)."""
        skipped = []
        for down in self.down_sample_layers:
            image = down(image)
            skipped.append(image)
            image = kernels.pool(image) if kernels.fit(image) else F.avg_pool2d(image, 2)
        image = self.conv(image)
        for up, conv in zip(self.up_transpose_conv, self.up_conv, strict=True):
            skip = skipped.pop()
            image = up(image)
            missing = skip.shape[-1] - image.shape[-1], skip.shape[-2] - image.shape[-2]
            if any(missing):  # an odd size was halved: give back the line that pooling dropped
                image = F.pad(image, (0, missing[0], 0, missing[1]), mode="reflect")
            image = (conv[0] if isinstance(conv, nn.Sequential) else conv)(image, skip)
        return _mix(self.last, image)


def _weight(layer: nn.Module) -> Tensor:
    return cast(Tensor, layer.weight)


def _mix(layer: nn.Module, image: Tensor) -> Tensor:
    """Convolve by 1x1. On CPUs as a product of matrices, 15 to 40 times as fast for two outputs."""
    plain = image.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    fits = not torch.compiler.is_compiling() and (plain or kernels.fit(image))
    if not fits or not image.is_contiguous():
        return layer(image)
    weight = _weight(layer).flatten(1).expand(len(image), -1, -1)
    with torch.autocast("cpu", enabled=False):
        product = torch.baddbmm(cast(Tensor, layer.bias)[:, None], weight, image.flatten(2))
    return product.unflatten(2, image.shape[2:])


def layout(image: Tensor) -> torch.memory_format:
    """Return the layout that the device convolves fastest: channels last on CPUs."""
    return torch.channels_last if image.device.type == "cpu" else torch.contiguous_format


def _activate(image: Tensor) -> Tensor:
    """Instance normalisation and leaky ReLU; ``image`` is not to be used any more."""
    if torch.compiler.is_compiling():  # what a compiler fuses best
        precise = torch.promote_types(image.dtype, torch.float32)
        mean = image.mean((2, 3), keepdim=True, dtype=precise)
        centred = image - mean
        variance = centred.square().mean((2, 3), keepdim=True)
        normal = centred * (variance + _EPSILON).rsqrt()
        return F.leaky_relu(normal, _SLOPE).to(image.dtype)
    return F.leaky_relu_(F.instance_norm(image, eps=_EPSILON), _SLOPE)


class Normalised(nn.Module):
    """A U-Net on complex images, each normalised before and restored after.

    The channels of the U-Net are the real parts of all slices, then their imaginary parts. Height
    and width are padded to multiples.

    Args:
        unet: maps (batch, 2 x slices, H, W) to the same.
        axes: over which one mean and one standard deviation are taken.
        multiple: of which height and width are.
    """

    def __init__(self, unet: UNetBase, axes: tuple[int, ...], multiple: int) -> None:
        super().__init__()
        self.unet, self._axes, self._multiple = unet, axes, multiple

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, [slices,] H, W) complex to the same; an all-zero image stays zero."""
        slices = image if image.ndim == 4 else image[:, None]
        parts = torch.view_as_real(slices).permute(0, 4, 1, 2, 3)
        channels = parts.reshape(len(parts), -1, *parts.shape[-2:]).contiguous()
        # Much faster than torch.var_mean, and as exact: the mean is taken off first.
        mean = channels.mean(self._axes, keepdim=True)
        normal = channels - mean
        spread = torch.linalg.vector_norm(normal, dim=self._axes, keepdim=True)
        # A constant image has no spread: it is divided by one, and the output is not spread.
        flat = spread == 0
        count = normal.numel() // spread.numel()
        deviation = spread.masked_fill(flat, 1) / (count - 1) ** 0.5
        normal = normal / deviation
        height, width = normal.shape[-2:]
        rows, columns = -height % self._multiple, -width % self._multiple
        top, left = rows // 2, columns // 2
        if rows or columns:
            normal = F.pad(normal, (left, columns - left, top, rows - top))
        if self.unet._compiled_call_impl is not None:
            for axis in (0, 2, 3) if len(normal) > 1 else (2, 3):
                torch._dynamo.mark_dynamic(normal, axis)
        output = self.unet(normal)[..., top : top + height, left : left + width]
        output = output * deviation.masked_fill(flat, 0) + mean
        parts = output.unflatten(1, (2, -1)).permute(0, 2, 3, 4, 1)
        return torch.view_as_complex(parts.contiguous()).view(image.shape)
