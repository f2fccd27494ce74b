"""PromptMR (Xin et al. 2023, arXiv:2309.13839): an unrolled network on neighbouring slices.

Parameters bear the names of the authors' code, so that what they trained loads; the forward's form
is ``Unrolled``'s. Two steps of the authors' are taken in another order, which changes nothing but
rounding: a decoder mixes channels once where they do it twice, and before it doubles the image's
size instead of after.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.models.unet import Normalised, UNetBase, layout
from workbench.models.unrolled import SensitivityNet, Unrolled
from workbench_kernels import functions as kernels

_REDUCTION = 4  # of the channels that channel attention looks at
_COMPONENTS = 5  # of a prompt
_PROMPT_SIDES = (64, 32, 16)  # pixels of a prompt's components, by level
_ENCODER, _DECODER, _BOTTLENECK = (2, 3, 3), (2, 2, 3), 3  # blocks, by level


def conv(channels_in: int, channels: int, size: int = 3) -> nn.Conv2d:
    """Return a convolution without bias that keeps the image's size."""
    return nn.Conv2d(channels_in, channels, size, padding=size // 2, bias=False)


class ChannelAttention(nn.Module):
    """Scales each channel by what all channels' means say of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // _REDUCTION
        self.conv_du = nn.Sequential(
            conv(channels, inner, 1), nn.ReLU(), conv(inner, channels, 1), nn.Sigmoid()
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same."""
        return image * self.conv_du(image.mean((2, 3), keepdim=True))


class Block(nn.Module):
    """The channel attention block: adds two convolutions, with a PReLU between, to an image.

    The authors' blocks share one slope, but for the first; here each has its own.
    """

    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(channels, channels), nn.PReLU(), conv(channels, channels))
        self.CA = ChannelAttention(channels) if attention else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same."""
        first, activation, second = self.body
        return image + self.CA(_convolve(second, activation(_convolve(first, image))))


def _blocks(count: int, channels: int, attention: bool) -> nn.Sequential:
    return nn.Sequential(*(Block(channels, attention) for _ in range(count)))


def _convolve(layer: nn.Module, image: Tensor) -> Tensor:
    """Convolve by 3x3, by whatever is fastest."""
    weight = cast(Tensor, layer.weight)
    if kernels.fit(image):
        return kernels.convolve(image, None, weight)
    return layer(image.contiguous(memory_format=layout(image)))


class DownBlock(nn.Module):
    """A level of the encoder: blocks, then half the height and width."""

    def __init__(self, channels: int, below: int, blocks: int, attention: bool) -> None:
        super().__init__()
        self.encoder = _blocks(blocks, channels, attention)
        self.down = nn.Conv2d(channels, below, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map (batch, channels, H, W) to (batch, below, H / 2, W / 2); and what skips the rest."""
        image = self.encoder(image)
        return self.down(image.contiguous(memory_format=layout(image))), image


class SkipBlock(nn.Module):
    """What an image passes on its way from encoder to decoder."""

    def __init__(self, channels: int, attention: bool) -> None:
        super().__init__()
        self.skip_attn = _blocks(1, channels, attention)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same."""
        return self.skip_attn(image)


class PromptBlock(nn.Module):
    """Makes a prompt for a level of the decoder: components, weighed by what its input shows.

    The components are random and stay so, as in what the authors trained.
    """

    def __init__(self, channels_in: int, channels: int, side: int) -> None:
        super().__init__()
        components = torch.rand(1, _COMPONENTS, channels, side, side)
        self.prompt_param = nn.Parameter(components, requires_grad=False)
        self.linear_layer = nn.Linear(channels_in, _COMPONENTS)
        self.dec_conv3x3 = conv(channels, channels)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels_in, H, W) to a prompt (batch, channels, H, W)."""
        weights = self.linear_layer(image.mean((2, 3))).softmax(1)
        prompt = torch.tensordot(weights, self.prompt_param[0].to(weights.dtype), 1)
        prompt = F.interpolate(prompt, image.shape[2:], mode="bilinear")
        return _convolve(self.dec_conv3x3, prompt)


