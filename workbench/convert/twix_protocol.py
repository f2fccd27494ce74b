"""The protocol of a Siemens measurement: what its lines lie in.

Names and meanings are those that siemens_to_ismrmrd reads
(https://github.com/ismrmrd/siemens_to_ismrmrd, parameter_maps/IsmrmrdParameterMap_Siemens.xsl).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.convert.header import allowed
from workbench.convert.lines import Flag, Lines, Measurement, flagged, of_image
from workbench.convert.people import named
from workbench.convert.scan import RefusedError

_BUFFERS = ("Meas", "MeasYaps", "Phoenix", "Config", "Dicom")
_VERSION = "SoftwareVersions"
_NOISE_BANDWIDTH = 0.793  # of Siemens' receivers; no protocol says it
_TRAJECTORIES = {1: "cartesian", 2: "radial", 4: "spiral", 8: "propeller"}
_CALIBRATIONS = {2: "embedded", 4: "separate", 8: "separate"}
_CALIBRATIONS |= dict.fromkeys((16, 32, 64), "interleaved")


def measurement_of(
    protocol: Mapping[str, Any], lines: Lines, noise: Lines | None, remarks: tuple[str, ...]
) -> Measurement:
    """Read what a protocol says of lines.

    Args:
        protocol: of turbotwix: buffer -> name -> value.
        lines: of the same measurement; the table gets the dwell times.
        noise: lines of an earlier measurement that hold noise.
        remarks: on the file.

    Raises:
        RefusedError: the protocol lacks what is needed, or what it describes is no plain grid.
    """
    table = lines.table
    image = table[of_image(table)]
    if not len(image):
        raise RefusedError(f"holds {len(table)} lines, none of which is of an image")
    if (bands := _number(protocol, "lMultiBandFactor", 1)) > 1:
        raise RefusedError(f"is a multiband measurement ({bands:g} slices): part its slices first")
    _take_dwell_times(protocol, lines)
    encoded, recon = _matrices(protocol, image)
    encoded_mm, recon_mm = _fields_of_view(protocol)
    return Measurement(
        lines=lines,
        encoded=encoded,
        recon=recon,
        last=_last(protocol, encoded[1], image),
        encoded_mm=encoded_mm,
        recon_mm=recon_mm,
        trajectory=_trajectory(protocol),
        calibration=_calibration(protocol),
        noise_bandwidth=_NOISE_BANDWIDTH,
        noise=noise,
        known=_known(protocol),
        person=named(str(_value(protocol, "PatientID") or "")),
        remarks=remarks,
    )


def _value(protocol: Mapping[str, Any], name: str) -> Any:
    """Return a value of the protocol, from the first of its buffers that has one."""
    for buffer in _BUFFERS:
        value = protocol[buffer].get(name) if buffer in protocol else None
        if value not in (None, "", []):
            return value
    return None


def _number(protocol: Mapping[str, Any], name: str, otherwise: float) -> float:
    value = _value(protocol, name)
    return value if isinstance(value, int | float) and np.isfinite(value) else otherwise


def _numbers(protocol: Mapping[str, Any], name: str) -> list[float]:
    """Return the numbers of an array, without the zeros that fill it."""
    values = _value(protocol, name)
    listed = values if isinstance(values, list) else [values]
    return [value for value in listed if isinstance(value, int | float) and value > 0]


def _take_dwell_times(protocol: Mapping[str, Any], lines: Lines) -> None:
    """Write dwell times into the table, microseconds; the protocol has one for each echo, in ns."""
    times, table = _numbers(protocol, "alDwellTime"), lines.table
    if times:
        echoes = np.minimum(table["contrast"], len(times) - 1)
        own = ~flagged(table, Flag.NOISE)
        table["dwell"][own] = np.asarray(times)[echoes[own]] / 1000


def noise_dwell(
    protocol: Mapping[str, Any], samples: NDArray[np.uint16], *, old: bool
) -> NDArray[np.float64]:
    """Return microseconds a sample of noise lines, which no protocol says.

    Scanners measure noise with 130 Hz a pixel, but for adjustments of the coils and since software
    XA; the numbers are those of siemens_to_ismrmrd.

    Args:
        protocol: of the noise's measurement.
        samples: of each line.
        old: whether the software is older than VD.
    """
    name, version = (str(_value(protocol, key) or "") for key in ("tProtocolName", _VERSION))
    if "XA" in version or name == "AdjCoilSens":
        return np.full(len(samples), 5.0)
    if name == "AdjQuietCoilSens":
        return np.full(len(samples), 4.0)
    return 1e6 / 130 / samples if old else np.floor(76800 / samples) / 10


def _matrices(
    protocol: Mapping[str, Any], image: NDArray[np.void]
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the encoded matrix and that of the image; interpolation doubles both on scanners."""
    samples = int(image["samples"].max())
    said = int(_number(protocol, "iNoOfFourierColumns", samples))
    columns = said if samples <= said <= 2 * samples else samples
    interpolated = 2 if _number(protocol, "uc2DInterpolation", 0) == 1 else 1
    lines = int(_number(protocol, "iPEFTLength", 0)) // interpolated
    if not _hold(lines, image):
        lines = max(lines, int(_number(protocol, "lPhaseEncodingLines", 1)))
    deep = _number(protocol, "iNoOfFourierPartitions", 1) > 1
    partitions = int(_number(protocol, "lPartitions", 1)) if deep else 1
    oversampling = max(1.0, _number(protocol, "flReadoutOSFactor", 1))
    wide = int(_number(protocol, "ImageColumns", 0)) // interpolated or round(
        columns / oversampling
    )
    high = int(_number(protocol, "ImageLines", 0)) // interpolated or lines
    thick = int(_number(protocol, "lImagesPerSlab", partitions)) if deep else 1
    return (columns, lines, partitions), (wide, high, min(thick, partitions))


