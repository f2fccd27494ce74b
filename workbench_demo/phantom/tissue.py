"""Contrast: how bright each tissue is in each of fastMRI's acquisitions, from relaxation times."""

from dataclasses import dataclass
from math import exp


@dataclass(frozen=True)
class Tissue:
    """Proton density (relative to water), T1 and T2 (ms) at 3 T, and whether it is fat."""

    density: float
    t1: float
    t2: float
    fat: bool = False


@dataclass(frozen=True)
class Sequence:
    """A spin-echo acquisition.

    Attributes:
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms, where the sequence inverts first (FLAIR).
        fat_suppressed: whether fat is saturated before each excitation.
        contrast_agent: whether gadolinium shortens T1 where blood reaches the tissue.
    """

    repetition_time: float
    echo_time: float
    inversion_time: float | None = None
    fat_suppressed: bool = False
    contrast_agent: bool = False


# Rounded from the literature's ranges at 3 T. Flowing blood is a void in spin echoes, hence its low
# density; compact bone and ligaments are dark because their T2 is a few milliseconds.
TISSUES = {
    "white matter": Tissue(0.71, 780, 69),
    "grey matter": Tissue(0.82, 1400, 100),
    "fluid": Tissue(1.00, 3900, 500),
    "lesion": Tissue(0.88, 1500, 210),
    "vessel": Tissue(0.20, 1600, 60),
    "dura": Tissue(0.55, 900, 45),
    "bone": Tissue(0.08, 600, 6),
    "marrow": Tissue(0.55, 420, 75, fat=True),
    "fat": Tissue(0.60, 400, 110, fat=True),
    "muscle": Tissue(0.78, 1400, 38),
    "skin": Tissue(0.60, 900, 42),
    "cartilage": Tissue(0.76, 1200, 42),
    "ligament": Tissue(0.40, 900, 10),
}
# T1 that blood with gadolinium leaves, ms.
_ENHANCED_T1 = {"vessel": 180.0, "dura": 320.0}
_ENHANCED_DENSITY = {"vessel": 0.75}
_FAT_LEFT_BY_SUPPRESSION = 0.09

SEQUENCES = {
    "AXT1": Sequence(550, 10),
    "AXT1PRE": Sequence(600, 9),
    "AXT1POST": Sequence(600, 9, contrast_agent=True),
    "AXT2": Sequence(6000, 100),
    "AXFLAIR": Sequence(9000, 85, inversion_time=2500),
    "CORPD_FBK": Sequence(2750, 27),
    "CORPDFS_FBK": Sequence(2850, 33, fat_suppressed=True),
}


def signals(acquisition: str) -> dict[str, float]:
    """Compute each tissue's brightness in an acquisition, relative to fully relaxed water.

    The spin-echo signal equation, ``PD (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2)``, without
    the inversion terms ``PD (1 - exp(-TR/T1)) exp(-TE/T2)``; the magnitude of it is returned.

    Raises:
        ValueError: the acquisition is none of ``SEQUENCES``.
    """
    if acquisition not in SEQUENCES:
        raise ValueError(f"acquisition={acquisition!r}: give one of {', '.join(SEQUENCES)}")
    sequence = SEQUENCES[acquisition]
    found = {}
    for name, tissue in TISSUES.items():
        density, t1 = tissue.density, tissue.t1
        if sequence.contrast_agent:
            t1, density = _ENHANCED_T1.get(name, t1), _ENHANCED_DENSITY.get(name, density)
        recovered = 1 - exp(-sequence.repetition_time / t1)
        if sequence.inversion_time is not None:
            recovered += 2 * exp(-sequence.repetition_time / t1)
            recovered -= 2 * exp(-sequence.inversion_time / t1)
        signal = abs(density * recovered * exp(-sequence.echo_time / tissue.t2))
        if tissue.fat and sequence.fat_suppressed:
            signal *= _FAT_LEFT_BY_SUPPRESSION
        found[name] = signal
    return found
