"""The notebooks' forms and requests for Azure, without a browser."""

import json
import re
import warnings

import ipywidgets
import pytest

from tests.forms.turning import values
from tests.ingest.azure.conftest import RELEASES
from tests.programs import wait_for
from workbench.azure_storage import CONNECTION_VARIABLE, find_storage
from workbench.forms.form import Form
from workbench.pages.ingest import IngestPage
from workbench.pages.storage import StoragePage
from workbench.progress import amount
from workbench_demo.bucket import Faults


def run(form):
    form.start()
    form.wait(120)
    return form


@pytest.fixture
def person(monkeypatch):
    """Somebody sits at the notebook, and no connection string is given."""
    import workbench.azure_storage as azure_storage

    monkeypatch.setattr(azure_storage, "interactive", lambda: True)
    monkeypatch.setattr("workbench.ingest.request.interactive", lambda: True)


def rows_of(form):
    """Return the live table's rows: archive -> state, came, verified and unpacked, problem."""
    shown = form.told.outputs["archives"].value if "archives" in form.told.outputs else ""
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in shown.split("<tr>")]
    return {cells[0]: cells[1:] for cells in rows if cells}


def test_form_takes_secrets_keeps_none_and_shows_how_far_each_archive_is(release, cloud, person):
    brought = release("2021")
    sizes = {name: (cloud.bucket.folder / name).stat().st_size for name in RELEASES["2021"]}
    form = Form(IngestPage, values(IngestPage, destination="azure", unpack_on="here"))
    run(form)
    assert form.phase == "idle"
    assert form.status.startswith("first give fastMRI's email and Storage account's")
    account = form.secrets[CONNECTION_VARIABLE]
    account.take("something else")
    assert "connection string: it is not a list" in account.note.value
    assert "wb-held" not in account.note.value
    form.secrets["FASTMRI_LINKS"].take(brought.email)
    account.take(cloud.storage.connection_string)
    assert f"✓ storage account {cloud.storage.account};" in account.note.value
    cloud.factory.pace.go.clear()
    form.start()

    def states():
        return {name: cells[0] for name, cells in rows_of(form).items()}

    wait_for(lambda: states() == dict.fromkeys(sizes, "queued in the factory"))
    assert next(iter(form.told.outputs)) == "archives"  # above the plan, where people look
    came = {name: cells[1] for name, cells in rows_of(form).items()}
    assert came == {name: f"0 B of {amount(size, 'B')} (0%)" for name, size in sizes.items()}
    # One archive does not come, and the table says so beside the others.
    cloud.bucket.faults.append(Faults("brain", status=403))
    cloud.factory.pace.go.set()
    form.wait(240)
    assert form.phase == "failed"
    failed = "brain_multicoil_val.tar.gz"
    there = f"{amount(sizes['multicoil_train.tar.gz'], 'B')} of "
    for name, (state, came_now, through, problem) in rows_of(form).items():
        assert state == ("failed" if name == failed else "unpacked")
        assert bool(problem) == (name == failed)
        assert came_now.endswith("(0%)" if name == failed else "(100%)")
        assert through == ("-" if name == failed else came_now)
    assert rows_of(form)["multicoil_train.tar.gz"][1].startswith(there)
    assert brought.in_container("knee_multicoil") == brought.members["knee_multicoil"]
    assert cloud.factory.names == []
    state = json.dumps(ipywidgets.Widget.get_manager_state(), default=str)
    assert cloud.storage.key not in state
    assert "Signature=" not in state
    assert "Signature=" not in form.told.outputs["archives"].value


def test_clusters_and_locations_are_looked_up_when_asked(release, cloud, person):
    release()
    form = Form(IngestPage, values(IngestPage, destination="azure"))
    offered = {name: form.inputs[name] for name in ("location", "cluster")}
    assert offered["location"].options == ()
    for name in ("location", "cluster"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # azureml-core's own, while it is imported
            form.look_up(name)
    assert "westeurope" in offered["location"].options
    assert offered["cluster"].options == tuple(cloud.azureml.clusters)
    cloud.fail("Microsoft.DataFactory", 403)
    form.look_up("location")
    assert form.status == "location: there is none"


def test_storage_form_transfers_with_the_connection_string_alone(
    release, cloud, person, tmp_path, capsys, monkeypatch
):
    release()
    cloud.storage.container().upload_blob("knee_multicoil/multicoil_val/a.h5", b"data")
    form = Form(StoragePage, values(StoragePage, root=str(tmp_path / "datasets")))
    form.secrets[CONNECTION_VARIABLE].take(cloud.storage.connection_string)
    run(form)
    assert "1 files of 4 B are there" in form.status, form.told.failure
    monkeypatch.setenv(CONNECTION_VARIABLE, cloud.storage.connection_string)
    StoragePage.of(values(StoragePage)).plan()
    assert f"from       {cloud.storage.url}/datasets/knee_multicoil\n" in capsys.readouterr().out
    path = tmp_path / "datasets" / "knee_multicoil" / "multicoil_val" / "a.h5"
    assert path.read_bytes() == b"data"


def of(page, **changed):
    return page.of(values(page, **changed))


def test_unpacking_on_a_cluster_that_does_not_exist_is_told_before_copying(
    release, cloud, monkeypatch
):
    brought = release()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    monkeypatch.setenv("FASTMRI_LINKS", brought.email)
    parameters = of(IngestPage, destination="azure", unpack_on="azureml", cluster="none-such")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # azureml-core's own, while it is imported
        with pytest.raises(ValueError, match="cluster='none-such': the workspace has"):
            parameters.plan()
    assert cloud.factory.deleted == []


@pytest.mark.parametrize(
    ("model", "change", "message"),
    [
        (IngestPage, {"container": "Data sets"}, "container='Data sets': give 3 to 63"),
        (IngestPage, {"workspace": "mine"}, "workspace='mine': give SUBSCRIPTION-ID/RESO"),
        (IngestPage, {"workspace": "a/b/c"}, "workspace: subscription_id='a': give a GUID"),
        (StoragePage, {"dataset": "../elsewhere"}, "give a dataset's folder"),
        (StoragePage, {"splits": "all"}, "splits='all': give one or several of train"),
        (StoragePage, {"container": "Data sets"}, "give 3 to 63"),
    ],
)
def test_wrong_parameter_is_refused(release, cloud, monkeypatch, model, change, message):
    release()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    azure = {"destination": "azure"} if model is IngestPage else {}
    with pytest.raises(ValueError, match=message):
        of(model, **azure | change)


def test_no_storage_account_and_nobody_to_ask_says_what_to_set(release):
    release()
    for model, azure in ((IngestPage, {"destination": "azure"}), (StoragePage, {})):
        with pytest.raises(ValueError, match="set AZURE_STORAGE_CONNECTION_STRING"):
            of(model, **azure).looked_at()
    with pytest.raises(FileNotFoundError, match="set AZURE_STORAGE_CONNECTION_STRING"):
        find_storage()
