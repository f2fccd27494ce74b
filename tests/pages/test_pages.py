"""What each notebook asks for: the cell, the form and the checks follow from one model."""

import importlib
import math
import shlex
import subprocess
import sys

import nbformat
import papermill
import pytest

from tests.forms.turning import values
from workbench.forms.form import Form
from workbench.forms.opening import open_page
from workbench.forms.page import Page
from workbench.forms.parameters import ParametersError
from workbench.pages.__main__ import NOTEBOOKS, PAGES, with_cell
from workbench.pages.cache import CachePage
from workbench.pages.convert import ConvertPage
from workbench.pages.explore import ExplorePage
from workbench.pages.ingest import IngestPage
from workbench.pages.reconstruct import ReconstructPage
from workbench.pages.shared import datasets_here, runs_here
from workbench.pages.storage import StoragePage
from workbench.pages.train import TrainPage
from workbench.settings import (
    CONNECTION_VARIABLE,
    LINKS_VARIABLE,
    child_environment,
    project_root,
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.notebook)

# Nothing of these is a value of any parameter of the type, whatever its meaning.
NEVER = [{"a": 1}, b"text", {"val"}, object, math.nan, math.inf, 1j]
WRONG = {
    str: [*NEVER, []],
    int: [*NEVER, True, 1.5, 2.5, "4", "four", [1]],
    float: [*NEVER, True, "0.5", "much", "4,8"],
    bool: [*NEVER, 0, 1, "True", [True]],
}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A project that holds nothing, and a person who may give the connection string."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    monkeypatch.setattr("workbench.azure_storage.interactive", lambda: True)


def errors(model, /, **changed):
    try:
        model.of(values(model, **changed)).looked_at()
    except ParametersError as error:
        return error.errors
    return {}


@every_page
def test_parameters_cell_is_as_the_model_has_it_and_papermill_reads_it(page):
    path = NOTEBOOKS / f"{page.notebook}.ipynb"
    assert with_cell(page, path.read_text()) == path.read_text(), "run make notebooks"
    found = papermill.inspect_notebook(path)
    assert list(found) == list(page.fields)
    for field in page.fields.values():
        assert found[field.name]["inferred_type_name"] == field.kind.__name__
        assert found[field.name]["help"] == field.help


@pytest.mark.parametrize("page", [TrainPage, ReconstructPage, CachePage, ExplorePage])
def test_a_cancelled_page_says_that_a_job_on_a_cluster_goes_on(page):
    assert page.model_construct(target="local").when_cancelled.endswith(" goes on from there")
    sent = page.model_construct(target="azureml").when_cancelled
    assert sent.startswith("a job that was sent goes on, and is billed")


def test_every_notebook_has_a_page():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {page.notebook for page in PAGES}


@every_page
def test_value_of_another_type_is_refused_by_name(page, bare):
    for field in page.fields.values():
        wrong = [*WRONG[field.kind], *([] if field.optional else [None])]
        if field.kind is str and not field.numeric:
            wrong += [2024, 0.5, ["val"], *([] if field.meanings else [True])]
        for value in wrong:
            if str(value) in field.only:
                continue
            found = errors(page, **{field.name: value})
            assert found.get(field.name, "").startswith(f"{field.name}="), value


@every_page
def test_defaults_do_and_a_wrong_value_is_refused_before_anything_slow(page, bare):
    assert errors(page).keys() <= {
        "run",
        "dataset",
        "local_dataset",
        "source",
    }  # which are not here
    expected = "run=None: no run in outputs/brain: train one with train.ipynb"
    assert page is not ReconstructPage or errors(page)["run"] == expected
    name = next(iter(page.fields))
    cells = nbformat.read(NOTEBOOKS / f"{page.notebook}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    code.insert(1, f"{name} = {{'a': 1}}")  # as papermill does
    with pytest.raises(ValueError, match=f"^{name}=<dict>: give"):
        exec("\n".join(code), {})
    assert list(project_root().iterdir()) == []


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (TrainPage, {"epochs": 0}, "epochs=0: give a whole number, 1 or more"),
        (TrainPage, {"pools": 5}, "pools=5: give a whole number from 1 to 4"),
        (TrainPage, {"acceleration": "4,8"}, "2 accelerations and 1 centre fractions"),
        (TrainPage, {"center_fraction": "2"}, "center_fraction=2: give a number between"),
        (TrainPage, {"target": "azureml"}, "no AzureML workspace"),
        (TrainPage, {"tags": "x"}, "tags='x'"),
        (TrainPage, {"reconstruct": "val, all"}, "reconstruct='val, all': give one or"),
        (TrainPage, {"name": "../x"}, "name='../x': give letters"),
        (TrainPage, {"sample_rate": 0.5, "volume_sample_rate": 0.5}, "sample_rate and"),
        (CachePage, {"official": "knee"}, "official='knee': give one of"),
        (CachePage, {"compare_pickle": "n.pkl"}, "compare_pickle='n.pkl': no such file"),
        (ConvertPage, {"source": ""}, "source='': give a file of raw data"),
        (ConvertPage, {"source": "nowhere"}, "source='nowhere': no such file or folder"),
        (ConvertPage, {"axes": "slice, phase"}, "axes='slice, phase': name readout and phase"),
        (ConvertPage, {"axes": "x, y"}, "axes='x, y': 'x' is none of slice, coil"),
        (ConvertPage, {"matrix": "640"}, "matrix='640': give two lengths, such as 640x368"),
        (ConvertPage, {"shares": "1, 1"}, "shares='1, 1': give those of train, val and test"),
        (ConvertPage, {"person": "name"}, "person='name': give one of auto"),
        (ExplorePage, {"acceleration": 0.5}, "acceleration=0.5: give a number"),
        (ExplorePage, {"mask": "radial"}, "mask='radial': give one of random, equispaced"),
        (ReconstructPage, {"acceleration": "fast"}, "acceleration='fast': give"),
        (ReconstructPage, {"sort_by": "beauty"}, "sort_by='beauty': give one of ssim"),
        (ReconstructPage, {"uncertainty": 1}, "uncertainty=1: one mask has no deviation"),
        (StoragePage, {"fraction": 2.0}, "fraction=2.0: give a number above 0, up to 1"),
        (StoragePage, {"dataset": "../x"}, "dataset='../x': give a dataset's folder"),
    ],
)
def test_wrong_value_is_told_while_it_is_typed(model, change, message, bare):
    assert errors(model, **change)[next(iter(change))].startswith(message)


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"num_nodes": 4}, "nodes", 4),
        ({"num_epochs": 1}, "epochs", 1),
        ({"use_dataset_mount": True}, "dataset_mount", True),
        ({"azure_dataset_id": "brain"}, "azure_dataset", "brain"),
        ({"azureml": False}, "target", "local"),
        ({"azureml": "False"}, "target", "local"),
        ({"dataset_mountpoint": "/tmp/brain"}, "dataset_mountpoint", "/tmp/brain"),
        ({"model": "KneeMulticoil"}, "model", "knee"),
        ({"precision": 32}, "precision", "32"),
        ({"compile": True}, "compile", "on"),
        ({"low_memory": False}, "low_memory", "False"),
    ],
)
def test_names_of_2021_and_what_papermill_guesses_are_taken(given, name, value, bare):
    assert getattr(TrainPage.of(TrainPage.given(values(TrainPage) | given)), name) == value


