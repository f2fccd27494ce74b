"""Write one volume as fastMRI ships it: an .h5 file with k-space, target, header and attributes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench_demo.phantom.header import Geometry, header_xml

NOTICE = "Synthetic phantom made by fastmri-workbench: not a patient, not for clinical use."


def write_volume(
    path: str | Path,
    *,
    kspace: NDArray[np.complex64],
    target: NDArray[np.float32] | None,
    acquisition: str,
    patient_id: str,
    recon: tuple[int, int] | None = None,
    acquired: tuple[int, int] | None = None,
    field_of_view: tuple[float, float] = (220.0, 220.0),
    thickness: float = 5.0,
    repetition_time: float = 3000.0,
    echo_time: float = 30.0,
    inversion_time: float | None = None,
    field_strength: float = 3.0,
    mask: NDArray[np.bool_] | None = None,
    attributes: Mapping[str, Any] | None = None,
    chunks: bool | tuple[int, ...] | None = None,
    compression: str | None = None,
) -> Path:
    """Write a synthetic volume; the file appears under its name only when it is whole.

    Args:
        path: the .h5 file; its folder is made.
        kspace: ``(slices, coils, H, W)`` multi-coil or ``(slices, H, W)`` single-coil, readout H.
        target: ``(slices, h, w)``, stored as ``reconstruction_rss`` or, for single-coil,
            ``reconstruction_esc``, with its ``max`` and ``norm`` as attributes; None for a volume
            without a target.
        acquisition: sequence, such as "AXT2".
        patient_id: any string; fastMRI's are hashes.
        recon: reconstructed matrix (x, y) for the header; the target's by default.
        acquired: first acquired phase-encode column and the one after the last; all by default.
        field_of_view: of the reconstruction (x, y), mm.
        thickness: of a slice, mm.
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms.
        field_strength: T.
        mask: ``(W,)``, the sampled columns of a test volume.
        attributes: more attributes, such as ``acceleration`` and ``num_low_frequency``; they win
            over the ones formed here.
        chunks: of k-space, as h5py takes them (the target's are then h5py's own choice); None
            stores the arrays contiguously, as fastMRI does.
        compression: h5py's, such as "gzip"; it implies chunks.

    Returns:
        The path.

    Raises:
        ValueError: shapes that do not fit together.
    """
    import h5py

    path = Path(path)
    if kspace.ndim not in (3, 4):
        raise ValueError(f"kspace of shape {kspace.shape}: give (slices, [coils,] H, W)")
    slices, (height, width) = len(kspace), kspace.shape[-2:]
    if target is not None and (target.ndim != 3 or len(target) != slices):
        raise ValueError(f"target of shape {target.shape}: give ({slices}, h, w)")
    if mask is not None and mask.shape != (width,):
        raise ValueError(f"mask of shape {mask.shape}: give ({width},)")
    if recon is None:
        if target is None:
            raise ValueError("recon=None: give the reconstructed matrix where there is no target")
        recon = (target.shape[1], target.shape[2])
    geometry = Geometry((height, width), recon, acquired or (0, width), field_of_view, thickness)
    header = header_xml(
        geometry,
        slices=slices,
        coils=kspace.shape[1] if kspace.ndim == 4 else 1,
        acquisition=acquisition,
        repetition_time=repetition_time,
        echo_time=echo_time,
        inversion_time=inversion_time,
        field_strength=field_strength,
    )
    said: dict[str, Any] = {"acquisition": acquisition, "patient_id": patient_id}
    if target is not None:
        said["max"] = float(target.max())
        said["norm"] = float(np.linalg.norm(target))
    said |= {"synthetic": True, "notice": NOTICE, **(attributes or {})}

    path.parent.mkdir(parents=True, exist_ok=True)
    # A name without .h5 at its end, so that no reader takes a half-written file for a volume.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            file.create_dataset("ismrmrd_header", data=header)
            file.create_dataset(
                "kspace",
                data=kspace.astype(np.complex64, copy=False),
                chunks=chunks,
                compression=compression,
            )
            if target is not None:
                name = "reconstruction_rss" if kspace.ndim == 4 else "reconstruction_esc"
                file.create_dataset(
                    name,
                    data=target.astype(np.float32, copy=False),
                    chunks=True if chunks else None,
                    compression=compression,
                )
            if mask is not None:
                file.create_dataset("mask", data=mask.astype(bool, copy=False))
            file.attrs.update(said)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
