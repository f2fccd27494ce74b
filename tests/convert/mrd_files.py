"""Writes ISMRMRD files of a known image with the ismrmrd package."""

from pathlib import Path

import h5py
import ismrmrd
import numpy as np
from ismrmrd.hdf5 import acquisition_dtype

from tests.convert.reading import kspace_of

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientID>4711</patientID></subjectInformation>
 <acquisitionSystemInformation><systemVendor>{vendor}</systemVendor>
  <relativeReceiverNoiseBandwidth>0.8</relativeReceiverNoiseBandwidth>
  <receiverChannels>{coils}</receiverChannels></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63866218</H1resonanceFrequency_Hz>
 </experimentalConditions>
 {encodings}
 {user}
</ismrmrdHeader>"""
ENCODING = """<encoding>
  <encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>
   <fieldOfView_mm><x>400</x><y>200</y><z>{mm}</z></fieldOfView_mm></encodedSpace>
  <reconSpace><matrixSize><x>{recon_x}</x><y>{recon_y}</y><z>{recon_z}</z></matrixSize>
   <fieldOfView_mm><x>200</x><y>200</y><z>{mm}</z></fieldOfView_mm></reconSpace>
  <encodingLimits>
   <kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum>
    <center>{center}</center></kspace_encoding_step_1>
   <kspace_encoding_step_2><minimum>0</minimum><maximum>{last_z}</maximum>
    <center>{center_z}</center></kspace_encoding_step_2></encodingLimits>
  <trajectory>{trajectory}</trajectory>
  {parallel}
 </encoding>"""
PARALLEL = """<parallelImaging><accelerationFactor>
  <kspace_encoding_step_1>2</kspace_encoding_step_1><kspace_encoding_step_2>1</kspace_encoding_step_2>
  </accelerationFactor><calibrationMode>{mode}</calibrationMode>{more}</parallelImaging>"""
MULTIBAND = """<multiband><spacing><dZ>30</dZ></spacing><deltaKz>0</deltaKz>
 <multiband_factor>{factor}</multiband_factor><calibration>separable2D</calibration>
 <calibration_encoding>0</calibration_encoding></multiband>"""


def encoding(x=32, y=24, z=1, *, calibration="", multiband=1, **more):
    """Return the XML of an encoding."""
    said = {"recon_x": x // 2, "recon_y": y, "recon_z": z, "last": y - 1, "center": y // 2}
    said |= {"last_z": z - 1, "center_z": z // 2, "trajectory": "cartesian", "mm": 4 * z}
    parallel = ""
    if calibration or multiband > 1:
        extra = MULTIBAND.format(factor=multiband) if multiband > 1 else ""
        parallel = PARALLEL.format(mode=calibration or "other", more=extra)
    return ENCODING.format(**{"x": x, "y": y, "z": z, "parallel": parallel, **said, **more})


def header(coils=2, vendor="Maker", user="", encodings=None, **of_encoding):
    """Return the XML of a header."""
    inner = "".join(encodings or [encoding(**of_encoding)])
    return HEADER.format(coils=coils, vendor=vendor, user=user, encodings=inner)


def line(samples, flags=(), **head):
    """Make a line of samples (coils, readout); of the head and the counters by their names."""
    samples = np.ascontiguousarray(samples, np.complex64)
    traj = head.pop("traj", None)
    made = ismrmrd.Acquisition.from_array(samples, traj)
    plain = {"center_sample": samples.shape[1] // 2, "sample_time_us": 5.0, "slice_dir": (0, 0, 1)}
    for name, value in {**plain, **head}.items():
        if name in ("position", "read_dir", "slice_dir"):
            getattr(made, name)[:] = value
        elif hasattr(made.idx, name):
            setattr(made.idx, name, tuple(value) if name == "user" else value)
        else:
            setattr(made, name, value)
    for flag in flags:
        made.set_flag(flag)
    return made


def write(path, lines, xml=None, name="dataset"):
    """Write lines and a header as a measurement of a file, by the package's types, all at once."""
    table = np.zeros(len(lines), acquisition_dtype)
    for number, each in enumerate(lines):
        table[number]["head"] = np.frombuffer(each.getHead(), acquisition_dtype["head"])[0]
        table[number]["data"] = each.data.view(np.float32).ravel()
        table[number]["traj"] = each.traj.ravel()
    with ismrmrd.Dataset(str(path), name) as file:
        file.write_xml_header((xml or header()).encode())
    with h5py.File(path, "a") as file:
        file[name].create_dataset("data", data=table, maxshape=(None,), chunks=(16,))
    return Path(path)


def images(slices=1, coils=2, x=32, y=24, seed=0):
    """Return complex coil images (slices, coils, x, y) complex64: smooth, each another."""
    rng = np.random.default_rng(seed)
    across, along = np.mgrid[-1 : 1 : x * 1j, -1 : 1 : y * 1j]
    found = np.zeros((slices, coils, x, y), np.complex128)
    for number in range(slices):
        size = 0.4 + 0.3 * rng.random()
        body = (across**2 + (along / 0.9) ** 2 < size) * (1 + rng.random((x, y)))
        for coil in range(coils):
            a, b = rng.normal(size=2)
            heard = np.exp(-((across - a) ** 2) - (along - b) ** 2)
            found[number, coil] = body * heard * np.exp(1j * (a * across + b * along + 0.3))
    return found.astype(np.complex64)


def fft2(image):
    """Transform images to k-space, as a file holds it."""
    return kspace_of(image).astype(np.complex64)


def cartesian(kspace, steps=None, **more):
    """Return a line for each column of k-space (slices, coils, readout, phase encode)."""
    return [
        line(
            kspace[number, :, :, step],
            **{
                "kspace_encode_step_1": step,
                "slice": number,
                "position": (0, 0, 5.0 * number),
                **more,
            },
        )
        for step in (range(kspace.shape[-1]) if steps is None else steps)
        for number in range(len(kspace))
    ]
