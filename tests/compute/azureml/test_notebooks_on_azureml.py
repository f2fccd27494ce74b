"""Notebooks that reconstruct, index and look, on the nodes of a cluster on loopback."""

import json
import re
import threading
import time

import nbformat
import papermill
import pytest
import torch
from fastmri.models import VarNet

from tests.cloud.jobs import ENDED
from tests.cloud.sdks import OLDEST
from tests.forms.turning import values
from workbench.compute.cluster import choose_datastore
from workbench.compute.cluster_run import on_cluster
from workbench.compute.here import TrainingFailedError
from workbench.data.cache import load_cache, open_cache
from workbench.pages.cache import CachePage
from workbench.pages.explore import ExplorePage
from workbench.pages.reconstruct import ReconstructPage
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.recon.results import Results
from workbench.settings import notebooks, shown

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the SDKs' own
    pytest.mark.usefixtures("leaves_no_secret"),
]


@pytest.fixture
def weights(project):
    """Weights as fastMRI releases them."""
    torch.manual_seed(0)
    network = VarNet(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1)
    torch.save(network.state_dict(), project / "released.pt")
    return "released.pt"


def executed(name, project, **parameters):
    """Run a notebook headless; return what its cells show, as text."""
    (project / "outputs").mkdir(exist_ok=True)
    page = papermill.execute_notebook(
        notebooks() / f"{name}.ipynb",
        project / f"outputs/{name}.ipynb",
        {"azureml": True, "cluster": "cpu-cluster", **parameters},
        progress_bar=False,
    )
    return json.dumps(page)


def test_the_results_of_a_node_are_here_as_if_made_here(stored, weights, project):
    shown = executed(
        "reconstruct",
        project,
        weights=weights,
        num_nodes=1,
        azure_dataset_id="brain_multicoil",
        use_dataset_mount=True,
        dataset_mountpoint="/tmp/brain",
        sdk=OLDEST,
        acceleration="4",
    )
    job = stored.azureml.job
    assert job.status == "Completed", job.log(0)
    for text in ("sent as run", "rank 0: 2 of 2", "1 node(s) of cluster cpu-cluster", "SSIM"):
        assert text in shown
    assert "dataset_mountpoint='/tmp/brain' has no effect" in shown
    results = Results("outputs/released")
    assert [each.name for each in results] == ["file2.h5", "file3.h5"]
    assert all(each.scores for each in results)
    assert results.order.dataset == f"{stored.storage.url}/datasets/brain_multicoil"
    assert results.dataset_is_here
    # What is there is not made again: no job is sent, though a volume that is lost is sent for.
    again = {"weights": weights, "target": "azureml", "azure_dataset": "brain_multicoil"}
    again |= {"nodes": 1, "cluster": "cpu-cluster"}
    planned = plan_reconstruction(**again)
    assert planned.order.volumes == ()
    assert [line for line in reconstruct(planned) if "holds every volume already" in line]
    assert len(stored.azureml.jobs) == 1
    (planned.folder / "file2.h5").unlink()
    record = planned.folder / "azureml.json"
    record.write_text(record.read_text().replace('"fetched": true', '"fetched": false'))
    lines = list(reconstruct(plan_reconstruction(**again)))
    assert lines[-1].endswith("holds every volume")
    assert len(plan_reconstruction(**again).order.volumes) == 0
    assert len(stored.azureml.jobs) == 1


def test_a_reconstruction_says_beforehand_how_long_it_takes_and_what_it_costs(
    stored, weights, project
):
    """Four slices of 1.13 s / 3 on two nodes of one card, at the efficiency of 2021's table."""
    given = {"azure_dataset": "brain_multicoil", "nodes": 2, "price_per_hour": 3.5}
    said = str(plan_reconstruction(target="azureml", weights=weights, **given))
    assert "2 node(s) of cluster gpu-cluster (STANDARD_NC24ADS_A100_V4" in said
    assert "\nestimate   1 s, about 0.00 US dollars at 96% parallel efficiency; " in said
    assert "\nestimate   cost: price_per_hour=3.5 US dollars a node" in said
    # Nobody has measured a network that learns nothing, or one without GPUs.
    for other in ({"network": "tv"}, {"weights": weights, "cluster": "cpu-cluster"}):
        said = str(plan_reconstruction(target="azureml", **given, **other))
        assert "\nestimate   7.00 US dollars an hour; how long is not known: price_per" in said
    assert stored.azureml.jobs == {}


