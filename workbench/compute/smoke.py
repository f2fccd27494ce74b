"""A smoke run: asks a real subscription, for less than a dollar, what no document settles.

``python -m workbench.compute.smoke`` says what it will do and cost, and asks; then it sends a tiny
job twice to one node, has a Data Factory copy a small public file twice, cleans up, and prints a
table of what held.
"""

import argparse
import secrets
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from workbench.azure_login import LoginError, credential, require_workspace
from workbench.azure_resources import ResourceError
from workbench.azure_storage import Storage, find_storage
from workbench.compute.cluster import SDKS, choose_cluster, choose_datastore, connect
from workbench.compute.cluster_job import DataFolder, ModuleJob
from workbench.compute.estimate import retail_price
from workbench.compute.gpus import has_gpus
from workbench.compute.images import IMAGES, check_image
from workbench.compute.sender import (
    Cluster,
    ClusterError,
    RunState,
    Sender,
    new_run,
)
from workbench.compute.smoke_node import CONTENT, KEPT
from workbench.ingest.factory import ENDED, Factory, temporary_factory
from workbench.ingest.factory_copy import factory_place
from workbench.ingest.factory_documents import factory_documents
from workbench.ingest.links import SignedLink
from workbench.settings import Secret
from workbench.stores.blob import BlobStore, open_container

SECONDS_BETWEEN_LOOKS = 10.0
HOURS = 0.5
"""What two short jobs take of a node, with the minutes in which it comes and goes."""

PUBLIC_FILE = "https://raw.githubusercontent.com/Azure/AzureML-Containers/HEAD/README.md?smoke=1"
"""A small public file; what stands behind "?" is sent as a link's signature is."""


_HARMLESS = "nothing: the workbench does without on mounts"
ROWS: dict[str, tuple[str, str]] = {
    "image": (
        "an image is built from Microsoft's base image and this project's packages",
        "read the build's log in the studio; another image: workbench/compute/images.py",
    ),
    "channels": (
        "conda builds it with conda-forge and nodefaults, and asks for no terms",
        "build the image from a Dockerfile that removes the channel `defaults`, and tell us",
    ),
    "distribution": (
        "the PyTorch distribution tells a node its place",
        "send jobs to one node only, and tell us which variables the log shows",
    ),
    "mpirun": ("mpirun is on the image's PATH", "nothing: the PyTorch distribution needs none"),
    "read": ("a mount for reading shows what is in storage", "give dataset_access=download"),
    "store write": (
        "a mount for writing takes a file, and gives it back",
        "the datastore's key or the cluster's identity may not write: look at its credentials",
    ),
    "store append": ("... takes what is appended", _HARMLESS),
    "store rename": ("... takes a rename", _HARMLESS),
    "store change": ("... cuts, dates and deletes files", _HARMLESS),
    "store lock": ("... takes a lock", _HARMLESS),
    "outputs write": (
        "outputs/ takes a file, and gives it back",
        "results come by the store all the same",
    ),
    "outputs append": ("... takes what is appended", _HARMLESS),
    "outputs rename": ("... takes a rename", _HARMLESS),
    "outputs change": ("... cuts, dates and deletes files", _HARMLESS),
    "outputs lock": ("... takes a lock", _HARMLESS),
    "landed": (
        "what a job that fails has written to its mount is in storage",
        "the first error of a failing job may be lost: read the job's log in the studio",
    ),
    "requeued": (
        "a job that is queued again finds what its first attempt left",
        "a preempted training would begin anew: give low_priority=False",
    ),
    "secure": (
        "Data Factory takes a link as a secure parameter of its run",
        "give secure_runs=False to the ingest",
    ),
    "plain": (
        "Data Factory takes a link in a dataset of its own (secure_runs=False)",
        "ingest to this machine (destination=local), then `workbench storage`",
    ),
    "preemption": ("a node is warned before it is taken away, and for how long", ""),
    "peers": ("other nodes end soon once one has failed", ""),
    "logins": ("logins by browser, device code and CLI work", ""),
}
"""Row -> what is asked, and what to do where it does not hold."""

NOT_TRIED = {
    "preemption": "nobody can order a preemption",
    "peers": "it takes two nodes, and this takes one",
    "logins": "one login serves a run: the one that this run used works",
}


