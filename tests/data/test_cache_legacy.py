"""fastMRI's own cache: written so that fastMRI uses it, read as data and nothing else."""

import pickle
from pathlib import Path, PosixPath

import numpy as np
import pytest
from fastmri.data import CombinedSliceDataset, SliceDataset
from fastmri.data.mri_data import FastMRIRawDataSample

from workbench.data.cache import build_cache
from workbench.data.legacy_cache import PickleRefusedError, compare, read_pickle, write_pickle


def reference_pickle(dataset, place, folders=("multicoil_train", "multicoil_val")):
    """The file as fastMRI itself writes it."""
    CombinedSliceDataset(
        [dataset / folder for folder in folders],
        ["multicoil"] * len(folders),
        use_dataset_cache=True,
        dataset_cache_file=place,
    )
    return place


def test_fastmri_uses_the_pickle_and_reads_no_file_for_it(dataset, tmp_path, monkeypatch):
    place = write_pickle(build_cache(dataset), tmp_path / "dataset_cache.pkl")
    folders = [path for path in dataset.iterdir() if path.is_dir()]
    direct = {folder: SliceDataset(folder, "multicoil").raw_samples for folder in folders}

    def refuse(self, fname):
        raise AssertionError(f"fastMRI read {fname} in spite of the cache")

    monkeypatch.setattr(SliceDataset, "_retrieve_metadata", refuse)
    content = place.read_bytes()
    for folder in folders:
        for root in (folder, str(folder)):
            cached = SliceDataset(
                root, "multicoil", use_dataset_cache=True, dataset_cache_file=place
            )
            assert cached.raw_samples == direct[folder]
            assert cached[0][3]["padding_right"] == direct[folder][0].metadata["padding_right"]
    assert place.read_bytes() == content


def test_the_pickle_can_be_written_for_another_mount(dataset, tmp_path):
    place = tmp_path / "dataset_cache.pkl"
    write_pickle(build_cache(dataset), place, data_path="/mnt/brain")
    with place.open("rb") as file:
        document = pickle.load(file)
    samples = document[PosixPath("/mnt/brain/multicoil_val")]
    assert samples is document["/mnt/brain/multicoil_val"]
    assert samples[0].fname == PosixPath("/mnt/brain/multicoil_val/file10.h5")
    assert [sample.slice_ind for sample in samples] == [0, 1, 0, 1, 2]


def test_a_pickle_that_is_there_is_kept_and_an_empty_selection_not_written(dataset, tmp_path):
    place = tmp_path / "dataset_cache.pkl"
    place.write_bytes(b"precious")
    cache = build_cache(dataset)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_pickle(cache, place)
    with pytest.raises(ValueError, match="no volumes to list"):
        write_pickle(cache.split("challenge"), place, overwrite=True)
    assert place.read_bytes() == b"precious"
    write_pickle(cache, place, overwrite=True)
    assert len(read_pickle(place)) == 6


def test_what_fastmri_wrote_is_read_and_agrees_with_the_dataset(dataset, tmp_path):
    listed = read_pickle(reference_pickle(dataset, tmp_path / "dataset_cache.pkl"))
    assert [volume.path.parts[-2:] for volume in listed] == [
        ("multicoil_train", "file0.h5"),
        ("multicoil_train", "file1.h5"),
        ("multicoil_train", "file2.h5"),
        ("multicoil_val", "file10.h5"),
        ("multicoil_val", "file11.h5"),
    ]
    assert listed[4].slices == (0, 1, 2)
    assert type(listed[0].metadata["max"]) is float
    assert compare(listed, build_cache(dataset)) == ()
    assert compare(listed[3:], build_cache(dataset / "multicoil_val")) == ()


def test_differences_are_named(dataset, tmp_path, make_volume):
    place = reference_pickle(dataset, tmp_path / "dataset_cache.pkl")
    (dataset / "multicoil_train/file0.h5").unlink()
    make_volume(dataset / "multicoil_train/file1.h5", slices=5)
    make_volume(dataset / "multicoil_train/file2.h5", acquisition="AXFLAIR", acquired=(3, 13))
    make_volume(dataset / "multicoil_val/file12.h5")
    found = {p.path: p.reason for p in compare(read_pickle(place), build_cache(dataset))}
    assert found == {
        "multicoil_train/file0.h5": "listed by the pickle, not here",
        "multicoil_train/file1.h5": "the pickle lists 2 slices, the file has 5",
        "multicoil_train/file2.h5": "padding_left is 2 in the pickle, 3 in the file",
        "multicoil_val/file12.h5": "here, not listed by the pickle",
    }