def _hold(lines: int, image: NDArray[np.void]) -> bool:
    """Say whether all lines fit into so many, with their centre in the middle."""
    places = lines // 2 - image["center_line"] + image["step_1"]
    return bool(places.min() >= 0 and places.max() < lines)


def _last(protocol: Mapping[str, Any], lines: int, image: NDArray[np.void]) -> int | None:
    """Return the highest line that was to be measured; accelerated scans may leave it out."""
    most = int(image["center_line"][0]) + lines - lines // 2 - 1
    last = min(int(_number(protocol, "iNoOfFourierLines", 0)) - 1, most)
    return last if last >= image["step_1"].max() else None


def _fields_of_view(
    protocol: Mapping[str, Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the encoded field of view and that of the image, mm; zeros where unknown."""
    array = _value(protocol, "sSliceArray")
    slices = array.get("asSlice") if isinstance(array, Mapping) else None
    first = slices[0] if isinstance(slices, list) and slices else {}
    names = ("dReadoutFOV", "dPhaseFOV", "dThickness")
    image = [float(first.get(name, 0)) for name in names]
    more = (
        max(1.0, _number(protocol, "flReadoutOSFactor", 1)),
        1 + _number(protocol, "dPhaseOversamplingForDialog", 0),
        1 + _number(protocol, "dSliceOversamplingForDialog", 0),
    )
    x, y, z = (size * factor for size, factor in zip(image, more, strict=True))
    return (x, y, z), (image[0], image[1], image[2])


def _trajectory(protocol: Mapping[str, Any]) -> str:
    if _number(protocol, "lEPIFactor", 1) > 1:
        return "epi"
    number = int(_number(protocol, "ucTrajectory", 1))
    return _TRAJECTORIES.get(number, f"trajectory {number}")


def _calibration(protocol: Mapping[str, Any]) -> str:
    if max(_number(protocol, f"lAccelFact{axis}", 1) for axis in ("PE", "3D")) <= 1:
        return ""
    return _CALIBRATIONS.get(int(_number(protocol, "ucRefScanMode", 0)), "other")


def _known(protocol: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return those fields that a volume's header keeps."""
    contrasts = int(_number(protocol, "lContrasts", 1))
    inverted = _number(protocol, "ucInversion", 4) in (1, 2)
    times = {
        "TR": _numbers(protocol, "alTR"),
        "TE": _numbers(protocol, "alTE")[:contrasts],
        "TI": _numbers(protocol, "alTI")[:1] if inverted else [],
    }
    found: dict[str, list[Any]] = {
        "measurementInformation/patientPosition": [_value(protocol, "PatientPosition")],
        "acquisitionSystemInformation/systemVendor": [_value(protocol, "Manufacturer")],
        "acquisitionSystemInformation/systemModel": [_value(protocol, "ManufacturersModelName")],
        "acquisitionSystemInformation/systemFieldStrength_T": _numbers(
            protocol, "flMagneticFieldStrength"
        ),
        "acquisitionSystemInformation/relativeReceiverNoiseBandwidth": [_NOISE_BANDWIDTH],
        "experimentalConditions/H1resonanceFrequency_Hz": _numbers(protocol, "lFrequency")[:1],
        "sequenceParameters/flipAngle_deg": _numbers(protocol, "adFlipAngleDegree")[:1],
        **{f"sequenceParameters/{key}": [v / 1000 for v in each] for key, each in times.items()},
    }
    return allowed(
        {
            path: [f"{value:.10g}" if isinstance(value, float) else str(value) for value in values]
            for path, values in found.items()
        }
    )
