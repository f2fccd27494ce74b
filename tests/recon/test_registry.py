"""A network is one entry: trained, reconstructed, shown and exported by the same functions."""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pydicom
import pytest
import torch
from fastmri import complex_abs, ifft2c, rss
from torch import nn

import workbench
from tests.recon.conftest import made
from workbench.compute.jobs import TrainingJob, training_job
from workbench.compute.runs import prepare_run
from workbench.models import NETWORKS, build, trains
from workbench.models.entry import Network, check_whole
from workbench.models.own import try_network
from workbench.models.reconstructor import Reconstructor
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.run import fit
from workbench.recon.weights import load_network
from workbench.views.export.results import export_results
from workbench.views.ranking import score_table
from workbench.views.training import evaluation_table
from workbench.views.uncertainty import uncertainty_figures


@dataclass(frozen=True)
class ToyConfig:
    start: int = 2

    def __post_init__(self):
        check_whole("start", self.start, 1)

    def __str__(self):
        return f"toy that begins at {self.start}"


class Toy(Reconstructor):
    """Zero-filled images times a number that is learned."""

    def __init__(self, config):
        super().__init__()
        self.toy_factor = nn.Parameter(torch.full((config.start,), 1 / config.start))

    def forward(self, masked_kspace, mask, num_low_frequencies=None, rows=None):
        return rss(complex_abs(ifft2c(masked_kspace)), dim=1) * self.toy_factor.sum()


@pytest.fixture
def toy(monkeypatch, tmp_path):
    entry = Network(
        name="toy",
        label="Toy",
        config=ToyConfig,
        build=Toy,
        weights="toy_factor",
        config_of=lambda state: ToyConfig(len(state["toy_factor"])),
        recipe={"optimizer": "rmsprop", "lr": 0.25, "patience": 7},
        phantom={"start": 3, "patience": 5},
        released={"toy-brain": "https://example.org/toy.pt"},
        kinds=("multicoil",),
    )
    monkeypatch.setitem(NETWORKS, "toy", entry)
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return entry


def test_toy_network_trains_reconstructs_and_exports(toy, study):
    job = training_job(study, synthetic=False, model="brain", name="t", network="toy", epochs=2)
    assert (job.config, str(job.config)) == (ToyConfig(2), "toy that begins at 2")
    run = prepare_run(job, resume=True)
    assert run.job == job
    fit(job, run.folder)
    assert run.finished
    assert load_network(run.best).name == "toy"
    plan = plan_reconstruction(run="t")
    found = made(plan)
    assert {each.network for each in found} == {"toy"}
    assert found.labels == {"zero_filled": "zero-filled", "reconstruction": "Toy"}
    assert ("Toy", "SSIM") in score_table(found).data.columns
    assert evaluation_table(run) is None
    assert len(list(export_results(found, ("gif", "dicom", "leaderboard", "report")))) == 4
    slices = next((plan.folder / "export/dicom").iterdir())
    assert pydicom.dcmread(next(slices.iterdir())).ManufacturerModelName == "Toy"
    assert "<td>start</td><td>2</td>" in (run.folder / "report.html").read_text()
    with pytest.raises(ValueError, match="toy forms no images of single coils"):
        list(uncertainty_figures(found, 3))


def test_parameters_are_those_of_the_network(toy, study):
    job = training_job(study, synthetic=True, model="brain", network="toy", lr=0.5)
    assert job.config == ToyConfig(3)
    assert job.parameters["start"] == 3
    assert TrainingJob.from_json(job.to_json()) == job
    assert (job.optimizer, job.lr, job.patience) == ("rmsprop", 0.5, 5)
    real = training_job(study, synthetic=False, model="brain", network="toy")
    assert (real.optimizer, real.lr, real.patience, real.epochs) == ("rmsprop", 0.25, 7, 50)
    for choices, message in (
        (
            {"network": "toy", "cascades": 3},
            "cascades: no such .* network='toy', whose numbers are start",
        ),
        ({"network": "toy", "start": 0}, "start=0: give a whole number, 1 or more"),
        ({"network": "gan"}, "network='gan': give one of varnet, .*toy"),
        ({"network": "toy", "model": "knee_singlecoil"}, "learns from multicoil, not singlecoil"),
    ):
        with pytest.raises(ValueError, match=message):
            training_job(study, synthetic=True, **{"model": "brain", **choices})


def test_what_an_entry_does_not_say_that_it_heeds_is_refused(toy, study):
    for name, value in (
        ("low_memory", True), ("crop_readout", True), ("precision", "bf16"), ("compile", "on"),
        ("first_estimate", "tv"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name}={value}: Toy cannot"):
            training_job(study, synthetic=False, model="brain", network="toy", **{name: value})


def small(entry):
    """The numbers of a network for the phantom."""
    names = {each.name for each in fields(entry.config)}
    return entry.config(**{name: entry.phantom[name] for name in names & entry.phantom.keys()})


@pytest.mark.parametrize("name", [name for name in NETWORKS if trains(name)])
def test_network_runs_on_a_slice_and_can_learn(name):
    try_network(name, lambda: build(name, small(NETWORKS[name])))


def test_weights_are_recognised_by_their_names(toy, tmp_path):
    for name in filter(trains, NETWORKS):
        config = small(NETWORKS[name])
        network = build(name, config)
        torch.save({"model": network.state_dict()}, tmp_path / f"{name}.pt")
        loaded = load_network(tmp_path / f"{name}.pt")
        assert (loaded.name, type(loaded)) == (name, type(network))
        assert asdict(NETWORKS[name].config_of(loaded.state_dict())) == asdict(config)


def test_nothing_but_its_own_folder_and_the_registry_names_the_varnet():
    package = Path(workbench.__file__).parent
    named = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if re.search("varnet", path.read_text(), re.IGNORECASE)
    }
    # fastMRI's own class, and what files of results of earlier versions say.
    allowed = {"__init__.py", "models/__init__.py", "data/slices.py", "recon/results.py"}
    assert {name for name in named if not name.startswith("models/varnet/")} <= allowed