def table(found: Mapping[str, str]) -> str:
    """Write what held, row by row; what to do stands below a row that did not."""
    lines = []
    for row, (asked, advice) in ROWS.items():
        if row in NOT_TRIED or row not in found:
            why = NOT_TRIED.get(row, "an earlier step did not get so far, or was left out")
            lines += [f"not tried      {row:<16}{asked}", f"{'':31}why: {why}"]
        elif found[row]:
            lines += [
                f"did not hold   {row:<16}{asked}",
                f"{'':31}{found[row]}",
                f"{'':31}what to do: {advice}",
            ]
        else:
            lines.append(f"held           {row:<16}{asked}")
    return "\n".join(lines)


@dataclass
class SmokeRun:
    """A walk through a workspace, and what it found: row -> "" where it held, else why not.

    Attributes:
        folder: in the datastore's container; all that the walk makes is in it.
        storage: that a Data Factory copies into; None leaves the factory out.
        file: address of the public file.
    """

    sender: Sender
    cluster: Cluster
    datastore: str
    folder: BlobStore
    storage: Storage | None
    file: str = PUBLIC_FILE
    found: dict[str, str] = field(default_factory=dict)

    def intent(self) -> str:
        """Say what it will do, and what that costs."""
        price = retail_price(
            self.cluster.vm_size, self.cluster.region, low_priority=self.cluster.low_priority
        )
        cost = "at a price that could not be looked up here"
        if price:
            cost = f"some {price.dollars * HOURS:.2f} US dollars ({price.source})"
        factory = "" if self.storage else " (left out: no connection string is configured)"
        return (
            f"This makes the folder {self.folder.address}, sends two jobs of a minute to one node "
            f"of {self.cluster} through SDK {self.sender.sdk}, and makes a Data Factory for two "
            f"copies of {urlsplit(self.file).path.rpartition('/')[2]}{factory}. It takes some 30 "
            "minutes, most of them for the image and the node. At most half an hour of the node is "
            f"billed, {cost}, and some cents for the image's build and the copies. "
            "Folder and factory are deleted at the end; the image stays for later jobs, "
            "and the runs stay in the experiment fastmri-smoke."
        )

    def walk(self) -> Generator[str, None, None]:
        """Do it; yield what happens. What was made is gone at the end, also of a broken walk."""
        if self.storage:  # a new account may have no such container
            open_container(self.storage, self.folder.container_name)
        try:
            yield from self._jobs()
            if self.storage:
                for row, secure in (("secure", True), ("plain", False)):
                    yield f"Data Factory: secure_runs={secure}"
                    try:
                        self.found[row] = self._copied(secure, self.storage)
                    except (ResourceError, LoginError, ValueError, OSError) as error:
                        self.found[row] = str(error)
        finally:
            for entry in list(self.folder.list()):
                self.folder.delete(entry.path)

    # ---- jobs --------------------------------------------------------------------------------

    def _jobs(self) -> Generator[str, None, None]:
        self.folder.write("data/given.bin", CONTENT)
        state = yield from self._attempt("1")
        first = self._result("1")
        self.found |= first or {}
        if first is None:  # the job did not come so far, or its mount kept nothing
            why = f"{state.error or state.status}; its logs: {state.url}"
            self.found["image"] = self.found["landed"] = why
            return
        self.found |= dict.fromkeys(("image", "channels", "landed"), "")
        if (kept := self.folder.folder("store").entry(KEPT)) is None or kept.size < len(CONTENT):
            self.found["landed"] = f"{KEPT} has {kept.size if kept else 'no'} bytes in storage"
        state = yield from self._attempt("2")
        second = self._result("2") or {"again": f"{state.error or state.status}: {state.url}"}
        self.found["requeued"] = second["again"]

    def _attempt(self, number: str) -> Generator[str, None, RunState]:
        """Send one attempt and wait for its end; yield what happens, return its last state."""
        path = self.folder.path
        job = ModuleJob(
            name=f"smoke-{number}",
            experiment="fastmri-smoke",
            cluster=self.cluster.name,
            nodes=1,
            device="CPU",
            dataset=DataFolder("dataset", self.datastore, f"{path}/data", "mount"),
            store=DataFolder("store", self.datastore, f"{path}/store", "write"),
            parameters={"attempt": number},
            module="workbench.compute.smoke_node",
        )
        run, status = new_run(), ""
        yield f"job {number} of 2 is run {run}"
        try:
            self.sender.send(job, run)
            for state in self.sender.looks(run, SECONDS_BETWEEN_LOOKS):
                if state.status != status:
                    status = state.status
                    yield f"job {number}: {status}"
            return state
        except BaseException:
            with suppress(ClusterError):
                self.sender.cancel(run)
            raise

    def _result(self, number: str) -> dict[str, str] | None:
        try:
            return dict(self.folder.read_json(f"store/result-{number}.json"))
        except (FileNotFoundError, ValueError):
            return None

    # ---- Data Factory ------------------------------------------------------------------------

    def _copied(self, secure: bool, storage: Storage) -> str:
        """Have a factory copy the file; return "", or why it did not come."""
        container, login = self.folder.container_name, credential()
        place = factory_place(self.sender.address, storage, container, login)
        dataset = f"{self.folder.path}/{'secure' if secure else 'plain'}"
        link = SignedLink(
            "smoke.tar.xz", Secret(self.file), urlsplit(self.file).path, dataset, None
        )
        documents = factory_documents(
            [(link, ".tar.xz", "smoke.bin")], container, storage.connection, secure_runs=secure
        )
        factory = Factory(place.workspace, login)
        # Under a mark of its own: no ingest takes it for one of its own.
        with temporary_factory(factory, place.location, self.folder.address):
            factory.put(documents)
            run = factory.start(documents.runs[link.stem])
            while run.status not in ENDED:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                run = next(each for each in factory.runs() if each.id == run.id)
        landed = self.folder.entry(f"{dataset.rpartition('/')[2]}_compressed/smoke.bin")
        if run.status != "Succeeded":
            return f"{run.status}: {run.message}"
        return "" if landed and landed.size else "the run succeeded, and nothing landed"


