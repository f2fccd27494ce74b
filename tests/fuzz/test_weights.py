"""Whatever is given as weights is loaded as it was saved or refused by name, and runs no code."""

import io
import pickle
import zipfile

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.models import VarNet
from workbench.recon.weights import load_network

STATE = VarNet(1, 1, 1, 1, 1).state_dict()
FORMS = {}
for form in (True, False):
    saved = io.BytesIO()
    torch.save(STATE, saved, _use_new_zipfile_serialization=form)
    FORMS[form] = saved.getvalue()
PIECES = st.sampled_from(
    [
        *(b"\x80\x02", b"}", b"]", b"(", b")", b"q\x00", b"h\x00", b"t", b"R", b"b", b"s", b"u"),
        *(b"K\x01", b"X\x01\x00\x00\x00a", b"\x85", b"\x86", b"\x81", b"Q", b"a", b"e", b"0"),
        *(
            b"ctorch\nFloatStorage\n",
            b"cos\nsystem\n",
            b"cbuiltins\nexec\n",
            b"ccollections\nOrderedDict\n",
        ),
        *(
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"ctorch\nFloatStorage\n",
            b"cbuiltins\ngetattr\n",
        ),
    ]
)


def refused(path):
    try:
        load_network(path)
    except ValueError as error:
        return str(error).startswith(str(path)) and "weights_only" not in str(error)
    return False


@given(st.integers(0, len(FORMS[True]) - 1), st.integers(1, 255))
@example(FORMS[True].rfind(b"PK\6\6") + 49, 64)  # where the archive's directory begins
def test_changed_byte_loads_the_same_weights_or_is_refused(tmp_path, place, change):
    content = bytearray(FORMS[True])
    content[place] ^= change
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    if not refused(path):
        loaded = load_network(path).state_dict()
        assert all(torch.equal(loaded[name], STATE[name]) for name in STATE)


@given(st.sampled_from([True, False]), st.data())
def test_file_that_ends_early_is_refused(tmp_path, form, data):
    path = tmp_path / "weights.pt"
    path.write_bytes(FORMS[form][: data.draw(st.integers(0, len(FORMS[form]) - 1))])
    assert refused(path)


@given(st.lists(PIECES | st.binary(max_size=3), max_size=40).map(b"".join))
@example(b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00a\x85R.")
def test_any_pickle_is_refused_by_name(tmp_path, pickled):
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled + b".")
    assert refused(path)
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001)))
    with path.open("ab") as file:
        file.write(pickle.dumps({"little_endian": True}, 2) + pickled + b".")
    assert refused(path)


def test_the_files_that_are_changed_are_whole(tmp_path):
    for content in FORMS.values():
        (tmp_path / "weights.pt").write_bytes(content)
        assert load_network(tmp_path / "weights.pt").state_dict().keys() == STATE.keys()
    with pytest.raises(FileNotFoundError):
        load_network(tmp_path / "none.pt")
