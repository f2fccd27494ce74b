"""The forms of raw data that can be read: one line each in ``READERS``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.convert import arrays, breast, calgary, m4raw, mrd, prostate, twix
from workbench.convert.scan import Choices, RefusedError, Scan


@dataclass(frozen=True)
class Reader:
    """One form of raw data.

    Attributes:
        label: what people call such a file: "an ISMRMRD file".
        holds: says from a file's first bytes and its structure whether it is one.
        scans: what a file holds; raises ``RefusedError``.
    """

    label: str
    holds: Callable[[Path], bool]
    scans: Callable[[Path, Choices], list[Scan]]


READERS: Mapping[str, Reader] = {
    "prostate": Reader("a fastMRI prostate T2 file", prostate.holds, prostate.scans),
    "breast": Reader("a fastMRI breast file", breast.holds, breast.scans),
    "m4raw": Reader("an M4Raw file", m4raw.holds, m4raw.scans),
    "calgary": Reader("a Calgary-Campinas file", calgary.holds, calgary.scans),
    "mrd": Reader("an ISMRMRD file", mrd.holds, mrd.scans),
    "twix": Reader("Siemens raw data (twix)", twix.holds, twix.scans),
    "array": Reader("an array (.npy, .mat, HDF5, BART's .cfl)", arrays.holds, arrays.scans),
}
"""Name, as ``form=`` takes it -> reader; of several that hold a file the first one reads it."""


def scans_of(path: Path, choices: Choices, form: str | None = None) -> list[Scan]:
    """Find the scans of a file.

    Args:
        path: the file.
        choices: what a person says of it.
        form: of ``READERS``; None finds it.

    Raises:
        RefusedError: no reader knows the file, or its data cannot become a volume.
        OSError: the file cannot be read.
    """
    if path.stat().st_size == 0:
        raise RefusedError("is empty (0 bytes): bring it in again")
    if form:
        if not READERS[form].holds(path):
            raise RefusedError(f"is not {READERS[form].label}")
        return READERS[form].scans(path, choices)
    for reader in READERS.values():
        if reader.holds(path):
            return reader.scans(path, choices)
    raise RefusedError(f"holds no raw data of a form that is known here: {', '.join(READERS)}")
