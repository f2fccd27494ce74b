"""What a training is to begin with: found, read and checked before anything slow starts."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.compute.evaluation import sha256_of
from workbench.compute.jobs import TrainingJob, flat
from workbench.compute.kept import fetch
from workbench.compute.node import this_node
from workbench.compute.runs import SENT, Run
from workbench.compute.start import START, Start
from workbench.models import NETWORKS, released
from workbench.models.own import is_own
from workbench.models.reconstructor import Reconstructor
from workbench.recon.torch_file import read_torch_file
from workbench.recon.weights import file_of, job_in, load_network
from workbench.settings import shown

_FASTMRI: dict[str, tuple[str, ...]] = {"fastMRI": ("train", "val")}
"""What released weights were trained on: fastMRI's leaderboard entries took both."""


def find_start(
    asked: str, run: Run, *, network: str | None = None, options: Mapping[str, Any] | None = None
) -> Start:
    """Find the weights that a run is to begin with, and read whose they are.

    A run that has begun keeps those that it began with, whatever its source has become since. On
    a node of a cluster they come with the run.

    Args:
        asked: a run (its best checkpoint), a file, or a name of released weights.
        run: whose folder has them already, perhaps.
        network: whose weights they are, where the file does not say it; see ``load_model``.
        options: arguments of that network's constructor.

    Raises:
        FileNotFoundError: there is no such run or file.
        ValueError: the file is damaged, or holds no network's weights.
        OSError: released weights could not be fetched.
    """
    if kept := _kept_start(asked, run):
        return kept
    file = file_of(asked)
    job = job_in(read_torch_file(file))
    named = network if is_own(network) and job.get("network") not in NETWORKS else None
    found = load_network(file, named, options if named else None)
    return Start(
        asked=asked,
        weights_sha256=sha256_of(file),
        seen=_FASTMRI if asked in released() else _seen(job),
        network=found.name,
        config=asdict(found.config),
        first_estimate=flat(job).get("first_estimate"),
        file=file,
    )


def begin_with(network: Reconstructor, job: TrainingJob, folder: Path) -> None:
    """Load the weights that a job begins with into its network, from its run's folder.

    Raises:
        ValueError: the file is not the one that the job names.
    """
    start, file = job.start_from, Run(folder).start
    assert start is not None
    if not file.is_file() or sha256_of(file) != start.weights_sha256:
        raise ValueError(
            f"{shown(file)} is not the file that start_from={start.asked} named when the run was "
            "planned: plan it anew"
        )
    own = (job.network, asdict(job.config)) if is_own(job.network) else (None, None)
    network.load_state_dict(load_network(file, *own).state_dict())


def _kept_start(asked: str, run: Run) -> Start | None:
    """Return what a run began with, where it has begun, or came to this node to begin here."""
    node = this_node()
    if node and node.store:
        fetch(node.store, run.folder, lambda path: path in ("job.json", START))
    began = node or run.last.exists() or (run.folder / SENT).exists()
    if not began or not (run.folder / "job.json").exists():
        return None
    job = run.job
    if job.start_from is None or job.start_from.asked != asked:
        return None
    return job.start_from.model_copy(
        update={
            "network": job.network,
            "config": asdict(job.config),
            "first_estimate": job.first_estimate,
            "file": run.start,
        }
    )


def _seen(job: Mapping[str, Any]) -> dict[str, tuple[str, ...]] | None:
    """Return what a run, and what that run began with, were trained on; None where it is unsaid."""
    if not isinstance(job.get("dataset"), str):
        return None
    started = job.get("start_from")
    before = started.get("seen") if isinstance(started, Mapping) else {}
    if before is None:
        return None
    name = shown(job["dataset"])
    seen = {key: tuple(splits) for key, splits in before.items()}
    return seen | {name: tuple(dict.fromkeys((*seen.get(name, ()), "train")))}
