"""A network and a loss of one's own: named, checked, trained, loaded, shown."""

import json
import pickle
import re
import sys
from pathlib import Path

import pytest
import torch
from fastmri.models import VarNet as ReferenceVarNet

import workbench
from tests.recon.conftest import SMALL, made
from workbench.compute.jobs import TrainingJob, training_job, try_own_code
from workbench.compute.runs import prepare_run
from workbench.compute.training import plan_training
from workbench.models import build, find_network, label_of
from workbench.pages.train import TrainPage
from workbench.recon.orders import order_of_run
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.run import fit
from workbench.settings import notebooks

CODE = '''
import torch
from fastmri import complex_abs, ifft2c, rss
from torch import nn

class Denoiser(nn.Module):
    """Zero-filled image, improved by some convolutions."""
    def __init__(self, depth=2, width=4, norm="none", *, activation=nn.ReLU):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.layers = nn.ModuleList(
            nn.Conv2d(1 if n == 0 else width, 1 if n == depth - 1 else width, 3, padding=1)
            for n in range(depth))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, masked_kspace, mask, num_low_frequencies):
        image = rss(complex_abs(ifft2c(masked_kspace)), dim=1)
        scale = image.amax((1, 2), keepdim=True) + 1e-12
        correction = (image / scale)[:, None]
        for layer in self.layers:
            correction = layer(torch.relu(correction))
        return image * self.factor + 0.01 * scale * correction[:, 0]

class Wrong(Denoiser):
    def forward(self, masked_kspace, mask, num_low_frequencies):
        return super().forward(masked_kspace, mask, num_low_frequencies)[:, None]

class Fails(Denoiser):
    def forward(self, masked_kspace, mask):
        return masked_kspace

class Frozen(Denoiser):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)

class Asks(nn.Module):
    def __init__(self, chans):
        super().__init__()

class Clashes(Denoiser):
    def __init__(self, lr=1.0):
        super().__init__()

def l1(output, target, max_value):
    return ((output - target).abs().mean((1, 2)) / max_value).mean()

class L2(nn.Module):
    def forward(self, output, target, max_value):
        return ((output - target) ** 2).mean() / max_value.mean() ** 2

def of_each(output, target, max_value):
    return (output - target).abs().mean((1, 2))

def constant(output, target, max_value):
    return torch.tensor(1.0)

number = 3
'''


@pytest.fixture
def own(project, request):
    """The name of a module in the project's folder that holds CODE."""
    name = f"own_{abs(hash(request.node.name))}"
    (project / f"{name}.py").write_text(CODE)
    before = list(sys.path)
    yield name
    sys.path[:] = before
    sys.modules.pop(name, None)


def test_own_network_and_loss_train_reconstruct_and_load(own, study, project):
    job = training_job(
        study, synthetic=False, model="brain", name="mine", epochs=2, network=f"{own}:Denoiser",
        network_options="depth=3", loss=f"{own}:l1",
    )  # fmt: skip
    assert str(job.config) == f"{own}:Denoiser(depth=3, width=4, norm='none')"
    run = prepare_run(job, resume=True)
    fit(job, run.folder)
    assert run.finished
    results = made(plan_reconstruction(run="mine"))
    assert {each.network for each in results} == {f"{own}:Denoiser"}
    model = workbench.load_model("outputs/mine")
    assert len(model.own.layers) == 3
    sample = workbench.SliceDataset(workbench.open_dataset(study).split("val"), job.sampling)[0]
    image = workbench.reconstruct(model, sample)
    assert (image == results[0].image(0)).all()
    assert plan_reconstruction(run="mine").order.volumes == ()
    assert plan_reconstruction(run="mine", network_options="norm='batch'").order.volumes != ()
    # Of changed code the weights reconstruct something else.
    changed = CODE.replace("0.01 * scale", "0.02 * scale")
    (project / f"{own}.py").write_text(changed)
    plan = plan_reconstruction(run="mine")
    assert len(plan.order.volumes) == len(results)
    assert f"the code of {own}:Denoiser has changed since these weights learned" in str(plan)
    with pytest.warns(UserWarning, match=f"the code of {own}:Denoiser has changed since"):
        workbench.load_model("outputs/mine")
    # The ranks of a training have imported the code that it began with.
    assert order_of_run(run, "val", plan.cache)[0].volumes == ()
    (project / f"{own}.py").write_text(CODE)
    assert plan_reconstruction(run="mine").order.volumes == ()
    # Weights that were exported by hand, named for whoever loads them.
    torch.save(model.own.state_dict(), project / "exported.pt")
    named = {"network": f"{own}:Denoiser", "options": {"depth": 3}}
    again = workbench.load_model("exported.pt", **named)
    assert (workbench.reconstruct(again, sample) == image).all()
    of_page = {"network": f"{own}:Denoiser", "network_options": "depth=3"}
    by_page = plan_reconstruction(weights="exported.pt", local_dataset=str(study), **of_page)
    assert (made(by_page)[0].image(0) == image).all()
    with pytest.raises(ValueError, match=r"layers\.1\.weight has the shape .* give options"):
        workbench.load_model("exported.pt", network=f"{own}:Denoiser")
    with pytest.raises(ValueError, match=r"layers\.2\.weight has the shape \(1, 4, 3, 3\)"):
        workbench.load_model("exported.pt", network=f"{own}:Denoiser", options={"depth": 4})
    # Without the module what is finished still opens, and says what made it.
    (project / f"{own}.py").unlink()
    sys.modules.pop(own)
    assert workbench.Results("outputs/mine").labels["reconstruction"] == "Denoiser"
    assert workbench.Run("outputs/mine").job == job
    with pytest.raises(ValueError, match=f"no module is called {own}: put its file"):
        workbench.load_model("outputs/mine")