def smoke_run(
    workspace: str = "",
    cluster: str = "",
    datastore: str = "",
    sdk: str | None = None,
    file: str = PUBLIC_FILE,
) -> SmokeRun:
    """Find what a smoke run needs; nothing is made yet.

    Raises:
        ValueError: there is no workspace, cluster or datastore that serves; the message says why.
        ClusterError: the workspace refuses.
        LoginError: no login works.
    """
    sender = connect(require_workspace(workspace), sdk)
    clusters = sender.clusters()
    if not cluster:  # the cheapest kind
        clusters = [each for each in clusters if each.max_nodes and not has_gpus(each.vm_size)]
        clusters = sorted(clusters, key=lambda each: not each.low_priority)[:1]
        if not clusters:
            raise ValueError(
                "the workspace has no cluster without GPUs: make one of low priority in the studio "
                "(Compute, Compute clusters), such as Standard_D2_v3, or name one by --cluster"
            )
    chosen = choose_cluster(clusters, cluster or None, 1, None)
    check_image(IMAGES["CPU"])
    data = choose_datastore(sender.datastores(), datastore or None)
    folder = data.store(f"smoke-{secrets.token_hex(4)}")
    try:
        storage = find_storage()
    except FileNotFoundError:
        storage = None
    if storage and storage.account != folder.account:
        storage = None
    return SmokeRun(sender, chosen, data.name, folder, storage, file)


def main() -> None:
    """Say what will be done, ask, do it, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m workbench.compute.smoke", description=__doc__)
    parser.add_argument("--workspace", default="", help="SUBSCRIPTION/GROUP/NAME; config.json's")
    parser.add_argument("--cluster", default="", help="by default one without GPUs, low priority")
    parser.add_argument("--datastore", default="", help="by default that of the container datasets")
    parser.add_argument("--sdk", choices=SDKS, help="by default the first that works here")
    parser.add_argument("--file", default=PUBLIC_FILE, help="a small public file to copy")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    given = vars(parser.parse_args())
    agreed = given.pop("yes")
    try:
        run = smoke_run(**given)
        print(run.intent())
        if not agreed and input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            sys.exit("Nothing was made.")
        try:
            with closing(run.walk()) as lines:
                for line in lines:
                    print(line, flush=True)
        finally:
            if run.found:
                print(table(run.found))
    except (ValueError, OSError, ClusterError, LoginError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
