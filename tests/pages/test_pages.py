"""What each notebook asks for: the cell, the form and the checks follow from one model."""

import json
import math
import shlex
import subprocess
import sys

import nbformat
import papermill
import pytest

from workbench.forms.choices import datasets_here, runs_here
from workbench.forms.form import FormPage
from workbench.forms.opening import open_page
from workbench.forms.page import Page
from workbench.forms.parameters import ParametersError
from workbench.pages.__main__ import MODELS, NOTEBOOKS, with_cell
from workbench.pages.cache import PAGE as CACHE
from workbench.pages.cache import CacheParameters
from workbench.pages.explore import ExploreParameters
from workbench.pages.ingest import PAGE as INGEST
from workbench.pages.ingest import IngestParameters
from workbench.pages.reconstruct import PAGE as RECONSTRUCT
from workbench.pages.reconstruct import ReconstructParameters
from workbench.pages.storage import PAGE as STORAGE
from workbench.pages.storage import StorageParameters
from workbench.pages.train import PAGE as TRAIN
from workbench.pages.train import TrainParameters, gpu_memory
from workbench.settings import project_root

PAGES = [INGEST, CACHE, TRAIN, RECONSTRUCT, STORAGE]
FIELDS = [(model, field) for model in MODELS for field in model.fields().values()]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.notebook)
every_field = pytest.mark.parametrize(
    ("model", "field"), FIELDS, ids=[f"{model.notebook}-{field.name}" for model, field in FIELDS]
)

# Nothing of these is a value of any parameter of the type, whatever its meaning.
NEVER = [{"a": 1}, b"text", {"val"}, object, math.nan, math.inf, 1j]
WRONG = {
    str: [*NEVER, []],
    int: [*NEVER, True, 1.5, 2.5, "4", "four", [1]],
    float: [*NEVER, True, "0.5", "much", "4,8"],
    bool: [*NEVER, 0, 1, "True", [True]],
}


@pytest.fixture(params=PAGES, ids=lambda page: page.parameters.notebook)
def page(request):
    return request.param


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A project that holds nothing, and a person who may give the connection string."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    monkeypatch.setattr("workbench.azure_storage.interactive", lambda: True)


def defaults(model, /, **changed):
    return {name: each.default for name, each in model.fields().items()} | changed


def errors(model, /, **changed):
    try:
        model.of(defaults(model, **changed))
    except ParametersError as error:
        return error.errors
    return {}


def run_cells(notebook, **values):
    """Run a notebook's cells as papermill does, with other parameters."""
    variables = {}
    for cell in json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), variables)
            if "parameters" in cell["metadata"].get("tags", ()):
                variables |= values


class TestCell:
    @every_model
    def test_it_is_as_the_model_has_it(self, model):
        text = (NOTEBOOKS / f"{model.notebook}.ipynb").read_text()
        assert with_cell(model, text) == text, "run make notebooks"

    @every_model
    def test_papermill_finds_each_parameter_with_its_help(self, model):
        found = papermill.inspect_notebook(NOTEBOOKS / f"{model.notebook}.ipynb")
        assert list(found) == list(model.fields())
        for field in model.fields().values():
            assert found[field.name]["inferred_type_name"] == field.kind.__name__
            assert found[field.name]["help"] == field.help

    def test_every_notebook_has_a_model(self):
        assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {m.notebook for m in MODELS}


