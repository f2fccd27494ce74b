"""The agent of a job's ranks on one machine: ``python -m workbench.compute.ranks MODULE ...``.

torchrun starts each rank as a program of its own, which imports torch and Lightning anew: on two
cores, ten seconds for two ranks and forty for eight. Here torchrun's agent imports what the ranks
run once, and forks them. Where a fork is not safe, each is started afresh: outside of Linux, and on
GPUs, of which torchrun asks CUDA in the agent, and CUDA cannot be used in a fork after that.
"""

import argparse
import gc
import importlib
import sys
import traceback
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from workbench.compute.node import note_error
from workbench.compute.processes import begin_rank


def main(words: Sequence[str] | None = None) -> None:
    """Run the ``main`` of a module on all ranks; its arguments follow the module's name.

    Raises:
        ChildFailedError: a rank failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, required=True, help="ranks of this machine")
    parser.add_argument("--nodes", type=int, default=1, help="machines of the job")
    parser.add_argument("--node", type=int, default=0, help="this machine's number")
    parser.add_argument(
        "--meet", default="", help="HOST:PORT of machine 0, where there are several"
    )
    parser.add_argument("--gpus", action="store_true", help="the ranks use GPUs")
    parser.add_argument("module")
    parser.add_argument("arguments", nargs="*")
    asked = parser.parse_args(words)
    forks = sys.platform == "linux" and not asked.gpus
    launcher = _load("torch.distributed.launcher.api")
    if forks:
        _load(asked.module)
        gc.freeze()  # the ranks go on sharing it
    if asked.nodes > 1:
        meeting = {"rdzv_backend": "static", "rdzv_endpoint": asked.meet, "run_id": "none"}
    else:
        meeting = {
            "rdzv_backend": "c10d",
            "rdzv_endpoint": "localhost:0",
            "run_id": uuid.uuid4().hex,
        }
    config = launcher.LaunchConfig(
        min_nodes=asked.nodes,
        max_nodes=asked.nodes,
        nproc_per_node=asked.count,
        max_restarts=0,
        start_method="fork" if forks else "spawn",
        rdzv_configs={"rank": asked.node, "timeout": 900},
        # By its own name a machine may not know itself, and torchrun looks for it for minutes.
        local_addr=None if asked.nodes > 1 else "127.0.0.1",
        **meeting,
    )
    sys.stdout.flush()  # what a fork would print again
    launcher.elastic_launch(config, run_rank)(asked.module, asked.arguments)


def run_rank(module: str, arguments: Sequence[str]) -> None:
    """Be one rank: run a module's ``main`` with arguments as of a command line.

    The first argument is the run's folder, where an error is noted.
    """
    begin_rank()
    sys.argv = [module, *arguments]
    try:
        _load(module).main()
    except Exception as error:
        note_error(Path(arguments[0]), error)
        traceback.print_exc()
        raise


def _load(module: str) -> ModuleType:
    """Import a module, without looking for garbage meanwhile: there is none, and it takes long."""
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