def test_a_pickle_of_a_part_shows_as_such(dataset, tmp_path):
    place = tmp_path / "dataset_cache.pkl"
    SliceDataset(
        dataset / "multicoil_val",
        "multicoil",
        use_dataset_cache=True,
        dataset_cache_file=place,
        raw_sample_filter=lambda sample: sample.slice_ind > 0,
    )
    reasons = [p.reason for p in compare(read_pickle(place), build_cache(dataset))]
    assert reasons == [
        "the pickle lists 1 slices, the file has 2",
        "the pickle lists 2 slices, the file has 3",
    ]


def test_numpy_scalars_windows_paths_and_plain_tuples_are_read(tmp_path):
    metadata = {
        "max": np.float32(0.25),
        "big": np.dtype(">f8").type(1.5),
        "count": np.int64(7),
        "flag": np.True_,
        "text": np.str_("AXT2"),
    }
    document = {"C:/data/multicoil_val": [("C:/data/multicoil_val/file1.h5", 0, metadata)]}
    place = tmp_path / "dataset_cache.pkl"
    # As a Windows machine and NumPy 1 would have written it.
    content = pickle.dumps(document, protocol=3).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    place.write_bytes(content)
    (volume,) = read_pickle(place)
    assert volume.path.parts[-2:] == ("multicoil_val", "file1.h5")
    assert volume.metadata == {"max": 0.25, "big": 1.5, "count": 7, "flag": True, "text": "AXT2"}
    windows = pickle.dumps({"x": [(Path("data/multicoil_val/file1.h5"), 0, {})]}, protocol=3)
    place.write_bytes(windows.replace(b"PosixPath", b"WindowsPath"))
    assert read_pickle(place)[0].path.parts[-2:] == ("multicoil_val", "file1.h5")


class Attack:
    def __init__(self, call, *arguments):
        self.reduced = call, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        (eval, ("open('MARK', 'w').close()",), r"(__builtin__|builtins)\.eval"),
        (getattr, ("", "join"), r"(__builtin__|builtins)\.getattr"),
        (open, ("MARK", "w"), r"_?io\.open"),
        (
            Path.touch,
            (Path("MARK"),),
            r"(__builtin__|builtins)\.getattr|pathlib(\._local)?\.Path\.touch",
        ),
        (np.load, ("MARK",), "numpy"),
    ],
    ids=["eval", "getattr", "open", "touch", "numpy.load"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_named_and_runs_nothing(
    tmp_path, monkeypatch, call, arguments, named, protocol
):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "dataset_cache.pkl"
    metadata = {"max": Attack(call, *arguments)}
    document = {"x": [FastMRIRawDataSample("x/file1.h5", 0, metadata)]} if protocol else metadata
    place.write_bytes(pickle.dumps(document, protocol=protocol))
    with pytest.raises(PickleRefusedError, match=f"is refused: it asks for ({named})"):
        read_pickle(place)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset_cache.pkl"]


def test_numpy_objects_are_refused(tmp_path):
    place = tmp_path / "dataset_cache.pkl"
    place.write_bytes(pickle.dumps({"x": [("f", 0, {"d": np.dtype("O")})]}))
    with pytest.raises(PickleRefusedError, match="NumPy values of type 'O8'"):
        read_pickle(place)
    place.write_bytes(pickle.dumps({"x": [("f", 0, {"d": np.ones(2)})]}))
    with pytest.raises(PickleRefusedError, match=r"asks for numpy\._core\.\w+\._?\w+"):
        read_pickle(place)


@pytest.mark.parametrize(
    "document",
    [[], 5, None, {"x": 5}, {"x": [(1, 2)]}, {"x": [("f", "no number", {})]}, {"x": [(5, 0, {})]}],
)
def test_another_pickle_is_no_dataset_cache(tmp_path, document):
    place = tmp_path / "dataset_cache.pkl"
    place.write_bytes(pickle.dumps(document))
    with pytest.raises(PickleRefusedError, match="is no dataset cache of fastMRI's"):
        read_pickle(place)


def test_a_damaged_pickle_is_refused_and_a_missing_one_missed(tmp_path):
    place = tmp_path / "dataset_cache.pkl"
    for content in (b"", b"hello", b"\x80\x04\x95"):
        place.write_bytes(content)
        with pytest.raises(PickleRefusedError, match="is no pickle that can be read"):
            read_pickle(place)
    with pytest.raises(FileNotFoundError):
        read_pickle(tmp_path / "missing.pkl")


def test_every_damaged_byte_of_a_real_pickle_is_survived(dataset, tmp_path):
    place = write_pickle(build_cache(dataset), tmp_path / "dataset_cache.pkl")
    content = place.read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(len(content), size=200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(random.integers(8))
        place.write_bytes(damaged)
        try:
            assert isinstance(read_pickle(place), tuple)
        except PickleRefusedError:
            continue
