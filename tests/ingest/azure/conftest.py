import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from azure.core.pipeline.policies._retry import RetryPolicyBase

from tests.ingest.conftest import packed, volumes
from workbench.azure_login import Workspace, credential
from workbench.azure_storage import parse_connection
from workbench.ingest import factory_copy
from workbench.ingest.factory_copy import factory_place
from workbench.ingest.links import parse_links
from workbench.ingest.plan import make_plan
from workbench.ingest.run import ingest
from workbench.settings import Secret, project_root
from workbench.stores.blob import open_container

PAGE = project_root() / "notebooks/ingest.ipynb"  # tests set another root
# What each archive is in truth, whatever its name says.
RELEASES = {
    "2021": {
        "multicoil_train.tar.gz": (
            "tar",
            volumes("multicoil_train/a.h5", "multicoil_train/b.h5"),
        ),
        "multicoil_val.tar.gz": ("gz", volumes("multicoil_val/c.h5")),
        "brain_multicoil_val.tar.gz": ("tar", volumes("multicoil_val/d.h5")),
        "knee_mri_dicom_batch1.tar": ("tar", volumes("1/series/0001.dcm")),
    },
    "2025": {
        "knee_multicoil_train_batch_0.tar.xz": ("xz", volumes("multicoil_train/a.h5")),
        "knee_multicoil_val.tar.xz": ("xz", volumes("multicoil_val/b.h5", size=3_000_000)),
        "knee_multicoil_test.tar.xz": ("tar", volumes("multicoil_test/c.h5")),
    },
}


class Release:
    """An email's archives in the cloud's bucket."""

    def __init__(self, cloud, generation: str) -> None:
        self.cloud, self.generation = cloud, generation
        self.members: dict[str, dict[str, bytes]] = {}
        listed = []
        for name, (kind, members) in RELEASES[generation].items():
            content = packed(kind, members)
            (cloud.bucket.folder / name).write_bytes(content)
            listed.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            dataset = "brain_multicoil" if "brain" in name else "knee_multicoil"
            dataset = "knee_DICOMs" if "dicom" in name else dataset
            self.members.setdefault(dataset, {}).update(members)
        # The last is not listed.
        (cloud.bucket.folder / "SHA256").write_text("".join(listed[:-1]))

    @property
    def email(self) -> str:
        return self.cloud.bucket.email(self.generation)

    def plan(self, *, email="", container="datasets", location="", workspace=None, **more):
        of_factory = ("leftover", "secure_runs")
        place = factory_place(
            Workspace(**(vars(self.cloud.workspace) | (workspace or {}))),
            storage := parse_connection(Secret(self.cloud.storage.connection_string)),
            container,
            credential(),
            location,
            **{name: more.pop(name) for name in of_factory if name in more},
        )
        links = parse_links(email or self.email)
        return make_plan(links, open_container(storage, container), factory=place, **more)

    def run(self, plan, **more):
        return ingest(plan, **more)

    def ingest(self, **more):
        return self.run(self.plan(**more))

    def in_container(self, dataset: str) -> dict[str, bytes]:
        """Path -> bytes of what lies in a dataset's folder."""
        container = self.cloud.storage.container()
        names = self.cloud.storage.names(prefix=f"{dataset}/")
        return {
            name.removeprefix(f"{dataset}/"): container.download_blob(name).readall()
            for name in names
            if not name.endswith("ingest.json")
        }

    def files_of(self, dataset: str) -> list[str]:
        """Names of the archives that are kept of a dataset."""
        folder = f"{dataset}_compressed/"
        return [n.removeprefix(folder) for n in self.cloud.storage.names(prefix=folder)]


@pytest.fixture
def release(cloud, monkeypatch, tmp_path: Path):
    """Make a release of a generation, with this process in the cloud.

    It looks at the factory often, and the SDK's own tries follow each other soon; what the service
    asks it to wait, it waits.
    """
    cloud.apply(monkeypatch)
    monkeypatch.setattr(factory_copy, "_FIRST_LOOK", 0.1)
    monkeypatch.setattr(factory_copy, "_LONGEST_LOOK", 0.5)
    monkeypatch.setattr(RetryPolicyBase, "get_backoff_time", lambda *_: 0.05)
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))

    def make(generation: str = "2025") -> Release:
        return Release(cloud, generation)

    return make


def secrets_of(cloud, email: str) -> list[str]:
    """Everything that must not be seen: keys, and the signed parts of all links."""
    signatures = re.findall(r"Signature=([^&\"]+)", email)
    keys = re.findall(r"AWSAccessKeyId=(\w+)", email)
    assert len(signatures) >= 4
    return [cloud.storage.key, cloud.principal.secret, *set(keys), *signatures]


def found_in(secrets: list[str], text: str) -> list[int]:
    return [index for index, secret in enumerate(secrets) if secret in text]


def notebook(cloud, email: str, folder: Path) -> subprocess.Popen:
    """Run the notebook in a process of its own; it leaves ``out.ipynb`` and ``log``."""
    variables = {
        "FASTMRI_LINKS": email,
        "AZURE_STORAGE_CONNECTION_STRING": cloud.storage.connection_string,
        "IPYTHONDIR": str(folder / "ipython"),
    }
    command = [sys.executable, "-m", "papermill", str(PAGE), str(folder / "out.ipynb")]
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [*command, "-p", "destination", "azure", "--log-output", "--no-progress-bar"],
            env=os.environ | cloud.environment | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
