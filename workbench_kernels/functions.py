"""The kernels as functions of tensors that autograd knows, on CPUs.

Images are (batch, channels, H, W), contiguous: what is not is copied first.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.compiled import Kernels, kernels

_LARGEST = 2**22
"""The most weights of a convolution: the kernels read them all again for each strip of an image."""

_MANY = 64
"""From so many outputs on, the weights' gradient is a product of matrices worth the name."""

_ROWS, _FOLDS = 4, 6
"""Of an image, and the sums of rows that they come from: Winograd's, as in ``convolution.c``."""

_FOLDED = 2**25
"""Bytes of the rows that are folded at a time for it."""


def fit(image: Tensor) -> bool:
    """Return whether the kernels take an image.

    Under autocast to bfloat16 they do where the processor has AMX. ``convolve`` then multiplies in
    bfloat16; all its sums, and what comes of them, are float32.
    """
    return _found(image) is not None


def _found(image: Tensor) -> Kernels | None:
    if image.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    found = kernels(image.dtype)
    if not _half():
        return None if torch.is_autocast_enabled("cpu") else found
    return found if found is not None and found.tiles else None


def _half() -> bool:
    """Return whether products are asked for in bfloat16."""
    asked = torch.is_autocast_enabled("cpu")
    return asked and torch.get_autocast_dtype("cpu") == torch.bfloat16


def convolve(image: Tensor, skip: Tensor | None, weight: Tensor) -> Tensor:
    """Convolve by 3x3, padded with zeros; where two images are given, their channels as one's.

    Args:
        image: (batch, C, H, W).
        skip: (batch, D, H, W) or None.
        weight: (outputs, C [+ D], 3, 3).

    Returns:
        (batch, outputs, H, W).
    """
    half = _half()
    if weight.numel() > _LARGEST and not half:
        return F.conv2d(image if skip is None else torch.cat([image, skip], 1), weight, padding=1)
    return _Convolve.apply(
        image.contiguous(), None if skip is None else skip.contiguous(), weight.contiguous(), half
    )


def activate(image: Tensor, epsilon: float, slope: float) -> Tensor:
    """Normalise each plane and apply a leaky ReLU, in place of ``image``."""
    return _Activate.apply(image, epsilon, slope, False)


def activate_woven(image: Tensor, epsilon: float, slope: float) -> Tensor:
    """Weave, normalise and activate what a transposed convolution of 2x2, stride 2 gives.

    Args:
        image: (batch, C * 4, H, W), contiguous; of each four planes the even rows' even columns,
            the even rows' odd columns, and the same of the odd rows.
        epsilon: of the normalisation.
        slope: of the leaky ReLU.

    Returns:
        (batch, C, 2 H, 2 W).
    """
    return _Activate.apply(image, epsilon, slope, True)


def pool(image: Tensor) -> Tensor:
    """Return the means over 2x2 pixels; an odd last row or column is left out."""
    return _Pool.apply(image.contiguous())


def scores(image: Tensor, target: Tensor, window: int | None = None) -> bool:
    """Return whether the kernels can compare these images, by SSIM with such a window."""
    alike = image.dtype == target.dtype and image.device == target.device
    found = _found(image) if alike else None
    return found is not None and window in (None, found.window)


def similarities(image: Tensor, target: Tensor, data_range: Tensor, weight: float) -> Tensor:
    """Return the mean SSIM of each image, (batch,) float64; differentiable by ``image`` alone.

    Args:
        image: (batch, H, W).
        target: (batch, H, W).
        data_range: (batch,).
        weight: of a pixel in a window, 1/49 as it is to be rounded.
    """
    return _Similarities.apply(image.contiguous(), target.contiguous(), data_range, weight)


def errors(image: Tensor, target: Tensor) -> Tensor:
    """Return the sums of (image - target)² and of target² of each image: (batch, 2) float64."""
    sums = torch.empty(len(image), 2, dtype=torch.float64)
    image, target = image.contiguous(), target.contiguous()
    _run("errors", image, target, sums, *image.shape)
    return sums


def _run(name: str, *arguments: Any) -> None:
    """Call a kernel for the type of its first argument.

    Tensors are passed as their addresses, and torch's number of threads is added.
    """
    kernel = getattr(kernels(arguments[0].dtype), name)  # ``fit`` has said that there is one
    given = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
    if kernel(*given, torch.get_num_threads()):
        raise MemoryError("no memory for a strip of an image")


def _pair(one: Tensor, two: Tensor | None) -> tuple[Tensor, Tensor | None, int, int]:
    """Return two images and their numbers of channels."""
    return one, two, one.shape[1], 0 if two is None else two.shape[1]


def _size(image: Tensor) -> tuple[int, int, int]:
    return image.shape[0], image.shape[2], image.shape[3]


