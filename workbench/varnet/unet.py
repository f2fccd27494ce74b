"""The U-Net of the VarNet: fastMRI's parameters, a forward of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
            image = conv(torch.cat([image, skip], dim=1))
        return image


def _activate(image: Tensor) -> Tensor:
    return F.leaky_relu(F.instance_norm(image), 0.2)


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
        channels = torch.view_as_real(image).permute(0, 3, 1, 2)
        variance, mean = torch.var_mean(channels, dim=(2, 3), keepdim=True)
        # A constant image has no spread: it is divided by one, and the output is not spread.
        flat = variance == 0
        deviation = variance.masked_fill(flat, 1).sqrt()
        normal = (channels - mean) / deviation
        height, width = normal.shape[-2:]
        rows, columns = -height % 16, -width % 16
        top, left = rows // 2, columns // 2
        if rows or columns:
            normal = F.pad(normal, (left, columns - left, top, rows - top))
        output = self.unet(normal)[..., top : top + height, left : left + width]
        output = output * deviation.masked_fill(flat, 0) + mean
        return torch.view_as_complex(output.permute(0, 2, 3, 1).contiguous())
