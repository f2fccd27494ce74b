"""A reconstruction on a cluster: its notebook on every node, its results in their folder here."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.compute.cluster_job import ClusterJob
from workbench.compute.cluster_plan import Site
from workbench.compute.cluster_run import ClusterRun, on_cluster
from workbench.compute.kept import LOG_FILE
from workbench.compute.node import Node
from workbench.compute.own_code import code_for
from workbench.compute.plan import Cloud
from workbench.compute.runs import Run
from workbench.compute.sender import ClusterError
from workbench.data.cache import DatasetCache
from workbench.models.own import is_own
from workbench.recon.asked import Order
from workbench.recon.orders import begin, missing, take_away
from workbench.settings import shown


def job_for(
    site: Site, dataset: str, order: Order, part: DatasetCache, folder: Path, network: str
) -> ClusterJob:
    """Describe the job that reconstructs what an order asks for.

    Args:
        site: where it goes.
        dataset: its folder in the container.
        order: what is asked for.
        part: all its volumes, the first ones of its split.
        folder: of the results on this machine.
        network: the name of the network, whose code goes along where it is somebody's own.
    """
    asked: dict[str, Any] = {
        "split": order.split,
        "volumes": len(part),
        "nodes": site.nodes,
        "network": order.network,
        "network_options": order.network_options,
    }
    if sampling := order.sampling:
        asked |= {"mask": sampling.mask, "acceleration": _listed(sampling.accelerations)}
        asked["center_fraction"] = _listed(sampling.center_fractions)
    paths = {"local_dataset": "{dataset}"}
    if order.weights:
        paths["weights"] = f"{{store}}/{_weights_name(order)}"
    run = Run(folder.parent.parent).name
    return site.job(
        f"{run}/{folder.parent.name}/{folder.name}",
        dataset,
        parameters=asked,
        code=code_for({"network": network}) if is_own(network) else {},
        notebook="reconstruct",
        paths=paths,
    )


def wanted_by(node: Node) -> Callable[[str], bool]:
    """Say which files of the results' folder a node fetches and keeps: one writer for each."""
    return lambda path: path.endswith(".h5") or (path == LOG_FILE and not node.rank)


class ReconstructionRun(ClusterRun):
    """A reconstruction on a cluster: volumes that are there are not made again."""

    again = "go on with the volumes that are missing"

    def __init__(self, cloud: Cloud, order: Order, part: DatasetCache, folder: Path) -> None:
        super().__init__(folder, cloud)
        self.order, self.part = order, part

    @property
    def lacking(self) -> int:
        """How many volumes are not there."""
        return len(missing(self.order, self.part, self.folder).volumes)

    def take_up(self) -> None:
        """Leave what readers need: the nodes' own order says where they have the dataset."""
        begin(self.order, self.part, self.folder)

    def finished(self, completed: bool) -> str:
        """Say that all volumes are there."""
        return "" if self.lacking else f"{shown(self.folder)} holds every volume"

    def bring_along(self) -> None:
        """Put the weights into the store, once."""
        name, store = _weights_name(self.order), self.cloud.store
        if self.order.weights and store.entry(name) is None:
            with Path(self.order.weights).open("rb") as file:
                store.write(name, file)

    def bring(self, wanted: Callable[[str], bool]) -> list[str]:
        """Bring what is wanted, but of results those alone that were asked for.

        The store has earlier ones, too, until the nodes have made them anew.
        """
        came = super().bring(wanted)
        take_away(missing(self.order, self.part, self.folder), self.part, self.folder)
        return came

    def wanted(self, path: str) -> bool:
        """Want the reconstructed volumes, the log and the notebook."""
        return path.endswith((".h5", ".ipynb", LOG_FILE))


def reconstruct_on_cluster(
    cloud: Cloud, order: Order, part: DatasetCache, folder: Path
) -> Iterator[str]:
    """Have what an order lacks reconstructed on a cluster; see ``on_cluster``.

    Raises:
        ClusterError: the run ended well and not all volumes came; or AzureML refuses.
        TrainingFailedError: a rank failed; with that rank's own error.
    """
    work = ReconstructionRun(cloud, order, part, folder)
    yield from on_cluster(work)
    if lacking := work.lacking:
        raise ClusterError(
            f"{lacking} of {len(part)} volumes did not come back into {shown(folder)}: run this "
            "again, which reconstructs those"
        )


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(map(str, values))


def _weights_name(order: Order) -> str:
    """Name the weights in the store: hidden, as they are no result."""
    return f".weights-{order.weights_sha256[:16]}{Path(order.weights).suffix}"
