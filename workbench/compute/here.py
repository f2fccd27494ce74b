"""Training on this machine: torchrun over its GPUs, or over CPU processes where it has none."""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench.compute.processes import ProcessFailedError, lines_of
from workbench.compute.runs import Run, only_writer

ERROR_FILE = "error.json"


class TrainingFailedError(RuntimeError):
    """A rank failed; the message is that rank's own."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run on this machine.

    Attributes:
        count: number of processes.
        device: "GPU" or "CPU".
        threads: threads of each.
    """

    count: int
    device: str
    threads: int

    def __str__(self) -> str:
        plural = "process" if self.count == 1 else "processes"
        return f"{self.count} {self.device} {plural}, {self.threads} thread(s) each"


def ranks_here(nodes: int) -> Ranks:
    """Choose this machine's processes: one a GPU, or ``nodes`` on the CPU where it has none.

    Raises:
        ValueError: ``nodes`` is below 1.
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise ValueError(f"nodes={nodes!r}: give 1 or more")
    import torch

    gpus = torch.cuda.device_count()
    count = gpus or nodes
    return Ranks(count, "GPU" if gpus else "CPU", max(1, len(os.sched_getaffinity(0)) // count))


def run_here(run: Run, module: str, ranks: Ranks, *arguments: str) -> Iterator[str]:
    """Run a module on all ranks with the run's folder as its first argument; yield its lines.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
        RuntimeError: another process holds the run's folder.
    """
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        f"--nproc-per-node={ranks.count}",
    ]
    environment = {"OMP_NUM_THREADS": str(ranks.threads), "PYTHONUNBUFFERED": "1"}
    if sys.platform == "linux" and ranks.device == "CPU":
        environment["GLOO_SOCKET_IFNAME"] = "lo"  # ranks of one machine need no network
    error = run.folder / ERROR_FILE
    with only_writer(run):
        error.unlink(missing_ok=True)
        command = [*torchrun, "-m", module, str(run.folder), *arguments]
        reporting = False
        try:
            for line in lines_of(command, environment):
                # torchrun ends a failure with pages of its own: the rank's error says it better.
                reporting = reporting or "torch/distributed/elastic/multiprocessing/api.py" in line
                if not reporting:
                    yield line
        except ProcessFailedError as failure:
            raise TrainingFailedError(_cause(error) or str(failure)) from None


def note_error(folder: Path, error: BaseException) -> None:
    """Leave a rank's error for whoever started it; the first rank's stays."""
    rank = os.environ.get("RANK", "0")
    note = json.dumps({"rank": rank, "kind": type(error).__name__, "message": str(error)})
    try:
        with (folder / ERROR_FILE).open("x") as file:
            file.write(note)
    except FileExistsError:
        pass


def _cause(error: Path) -> str | None:
    if not error.exists():
        return None
    found = json.loads(error.read_text())
    return f"rank {found['rank']}: {found['kind']}: {found['message']}"
