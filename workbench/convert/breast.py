"""fastMRI breast: golden-angle radial spokes, which no reader here can grid."""

from pathlib import Path

from workbench.convert.hdf5 import held
from workbench.convert.scan import Choices, RefusedError, Scan

CODE = "https://github.com/eddysolo/demo_dce_recon"


def holds(path: Path) -> bool:
    """Say whether a file holds real k-space (2, spokes, samples, coils, partitions)."""
    found = held(path)
    return bool(found and found.kind == "f" and len(found.shape) == 5 and found.shape[0] == 2)


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Refuse it: its samples are no lines of a grid.

    Raises:
        RefusedError: always.
    """
    found = held(path)
    spokes, samples = found.shape[1:3] if found else (0, 0)
    raise RefusedError(
        f"is a radial scan, as those of fastMRI breast (real k-space of {spokes} spokes with "
        f"{samples} samples): reconstruct it with its own code, {CODE}"
    )
