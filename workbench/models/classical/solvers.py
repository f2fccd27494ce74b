r"""Solvers of regularised SENSE (Pruessmann et al. 2001, doi:10.1002/mrm.1241).

    min over x of  1/2 \|\|M F S x - y\|\|^2 + R(x)

for images x (batch, 1, H, W), all slices of a batch at once. The maps S are normalised, so that the
largest eigenvalue of A = S^H F^H M F S is at most 1: gradient steps have the length 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
_DIMENSIONS = (-3, -2, -1)
_INNER = 4  # steps towards the proximal point of total variation, from where the last one ended


def conjugate_gradient(operator: Operator, right: Tensor, iterations: int) -> Tensor:
    """Solve operator(x) = right for a Hermitian positive operator, from x = 0.

    A slice whose residual vanishes stays as it is.
    """

    def dot(first: Tensor, second: Tensor) -> Tensor:
        return (first.conj() * second).real.sum(_DIMENSIONS, keepdim=True)

    x, residual = torch.zeros_like(right), right
    direction, size = residual, dot(residual, residual)
    for _ in range(iterations):
        along = operator(direction)
        bend = dot(direction, along)
        step = torch.where(bend > 0, size / bend, 0)
        x = x + step * direction
        residual = residual - step * along
        before, size = size, dot(residual, residual)
        direction = residual + torch.where(before > 0, size / before, 0) * direction
    return x


def fista(
    operator: Operator, right: Tensor, proximal: Callable[[Tensor, int], Tensor], iterations: int
) -> Tensor:
    """Minimise 1/2 <x, operator(x)> - <x, right> + R(x).

    The fast iterative shrinkage of Beck and Teboulle (2009, doi:10.1137/080716542).

    Args:
        operator: Hermitian, with eigenvalues from 0 to 1.
        right: A^H y, where the iteration starts.
        proximal: the proximal operator of R; it is told the number of the iteration.
        iterations: how many.
    """
    x = ahead = right
    momentum = 1.0
    for number in range(iterations):
        before, x = x, proximal(ahead - operator(ahead) + right, number)
        last, momentum = momentum, (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = x + (last - 1) / momentum * (x - before)
    return x


class TotalVariation:
    """Proximal operator of weight x isotropic total variation (Beck, Teboulle 2009, FGP).

    Complex images; at the edges differences are zero. It keeps its dual variable from one call to
    the next, so that a few steps a call are enough.

    Args:
        weight: (batch, 1, 1, 1), or one number.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._dual: Tensor | None = None

    def __call__(self, image: Tensor, _: int = 0, steps: int = _INNER) -> Tensor:
        """Return the proximal point of an image (batch, 1, H, W)."""
        # Real numbers, real and imaginary part first: complex arithmetic is many times slower.
        parts, weight = torch.view_as_real(image).movedim(-1, 0).contiguous(), self._weight
        length = 1 / (8 * weight.clamp(min=1e-12))
        dual = parts.new_zeros(2, *parts.shape) if self._dual is None else self._dual
        ahead, momentum = dual, 1.0
        for _ in range(steps):
            moved = _gradient(parts - weight * _adjoint(ahead)).mul_(length).add_(ahead)
            norm = moved.square().sum((0, 1)).sqrt_().clamp_(min=1)
            before, dual = dual, moved.div_(norm)
            last, momentum = momentum, (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = torch.lerp(before, dual, 1 + (last - 1) / momentum)
        self._dual = dual
        return torch.view_as_complex((parts - weight * _adjoint(dual)).movedim(0, -1).contiguous())


def _gradient(image: Tensor) -> Tensor:
    """Return forward differences along rows and columns, (2, ...)."""
    found = image.new_zeros(2, *image.shape)
    torch.sub(image[..., 1:, :], image[..., :-1, :], out=found[0, ..., :-1, :])
    torch.sub(image[..., 1:], image[..., :-1], out=found[1, ..., :-1])
    return found


def _adjoint(dual: Tensor) -> Tensor:
    """Return the adjoint of ``_gradient``; its last differences are zero."""
    found = dual.sum(0).neg_()
    found[..., 1:, :] += dual[0, ..., :-1, :]
    found[..., 1:] += dual[1, ..., :-1]
    return found
