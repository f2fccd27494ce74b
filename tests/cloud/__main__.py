"""Run a command in the cloud, by default JupyterLab on the notebooks: ``make cloud``.

The bucket holds a small phantom as fastMRI packs its data, the variables that the notebooks read
name the cloud's workspace, login, storage and links, and all of it is gone at the end.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.cloud.cloud import Cloud
from workbench.compute.processes import die_with_parent
from workbench.settings import LINKS_VARIABLE
from workbench_demo.pack import pack, packed_names
from workbench_demo.phantom.study import write_study
from workbench_demo.sizes import SIZES

_LAB = (
    *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.root_dir=."),
    *("--LabApp.default_url=/lab/tree/notebooks", "--LabApp.news_url=None"),
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
)


def main() -> int:
    """Start the cloud, run the command in it, and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloud", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of the phantom to ingest")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="what to run; by default JupyterLab"
    )
    given = parser.parse_args()
    command = given.command or [*_LAB, *(["--allow-root"] if os.geteuid() == 0 else [])]
    with (
        tempfile.TemporaryDirectory(prefix="cloud-") as folder,
        Cloud(Path(folder)) as cloud,
    ):
        _fill(cloud, given.size)
        environment = {
            **os.environ,
            **cloud.environment,
            "AZURE_STORAGE_CONNECTION_STRING": cloud.storage.connection_string,
            LINKS_VARIABLE: _email(cloud, given.size),
        }
        print(
            f"An Azure on this machine: workspace {cloud.workspace.name} in the resource group "
            f"{cloud.workspace.resource_group} with clusters {', '.join(cloud.azureml.clusters)}, "
            f"storage account {cloud.storage.account}, and a phantom behind fastMRI's links. It "
            "ends with the command.",
            flush=True,
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
        try:
            # Ctrl-C reaches the command as well, and it is the one that decides when to end.
            while process.poll() is None:
                with suppress(KeyboardInterrupt):
                    process.wait()
        finally:
            process.terminate()
            process.wait()
        return process.returncode


def _fill(cloud: Cloud, size: str) -> None:
    """Put a phantom into the bucket, packed as fastMRI's data is."""
    parts = SIZES[size].parts
    studies = {part.dataset: cloud.folder / "phantom" / part.dataset for part in parts}
    for part in parts:
        write_study(studies[part.dataset], part.dataset, **part.study)
    pack(studies, cloud.bucket.folder)


def _email(cloud: Cloud, size: str) -> str:
    """Return the mails that lead to the phantom; the first one lists the hashes of all."""
    sums, mails = ["SHA256"], []
    for part in SIZES[size].parts:
        names = packed_names(part.dataset, part.study["volumes"])
        mails.append(cloud.bucket.email(part.generation, names=[*names, *sums]))
        sums = []
    return "\n".join(mails)


if __name__ == "__main__":
    sys.exit(main())
