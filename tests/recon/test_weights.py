"""Files of weights as people bring them: other programs' forms, damaged, hostile."""

import argparse
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from fastmri.models import VarNet as ReferenceVarNet

from tests.recon.conftest import SMALL
from workbench.recon.weights import load_network, require_checkpoint


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return dict(ReferenceVarNet(**SMALL).state_dict())


def loads(content, state, path, **options):
    torch.save(content, path, **options)
    loaded = load_network(path).state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[k], state[k]) for k in state)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "varnet.", "varnet.module.", "network."),
        *("_orig_mod.module.", "module._orig_mod.model.varnet.", "net.e2e.", "module.module."),
    ],
)
@pytest.mark.parametrize("under", ["state_dict", "model", "model_state_dict", "a.b.c", ""])
def test_weights_are_found_under_any_prefix(prefix, under, state, tmp_path):
    content = {f"{prefix}{name}": value for name, value in state.items()} | {
        "loss.w": torch.ones(1),
        "epoch": 3,
    }
    for key in reversed(under.split(".") if under else []):
        content = {key: content, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    assert loads(content, state, tmp_path / "weights.pt")


def test_parts_that_were_compiled_or_wrapped_alone_are_found(state, tmp_path):
    content = {name.replace(".unet.", "._orig_mod.unet.module."): v for name, v in state.items()}
    assert loads(content, state, tmp_path / "weights.pt")


class Callback:
    """A class of the program that wrote the checkpoint."""


class Attributes(dict):
    pass


def lightning_before_1_5(state):
    return {
        "epoch": 49,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": {f"varnet.{name}": value for name, value in state.items()},
        "callbacks": {Callback: {"best_model_score": torch.ones(1), "best_model_path": "x"}},
        "hyper_parameters": Attributes(
            lr=np.float64(3e-4),
            root=pathlib.PosixPath("/data"),
            args=argparse.Namespace(gpus=2, path=pathlib.PosixPath("/x")),
            arrays=np.arange(3),
            kinds={Callback(), frozenset([1])},
            device=torch.device("cpu"),
            dtype=torch.float32,
            complex=1j,
            call=os.system,
        ),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False])
def test_checkpoint_of_old_lightning_is_loaded(protocol, archive, state, tmp_path):
    assert loads(
        lightning_before_1_5(state),
        state,
        tmp_path / "old.ckpt",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=archive,
    )


def test_checkpoint_whose_classes_are_gone_is_loaded(state, tmp_path):
    module = types.ModuleType("gone")
    module.Gone = type("Gone", (), {"__module__": "gone"})
    sys.modules["gone"] = module
    content = {"state_dict": state, "callbacks": {module.Gone: module.Gone()}}
    torch.save(content, tmp_path / "gone.ckpt")
    del sys.modules["gone"]
    load_network(tmp_path / "gone.ckpt")


def test_parameters_and_shared_and_transposed_tensors_are_loaded(state, tmp_path):
    content = {name: torch.nn.Parameter(value) for name, value in state.items()}
    assert loads(content, state, tmp_path / "parameters.pt")
    flat = torch.cat([value.flatten() for value in state.values()])
    parts = flat.split([value.numel() for value in state.values()])
    views = {name: part.view(state[name].shape) for name, part in zip(state, parts, strict=True)}
    for archive in (True, False):
        assert loads(views, state, tmp_path / "views.pt", _use_new_zipfile_serialization=archive)
    turned = {n: v.transpose(0, -1).contiguous().transpose(0, -1) for n, v in state.items()}
    assert loads(turned, state, tmp_path / "turned.pt")


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("archive", [True, False, None])
def test_no_code_of_a_file_runs(archive, state, tmp_path):
    mark = tmp_path / "mark"
    hostile = [
        Hostile(os.system, f"touch {mark}"),
        Hostile(exec, f"open({str(mark)!r}, 'w')"),
        Hostile(eval, f"open({str(mark)!r}, 'w')"),
        Hostile(pathlib.Path.write_text, mark, ""),
        Hostile(torch.load, str(mark)),
    ]
    content = {"state_dict": state, "callbacks": hostile}
    path = tmp_path / "hostile.pt"
    if archive is None:
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match="pickle, but none of torch's"):
            load_network(path)
    else:
        assert loads(content, state, path, _use_new_zipfile_serialization=archive)
    assert not mark.exists()


@pytest.mark.parametrize("archive", [True, False])
def test_whole_network_that_was_pickled_names_its_class(archive, tmp_path):
    network, path = ReferenceVarNet(**SMALL), tmp_path / "whole.pt"
    torch.save(network, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ValueError, match=r"fastmri\.models\.varnet\.VarNet.*state_dict"):
        load_network(path)


