"""Noise lines: how coils hear noise together, and the matrix that parts them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.convert.lines import Flag, Lines, Measurement, flagged
from workbench.convert.scan import RefusedError


@dataclass(frozen=True)
class Whitening:
    """What gives all coils uncorrelated noise of variance 1.

    Attributes:
        matrix: (coils, coils), for lines that are sampled as the noise was.
        dwell: microseconds a sample of the noise; 0 where unknown.
        count: noise lines.
    """

    matrix: NDArray[np.complex64]
    dwell: float
    count: int

    def at(self, dwell: float) -> NDArray[np.complex64]:
        """Return the matrix for lines of another dwell time: the faster, the more noise."""
        ratio = dwell / self.dwell if dwell > 0 and self.dwell > 0 else 1.0
        return self.matrix * np.float32(np.sqrt(ratio))


def find_whitening(measurement: Measurement, channels: int) -> Whitening:
    """Find how to part coils by noise lines: the measurement's own, or else those beside it.

    The matrix is the inverse of the Cholesky factor of the noise's covariance, times the square
    root of the relative noise bandwidth, as in Hansen and Kellman 2015 (doi:10.1002/jmri.24687);
    there a real part has variance 1.

    Args:
        measurement: whose noise it is.
        channels: coils of its image lines.

    Raises:
        RefusedError: there are no noise lines, or they do not tell how to part the coils.
    """
    for lines in filter(None, (measurement.lines, measurement.noise)):
        wanted = flagged(lines.table, Flag.NOISE) & (lines.table["channels"] == channels)
        if wanted.any():
            break
    else:
        raise RefusedError("holds no noise lines of its coils: leave out whiten")
    rows = np.flatnonzero(wanted).astype(np.int32)
    matrix = np.linalg.inv(_cholesky(lines, rows, channels))
    matrix *= np.sqrt(measurement.noise_bandwidth)
    return Whitening(matrix.astype(np.complex64), float(lines.table["dwell"][rows[0]]), len(rows))


def _cholesky(lines: Lines, rows: NDArray[np.int32], channels: int) -> NDArray:
    covariance, count = np.zeros((channels, channels), np.complex128), 0
    for samples in lines.read(rows):
        values = samples.astype(np.complex128)
        covariance += values @ values.conj().T
        count += values.shape[1]
    covariance /= max(count, 1)
    strengths = covariance.diagonal().real
    if not (np.isfinite(covariance).all() and strengths.min() > 1e-12 * strengths.max()):
        raise RefusedError("has noise lines in which a coil hears nothing: leave out whiten")
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        factor = np.zeros_like(covariance)
    # Of unit strength each coil keeps a part of its own.
    if count < 2 * channels or (factor.diagonal().real < 1e-3 * np.sqrt(strengths)).any():
        raise RefusedError(
            f"has noise lines of {count} samples, which cannot part its {channels} coils: leave "
            "out whiten"
        )
    return factor