@pytest.mark.parametrize("part", ["network", "loss"])
def test_a_training_does_not_go_on_with_changed_code(part, own, study, project):
    def plan(epochs):
        names = {"network": f"{own}:Denoiser", "loss": f"{own}:l1"}
        choices = {"name": "mine", "epochs": epochs, part: names[part], "target": "local"}
        return plan_training(model="brain", local_dataset=str(study), **choices)

    planned = plan(1)
    fit(planned.job, planned.run.folder)
    assert planned.run.finished
    before = "0.01 * scale" if part == "network" else "max_value).mean()"
    (project / f"{own}.py").write_text(CODE.replace(before, f"2 * {before}"))
    name = planned.job.parameters[part]
    with pytest.raises(ValueError, match=rf"another job \(the code of {name} has changed\)"):
        plan(2)
    (project / f"{own}.py").write_text(CODE)
    assert plan(2).run.last.exists()
    # A run of an earlier version does not say what its code was.
    job = json.loads((planned.run.folder / "job.json").read_text())
    (planned.run.folder / "job.json").write_text(json.dumps({**job, "code": {}}))
    (project / f"{own}.py").write_text(CODE.replace(before, f"2 * {before}"))
    assert plan(2).run.last.exists()


@pytest.mark.parametrize("places", [("model", "ema"), ("net.", "teacher.")])
def test_two_sets_of_weights_in_one_file_are_not_chosen_from(own, project, places):
    """Weights beside their average, or a student's beside its teacher's."""
    name = f"{own}:Denoiser"
    state = build(name, find_network(name).config()).own.state_dict()
    other = {key: value + 1 for key, value in state.items()}
    if places[0] == "model":
        content = dict(zip(places, (state, other), strict=True))
    else:
        both = zip(places, (state, other), strict=True)
        content = {f"{place}{key}": v for place, each in both for key, v in each.items()}
    torch.save(content, project / "two.pt")
    with pytest.raises(ValueError, match=r"two\.pt holds the weights of several networks"):
        workbench.load_model("two.pt", network=name)