def test_a_preempted_reconstruction_makes_only_what_is_missing_of_the_volumes_asked_for(
    stored, tiny_study, project
):
    """Nodes that begin again may know of other results; they share out the volumes alike.

    By the other SDK, with a method that needs no training, and downloaded.
    """
    content = (tiny_study / "multicoil_val/file2.h5").read_bytes()
    for number in range(4, 9):
        stored.storage.container().upload_blob(
            f"brain_multicoil/multicoil_val/file{number}.h5", content
        )

    def preempt_once_a_volume_is_kept():
        end = time.monotonic() + 200
        while time.monotonic() < end and not any(
            job.status in ENDED for job in stored.azureml.jobs.values()
        ):
            names = stored.storage.names(prefix="runs/tv/reconstructions/")
            if any(name.endswith(".h5") for name in names):
                stored.azureml.job.preempt(node=1, warning=0.5)
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=preempt_once_a_volume_is_kept, daemon=True)
    watcher.start()
    shown = executed(
        "reconstruct",
        project,
        network="tv",
        network_options="iterations=400",
        azure_dataset="brain_multicoil",
        dataset_access="download",
        volumes=6,
        num_nodes=2,
        sdk="v2",
    )
    watcher.join()
    job = stored.azureml.job
    assert (job.status, job.attempts, len(stored.azureml.jobs)) == ("Completed", 2, 1), job.log(0)
    assert job.downloads["dataset"] == 4  # two nodes, twice
    assert "sent through AzureML's SDK v2" in shown
    results = Results("outputs/tv")
    assert [each.volume.path for each in results] == [
        f"multicoil_val/file{number}.h5" for number in range(2, 8)
    ]
    assert {each.network for each in results} == {"tv"}
    kept = re.findall(r"rank \d: 1 of (\d)", job.log(0) + job.log(1))
    assert sum(map(int, kept)) < 6


def test_what_fails_on_a_node_is_told_and_another_order_waits_for_its_end(stored, project):
    chosen = {"dataset": "brain_multicoil", "volume": "nobody", "target": "azureml"}
    page = ExplorePage.of(values(ExplorePage, **chosen, cluster="cpu-cluster"))
    cluster = stored.azureml.clusters["cpu-cluster"]
    cluster.paused.set()
    lines = on_cluster(page.plan())
    assert "sent as run" in next(lines)
    lines.close()
    assert "found run" in next(on_cluster(page.plan()))
    other = page.model_copy(update={"volume": "somebody"})
    with pytest.raises(ValueError, match="still at work for outputs/cluster/explore/brain_multico"):
        next(on_cluster(other.plan()))
    cluster.paused.clear()
    with pytest.raises(TrainingFailedError, match="rank 0: ValueError: volume='nobody'"):
        list(on_cluster(page.plan()))
    assert len(stored.azureml.jobs) == 1


def test_what_a_job_showed_is_of_the_volumes_that_were_there_then(stored, project):
    page = CachePage.of(values(CachePage, dataset="brain_multicoil", target="azureml"))
    container, before = stored.storage.container(), page.plan().asked
    container.upload_blob("brain_multicoil/dataset_cache.json", b"{}")
    assert page.plan().asked == before
    container.upload_blob("brain_multicoil/multicoil_val/more.h5", b"")
    assert page.plan().asked != before


def test_what_a_node_would_refuse_is_refused_before_anything_is_sent(stored, project):
    """A dataset of any name will do; where somebody has indexed it, its volumes are known here."""
    container = stored.storage.container()
    for name in (
        "brain_multicoil/multicoil_val/file2.h5",
        "brain_multicoil/multicoil_val/file3.h5",
    ):
        copy = name.replace("brain_multicoil/", "the bräin's (2)/", 1)
        container.upload_blob(copy, container.download_blob(name).readall())
    chosen = {"dataset": "the bräin's (2)", "volume": "nobody", "target": "azureml"}
    page = ExplorePage.of(values(ExplorePage, **chosen))
    planned = page.plan()
    assert shown(planned.folder) == "outputs/cluster/explore/the_br_in_s_2"
    datastores = planned.cloud.sender.datastores()
    open_cache(choose_datastore(datastores, None).store("the bräin's (2)"))
    with pytest.raises(ValueError, match=r"volume='nobody': the bräin's .* has 2 volumes, such as"):
        page.plan()
    asked = {"target": "azureml", "network": "tv"}
    for wrong, message in (
        ({}, "or give azure_dataset, which tv needs alone"),
        ({"local_dataset": "x", "run": "y"}, "for target=azureml give azure_dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            ReconstructPage.of(values(ReconstructPage, **asked, **wrong)).looked_at().plan()
    assert stored.azureml.jobs == {}


def test_indexing_and_looking_on_a_node_shows_here_what_its_cells_showed_there(stored, project):
    shown = executed("cache", project, dataset="brain_multicoil", sdk=OLDEST, cluster=None)
    assert stored.azureml.job.status == "Completed", stored.azureml.job.log(0)
    folder = project / "outputs/cluster/cache/brain_multicoil"
    assert load_cache(folder, earlier=True).counts["val"] == (2, 4)
    assert "Files left out: 0" in shown
    assert "brain_multicoil: volumes by acquisition" in (folder / "cache.ipynb").read_text()
    there = nbformat.read(folder / "cache.ipynb", as_version=4)
    assert there.metadata.papermill.exception is None
    shown = executed("explore", project, dataset="brain_multicoil", slice_number=1, sdk="v2")
    job = stored.azureml.job
    assert job.status == "Completed", job.log(0)
    assert (len(stored.azureml.jobs), job.submission.nodes) == (2, 1)
    there = nbformat.read(
        project / "outputs/cluster/explore/brain_multicoil/explore.ipynb", as_version=4
    )
    figures = [
        output.data["image/png"]
        for cell in there.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert len(figures) > 10
    assert all(json.dumps(figure) in shown for figure in figures)