def _weights_gradient(image: Tensor, skip: Tensor | None, gradient: Tensor, tiles: str) -> Tensor:
    """Return the gradient (outputs, C [+ D], 3, 3) of the weights, given that of the output."""
    batch, outputs, height, width = gradient.shape
    inputs = image.shape[1] + (0 if skip is None else skip.shape[1])
    of_weight = image.new_empty(outputs, inputs, 3, 3)
    if tiles or outputs < _MANY:
        _run(
            f"weights_gradient{tiles}",
            *_pair(image, skip),
            gradient,
            outputs,
            of_weight,
            *_size(image),
        )
        return of_weight
    # Winograd's F(4, 3), transposed: sums over all groups of rows of products of folded rows.
    lanes = cast(Kernels, kernels(image.dtype)).lanes
    all_groups = -(-height // _ROWS)
    most = _FOLDED // (_FOLDS * (inputs + outputs) * (width + 1) * image.element_size())
    strips = -(-all_groups // max(1, most))
    groups = -(-all_groups // strips)
    count = groups * (width + 1)
    folded = image.new_empty(_FOLDS, inputs, count + 2 * lanes)
    folded_gradient = image.new_empty(_FOLDS, outputs, count + 2 * lanes)
    sums = image.new_zeros(3, _FOLDS, outputs, inputs)
    for index in range(batch):
        for strip in range(strips):
            place = groups, strip, index, height, width
            given = *_pair(image, skip), False, folded
            _run("fold_rows", *given, folded.shape[2], *place)
            given = *_pair(gradient, None), True, folded_gradient
            _run("fold_rows", *given, folded.shape[2], *place)
            rows = folded_gradient[:, :, lanes : lanes + count]
            for tap in range(3):
                shifted = folded[:, :, lanes - 1 + tap :][:, :, :count]
                sums[tap].baddbmm_(rows, shifted.transpose(1, 2))
    of_folds = sums.permute(1, 2, 3, 0).contiguous()
    _run("unfold_weights", of_folds, of_weight, of_weight.numel() // 3)
    return of_weight


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, skip: Tensor | None, weight: Tensor, half: bool) -> Tensor:
        ctx.save_for_backward(image, skip, weight)
        ctx.tiles = "_tiles" if half else ""
        result = image.new_empty(len(image), len(weight), *image.shape[2:])
        _run(
            f"convolve{ctx.tiles}",
            *_pair(image, skip),
            weight,
            False,
            *_pair(result, None),
            *_size(image),
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, skip, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        size = _size(image)
        of_image = of_skip = of_weight = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            of_image = torch.empty_like(image)
            of_skip = None if skip is None else torch.empty_like(skip)
            images = _pair(of_image, of_skip)
            _run(f"convolve{ctx.tiles}", *_pair(gradient, None), weight, True, *images, *size)
        if ctx.needs_input_grad[2]:
            of_weight = _weights_gradient(image, skip, gradient, ctx.tiles)
        return of_image, of_skip, of_weight, None


class _Activate(torch.autograd.Function):
    """Keeps its result, from which both operations can be undone, and a scale a plane."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, epsilon: float, slope: float, woven: bool) -> Tensor:
        batch, channels, height, width = image.shape
        result = image
        if woven:
            result = image.new_empty(batch, channels // 4, 2 * height, 2 * width)
        else:
            ctx.mark_dirty(image)
        scales = image.new_empty(result.shape[:2])
        size = scales.numel(), result[0, 0].numel(), width if woven else 0
        _run("activate", image, result, scales, *size, epsilon, slope)
        ctx.save_for_backward(result, scales)
        ctx.slope, ctx.shape, ctx.woven = slope, image.shape, woven
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        result, scales = ctx.saved_tensors
        of_image = result.new_empty(ctx.shape)
        gradient = gradient.contiguous()
        size = scales.numel(), result[0, 0].numel(), ctx.shape[3] if ctx.woven else 0
        _run("activate_gradient", result, gradient, scales, of_image, *size, ctx.slope)
        return of_image, None, None, None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape = image.shape
        result = image.new_empty(batch, channels, height // 2, width // 2)
        _run("pool", image, result, batch * channels, height, width)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        batch, channels, height, width = ctx.shape
        result = gradient.new_empty(ctx.shape)
        _run("pool_gradient", gradient.contiguous(), result, batch * channels, height, width)
        return result


class _Similarities(torch.autograd.Function):
    """Forms the gradient along with the result, while both images are in the cache."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, target: Tensor, data_range: Tensor, weight: float
    ) -> Tensor:
        means = torch.empty(len(image), dtype=torch.float64)
        ranges = data_range.double().expand(len(image)).contiguous()
        gradient = torch.empty_like(image) if ctx.needs_input_grad[0] else None
        _run("similarities", image, target, ranges, means, gradient, *image.shape, weight)
        ctx.save_for_backward(gradient)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (of_image,) = ctx.saved_tensors
        return of_image * gradient.to(of_image.dtype)[:, None, None], None, None, None