@every_page
def test_parameter_that_does_not_exist_ends_the_notebook_before_anything_starts(page, bare):
    cells = nbformat.read(NOTEBOOKS / f"{page.notebook}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    name = next(iter(page.fields))
    code.insert(1, f"{name}s = 1\nIn, Out = [], {{}}")
    message = f"{name}s: no such parameter; did you mean {name}"
    with pytest.raises(ParametersError, match=message):
        exec("\n".join(code), {})
    assert list(project_root().iterdir()) == []


def test_papermill_reads_back_what_was_entered(tmp_path, bare):
    given = {
        "tags": "study:4x, who:me; $HOME 'quoted' \"too\"",
        "name": "007",
        "epochs": 3,
        "lr": 3e-05,
        "acceleration": "4",
        "resume": False,
        "low_priority": True,
    }
    command = TrainPage.of(values(TrainPage, **given)).command()
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


@every_page
def test_form_has_every_parameter_with_its_default_and_finds_its_page(page, bare):
    form = Form(page, values(page))
    assert list(form.inputs) == list(page.fields)
    assert form.errors == {}
    assert f"outputs/{page.notebook}.ipynb" in form.command.value
    assert not any("changed" in fold.description for fold, *_ in form.folds)
    for field in page.fields.values():
        assert not field.only or field.default in (None, "", *field.only)
    assert getattr(importlib.import_module(page.__module__), page.__qualname__) is page


SECRETS = {
    "links": LINKS_VARIABLE,
    "connection": CONNECTION_VARIABLE,
    "azure": "AZURE_CLIENT_SECRET",
    "aws": "AWS_SECRET_ACCESS_KEY",
    "google": "GOOGLE_APPLICATION_CREDENTIALS",
    "tracking": "WANDB_API_KEY",
}


@pytest.mark.parametrize(
    ("page", "changed", "handed"),
    [
        (IngestPage, {}, "links"),
        (IngestPage, {"destination": "azure"}, "links connection azure"),
        (StoragePage, {}, "connection azure"),
        (ConvertPage, {}, ""),
        (CachePage, {}, ""),
        (CachePage, {"in_storage": True}, "connection azure aws google"),
        (CachePage, {"dataset": "s3://bucket/knee"}, "connection azure aws google"),
        (ExplorePage, {}, "connection azure aws google"),
        (TrainPage, {}, "connection azure aws google tracking"),
    ],
)
def test_work_is_handed_the_secrets_that_it_needs_and_no_other(page, changed, handed, monkeypatch):
    for variable in SECRETS.values():
        monkeypatch.setenv(variable, "secret")
    asked = page.model_construct(**values(page, **changed))
    found = child_environment(*asked.needs)
    assert [name for name, variable in SECRETS.items() if variable in found] == handed.split()


def test_choices_are_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    for folder in (
        "datasets/knee_multicoil",
        "datasets/knee_multicoil_compressed",
        "datasets/.hidden",
        "outputs/demo/datasets/brain_multicoil",
        "outputs/mine",
        "outputs/a/b",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("datasets/file", "outputs/mine/job.json", "outputs/a/b/job.json"):
        (tmp_path / file).touch()
    assert datasets_here() == ["knee_multicoil", "outputs/demo/datasets/brain_multicoil"]
    assert sorted(runs_here()) == ["a/b", "mine"]


def test_headless_page_works_at_once_and_shows_in_the_same_cells(capsys):
    class Lengths(Page):
        notebook, start = "lengths", "Go"
        text: str = "abc"

        def work(self, planned):
            return len(self.text)

    opened = open_page(Lengths, {"text": "four"})
    assert opened.result == 4
    opened.show(lambda result: (f"{each} of {result}" for each in "ab"))
    assert capsys.readouterr().out == "a of 4\nb of 4\n"
    with pytest.raises(NameError, match=r"text: run the parameters cell at the top"):
        open_page(Lengths, {})
