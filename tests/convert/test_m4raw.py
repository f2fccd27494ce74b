"""M4Raw: files of the published form, synthesised from a known image."""

import h5py
import numpy as np
import pytest

from tests.convert.reading import image_of, kspace_of, only_scan
from workbench.convert.plan import Ask, plan_conversion
from workbench.convert.run import convert
from workbench.convert.scan import RefusedError
from workbench.convert.write import write_scan
from workbench.data.cache import open_cache

SIZE, SLICES, COILS = 64, 2, 4
FIRST, END = 7, 56  # lines that hold something; the header says 8 to 55
HEADER = f"""<ns0:ismrmrdHeader xmlns:ns0="http://www.ismrm.org/ISMRMRD">
<ns0:studyInformation><ns0:studyUID>2022061003</ns0:studyUID></ns0:studyInformation>
<ns0:acquisitionSystemInformation><ns0:systemVendor> XinGaoYi Co.,Ltd.</ns0:systemVendor>
<ns0:systemFieldStrength_T>0.3</ns0:systemFieldStrength_T></ns0:acquisitionSystemInformation>
<ns0:encoding>
<ns0:encodedSpace><ns0:matrixSize><ns0:x>{SIZE}</ns0:x><ns0:y>{SIZE}</ns0:y><ns0:z>1</ns0:z>
</ns0:matrixSize></ns0:encodedSpace>
<ns0:reconSpace><ns0:matrixSize><ns0:x>{SIZE}</ns0:x><ns0:y>{SIZE}</ns0:y><ns0:z>1</ns0:z>
</ns0:matrixSize></ns0:reconSpace>
<ns0:encodingLimits><ns0:kspace_encoding_step_1><ns0:minimum>0</ns0:minimum>
<ns0:maximum>47</ns0:maximum><ns0:center>24</ns0:center></ns0:kspace_encoding_step_1>
</ns0:encodingLimits></ns0:encoding></ns0:ismrmrdHeader>"""


def known_kspace(seed=0):
    """Return centred k-space (slices, coils, readout, phase) of an image that lies unevenly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    body = (np.hypot(1.6 * y - 0.3, 1.3 * x + 0.2) < 0.7) * (1 + 0.4 * np.sin(9 * x + 7 * y))
    heard = np.stack([np.exp(-np.hypot(y - np.cos(c), x - np.sin(c)) + 1j * c) for c in range(4)])
    kspace = kspace_of(body * heard * (1 + 0.2 * rng.random((SLICES, 1, 1, 1)))) * 50
    kspace[..., :FIRST] = kspace[..., END:] = 0
    return kspace


def write(path, stored, acquisition="AXT2"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = stored.astype(np.complex64)
        file["ismrmrd_header"] = HEADER
        file["reconstruction_rss"] = np.zeros((SLICES, SIZE, SIZE), np.float32)
        file.attrs.update(acquisition=acquisition, max=1.0, patient_id="88448eec")


def test_repetitions_become_volumes_with_padding_from_zeros(tmp_path):
    kspace = {name: known_kspace(seed) for seed, name in enumerate(("T201", "T202", "FLAIR01"))}
    for name, values in kspace.items():
        off = 2 if name == "T201" else -3
        folder = tmp_path / "raw/multicoil_train"
        write(folder / f"2022061003_{name}.h5", np.roll(values, off, -2), f"AX{name[:-2]}")
    ask = Ask(tmp_path / "raw", tmp_path / "made", tmp_path / "private", scale=1e-6)
    plan = plan_conversion(ask)
    assert plan.refusals == ()
    assert list(convert(plan)) == []
    assert {item.scan.person for item in plan.items} == {"m4raw 2022061003"}
    made = open_cache(tmp_path / "made")
    assert made.counts == {"train": (3, 3 * SLICES)}
    for item in plan.items:
        name = item.source[:-3].rpartition("_")[2]
        (volume,) = (each for each in made if each.path == item.path)
        assert volume.acquired == (FIRST, END)
        assert volume.attributes["repetition"] == int(name[-2:])
        expected = kspace[name] * 1e-6
        with h5py.File(made.file(volume)) as file:
            largest = np.abs(expected).max()
            np.testing.assert_allclose(file["kspace"][()], expected, rtol=0, atol=1e-5 * largest)
            image = image_of(expected)
            target = file["reconstruction_rss"][()]
            np.testing.assert_allclose(target, image, rtol=0, atol=1e-5 * image.max())
        content = made.file(volume).read_bytes()
        assert b"2022061003" not in content
        assert b"XinGaoYi" not in content


def test_gradient_echoes_are_turned_like_the_others(tmp_path):
    """Stored with the readout last, 11 samples off, and mirrored along the phase encode."""
    kspace = known_kspace()
    mirrored = np.roll(np.flip(kspace, -1), 1, -1)
    write(tmp_path / "2022061003_GRE01.h5", np.roll(np.swapaxes(mirrored, -1, -2), 11, -1), "AXGRE")
    scan = only_scan(tmp_path / "2022061003_GRE01.h5")
    (values,) = scan.read((1,))
    np.testing.assert_allclose(values, kspace[1], rtol=0, atol=1e-5 * np.abs(kspace).max())
    assert scan.header.acquired == (FIRST, END)
    assert any("exchanged" in remark for remark in scan.remarks)


def test_missing_lines_inside_leave_a_mask_and_no_target(tmp_path):
    kspace = known_kspace()
    kspace[..., [10, 12]] = 0
    write(tmp_path / "2022061003_T101.h5", kspace)
    scan = only_scan(tmp_path / "2022061003_T101.h5")
    assert not scan.target
    assert np.flatnonzero(~scan.sampled[FIRST:END]).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("columns", "message"),
    [([20], "holds other columns in slice 1 than in its"), (slice(None), "zeros in slice 1, as")],
)
def test_a_slice_that_lacks_what_others_have_is_refused(tmp_path, columns, message):
    kspace = np.concatenate([known_kspace()] * 3)
    kspace[1, ..., columns] = 0
    write(tmp_path / "2022061003_T101.h5", kspace)
    with pytest.raises(RefusedError, match=message):
        list(write_scan(only_scan(tmp_path / "2022061003_T101.h5"), tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kspace: np.roll(kspace, 15, -2), "strongest lines 15 and 0 samples beside"),
        (lambda kspace: kspace * 0, "nothing but zeros"),
        (lambda kspace: kspace[..., :-2], "k-space of 64x62, not of its header's 64x64"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    write(tmp_path / "2022061003_T101.h5", change(known_kspace()))
    with pytest.raises(RefusedError, match=message):
        only_scan(tmp_path / "2022061003_T101.h5")
