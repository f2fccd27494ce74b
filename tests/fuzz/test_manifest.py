"""Whatever lies at ingest.json is read as an ingest wrote it, or said to be damaged."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from workbench.ingest.manifest import ArchiveRecord, Manifest, read_records
from workbench.stores import DiskStore

WHOLE = ArchiveRecord(
    source="knee_multicoil_val.tar.xz",
    object_path="/v2.0/knee_multicoil_val.tar.xz",
    size=1234,
    version='"tag"',
    state="unpacked",
    sha256="a" * 64,
    listed="a" * 64,
    check="verified",
    archive="knee_multicoil_val.tar.xz",
    members={"multicoil_val/a.h5": 5, "multicoil_val/b.h5": 0},
    digests={"multicoil_val/a.h5": "b" * 32},
    marks={"multicoil_val/a.h5": 10**18, "multicoil_val/b.h5": "0x8DC"},
)
TEXT = json.dumps({"version": 1, "archives": {"knee_multicoil_val": dict(WHOLE)}}).encode()
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def is_sound(tmp_path, text):
    """Read a manifest; whatever is believed of it can be used for what an ingest does with it."""
    (tmp_path / "ingest.json").write_bytes(text)
    manifest = Manifest(DiskStore(tmp_path))
    try:
        records = read_records(text)
    except ValueError:
        assert "is damaged" in manifest.problem
        assert manifest.members() == set()
        return
    assert not manifest.problem
    for stem, record in records.items():
        assert manifest.get(stem) == record
        assert isinstance(record.same_object(1, "x") and record.is_unpacked_for(None), bool)
        for path in record.members:
            assert not record.is_as_unpacked(manifest.folder, path, None)
            assert tmp_path in (tmp_path / path).parents
        if record.archive:
            assert (tmp_path / record.archive).parent == tmp_path
    manifest.update("new", WHOLE)
    assert read_records((tmp_path / "ingest.json").read_bytes()) == records | {"new": WHOLE}


@given(st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
def test_any_bytes_are_no_crash(tmp_path, text):
    is_sound(tmp_path, text)


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 20), st.binary(max_size=8))
def test_changed_manifest_is_sound_or_damaged(tmp_path, place, removed, put):
    is_sound(tmp_path, TEXT[:place] + put + TEXT[place + removed :])


@given(st.sampled_from(sorted(dict(WHOLE))), VALUES)
def test_field_of_any_type_is_sound_or_damaged(tmp_path, name, value):
    record = dict(WHOLE) | {name: value}
    is_sound(tmp_path, json.dumps({"version": 1, "archives": {"x": record}}).encode())


@given(st.text(), VALUES)
def test_member_of_any_path_and_size_is_sound_or_damaged(tmp_path, path, size):
    record = dict(WHOLE) | {"members": {path: size}, "digests": {}, "marks": {}}
    is_sound(tmp_path, json.dumps({"version": 1, "archives": {"x": record}}).encode())
