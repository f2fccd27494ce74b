"""The notebooks' forms and requests for Azure, without a browser."""

import json
import warnings

import pytest

from workbench.azure_storage import CONNECTION_VARIABLE, find_storage
from workbench.forms.form import FormPage
from workbench.pages.ingest import PAGE as INGEST
from workbench.pages.ingest import IngestParameters
from workbench.pages.storage import PAGE as STORAGE
from workbench.pages.storage import StorageParameters


class Form:
    """A page's form, filled as a browser fills it."""

    def __init__(self, page, **values):
        fields = page.parameters.fields().items()
        self.page = FormPage(page, {name: each.default for name, each in fields} | values)

    def give(self, name, text):
        self.page.secrets[name].give(text)

    def said(self, name):
        return self.page.secrets[name].note.value

    def start(self):
        self.page.start()
        self.page.wait(120)


@pytest.fixture
def person(monkeypatch):
    """Somebody sits at the notebook, and no connection string is given."""
    import workbench.azure_storage as azure_storage

    monkeypatch.setattr(azure_storage, "interactive", lambda: True)
    monkeypatch.setattr("workbench.ingest.request.interactive", lambda: True)


def test_form_takes_connection_string_and_email_and_keeps_neither(release, cloud, person):
    import ipywidgets

    brought = release()
    form = Form(INGEST, destination="azure")
    form.start()
    assert form.page.phase == "idle"
    assert form.page.status.startswith("first give fastMRI's email and Storage account's")
    form.give("FASTMRI_LINKS", brought.email)
    form.give(CONNECTION_VARIABLE, cloud.storage.connection_string)
    assert f"✓ storage account {cloud.storage.account};" in form.said(CONNECTION_VARIABLE)
    form.start()
    assert form.page.phase == "done", form.page.failure
    assert brought.in_container("knee_multicoil") == brought.members["knee_multicoil"]
    assert cloud.factory.names == []
    state = json.dumps(ipywidgets.Widget.get_manager_state(), default=str)
    assert cloud.storage.key not in state
    assert "Signature=" not in state


def test_connection_string_that_is_none_is_refused_beside_its_field(release, person):
    release()
    form = Form(INGEST, destination="azure")
    form.give(CONNECTION_VARIABLE, "something else")
    assert "connection string: it is not a list" in form.said(CONNECTION_VARIABLE)
    assert "wb-held" not in form.said(CONNECTION_VARIABLE)


def test_clusters_and_locations_are_looked_up_when_asked(release, cloud, person):
    release()
    form = Form(INGEST, destination="azure")
    offered = {name: form.page.controls[name]._inputs[0] for name in ("location", "cluster")}
    assert offered["location"].options == ()
    for name in ("location", "cluster"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # azureml-core's own, while it is imported
            form.page._look_up(name)
    assert "westeurope" in offered["location"].options
    assert offered["cluster"].options == tuple(cloud.azureml.clusters)
    cloud.fail("Microsoft.DataFactory", 403)
    form.page._look_up("location")
    assert form.page.status == "location: there is none"


def test_storage_form_transfers_with_the_connection_string_alone(release, cloud, person, tmp_path):
    release()
    cloud.storage.container().upload_blob("knee_multicoil/multicoil_val/a.h5", b"data")
    form = Form(STORAGE, root=str(tmp_path / "datasets"))
    form.give(CONNECTION_VARIABLE, cloud.storage.connection_string)
    form.start()
    assert "1 files of 4 B are there" in form.page.status, form.page.failure
    path = tmp_path / "datasets" / "knee_multicoil" / "multicoil_val" / "a.h5"
    assert path.read_bytes() == b"data"


def of(model, **changed):
    return model.of({name: each.default for name, each in model.fields().items()} | changed)


def test_unpacking_on_a_cluster_that_does_not_exist_is_told_before_copying(
    release, cloud, monkeypatch
):
    brought = release()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    monkeypatch.setenv("FASTMRI_LINKS", brought.email)
    parameters = of(IngestParameters, destination="azure", unpack_on="azureml", cluster="none-such")
    order = INGEST.plan(parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # azureml-core's own, while it is imported
        with pytest.raises(ValueError, match="cluster='none-such': the workspace has"):
            INGEST.work(order)
    assert cloud.factory.deleted == []


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (IngestParameters, {"container": "Data sets"}, "container='Data sets': give 3 to 63"),
        (IngestParameters, {"workspace": "mine"}, "workspace='mine': give SUBSCRIPTION-ID/RESO"),
        (IngestParameters, {"workspace": "a/b/c"}, "workspace: subscription_id='a': give a GUID"),
        (StorageParameters, {"dataset": "../elsewhere"}, "give a dataset's folder"),
        (StorageParameters, {"splits": "all"}, "splits='all': give one or several of train"),
        (StorageParameters, {"container": "Data sets"}, "give 3 to 63"),
    ],
)
def test_wrong_parameter_is_refused(release, cloud, monkeypatch, model, change, message):
    release()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    azure = {"destination": "azure"} if model is IngestParameters else {}
    with pytest.raises(ValueError, match=message):
        of(model, **azure | change)


def test_no_storage_account_and_nobody_to_ask_says_what_to_set(release):
    release()
    for model, azure in ((IngestParameters, {"destination": "azure"}), (StorageParameters, {})):
        with pytest.raises(ValueError, match="set AZURE_STORAGE_CONNECTION_STRING"):
            of(model, **azure)
    with pytest.raises(FileNotFoundError, match="set AZURE_STORAGE_CONNECTION_STRING"):
        find_storage()