def test_fastmri_s_varnet_is_a_network_like_any_other(project, released):
    reference, path = released
    names = {"chans": 3, "pools": 2, "num_cascades": 2, "sens_chans": 2, "sens_pools": 1}
    model = workbench.load_model(path, network="fastmri.models:VarNet", options=names)
    assert isinstance(model.own, ReferenceVarNet)
    assert names == SMALL
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    assert all((a == b).all() for a, b in pairs)
    assert label_of("fastmri.models:VarNet") == "VarNet"


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"network": "nowhere.at_all:Net"}, "network='nowhere.at_all:Net': no module is called"),
        ({"network": "OWN:Nothing"}, "OWN has no Nothing"),
        ({"network": "OWN:number"}, "is int: give a class of torch.nn.Module"),
        ({"network": "OWN:l1"}, "is function: give a class of torch.nn.Module"),
        ({"network": "OWN:Asks"}, "argument chans has no default"),
        ({"network": "OWN:Clashes"}, "its argument lr is a parameter of the training already"),
        ({"network": "OWN:Wrong"}, r"returns \(1, 1, 64, 64\): return a real image"),
        ({"network": "OWN:Fails"}, r"fails on masked_kspace \(1, 3, 64, 64, 2\).*TypeError"),
        ({"network": "OWN:Frozen"}, "no gradient reaches its weights"),
        ({"network": "OWN:Denoiser", "network_options": "deep=3"}, "no argument deep; it has"),
        ({"network": "OWN:Denoiser", "network_options": "depth=x"}, "depth='x': give int"),
        ({"network": "OWN:Denoiser", "precision": "bf16"}, "precision=bf16: Denoiser cannot"),
        ({"network": "OWN:Denoiser", "crop_readout": True}, "crop_readout=True: Denoiser cannot"),
        ({"network": "__main__:Net"}, "lives in a notebook"),
        (
            {"loss": "OWN.l1"},
            "give one of ssim, l1, mse, ssim_l1, edge, or package.module:function",
        ),
        ({"loss": "OWN:number"}, "is int: give a function"),
        ({"loss": "OWN:of_each"}, r"returns \(2,\): return one number"),
        ({"loss": "OWN:constant"}, "no gradient reaches the output"),
        ({"loss": "os:getcwd"}, r"loss='os:getcwd' fails on output \(2, 64, 64\)"),
    ],
    ids=str,
)
def test_what_does_not_do_is_refused_before_the_dataset_is_opened(own, choices, message):
    given = {k: v.replace("OWN", own) if isinstance(v, str) else v for k, v in choices.items()}
    with pytest.raises(ValueError, match=message.replace("OWN", own)):
        plan_training(model="brain", target="local", local_dataset="/nowhere", **given)


def test_an_import_that_fails_says_where(own, project):
    (project / f"{own}.py").write_text("import numpie\n")
    with pytest.raises(ValueError, match=f"{own} imports numpie, which is not installed"):
        training_job("d", synthetic=False, model="brain", network=f"{own}:Net")
    (project / f"{own}.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match="fails: ZeroDivisionError"):
        training_job("d", synthetic=False, model="brain", network=f"{own}:Net")


def test_the_form_checks_names_without_importing(own):
    values = {name: each.default for name, each in TrainPage.fields.items()}
    asked = TrainPage.of(values | {"network": f"{own}:Denoiser", "loss": f"{own}:l1"})
    assert f"-r network {own}:Denoiser" in asked.command()
    assert own not in sys.modules
    for choice, message in (
        ({"network": "gan"}, "network='gan': give one of varnet, .*or package.module:MyNetwork"),
        ({"network": "missing_one:Net"}, "no module is called missing_one"),
        ({"loss": "missing_one:Net"}, "no module is called missing_one"),
        ({"loss": "l3"}, "loss='l3': give one of ssim, l1"),
        ({"network_options": "depth"}, "give NAME=VALUE"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainPage.of(values | choice)


def test_a_job_says_what_it_needs_and_is_read_without_it(own):
    job = training_job("d", synthetic=True, model="brain", network=f"{own}:Denoiser", width=8)
    written = json.loads(job.to_json())
    assert written["config"] == {"depth": 2, "width": 8, "norm": "none"}
    sys.modules.pop(own)
    read = TrainingJob.from_json(job.to_json())
    assert read == job
    assert pickle.loads(pickle.dumps(read.config)) == job.config  # as one rank sends it to others
    assert own not in sys.modules
    assert build(read.network, read.config).own.layers[0].out_channels == 8
    try_own_code(read)


def test_the_page_about_own_code_shows_code_that_works(project, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/own-code.md").read_text()
    files = re.findall(r"```python\n# my_code\.py\n(.*?)```", page, re.DOTALL)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for number, (code, named) in enumerate(zip(files, ("network", "loss"), strict=True)):
        (project / f"page_code_{number}.py").write_text(code)
        shown = re.search(rf"{named}=my_code:(\w+)", page)[1]
        name = f"page_code_{number}:{shown}"
        try_own_code(training_job("d", synthetic=True, model="brain", **{named: name}))
    examples = [path.read_text() for path in (notebooks() / "examples").glob("own-*.ipynb")]
    shown = ["".join(c["source"]) for each in examples for c in json.loads(each)["cells"]]
    for code in files:
        assert any(code.strip() in cell for cell in shown), code
