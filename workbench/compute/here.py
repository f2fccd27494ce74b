"""Training on this machine: a rank on each of its GPUs, or CPU processes where it has none.

As one node of a cluster's job it does the same, and the nodes' ranks join in one run.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from workbench.compute.gpus import count_gpus
from workbench.compute.node import (
    ERRORS,
    NOTE,
    Node,
    error_line,
    note_error,
    noted_error,
    this_node,
)
from workbench.compute.processes import ProcessFailedError, lines_of
from workbench.compute.runs import Run, only_writer
from workbench.models.entry import check_whole
from workbench.progress import RELAY
from workbench.settings import cores
from workbench.stores import DiskStore


class TrainingFailedError(RuntimeError):
    """A rank failed; the message is that rank's own, which has noted it."""

    noted = True


@dataclass(frozen=True)
class Ranks:
    """The processes of a run on this machine, and its place in a cluster's job, if it has one."""

    count: int
    device: str
    threads: int
    node: Node | None = None

    @property
    def total(self) -> int:
        """Number of processes on all machines of the job."""
        return self.count * (self.node.count if self.node else 1)

    def __str__(self) -> str:
        plural = "process" if self.count == 1 else "processes"
        text = f"{self.count} {self.device} {plural}, {self.threads} thread(s) each"
        if self.node and self.node.count > 1:
            text = f"node {self.node.rank} of {self.node.count} with {text}"
        return f"this machine: {text}"


def ranks_here(nodes: int) -> Ranks:
    """Choose this machine's processes: one a GPU, or ``nodes`` on the CPU where it has none.

    On a node of a cluster's job: one a GPU, or one on the CPU. ValueError: ``nodes`` is below 1,
    or not the number that the job runs on. They share the cores; OMP_NUM_THREADS may ask for fewer.
    """
    check_whole("nodes", nodes, 1)
    node = this_node()
    if node and node.count != nodes:
        raise ValueError(f"nodes={nodes}: this job runs on {node.count}")
    gpus = count_gpus()
    count = gpus or (1 if node else nodes)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = max(1, min(cores() // count, int(asked) if asked.isdecimal() else cores()))
    return Ranks(count, "GPU" if gpus else "CPU", threads, node)


def run_here(
    run: Run,
    module: str,
    ranks: Ranks,
    *arguments: str,
    needs: Sequence[str] = (),
    lock: int | None = None,
) -> Iterator[str]:
    """Run a module on all ranks with the run's folder as its first argument; yield its lines.

    Messages of progress are among them, for ``progress.relayed``. The ranks are handed the secrets
    that are named as needs, see ``child_environment``.

    The ranks hold the run's lock together with this process: as long as one of them lives, no
    other process gets the folder, even where this process was killed.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
    """
    environment = {"OMP_NUM_THREADS": str(ranks.threads), RELAY: "relay"}
    node = ranks.node if ranks.node and ranks.node.count > 1 else None
    meeting = ["--gpus"] if ranks.device == "GPU" else []
    if node:
        meeting += [f"--nodes={node.count}", f"--node={node.rank}"]
        meeting.append(f"--meet={node.address}:{node.port}")
    if sys.platform == "linux" and (not node or node.address in ("127.0.0.1", "localhost")):
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # ranks of one machine need no network
    agent = [sys.executable, "-m", "workbench.compute.ranks", f"--count={ranks.count}", *meeting]
    command = [*agent, module, str(run.folder), *arguments]
    with only_writer(run) if lock is None else nullcontext(lock) as held:
        shutil.rmtree(run.folder / ERRORS, ignore_errors=True)
        reporting, note = False, ""
        try:
            for line in lines_of(command, environment, needs, held):
                if line.startswith(NOTE):  # what no disk had room for
                    note = note or error_line(line.removeprefix(NOTE))
                    continue
                # torchrun ends a failure with pages of its own: the rank's error says it better.
                reporting = reporting or "torch/distributed/elastic/multiprocessing/api.py" in line
                if not reporting:
                    yield line
        except ProcessFailedError as failure:
            if said := note or noted_error(DiskStore(run.folder))[0]:
                raise TrainingFailedError(said) from None
            error = TrainingFailedError(str(failure))
            if killed := re.search(r"Signal \d+ \((?!SIGTERM)\w+\)", str(failure)):
                error = TrainingFailedError(
                    f"a process ended by {killed[0]}, as where the machine's memory is full: give "
                    "fewer workers, or a smaller batch_size or network"
                )
                note_error(run.folder, error)
            raise error from None
