"""Whether numbers look like Cartesian k-space with its centre in the middle."""

import numpy as np
from numpy.typing import NDArray

from workbench.convert.scan import RefusedError
from workbench.data.images import centered_ifft2, finite, root_sum_of_squares
from workbench.data.sampling import acs_count

_PEAKED = 3.0  # strongest line / median line; radial spokes 1 to 2, Cartesian k-space 100 and more
_PEAK = 50.0  # strongest sample / mean, powers; images 10 to 20, k-space 1,000 and more
_MOST_ZEROS = 0.05  # of the samples in measured rows and columns
_FEW_ACS = 8  # lines side by side around the centre; masks of fastMRI have 13 and more
_AT_EDGES, _NEAR_EDGES = 0.5, 0.25  # of ``_apart``; right images have less than 0


def off_middle(size: int) -> int:
    """Return by how many samples the centre of k-space may lie beside the middle of an axis."""
    return max(3, size // 32)


def peaked(powers: NDArray) -> bool:
    """Say whether some line stands out by its power, as the centre of k-space does."""
    return bool(powers.max() >= _PEAKED * np.median(powers))


def check_kspace(power: NDArray) -> tuple[int, int]:
    """Check that the power of a slice's samples is that of Cartesian k-space; find its centre.

    Args:
        power: sum of the coils' squared magnitudes, (readout, phase encode); zero where nothing
            was measured.

    Returns:
        Row and column of the strongest sample's lines.

    Raises:
        RefusedError: it looks like an image, like radial or spiral lines, or is not undersampled
            by whole columns.
    """
    rows, columns = power.sum(1), power.sum(0)
    measured = power[np.ix_(rows > 0, columns > 0)]
    flat = [not peaked(line) for line in (measured.sum(1), measured.sum(0))]
    if any(flat) and not all(flat):
        axis = ("readout", "phase encode")[flat.index(True)]
        raise RefusedError(
            f"is no Cartesian k-space (all its lines along {axis} are equally strong, as in "
            "radial or spiral scans, or after a transform of that axis): reconstruct it to "
            "Cartesian lines first"
        )
    if all(flat) or power.max() < _PEAK * measured.mean():
        raise RefusedError(
            "looks like an image and not like k-space (no sample stands out): transform it to "
            "k-space, or name the array that holds k-space"
        )
    zeros = float((measured == 0).mean())
    if zeros > _MOST_ZEROS:
        raise RefusedError(
            f"has zeros in {zeros:.0%} of its measured rows and columns, as in undersampling along "
            "both axes, and only masks of whole phase-encode columns can be used"
        )
    return int(rows.argmax()), int(columns.argmax())


def check_recon(recon: tuple[int, int], matrix: tuple[int, int]) -> None:
    """Check that an image's matrix is no larger than the encoded one; RefusedError otherwise."""
    if any(size > whole for size, whole in zip(recon, matrix, strict=True)):
        raise RefusedError(
            f"is asked for recon={recon[0]}x{recon[1]}, more than its matrix of "
            f"{matrix[0]}x{matrix[1]}"
        )


def check_middle(found: tuple[int, int], matrix: tuple[int, int]) -> str:
    """Check that k-space's centre is in the middle of its matrix (readout, phase encode).

    Args:
        found: row and column that ``check_kspace`` returned, in the encoded matrix.
        matrix: its size.

    Returns:
        A remark where they differ by a few; "" where they do not.

    Raises:
        RefusedError: they are far apart.
    """
    middle = matrix[0] // 2, matrix[1] // 2
    places = f"row {found[0]}, column {found[1]} of {matrix[0]}x{matrix[1]}"
    pairs = list(zip(found, matrix, strict=True))
    if all(min(at, size - at) <= off_middle(size) for at, size in pairs):
        raise RefusedError(
            f"has its strongest lines in a corner ({places}), as an FFT without shift leaves "
            "them: apply fftshift along readout and phase encode first"
        )
    if any(abs(at - size // 2) > off_middle(size) for at, size in pairs):
        raise RefusedError(
            f"has its strongest lines at {places}, far from the middle ({middle[0]}, "
            f"{middle[1]}): where lines before the centre were not measured, give center, the "
            "centre's number among the lines, and matrix; fill a readout that is cut with zeros"
        )
    if found == middle:
        return ""
    return f"the strongest lines are {places}, and the middle is ({middle[0]}, {middle[1]})"


def told_of_columns(columns: NDArray[np.bool_], first: int, last: int) -> tuple[str, ...]:
    """Return remarks on lines that are few.

    Args:
        columns: those of which there are lines, (phase encode,).
        first: the first that was to be measured.
        last: the last one.
    """
    remarks, middle = [], acs_count(columns)
    if 2 * (last + 1 - first) < len(columns):
        remarks.append(
            f"lines are in columns {first} to {last} of {len(columns)} alone, and the others count "
            "as padding: the image is as coarse as that"
        )
    if middle < _FEW_ACS and not columns[first : last + 1].all():
        remarks.append(
            f"{max(1, middle)} of the measured lines stand side by side in the middle of k-space, "
            "too few for coil maps: reconstructions will be poor"
        )
    return tuple(remarks)


def check_image(kspace: NDArray[np.complex64]) -> tuple[str, ...]:
    """Check that the image of a slice's k-space lies in the middle of its field of view.

    An FFT of an image without ifftshift before it leaves the centre of k-space where it belongs,
    and the image half of the field of view beside it; so do lines every other of which has its
    sign turned.

    Args:
        kspace: of the middle slice, (coils, readout, phase encode).

    Returns:
        Remarks where that may be so.

    Raises:
        RefusedError: the image's two halves lie at the edges.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        image = finite(root_sum_of_squares(centered_ifft2(finite(kspace))))
    remarks = []
    for axis, word in enumerate(("readout", "phase encode")):
        apart = _apart(image.sum(1 - axis, dtype=float))
        if apart >= _AT_EDGES:
            raise RefusedError(
                f"has an image whose halves lie at the two edges along {word}, as after an FFT "
                "without ifftshift before it, or where every other sample has its sign turned: "
                "move the image by half of its field of view first"
            )
        if apart >= _NEAR_EDGES:
            remarks.append(
                f"the image may be half of its field of view off along {word}, as after an FFT "
                "without ifftshift before it: look at it"
            )
    return tuple(remarks)


def _apart(profile: NDArray[np.float64]) -> float:
    """Return how far a profile lies at the two edges: 1 for the edge alone, -1 for the middle."""
    angles = 2 * np.pi * (np.arange(len(profile)) - len(profile) // 2) / len(profile)
    total = float(profile.sum())
    return -float((profile * np.cos(angles)).sum()) / total if total else 0.0
