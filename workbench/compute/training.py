"""From a notebook's parameters to a training run: everything is checked before anything starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.azure_login import find_workspace
from workbench.catalog import model_by_name
from workbench.compute.cluster_plan import ClusterChoices, refuse_local
from workbench.compute.cluster_run import on_cluster
from workbench.compute.cluster_training import TrainingRun, plan_on_cluster
from workbench.compute.evaluation import FOLDER, parse_splits, training_volumes
from workbench.compute.gpus import check_gpus
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import run_folder, training_job, try_own_code
from workbench.compute.kept import fetch, keeping
from workbench.compute.loggers import USUAL, check_installed, login_of, read_loggers
from workbench.compute.node import ERRORS, this_node
from workbench.compute.plan import Cloud, Plan, checked_job, data_remarks
from workbench.compute.runs import Run, check_not_sent, only_writer, prepare_run, take_up
from workbench.data.cache import open_dataset
from workbench.progress import relayed
from workbench.settings import resolve, shown
from workbench.stores import credentials_for

TARGETS = ("auto", "local", "azureml")


def plan_training(
    *,
    model: str,
    nodes: int = 1,
    target: str = "auto",
    local_dataset: str | None = None,
    resume: bool = True,
    reconstruct: str | None = None,
    **choices: Any,
) -> Plan:
    """Check a notebook's parameters and prepare the run's folder; ``train.ipynb`` explains each.

    The target "auto" is AzureML where a workspace is configured and the dataset is not on this
    machine, or where the run was sent there before.
    ``choices`` are what ``training_job`` takes, and the fields of ``ClusterChoices``.

    Raises:
        ValueError: a parameter is outside what is allowed, or the dataset cannot be trained on.
        FileNotFoundError: there is no such dataset.
        UnusableGpuError: this machine's GPUs cannot run this build of torch.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    if target not in TARGETS:
        raise ValueError(f"target={target!r}: give one of {', '.join(TARGETS)}")
    splits = parse_splits(reconstruct)
    of_cluster = {key: choices.pop(key, None) for key in ClusterChoices.model_fields}
    # Numbers and own code are checked before the dataset is opened, which can take a while.
    try_own_code(training_job(Path(), synthetic=False, model=model, **choices))
    workspace = None if target == "local" else find_workspace()
    here = local_dataset or _dataset_here(model)
    run = Run(run_folder(choices.get("name") or model_by_name(model).name))
    if target == "azureml" or (workspace and not local_dataset and (run.awaited or not here)):
        refuse_local(local_dataset)
        return plan_on_cluster(model, nodes, resume, splits, choices, of_cluster)
    why = "no AzureML workspace is configured, so the job runs on this machine"
    if target == "local":
        why = "target=local, so the job runs on this machine"
    elif workspace:
        named = "local_dataset is for this machine" if local_dataset else f"{here} is here"
        why = (
            f"two ways: on this machine, or on a cluster of workspace {workspace.name} with "
            f"target=azureml. Chosen: this machine, as {named}; the workspace was not asked"
        )
    if unused := [key for key, value in of_cluster.items() if value not in (None, True)]:
        why += f"; {', '.join(unused)} has no effect here"
    if node := this_node():
        check_gpus(node.device == "GPU")
    return _plan_here(model, nodes, local_dataset, resume, splits or (), choices, why)


def _dataset_here(model: str) -> str:
    """Return the folder of a model's dataset on this machine, phantoms aside; "" without one."""
    folder = resolve(Path("datasets", model_by_name(model).dataset))
    return shown(folder) if folder.is_dir() else ""


def _plan_here(
    model: str,
    nodes: int,
    local_dataset: str | None,
    resume: bool,
    splits: tuple[str, ...],
    choices: dict[str, Any],
    why: str,
) -> Plan:
    ranks = ranks_here(nodes)
    node = ranks.node
    if node is None:  # a node's environment has been built for its job
        check_installed(read_loggers(choices.get("logger") or USUAL))
    # To look at each file of a mount takes minutes.
    cache = open_dataset(local_dataset or model_by_name(model).dataset, check=node is None)
    job = checked_job(model, cache, splits, choices)
    if job.precision == "16" and ranks.device == "CPU":
        raise ValueError("precision=16: only GPUs train in float16; give 32 or bf16")
    train, val = training_volumes(job, cache)
    if ranks.total > min(train.slices, val.slices):
        raise ValueError(
            f"nodes={nodes}: {ranks.total} processes are more than the {train.slices} training or "
            f"{val.slices} validation slices"
        )
    remarks = [] if node else [why]
    if node is None:
        check_not_sent(Run(run_folder(job.name)))
        if ranks.device == "GPU" and nodes != 1:
            remarks.append(
                f"nodes={nodes} has no effect here: one process a GPU, {ranks.count} in all"
            )
        elif nodes > 1:
            remarks.append(
                f"nodes={nodes}: this machine has no GPU, so {nodes} CPU processes stand for them"
            )
    elif node.store:
        without = (f"{ERRORS}/", *([f"{FOLDER}/"] if node.rank else []))
        fetch(node.store, run_folder(job.name), lambda path: not path.startswith(without))
    if needs := credentials_for(job.dataset):
        remarks.append(
            f"the processes read a cloud's storage: they are handed {needs[0]}, and no other secret"
        )
    return Plan(
        job=job,
        cache=cache,
        run=prepare_run(job, cache, resume=resume),
        where=ranks,
        splits=splits,
        remarks=(*remarks, *data_remarks(job, cache, choices)),
        resume=resume,
    )


def train(plan: Plan) -> Iterator[str]:
    """Train, then reconstruct the plan's splits; yield the lines that the run prints.

    A run that is finished already returns at once.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
        RuntimeError: another process trains into the same folder.
    """
    where = plan.where
    if isinstance(where, Cloud):
        yield from relayed(on_cluster(TrainingRun(plan, where)))
    else:
        yield from relayed(_train_here(plan, where))


def _train_here(plan: Plan, ranks: Ranks) -> Iterator[str]:
    """Train what was planned, whatever was planned and run in the same folder since then."""
    node, run = ranks.node, plan.run
    with only_writer(run) as lock:
        if node is None:
            check_not_sent(run)
        take_up(run, plan.job, plan.cache, resume=plan.resume)
        # Of a job's nodes only the first knows what was reconstructed: its ranks ask it later.
        if not (node and plan.splits) and (done := plan.finished):
            yield done
            return
        needs = (*credentials_for(plan.job.dataset), *login_of(plan.job.logger))
        lines = run_here(run, "workbench.recon.run", ranks, *plan.splits, needs=needs, lock=lock)
        if node and node.store:  # every node keeps what it reconstructs, the first one the run
            own = f"{FOLDER}/" if node.rank else ""
            lines = keeping(run.folder, node, lines, lambda path: path.startswith(own))
        yield from lines