class UpBlock(nn.Module):
    """A level of the decoder: blocks on image and prompt, then twice the height and width."""

    def __init__(
        self, channels: int, above: int, prompt: int, blocks: int, attention: bool
    ) -> None:
        super().__init__()
        self.fuse = _blocks(blocks, channels + prompt, attention)
        self.reduce = conv(channels + prompt, channels, 1)
        self.up = nn.ModuleDict({"1": conv(channels, above, 1)})
        self.ca = Block(above, attention)

    def forward(self, image: Tensor, prompt: Tensor, skip: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to (batch, above, 2H, 2W), like ``skip``."""
        image = self.fuse(torch.cat([image, prompt], dim=1))
        # Mixing by 1x1 and doubling, each linear, commute: mixed once, and while it is small.
        mixing = F.conv2d(
            cast(Tensor, self.reduce.weight).transpose(0, 1), cast(Tensor, self.up["1"].weight)
        ).transpose(0, 1)
        image = F.conv2d(image.contiguous(memory_format=layout(image)), mixing)
        image = F.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
        return self.ca(image + skip)


class PromptUNet(UNetBase):
    """The U-Net of PromptMR: three levels, and a prompt for each level of the decoder.

    Args:
        channels: of input and output.
        chans: of the first level, an even number; 3/2, 2 and 5/2 of it on those below.
        attention: whether its blocks weigh their channels.
    """

    def __init__(self, channels: int, chans: int, attention: bool) -> None:
        super().__init__()
        widths = [chans, chans * 3 // 2, chans * 2, chans * 5 // 2]
        prompts = [chans // 2, chans, chans * 3 // 2]
        self.feat_extract = conv(channels, chans)
        # Made in the authors' order, so that one seed gives both networks the same weights.
        for level, blocks in enumerate(_ENCODER):
            down = DownBlock(widths[level], widths[level + 1], blocks, attention)
            self.add_module(f"enc_level{level + 1}", down)
        for level in range(3):
            self.add_module(f"skip_attn{level + 1}", SkipBlock(widths[level], attention))
        self.bottleneck = _blocks(_BOTTLENECK, widths[3], attention)
        for level in (2, 1, 0):
            below, prompt = widths[level + 1], prompts[level]
            prompting = PromptBlock(below, prompt, _PROMPT_SIDES[level])
            self.add_module(f"prompt_level{level + 1}", prompting)
            up = UpBlock(below, widths[level], prompt, _DECODER[level], attention)
            self.add_module(f"dec_level{level + 1}", up)
        self.conv_last = conv(chans, channels, 5)

    @property
    def last(self) -> nn.Conv2d:
        """The layer that its output comes from."""
        return self.conv_last

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, channels, H, W) to the same; H and W are multiples of 8."""
        image = _convolve(self.feat_extract, image)
        skipped = []
        for level in ("1", "2", "3"):
            image, skip = self.get_submodule(f"enc_level{level}")(image)
            skipped.append(skip)
        image = self.bottleneck(image)
        for level in ("3", "2", "1"):
            prompt = self.get_submodule(f"prompt_level{level}")(image)
            skip = self.get_submodule(f"skip_attn{level}")(skipped.pop())
            image = self.get_submodule(f"dec_level{level}")(image, prompt, skip)
        return self.conv_last(image.contiguous(memory_format=layout(image)))


class PromptMR(Unrolled):
    """PromptMR; loads the weights of the authors' ``PromptMR`` and equals its output.

    Args:
        cascades: how many.
        neighbours: slices that it sees, an odd number; the middle one is reconstructed.
        chans: channels of a cascade's first level, an even number.
        sens_chans: those of the sensitivity net, which sees each coil of each slice alone.
        attention: whether blocks weigh their channels.
    """

    def __init__(
        self,
        cascades: int = 12,
        neighbours: int = 3,
        chans: int = 48,
        sens_chans: int = 24,
        attention: bool = False,
    ) -> None:
        super().__init__(
            SensitivityNet(_unet(1, sens_chans, attention), sens_chans),
            (_unet(neighbours, chans, attention) for _ in range(cascades)),
        )
        self.neighbours = neighbours


def _unet(slices: int, chans: int, attention: bool) -> Normalised:
    """Return a U-Net on complex slices, all normalised by one mean and one deviation."""
    return Normalised(PromptUNet(2 * slices, chans, attention), (1, 2, 3), 8)
