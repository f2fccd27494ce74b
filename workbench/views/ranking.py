"""Volumes and slices in the order of any figure, the worst first."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.recon.metrics import VolumeScore
from workbench.recon.reconstruction_plan import Reconstruction, ReconstructionPlan, open_result
from workbench.views.measured import cropped, read_targets, volume_of

if TYPE_CHECKING:
    from pandas import DataFrame

_NAN = math.nan


def _figure(kind: str, name: str) -> Callable[[Reconstruction], float]:
    def read(result: Reconstruction) -> float:
        score: VolumeScore | None = getattr(result, kind)
        return float(getattr(score, name)) if score else _NAN

    return read


def _gain(result: Reconstruction) -> float:
    if result.varnet is None or result.zero_filled is None:
        return _NAN
    return result.varnet.ssim - result.zero_filled.ssim


# Name -> what it is of a result, and whether a small value is the worse one.
ORDERS: Mapping[str, tuple[Callable[[Reconstruction], Any], bool]] = {
    "ssim": (_figure("varnet", "ssim"), True),
    "psnr": (_figure("varnet", "psnr"), True),
    "nmse": (_figure("varnet", "nmse"), False),
    "gain": (_gain, True),
    "zero_filled_ssim": (_figure("zero_filled", "ssim"), True),
    "zero_filled_psnr": (_figure("zero_filled", "psnr"), True),
    "zero_filled_nmse": (_figure("zero_filled", "nmse"), False),
    "acceleration": (lambda result: result.acceleration, False),
    "slices": (lambda result: len(result.slice_ssim), True),
    "acquisition": (lambda result: result.acquisition, True),
    "volume": (lambda result: result.name, True),
}
_OF_SLICES = ("ssim", "psnr", "nmse")


@dataclass(frozen=True)
class RankedSlice:
    """A slice and its figures; PSNR in dB, NaN where it was not asked for.

    Attributes:
        result: its volume's.
        number: slice number, 0 first.
        ssim: mean SSIM, with the volume's largest target value as data range.
        psnr: with the same.
        nmse: of the slice alone.
    """

    result: Reconstruction
    number: int
    ssim: float
    psnr: float = _NAN
    nmse: float = _NAN


def check_order(sort_by: Any) -> tuple[str, bool]:
    """Read the parameter ``sort_by``: a figure's name, with a minus before it for the best first.

    Returns:
        The name, and whether the order is turned round.

    Raises:
        ValueError: there is no such figure.
    """
    text = sort_by.strip().lower() if isinstance(sort_by, str) else ""
    name = text.removeprefix("-")
    if name not in ORDERS:
        raise ValueError(
            f"sort_by={sort_by!r}: give one of {', '.join(ORDERS)}; a minus before it, such as "
            "-ssim, puts the best first"
        )
    return name, text.startswith("-")


def rank_volumes(results: Sequence[Reconstruction], sort_by: str = "ssim") -> list[Reconstruction]:
    """Return results in the order of a figure, the worst first, what is not finite before all."""
    name, turned = check_order(sort_by)
    of, ascending = ORDERS[name]
    return _ranked(results, of, ascending != turned)


def rank_slices(
    plan: ReconstructionPlan, results: Sequence[Reconstruction], sort_by: str = "ssim"
) -> list[RankedSlice]:
    """Return the slices of scored results in the order of a figure, the worst first.

    PSNR and NMSE of slices are formed here, from images and targets. By a figure that only volumes
    have, slices follow their volumes', and their SSIM within.
    """
    name, turned = check_order(sort_by)
    by_slice = name in _OF_SLICES
    chosen = results if by_slice else rank_volumes(results, sort_by)
    groups = [
        slice_scores(plan, result)
        if name in ("psnr", "nmse")
        else [RankedSlice(result, n, ssim) for n, ssim in enumerate(result.slice_ssim)]
        for result in chosen
    ]
    figure = name if by_slice else "ssim"
    ascending = (figure != "nmse") != turned

    def order(slices: Sequence[RankedSlice]) -> list[RankedSlice]:
        return _ranked(slices, lambda each: getattr(each, figure), ascending)

    if by_slice:
        return order([each for group in groups for each in group])
    return [each for group in groups for each in order(group)]


def slice_scores(plan: ReconstructionPlan, result: Reconstruction) -> list[RankedSlice]:
    """Form SSIM, PSNR and NMSE of every slice of a result; none where there is no target."""
    targets = read_targets(plan, volume_of(plan, result))
    if targets is None:
        return []
    with open_result(result.path) as file:
        images = file["reconstruction"][()]
    peak = float(targets.max()) or 1.0
    images, targets = (part.astype(np.float64) for part in cropped(images, targets))
    errors = ((images - targets) ** 2).mean(axis=(1, 2))
    powers = (targets**2).mean(axis=(1, 2))
    return [
        RankedSlice(
            result,
            number,
            result.slice_ssim[number] if result.slice_ssim else _NAN,
            20 * math.log10(peak) - 10 * math.log10(error) if error else math.inf,
            error / power if power else _NAN,
        )
        for number, (error, power) in enumerate(zip(errors.tolist(), powers.tolist(), strict=True))
    ]


def slice_table(slices: Sequence[RankedSlice], most: int = 20) -> "DataFrame":
    """Tabulate the first slices of a ranking."""
    from pandas import DataFrame

    rows = [
        {
            "volume": each.result.name,
            "slice": each.number,
            "acquisition": each.result.acquisition,
            "SSIM": f"{each.ssim:.4f}",
            "PSNR (dB)": f"{each.psnr:.2f}",
            "NMSE": f"{each.nmse:.4f}",
        }
        for each in slices[:most]
    ]
    table = DataFrame(rows, index=range(1, len(rows) + 1))
    table.index.name = f"of {len(slices):,}"
    return table.loc[:, [name for name in table if not (table[name] == "nan").all()]]


def _ranked(items: Sequence[Any], of: Callable[[Any], Any], ascending: bool) -> list[Any]:
    """Sort, with what is not a number first; equals keep their order."""

    def unknown(item: Any) -> bool:
        value = of(item)
        return isinstance(value, float) and math.isnan(value)

    known = sorted((item for item in items if not unknown(item)), key=of, reverse=not ascending)
    return [*filter(unknown, items), *known]