@pytest.mark.filterwarnings("ignore:.*used as float32")
def test_weights_that_do_not_fit_say_which_and_how(state, tmp_path):
    cascade = "cascades.1.model.unet.up_conv.1.1.weight"
    for changed, message in (
        ({cascade: torch.ones(2, 4, 1, 1)}, rf"{cascade} has the shape \(2, 4, 1, 1\), expected"),
        ({cascade: None}, f"{cascade} is missing"),
        ({"cascades.0.model.attention.weight": torch.ones(1)}, "attention.weight has no place"),
        ({"cascades.3.dc_weight": torch.ones(1)}, r"cascades\.2 is missing"),
        ({cascade: state[cascade].char()}, f"{cascade} is torch.int8"),
        ({cascade: state[cascade].numpy()}, f"{cascade} is .*expected a tensor"),
        ({cascade: state[cascade] * torch.nan}, f"not finite, first in {cascade}"),
        ({cascade: state[cascade].double() * 1e300}, f"not finite, first in {cascade}"),
        ({f"ema.{name}": value for name, value in state.items()}, "several networks"),
    ):
        content = {name: v for name, v in (state | changed).items() if v is not None}
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(ValueError, match=message):
            load_network(tmp_path / "weights.pt")


def test_weights_of_another_network_or_with_other_numbers_than_asked_for_are_refused(
    state, tmp_path
):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    assert load_network(path, "varnet").name == "varnet"
    with pytest.raises(ValueError, match=r"network='unet': .*weights\.pt holds .* of a VarNet"):
        load_network(path, "unet")
    with pytest.raises(ValueError, match="cascades: the numbers of a VarNet are those of its wei"):
        load_network(path, options={"cascades": 3})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_weights_become_float32_with_a_word(dtype, state, tmp_path):
    torch.save({name: value.to(dtype) for name, value in state.items()}, tmp_path / "w.pt")
    with pytest.warns(UserWarning, match=str(dtype).removeprefix("torch.")):
        network = load_network(tmp_path / "w.pt")
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name].to(dtype).float())


DAMAGE = {
    "empty": (lambda whole: b"", "is empty"),
    "zeros": (lambda whole: bytes(len(whole)), "zeros at its start"),
    "cut short": (lambda whole: whole[: len(whole) // 2], "damaged or cut short"),
    "HTML": (lambda whole: b"\n<!DOCTYPE html><html>login</html>", "web page"),
    "text": (lambda whole: b"not weights", "not a file of weights"),
    "zip": (lambda whole: b"PK\5\6" + bytes(18), "zip archive, but none of torch's"),
    "HDF5": (lambda whole: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "LFS": (lambda whole: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "pickle": (lambda whole: pickle.dumps({"a": 1}), "pickle, but none of torch's"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_named_with_a_remedy_and_without_torchs_advice(
    damage, message, state, tmp_path
):
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save(state, path)
    path.write_bytes(damage(path.read_bytes()))
    for read in (load_network, require_checkpoint):
        with pytest.raises(ValueError, match=message) as found:
            read(path)
        assert "last.ckpt is" in str(found.value)
        assert "copy best.ckpt over it" in str(found.value)
        assert "weights_only" not in str(found.value)


def test_no_flipped_bit_loads_other_weights(state, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for place, bit in zip(
        random.integers(len(whole), size=300), random.integers(8, size=300), strict=True
    ):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            loaded = load_network(path).state_dict()
        except ValueError as error:
            messages.append(str(error))
        else:
            assert all(torch.equal(loaded[name], state[name]) for name in state)
    assert len(messages) > 100
    assert all("weights.pt is" in message for message in messages)


def test_file_without_checksums_and_one_that_was_compressed_are_loaded(state, tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        assert loads(state, state, tmp_path / "none.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    torch.save(state, tmp_path / "whole.pt")
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as whole,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in whole.namelist():
            small.writestr(name, whole.read(name))
    load_network(tmp_path / "small.pt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_program_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(ValueError, match="TorchScript"):
        load_network(tmp_path / "script.pt")


def test_claims_of_a_damaged_file_take_no_memory(tmp_path):
    claims = (
        b"\x80\x02Kar\xff\xff\xff\x7f.",  # the object of number 2^31
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",  # a text of 2^60 bytes
    )
    paths = [tmp_path / f"claims{number}.pt" for number in range(len(claims))]
    for path, claim in zip(paths, claims, strict=True):
        path.write_bytes(claim)
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from workbench.recon.torch_file import read_torch_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: read_torch_file(Path(path))\n"
        "    except ValueError: pass\n"
        "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000\n"
    )
    subprocess.run([sys.executable, "-c", script, *paths], check=True)


def test_archive_that_unpacks_to_far_more_than_weights_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("a/data.pkl", bytes(65 << 20))
    with pytest.raises(ValueError, match=r"bomb\.pt is a zip archive of far more than"):
        load_network(path)


def test_tensor_of_more_values_than_were_stored_is_refused(state, tmp_path):
    state["extra"] = torch.zeros(1).expand(1 << 40)
    path = tmp_path / "repeats.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"repeats\.pt is damaged"):
        load_network(path)
