"""A scanner of one's own: the phantom as ISMRMRD files, line by line as a scanner measures it.

Each file has a noise scan, calibration lines, two averages, and slices in interleaved order, all of
which ``convert.ipynb`` has to undo.
"""

from pathlib import Path

import numpy as np

from workbench.stores.disk import replacing
from workbench_demo.phantom.acquisition import Scan, scan
from workbench_demo.phantom.brain import Brain
from workbench_demo.phantom.header import Geometry, header_xml

_AVERAGES = 2
_NOISE_LINES = 8
_CALIBRATION = 16  # lines about the centre, which are lines of the image as well
_NOISE = 0.02  # of an average, as a share of k-space's median magnitude


def write_scans(
    folder: Path, people: int, *, recon: int = 64, slices: int = 4, coils: int = 4
) -> list[Path]:
    """Write one scan of each of so many people; files that are there are kept.

    Args:
        folder: where a folder for each person is made.
        people: how many.
        recon: rows and columns of the image.
        slices: of each scan.
        coils: of each scan.
    """
    made = []
    for person in range(people):
        path = folder / f"person{person}" / "t2.mrd"
        if not path.exists():
            _write_scan(path, person, recon, slices, coils)
        made.append(path)
    return made


def _write_scan(path: Path, person: int, recon: int, slices: int, coils: int) -> None:
    import ismrmrd

    random = np.random.default_rng((7, person))
    body = Brain(random)
    width = 2 * round(1.08 * recon / 2)
    how = Scan("AXT2", slices, (recon, recon), width, (0, width), coils, 232.0, 60.0)
    kspace, _ = scan(body, how, random)
    thickness = round(body.coverage / slices, 3)
    geometry = Geometry(kspace.shape[-2:], (recon, recon), (0, width), (232.0, 232.0), thickness)
    header = header_xml(
        geometry,
        slices=slices,
        coils=coils,
        acquisition="AXT2",
        repetition_time=3000.0,
        echo_time=90.0,
    )
    level = np.float32(_NOISE * np.median(np.abs(kspace)))

    def noise(shape: tuple[int, ...]) -> np.ndarray:
        values = random.normal(size=(*shape, 2)).astype(np.float32)
        return level * values.view(np.complex64)[..., 0]

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        Path(new.name).unlink()  # the package makes the file itself
        file = ismrmrd.Dataset(new.name, "dataset")
        file.write_xml_header(header)
        for _ in range(_NOISE_LINES):
            line = ismrmrd.Acquisition.from_array(noise((coils, kspace.shape[-2])))
            line.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
            file.append_acquisition(line)
        order = [*range(0, slices, 2), *range(1, slices, 2)]
        for average in range(_AVERAGES):
            for column in range(width):
                for counter, number in enumerate(order):
                    values = kspace[number, :, :, column]
                    line = ismrmrd.Acquisition.from_array(values + noise(values.shape))
                    line.idx.kspace_encode_step_1, line.idx.average = column, average
                    # Scanners count slices as they measure them; where they lie is another matter.
                    line.idx.slice = counter
                    line.position[:] = (0.0, 0.0, thickness * number)
                    line.read_dir[:], line.phase_dir[:] = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
                    line.slice_dir[:] = (0.0, 0.0, 1.0)
                    line.center_sample = values.shape[-1] // 2
                    if abs(column - width // 2) < _CALIBRATION // 2:
                        line.setFlag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING)
                    file.append_acquisition(line)
        file.close()
