"""A training on a cluster: planned, sent or found again, and brought back."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from workbench.catalog import model_by_name
from workbench.compute.cluster_plan import find_site, read_choices
from workbench.compute.cluster_run import ClusterRun
from workbench.compute.estimate import pace_of
from workbench.compute.evaluation import FOLDER, judged_splits
from workbench.compute.jobs import TrainingJob, run_folder
from workbench.compute.kept import fetch, hand_over, put, went_on
from workbench.compute.loggers import USUAL_ON_CLUSTER, check_on_cluster, read_loggers
from workbench.compute.own_code import code_for
from workbench.compute.plan import Cloud, Plan, checked_job, data_remarks
from workbench.compute.runs import SENT, check_same, prepare_run, take_up
from workbench.compute.start import START
from workbench.data.cache import open_cache
from workbench.models.entry import check_whole
from workbench.models.own import is_own
from workbench.settings import shown

_LAST = "checkpoints/last.ckpt"


def plan_on_cluster(
    model: str,
    nodes: int,
    resume: bool,
    splits: tuple[str, ...] | None,
    parameters: dict[str, Any],
    choices: Mapping[str, Any],
) -> Plan:
    """Check a training's parameters against the workspace, and prepare the run's folder.

    The dataset's cache is built on blob storage where it is missing. ``parameters`` are what
    ``training_job`` takes, ``choices`` the fields of ``ClusterChoices``; see ``plan_training``.
    Where no ``splits`` are given, those are reconstructed afterwards that can be judged.
    """
    check_whole("nodes", nodes, 1)
    chosen = read_choices(choices)
    folder = chosen.azure_dataset or model_by_name(model).dataset
    logger = read_loggers(parameters.get("logger") or USUAL_ON_CLUSTER)
    check_on_cluster(logger)
    parameters = parameters | {"logger": logger}
    own = {key: parameters[key] for key in ("network", "loss") if is_own(parameters.get(key))}
    if (start := parameters.get("start_from")) and is_own(start.network):
        own["network"] = start.network
    code = code_for(own)
    site = find_site(nodes, chosen)
    cluster = site.cluster
    cache = open_cache(site.datastore.store(folder))
    by_itself = splits is None
    splits = judged_splits(cache) if splits is None else splits
    job = checked_job(model, cache, splits, parameters)
    store = site.datastore.store(f"runs/{job.name}")
    if not (run_folder(job.name) / "job.json").exists():
        fetch(store, run_folder(job.name), lambda path: path in ("job.json", "metrics.csv"))
    run = prepare_run(job, cache, resume=resume)
    if job.start_from:  # the nodes find the file in the run's folder in the store
        parameters = parameters | {"start_from": job.start_from.asked}
    remarks = []
    if by_itself and splits:
        remarks.append(
            f"reconstructs {', '.join(splits)} after the training, as nothing else is given: "
            "reconstruct=none leaves that out"
        )
    if cluster.low_priority:
        remarks.append(
            "nodes of low priority may be taken away at any time: the run then goes on from its "
            f"last checkpoint, one every {job.checkpoint_minutes:g} minutes"
        )
    if code:
        remarks.append(f"the job takes along code of your own: {', '.join(code)}")
    if job.start_from:
        remarks.append(f"the job takes along the weights {job.start_from}")
    asked = {"model": model, "nodes": nodes, "name": job.name, **parameters}
    asked["reconstruct"] = ", ".join(splits) or None
    sent = site.job(job.name, folder, parameters=asked, code=code)
    return Plan(
        job=job,
        cache=cache,
        run=run,
        splits=splits,
        remarks=(*site.warnings, *remarks, *site.remarks, *data_remarks(job, cache, parameters)),
        resume=resume,
        where=site.cloud(sent, pace_of(job, cluster.vm_size)),
    )


class TrainingRun(ClusterRun):
    """A training on a cluster: it goes on from what it has kept."""

    again = "go on from the last checkpoint"
    asked = ""  # ``take_up`` refuses another job

    def __init__(self, plan: Plan, cloud: Cloud) -> None:
        super().__init__(plan.run.folder, cloud)
        self.plan = plan

    @property
    def slices(self) -> tuple[int, int]:
        """Training and validation slices of an epoch."""
        return self.plan.slices

    def take_up(self) -> None:
        """Check that the job may run in the folder, and go on with what the storage has of it."""
        take_up(self.plan.run, self.plan.job, resume=self.plan.resume)
        store, place = self.cloud.store, self.cloud.job.store.path
        if store.entry(_LAST) is None:
            return
        if not self.plan.resume:
            raise ValueError(
                f"{place} in the storage holds a run already: give another name, or resume=True"
            )
        with suppress(FileNotFoundError):
            before = TrainingJob.from_json(store.read("job.json").decode())
            check_same(before, self.plan.job, f"{place} in the storage holds a run")

    def finished(self, completed: bool) -> str:
        """Say that all epochs are done and all splits reconstructed."""
        return self.plan.finished

    def bring_along(self) -> None:
        """Put the job there, with what it begins with, or what it has done on this machine."""
        run, store = self.plan.run, self.cloud.store
        if run.last.exists() and (store.entry(_LAST) is None or went_on(run.folder, store, _LAST)):
            hand_over(run.folder, store, without=(SENT,))
        put(run.folder, store, ["job.json"])
        if self.plan.job.start_from and store.entry(_LAST) is None:
            put(run.folder, store, [START])

    def bring_back(self) -> Iterator[str]:
        """Bring all that the nodes have kept, the reconstructions last.

        Their job.json says where the dataset is mounted on the nodes; ours says where it lies.
        """
        results = f"{FOLDER}/"
        came = self.bring(lambda path: path not in ("job.json", START) and not path.endswith(".h5"))
        yield self.told(path for path in came if not path.startswith(("tensorboard/", results)))
        if self.plan.splits:
            volumes = len(self.bring(lambda path: path.startswith(results)))
            yield f"fetched into {shown(self.folder)}/{FOLDER}: {volumes} reconstructed volumes"
