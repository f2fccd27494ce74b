"""Noise lines: how coils hear noise together, and the matrix that parts them."""

import numpy as np
from numpy.typing import NDArray

from workbench.convert.lines import Flag, Lines, Measurement, flagged
from workbench.convert.scan import RefusedError


def whitening(measurement: Measurement, channels: int, dwell: float) -> NDArray[np.complex64]:
    """Return the matrix that gives all coils uncorrelated noise of variance 1.

    It is the inverse of the Cholesky factor of the noise lines' covariance, times the square root
    of the bandwidths' ratio: lines that are sampled faster hear more noise. As in Hansen and
    Kellman 2015 (doi:10.1002/jmri.24687), where a real part has variance 1 instead.

    Args:
        measurement: whose own noise lines are taken, or else those beside it.
        channels: coils of its image lines.
        dwell: microseconds a sample of its image lines; 0 where unknown.

    Returns:
        (channels, channels), to be multiplied from the left.

    Raises:
        RefusedError: there are no noise lines, or they do not tell how to part the coils.
    """
    for lines in filter(None, (measurement.lines, measurement.noise)):
        wanted = flagged(lines.table, Flag.NOISE) & (lines.table["channels"] == channels)
        if wanted.any():
            break
    else:
        raise RefusedError("holds no noise lines of its coils: leave out whiten")
    factor = _cholesky(lines, np.flatnonzero(wanted).astype(np.int32), channels)
    theirs = float(lines.table["dwell"][wanted][0])
    ratio = dwell / theirs if dwell > 0 and theirs > 0 else 1.0
    scale = np.sqrt(ratio * measurement.noise_bandwidth)
    return (np.linalg.inv(factor) * scale).astype(np.complex64)


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
