"""What is computed on images and parameters: SSIM as loss and as score, the optimiser."""

from collections.abc import Iterator

import torch
from fastmri import evaluate
from fastmri.losses import SSIMLoss
from torch import Tensor

from benchmarks.pairs import Pair, require
from benchmarks.sizes import Size
from workbench.models import VarNet
from workbench.recon.metrics import METRICS, Scores
from workbench.recon.scoring import score_volume
from workbench.recon.ssim import ssim_loss


def _volume(size: Size) -> tuple[Tensor, Tensor]:
    """Return images and targets (slices, H, W), smooth with noise, of the size of real values."""
    slices, height, width = size.image
    rows, columns = torch.linspace(0, 9, height)[:, None], torch.linspace(0, 7, width)[None]
    phase = torch.arange(slices)[:, None, None] / 5
    target = 2e-4 * (1 + 0.4 * torch.sin(rows + phase) * torch.cos(columns))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    return target + 1e-5 * noise, target


def scoring_pairs(size: Size) -> Iterator[Pair]:
    """Yield the SSIM loss, the figures of a volume and a step of Adam."""
    images, targets = _volume(size)
    span = targets.amax()[None]
    ssim = SSIMLoss()
    shape = f"{size.image[1]}x{size.image[2]}"

    def loss(reference: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        image, target = images[:1].to(dtype).detach().clone(), targets[:1].to(dtype)
        image.requires_grad_()
        value = (
            ssim.to(dtype)(image[:, None], target[:, None], span.to(dtype))
            if reference
            else ssim_loss(image, target, span.to(dtype))
        )
        value.backward()
        assert image.grad is not None
        return value.detach(), image.grad

    def check_loss() -> None:
        results = loss(False), loss(True), loss(True, torch.float64)
        for what, ours, reference, exact in zip(("", " gradient"), *results, strict=True):
            own = float((reference - exact).norm())
            require(f"ssim/loss{what} in float32", float((ours - exact).norm()), 2 * own)

    yield Pair(
        "ssim/loss",
        f"SSIM loss of an image {shape} and its gradient",
        lambda: loss(True),
        lambda: loss(False),
        check_loss,
        size.short_repeats,
    )

    truth, guess = targets.numpy(), images.numpy()

    def reference_figures(exact: bool = False) -> tuple[float, float, float]:
        one, other = (truth.astype(float), guess.astype(float)) if exact else (truth, guess)
        return (
            evaluate.ssim(one, other).item(),
            float(evaluate.psnr(one, other)),
            evaluate.nmse(one, other).item(),
        )

    def figures() -> Scores:
        return score_volume(images, targets, "a.h5")

    def check_figures() -> None:
        exact, ours = reference_figures(exact=True), figures()
        for metric, expected in zip(METRICS, exact, strict=True):
            require(f"ssim/eval, {metric.name}", abs(ours[metric.name] / expected - 1), 1e-7)

    yield Pair(
        "ssim/eval",
        f"SSIM, PSNR and NMSE of a volume {size.image[0]}x{shape}",
        reference_figures,
        figures,
        check_figures,
        size.repeats,
    )

    parameters = list(VarNet(**size.network).parameters())
    optimizers = []
    for fused in (None, True):
        own = [torch.nn.Parameter(p.detach().clone()) for p in parameters]
        generator = torch.Generator().manual_seed(0)
        for parameter in own:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizers.append(torch.optim.Adam(own, lr=3e-4, fused=fused))

    def check_adam() -> None:
        for optimizer in optimizers:
            optimizer.step()
        ours, reference = (
            torch.cat([p.detach().flatten() for p in optimizer.param_groups[0]["params"]])
            for optimizer in reversed(optimizers)
        )
        require("adam", float((ours - reference).abs().max()), 1e-6)

    yield Pair(
        "adam",
        f"a step of Adam, {sum(p.numel() for p in parameters) / 1e6:.1f} M parameters",
        optimizers[0].step,
        optimizers[1].step,
        check_adam,
        size.short_repeats,
    )
