"""The U-Net of the VarNet: fastMRI's parameters, a forward of its own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels, H, W)."""
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
        return _activate(self.layers["0"](image))


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) as fastMRI shapes it.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        chans: channels after the first convolution; each pooling doubles them.
        pools: number of poolings.
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

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to (batch, channels_out, H, W)."""
        skipped = []
        for down in self.down_sample_layers:
            image = down(image)
            skipped.append(image)
            image = F.avg_pool2d(image, 2)
        image = self.conv(image)
        for up, conv in zip(self.up_transpose_conv, self.up_conv, strict=True):
            skip = skipped.pop()
            image = up(image)
            missing = skip.shape[-1] - image.shape[-1], skip.shape[-2] - image.shape[-2]
            if any(missing):  # an odd size was halved: give back the line that pooling dropped
                image = F.pad(image, (0, missing[0], 0, missing[1]), mode="reflect")
                image = image.contiguous(memory_format=_layout(skip))
            image = conv(torch.cat([image, skip], dim=1))
        return image


def _layout(image: Tensor) -> torch.memory_format:
    """Return the layout that the device convolves fastest: channels last on CPUs."""
    return torch.channels_last if image.device.type == "cpu" else torch.contiguous_format


def _activate(image: Tensor) -> Tensor:
    """Instance normalisation and leaky ReLU; ``image`` is not to be used any more."""
    exact = image.dtype in (torch.float32, torch.float64)
    if exact and image.is_contiguous(memory_format=torch.channels_last):
        return _NormActivate.apply(image)
    return F.leaky_relu_(F.instance_norm(image), _SLOPE)


class _NormActivate(torch.autograd.Function):
    """Instance normalisation and leaky ReLU of a channels-last image, kept once for the backward.

    Both can be undone from the result y: x̂ = y or y / slope, and the gradient of the normalisation
    needs x̂ and the deviation alone. So the input, which it would keep too, is overwritten.

    In memory such an image is rows of width times channels. Sums go down the columns of these
    first: that is fast, and as exact as a sum in two levels is.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        rows, shape = _rows(image), image.shape
        rows = rows.sub_(_tiled(_column_means(rows, shape), shape))
        variance = _column_means(rows.square(), shape)
        scale = (variance + _EPSILON).rsqrt()
        rows.mul_(_tiled(scale, shape))
        F.leaky_relu_(rows, _SLOPE)
        ctx.mark_dirty(image)
        ctx.save_for_backward(image, scale)
        return image

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        image, scale = ctx.saved_tensors
        shape = image.shape
        rows = _rows(image)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        result = torch.ops.aten.leaky_relu_backward(_rows(gradient), rows, _SLOPE, True)
        normal = F.leaky_relu(rows, 1 / _SLOPE)
        mean = _column_means(result, shape)
        along = _column_means(result * normal, shape)
        result -= _tiled(mean, shape)
        result -= normal.mul_(_tiled(along, shape))
        result *= _tiled(scale, shape)
        return _image(result, shape)


def _rows(image: Tensor) -> Tensor:
    """Return a channels-last image (N, C, H, W) as it lies in memory: (N, H, W C), a view."""
    return image.permute(0, 2, 3, 1).flatten(2)


def _image(rows: Tensor, shape: torch.Size) -> Tensor:
    """Undo ``_rows``."""
    return rows.unflatten(2, (shape[3], shape[1])).permute(0, 3, 1, 2)


def _column_means(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return the mean over each channel's image: (N, C)."""
    mean = rows.mean(1).unflatten(1, (shape[3], shape[1])).mean(1, dtype=torch.float64)
    return mean.to(rows.dtype)


def _tiled(statistic: Tensor, shape: torch.Size) -> Tensor:
    """Repeat a value a channel (N, C) along a row: (N, 1, W C)."""
    return statistic.repeat(1, shape[3])[:, None]


class NormUNet(nn.Module):
    """A U-Net on complex images, each normalised before and restored after.

    Real and imaginary part are two channels, each with its own mean and standard deviation over
    the image; height and width are padded to multiples of 16.
    """

    def __init__(self, chans: int, pools: int) -> None:
        super().__init__()
        self.unet = UNet(2, 2, chans, pools)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, H, W) complex to the same; an all-zero image stays zero."""
        channels = torch.view_as_real(image).permute(0, 3, 1, 2).contiguous()
        # Much faster than torch.var_mean, and as exact: the mean is taken off first.
        mean = channels.mean((2, 3), keepdim=True)
        normal = channels - mean
        spread = torch.linalg.vector_norm(normal, dim=(2, 3), keepdim=True)
        # A constant image has no spread: it is divided by one, and the output is not spread.
        flat = spread == 0
        deviation = spread.masked_fill(flat, 1) / (normal[0, 0].numel() - 1) ** 0.5
        normal = normal / deviation
        height, width = normal.shape[-2:]
        rows, columns = -height % 16, -width % 16
        top, left = rows // 2, columns // 2
        if rows or columns:
            normal = F.pad(normal, (left, columns - left, top, rows - top))
        normal = normal.contiguous(memory_format=_layout(normal))
        output = self.unet(normal)[..., top : top + height, left : left + width]
        output = output * deviation.masked_fill(flat, 0) + mean
        return torch.view_as_complex(output.permute(0, 2, 3, 1).contiguous())