class TestValues:
    @every_field
    def test_value_of_another_type_is_refused_by_name(self, model, field, bare):
        values = [*WRONG[field.kind], *([] if field.optional else [None])]
        if field.kind is str and not field.also:
            values += [2024, 0.5, ["val"], *([] if field.meanings else [True])]
        for value in values:
            found = errors(model, **{field.name: value})
            assert found.get(field.name, "").startswith(f"{field.name}="), value

    @every_model
    def test_notebook_refuses_it_before_anything_slow(self, model, bare):
        name = next(iter(model.fields()))
        with pytest.raises(ValueError, match=f"^{name}=<dict>: give"):
            run_cells(model.notebook, **{name: {"a": 1}})
        assert list(project_root().iterdir()) == []

    @every_model
    def test_defaults_do(self, model, bare):
        expected = {"run": "run=None: no run in outputs/brain: train one with train.ipynb"}
        assert errors(model) == (expected if model is ReconstructParameters else {})

    @pytest.mark.parametrize(
        ("model", "change", "message"),
        [
            (TrainParameters, {"epochs": 0}, "epochs=0: give a whole number, 1 or more"),
            (TrainParameters, {"nodes": 0}, "nodes=0: give a whole number, 1 or more"),
            (TrainParameters, {"pools": 5}, "pools=5: give a whole number from 1 to 4"),
            (TrainParameters, {"acceleration": "4,8"}, "2 accelerations and 1 centre fractions"),
            (TrainParameters, {"center_fraction": "2"}, "center_fraction=2: give a number between"),
            (TrainParameters, {"mask": "spiral"}, "mask='spiral': give one of random"),
            (TrainParameters, {"target": "moon"}, "target='moon': give one of"),
            (TrainParameters, {"target": "azureml"}, "no AzureML workspace"),
            (TrainParameters, {"tags": "x"}, "tags='x'"),
            (TrainParameters, {"torch_build": "cu1"}, "torch_build='cu1': give one of"),
            (TrainParameters, {"reconstruct": "val, all"}, "reconstruct='val, all': give one or"),
            (TrainParameters, {"name": "../x"}, "name='../x': give letters"),
            (TrainParameters, {"sample_rate": 0.5, "volume_sample_rate": 0.5}, "sample_rate and"),
            (CacheParameters, {"workers": 0}, "workers=0: give a whole number, 1 or more"),
            (CacheParameters, {"official": "knee"}, "official='knee': give one of"),
            (CacheParameters, {"compare_pickle": "n.pkl"}, "compare_pickle='n.pkl': no such file"),
            (ExploreParameters, {"acceleration": 0.5}, "acceleration=0.5: give a number"),
            (ReconstructParameters, {"split": "all"}, "split='all': give one of"),
            (ReconstructParameters, {"volumes": 0}, "volumes=0: give a whole number"),
            (ReconstructParameters, {"acceleration": "fast"}, "acceleration='fast': give"),
            (ReconstructParameters, {"sort_by": "beauty"}, "sort_by='beauty': give one of ssim"),
            (ReconstructParameters, {"uncertainty": 1}, "uncertainty=1: one mask has no deviation"),
            (ReconstructParameters, {"export": "jpeg"}, "export='jpeg': give one or several of"),
            (IngestParameters, {"destination": "moon"}, "destination='moon': give one of local"),
            (StorageParameters, {"fraction": 2.0}, "fraction=2.0: give a number above 0, up to 1"),
            (StorageParameters, {"dataset": "../x"}, "dataset='../x': give a dataset's folder"),
        ],
    )
    def test_wrong_value_is_told_while_it_is_typed(self, model, change, message, bare):
        found = errors(model, **change)
        assert found[next(iter(change))].startswith(message)

    @pytest.mark.parametrize(
        ("given", "name", "value"),
        [
            ({"num_nodes": 4}, "nodes", 4),
            ({"num_epochs": 1}, "epochs", 1),
            ({"use_dataset_mount": True}, "dataset_mount", True),
            ({"azure_dataset_id": "brain"}, "azure_dataset", "brain"),
            ({"azureml": False}, "target", "local"),
            ({"model": "KneeMulticoil"}, "model", "knee"),
            ({"precision": 32}, "precision", "32"),
            ({"compile": True}, "compile", "on"),
            ({"low_memory": False}, "low_memory", "False"),
        ],
    )
    def test_names_of_2021_and_what_papermill_guesses_are_taken(self, given, name, value, bare):
        found = TrainParameters.read(defaults(TrainParameters) | given)
        assert getattr(found, name) == value


class TestCommand:
    def test_papermill_reads_back_what_was_entered(self, tmp_path, bare):
        given = {
            "tags": "study:4x, who:me; $HOME 'quoted' \"too\"",
            "name": "007",
            "epochs": 3,
            "lr": 3e-05,
            "acceleration": "4",
            "resume": False,
            "low_priority": True,
        }
        command = TrainParameters.of(defaults(TrainParameters, **given)).command()
        out = tmp_path / "out.ipynb"
        words = [
            *(sys.executable, "-m", "papermill", str(NOTEBOOKS / "train.ipynb"), str(out)),
            *(*shlex.split(command.replace("\\\n", " "))[3:], "--prepare-only"),
            "--no-progress-bar",
        ]
        subprocess.run(words, check=True, capture_output=True)
        injected = nbformat.read(out, as_version=4).cells[2]
        assert injected.metadata.tags == ["injected-parameters"]
        read = {}
        exec(injected.source, read)
        assert {name: read[name] for name in given} == given


class TestForm:
    def test_every_parameter_is_in_it_with_its_label_and_default(self, page, bare):
        form = FormPage(page, defaults(page.parameters))
        assert list(form.controls) == list(page.parameters.fields())
        for control in form.controls.values():
            assert control.label.strip()
            field = control.field
            assert field.clean(field.read(control.entry)) == field.default
            assert not control.changed

    def test_default_is_among_the_choices_of_a_list(self, page):
        for field in page.parameters.fields().values():
            if field.only and field.default not in (None, ""):
                assert field.default in field.only

    def test_choices_are_what_is_here(self, tmp_path, monkeypatch):
        monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
        for folder in (
            "datasets/knee_multicoil",
            "datasets/knee_multicoil_compressed",
            "outputs/demo/datasets/brain_multicoil",
            "outputs/mine",
            "outputs/a/b",
        ):
            (tmp_path / folder).mkdir(parents=True)
        for run in ("mine", "a/b"):
            (tmp_path / "outputs" / run / "job.json").touch()
        assert datasets_here() == ["knee_multicoil", "outputs/demo/datasets/brain_multicoil"]
        assert sorted(runs_here()) == ["a/b", "mine"]


class TestPages:
    def test_address_leads_to_the_page(self, page):
        module, _, name = page.address.partition(":")
        assert getattr(sys.modules[module], name) is page

    def test_headless_it_works_at_once_and_shows_in_the_same_cells(self):
        done = []
        sheet = Page(CacheParameters, "Go", lambda asked: asked.dataset, len, lambda left, _: left)
        opened = open_page(sheet, defaults(CacheParameters))
        opened.show(done.append)
        assert done == [opened.result] == [len("knee_multicoil")]

    def test_page_without_its_parameters_says_which_cell_to_run(self):
        with pytest.raises(NameError, match=r"dataset, .*: run the parameters cell at the top"):
            open_page(CACHE, {})


class TestMemoryOfGpus:
    def test_memory_of_each_card_is_read(self):
        answer = "1024, 81559\n12, 81559\n[N/A], [N/A]\n"
        assert gpu_memory(answer) == [(2**30, 81559 * 2**20), (12 * 2**20, 81559 * 2**20)]
        assert gpu_memory("No devices were found\n") == []
