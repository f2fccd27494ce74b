"""The kernels as functions of tensors that autograd knows, on CPUs.

Images are (batch, channels, H, W), contiguous: what is not is copied first. ``activate_last`` alone
takes images whose channels lie last in memory.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench_kernels.compiled import Kernels, kernels

FEW = 64
"""Below so many channels the kernels are faster than the library that torch convolves with."""


def fit(image: Tensor, channels: int) -> bool:
    """Return whether an image is to be convolved to a number of channels by the kernels."""
    found = _found(image) if channels < FEW else None
    return found is not None and image.shape[-1] >= found.lanes


def fit_last(image: Tensor) -> bool:
    """Return whether ``activate_last`` takes an image."""
    return image.is_contiguous(memory_format=torch.channels_last) and _found(image) is not None


def _found(image: Tensor) -> Kernels | None:
    if image.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    return None if torch.is_autocast_enabled("cpu") else kernels(image.dtype)


def convolve(image: Tensor, skip: Tensor | None, weight: Tensor) -> Tensor:
    """Convolve by 3x3, padded with zeros; where two images are given, their channels as one's.

    Args:
        image: (batch, C, H, W).
        skip: (batch, D, H, W) or None.
        weight: (outputs, C [+ D], 3, 3).

    Returns:
        (batch, outputs, H, W).
    """
    return _Convolve.apply(
        image.contiguous(), None if skip is None else skip.contiguous(), weight.contiguous()
    )


def activate(image: Tensor, epsilon: float, slope: float) -> Tensor:
    """Normalise each plane and apply a leaky ReLU, in place of ``image``."""
    return _Activate.apply(image, epsilon, slope, False)


def activate_last(image: Tensor, epsilon: float, slope: float) -> Tensor:
    """Do as ``activate``, in place of an image whose channels lie last in memory."""
    return _ActivateLast.apply(image, epsilon, slope)


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


def scores(image: Tensor, target: Tensor) -> bool:
    """Return whether the kernels can compare these images."""
    alike = image.dtype == target.dtype and image.device == target.device
    return alike and _found(image) is not None


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
    _kernels(image).errors(
        image.data_ptr(),
        target.data_ptr(),
        sums.data_ptr(),
        *image.shape,
        torch.get_num_threads(),
    )
    return sums


def _kernels(image: Tensor) -> Kernels:
    found = kernels(image.dtype)
    assert found is not None  # ``fit`` has said so
    return found


def _pair(one: Tensor | None, two: Tensor | None) -> tuple[int | None, int | None, int, int]:
    """Address and number of channels of two images."""
    both = (one, two)
    addresses = [None if image is None else image.data_ptr() for image in both]
    channels = [0 if image is None else image.shape[1] for image in both]
    return addresses[0], addresses[1], channels[0], channels[1]


def _size(image: Tensor) -> tuple[int, int, int]:
    return image.shape[0], image.shape[2], image.shape[3]


def _require(failed: int) -> None:
    if failed:
        raise MemoryError("no memory for a strip of an image")


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, skip: Tensor | None, weight: Tensor) -> Tensor:
        ctx.save_for_backward(image, skip, weight)
        result = image.new_empty(len(image), len(weight), *image.shape[2:])
        _require(
            _kernels(image).convolve(
                *_pair(image, skip),
                weight.data_ptr(),
                False,
                *_pair(result, None),
                *_size(image),
                torch.get_num_threads(),
            )
        )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image, skip, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        own, threads = _kernels(image), torch.get_num_threads()
        of_image = of_skip = of_weight = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            of_image = torch.empty_like(image)
            of_skip = None if skip is None else torch.empty_like(skip)
            _require(
                own.convolve(
                    *_pair(gradient, None),
                    weight.data_ptr(),
                    True,
                    *_pair(of_image, of_skip),
                    *_size(image),
                    threads,
                )
            )
        if ctx.needs_input_grad[2]:
            of_weight = torch.empty_like(weight)
            _require(
                own.weights_gradient(
                    *_pair(image, skip),
                    gradient.data_ptr(),
                    len(weight),
                    of_weight.data_ptr(),
                    *_size(image),
                    threads,
                )
            )
        return of_image, of_skip, of_weight


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
        _kernels(image).activate(
            image.data_ptr(),
            result.data_ptr(),
            scales.data_ptr(),
            scales.numel(),
            result[0, 0].numel(),
            width if woven else 0,
            epsilon,
            slope,
            torch.get_num_threads(),
        )
        ctx.save_for_backward(result, scales)
        ctx.slope, ctx.shape, ctx.woven = slope, image.shape, woven
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        result, scales = ctx.saved_tensors
        of_image = result.new_empty(ctx.shape)
        gradient = gradient.contiguous()
        _kernels(result).activate_gradient(
            result.data_ptr(),
            gradient.data_ptr(),
            scales.data_ptr(),
            of_image.data_ptr(),
            scales.numel(),
            result[0, 0].numel(),
            ctx.shape[3] if ctx.woven else 0,
            ctx.slope,
            torch.get_num_threads(),
        )
        return of_image, None, None, None


class _ActivateLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, epsilon: float, slope: float) -> Tensor:
        batch, channels, height, width = image.shape
        scales = image.new_empty(batch, channels)
        _require(
            _kernels(image).activate_last(
                image.data_ptr(),
                scales.data_ptr(),
                batch,
                height * width,
                channels,
                epsilon,
                slope,
                torch.get_num_threads(),
            )
        )
        ctx.mark_dirty(image)
        ctx.save_for_backward(image, scales)
        ctx.slope = slope
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        result, scales = ctx.saved_tensors
        batch, channels, height, width = result.shape
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_image = torch.empty_like(gradient)
        _require(
            _kernels(result).activate_last_gradient(
                result.data_ptr(),
                gradient.data_ptr(),
                scales.data_ptr(),
                of_image.data_ptr(),
                batch,
                height * width,
                channels,
                ctx.slope,
                torch.get_num_threads(),
            )
        )
        return of_image, None, None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        *planes, height, width = ctx.shape = image.shape
        result = image.new_empty(*planes, height // 2, width // 2)
        _resample(_kernels(image).pool, image, result, ctx.shape)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        result = gradient.new_empty(ctx.shape)
        _resample(_kernels(gradient).pool_gradient, gradient.contiguous(), result, ctx.shape)
        return result


def _resample(kernel: Any, source: Tensor, result: Tensor, shape: torch.Size) -> None:
    """Call a kernel that goes between images of ``shape`` and of half its height and width."""
    batch, channels, height, width = shape
    threads = torch.get_num_threads()
    kernel(source.data_ptr(), result.data_ptr(), batch * channels, height, width, threads)


class _Similarities(torch.autograd.Function):
    """Forms the gradient along with the result, while both images are in the cache."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, target: Tensor, data_range: Tensor, weight: float
    ) -> Tensor:
        means = torch.empty(len(image), dtype=torch.float64)
        ranges = data_range.double().expand(len(image)).contiguous()
        gradient = torch.empty_like(image) if ctx.needs_input_grad[0] else None
        _require(
            _kernels(image).similarities(
                image.data_ptr(),
                target.data_ptr(),
                ranges.data_ptr(),
                means.data_ptr(),
                None if gradient is None else gradient.data_ptr(),
                *image.shape,
                weight,
                torch.get_num_threads(),
            )
        )
        ctx.save_for_backward(gradient)
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (of_image,) = ctx.saved_tensors
        return of_image * gradient.to(of_image.dtype)[:, None, None], None, None, None
