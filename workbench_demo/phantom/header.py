"""The ISMRMRD header of a synthetic volume, as XML.

The layout of a fastMRI header is that of https://github.com/ismrmrd/ismrmrd (schema/ismrmrd.xsd);
the ``ismrmrd`` package writes and validates it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """What the header of a volume says of its sampling.

    Attributes:
        encoded: k-space matrix (x readout, y phase encode).
        recon: reconstructed matrix (x, y); it may exceed the phase-encode width, as in some FLAIR
            volumes.
        acquired: first acquired phase-encode column and the one after the last; the columns
            outside are zero padding.
        field_of_view: of the reconstruction (x, y), mm.
        thickness: of a slice, mm.
    """

    encoded: tuple[int, int]
    recon: tuple[int, int]
    acquired: tuple[int, int]
    field_of_view: tuple[float, float] = (220.0, 220.0)
    thickness: float = 5.0

    def __post_init__(self) -> None:
        left, right = self.acquired
        width = self.encoded[1]
        if min(*self.encoded, *self.recon) < 1:
            raise ValueError(f"encoded={self.encoded}, recon={self.recon}: give sizes of 1 or more")
        if not 0 <= left <= width // 2 < right <= width:
            raise ValueError(
                f"acquired={self.acquired}: give 0 <= left <= {width // 2} < right <= {width}, "
                "so that the centre of k-space is inside"
            )


def header_xml(
    geometry: Geometry,
    *,
    slices: int,
    coils: int,
    acquisition: str,
    repetition_time: float,
    echo_time: float,
    inversion_time: float | None = None,
    field_strength: float = 3.0,
) -> bytes:
    """Write the header of a Cartesian 2D acquisition.

    fastMRI's readers compute ``padding_left = encoded_y // 2 - center`` and
    ``padding_right = padding_left + maximum + 1`` from the limits of ``kspace_encoding_step_1``;
    the limits are chosen so that both come out as ``geometry.acquired``.

    Args:
        geometry: matrices, fields of view and the acquired columns.
        slices: number of slices.
        coils: number of receive coils.
        acquisition: sequence, such as "AXT2".
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms, where there is one.
        field_strength: T.

    Returns:
        The XML document, ASCII.
    """
    from ismrmrd import xsd

    enc_x, enc_y = geometry.encoded
    left, right = geometry.acquired
    recon_x, recon_y = geometry.recon
    fov_x, fov_y = geometry.field_of_view

    def space(x: int, y: int, fov_x: float, fov_y: float) -> xsd.encodingSpaceType:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=x, y=y, z=1),
            fieldOfView_mm=xsd.fieldOfViewMm(
                x=round(fov_x, 4), y=round(fov_y, 4), z=geometry.thickness
            ),
        )

    limits = xsd.encodingLimitsType(
        kspace_encoding_step_1=xsd.limitType(
            minimum=0, maximum=right - left - 1, center=enc_y // 2 - left
        ),
        kspace_encoding_step_2=xsd.limitType(minimum=0, maximum=0, center=0),
        slice=xsd.limitType(minimum=0, maximum=slices - 1, center=0),
    )
    header = xsd.ismrmrdHeader(
        studyInformation=xsd.studyInformationType(studyDescription="synthetic phantom"),
        measurementInformation=xsd.measurementInformationType(
            patientPosition=xsd.patientPositionType.HFS, protocolName=acquisition
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor="phantom",
            systemModel="numerical",
            systemFieldStrength_T=field_strength,
            receiverChannels=coils,
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(42_577_478 * field_strength)
        ),
        encoding=[
            xsd.encodingType(
                # The same pixel in both spaces: the readout's oversampling, and any surplus of
                # phase-encode columns, show as a larger field of view.
                encodedSpace=space(enc_x, enc_y, fov_x * enc_x / recon_x, fov_y * enc_y / recon_y),
                reconSpace=space(recon_x, recon_y, fov_x, fov_y),
                encodingLimits=limits,
                trajectory=xsd.trajectoryType.CARTESIAN,
            )
        ],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[repetition_time],
            TE=[echo_time],
            TI=[] if inversion_time is None else [inversion_time],
            sequence_type="TurboSpinEcho",
        ),
    )
    return xsd.ToXML(header).encode("ascii")
