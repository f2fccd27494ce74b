"""Reconstruction of a split: what is asked for, what is there already, and its start."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.azure_login import LoginError
from workbench.catalog import OWN_MASKS, SPLITS
from workbench.compute.cluster_plan import find_site, read_choices, refuse_local
from workbench.compute.estimate import pace_of
from workbench.compute.evaluation import (
    results_folder,
    sampled_less,
    sha256_of,
    split_volumes,
    zeros_as_measured,
)
from workbench.compute.gpus import check_gpus
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.kept import fetch, keeping
from workbench.compute.node import this_node
from workbench.compute.own_code import digest_of
from workbench.compute.plan import Cloud, counted
from workbench.compute.runs import Run, only_writer, open_run
from workbench.compute.start import Start
from workbench.data.cache import DatasetCache, open_cache, open_dataset
from workbench.data.sampling import Sampling, numbers
from workbench.models import find_network, label_of, released
from workbench.models.entry import read_options, write_options
from workbench.models.own import is_own
from workbench.progress import relayed
from workbench.recon.asked import Order, read_order
from workbench.recon.cluster_reconstruction import job_for, reconstruct_on_cluster, wanted_by
from workbench.recon.orders import begin, held, missing
from workbench.settings import shown
from workbench.stores import credentials_for, is_address

if TYPE_CHECKING:  # torch takes seconds to import, and a form checks its parameters here
    from workbench.models.reconstructor import Reconstructor


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is about to be reconstructed, and where it goes."""

    order: Order  # with the volumes that are missing
    cache: DatasetCache  # the split's volumes, those that are there included
    folder: Path  # of the results
    where: Ranks | Cloud
    config: Any = None  # of a network that learns nothing
    remarks: tuple[str, ...] = ()  # what a person should know of weights and volumes

    def __str__(self) -> str:
        done = len(self.cache) - len(self.order.volumes)
        called: dict[str, list[str]] = {}
        for volume in self.cache:
            called.setdefault(volume.name, []).append(volume.path)
        notes = [
            f"{len(paths)} volumes are called {name}: {', '.join(paths[:3])}; each is reconstructed"
            for name, paths in called.items()
            if len(paths) > 1
        ]
        if len(notes) > 1:
            notes = [f"{notes[0]}; so it is with {len(notes)} file names"]
        notes += self.remarks
        if self.cache.synthetic:
            notes.append("the dataset is the synthetic phantom, not patient data")
        made_by = f"weights    {shown(self.order.weights)}"
        if not self.order.weights:
            made_by = f"network    {label_of(self.order.network or '')}: {self.config}"
        lines = [f"where      {self.where}"]
        if isinstance(self.where, Cloud) and self.order.volumes:
            slices = sum(each.slices for each in self.cache if each.path in self.order.volumes)
            lines += self.where.told(self.where.estimates(once=slices))
        lines += [f"note       {note}" for note in notes]
        return (
            f"{made_by}\n"
            f"dataset    {self.cache.address}, {self.order.split}: {counted(self.cache)}, "
            f"{done} of them reconstructed already\n"
            f"sampling   {self.order}\n"
            f"into       {shown(self.folder)}\n" + "\n".join(lines)
        )


def plan_reconstruction(
    *,
    run: str | None = None,
    weights: str | None = None,
    split: str = "val",
    local_dataset: str | None = None,
    mask: str | None = None,
    acceleration: Any = None,
    center_fraction: Any = None,
    volumes: int | None = None,
    nodes: int = 1,
    network: str | None = None,
    network_options: str | None = None,
    uncertainty: int = 0,
    target: str = "local",
    **on_cluster: Any,
) -> ReconstructionPlan:
    """Check a notebook's parameters and see what is there already.

    Args:
        run: name of a run; None takes "brain", or with ``weights`` a name of their own.
        weights: a file of weights, or released ones by name; None takes the run's best checkpoint.
            Their results are kept apart from those of the run's own.
        split: which volumes.
        local_dataset: the dataset's folder or name, or its address in blob storage; None takes
            the run's.
        mask: kind of mask; None takes the run's, and on test and challenge the files' own.
        acceleration: one number or several; None as with ``mask``.
        center_fraction: one for each acceleration; None as with ``mask``.
        volumes: how many volumes, the first ones; None takes all.
        nodes: machines of the cluster; here, without GPUs, number of processes.
        network: whose weights they are, ``package.module:MyNetwork``, where the file does not say.
            Or one that learns nothing, such as "wavelet": it takes dataset and sampling of the run
            where there is one, and its results lie beside the run's.
        network_options: arguments of that network, such as "depth=5". Results of one that learns
            nothing with other options than usual have a folder of their own, which names them.
        uncertainty: how many masks will be drawn for maps of uncertainty; 0 for no maps.
        target: "local", or "azureml" for a cluster, which has the dataset from the storage.
        on_cluster: the fields of ``ClusterChoices``.

    Raises:
        ValueError: a parameter is outside what is allowed, or a split is empty.
        FileNotFoundError: there is no such run, file or dataset.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    if target not in ("local", "azureml"):
        raise ValueError(f"target={target!r}: give local or azureml")
    chosen, ranks, dataset = read_choices(on_cluster), None, local_dataset
    if target == "azureml":
        refuse_local(local_dataset)
        dataset = chosen.azure_dataset
    else:
        ranks = ranks_here(nodes)
        if ranks.node:
            check_gpus(ranks.node.device == "GPU")
    entry = None if network is None else find_network(network)
    if volumes is not None and (not isinstance(volumes, int) or volumes < 1):
        raise ValueError(f"volumes={volumes!r}: give a whole number, 1 or more, or None for all")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    asked = Order("", "", "", split, None, (), network, network_options)
    untrained = entry if entry and not entry.trains else None
    remarks: tuple[str, ...] = ()
    if untrained:
        if weights is not None:
            raise ValueError(f"weights={weights!r}: {network} has none, leave them out")
        untrained.configured(read_options(network_options))  # or refuses
        source, apart = _beside(run, untrained.name, dataset)
        named = untrained.name
    else:
        source, asked, apart, loaded = _with_weights(run, weights, asked, uncertainty)
        named, remarks = loaded.name, tuple(_of_weights(loaded, asked))
    job = source.job if (source.folder / "job.json").exists() else None
    if dataset is None and job is None:
        if target == "azureml":
            raise ValueError("azure_dataset=None: without a run, name the dataset in the storage")
        raise ValueError("local_dataset=None: with weights of your own, name the dataset")
    sampling = None
    if split not in OWN_MASKS or not mask is acceleration is center_fraction is None:
        usual = job.sampling if job else Sampling()
        rates, centres = usual.accelerations, usual.center_fractions
        if acceleration is not None:
            rates = numbers("acceleration", acceleration)
        if center_fraction is not None:
            centres = numbers("center_fraction", center_fraction)
        sampling = Sampling(mask or usual.mask, rates, centres)
    place = dataset or job.dataset  # type: ignore[union-attr]
    site = None
    if ranks:
        cache = _opened(place, of_run=dataset is None)
    else:
        site, place = find_site(nodes, chosen), place if dataset else Path(place).name
        cache = open_cache(site.datastore.store(place))
    part = split_volumes(cache, split, sampling, first=volumes)
    folder = results_folder(source, split, sampling)
    if apart:
        folder = folder.with_name(f"{folder.name}-{apart}")
    asked = replace(asked, dataset=cache.store.address, sampling=sampling)
    if weights and _is_of_another_file(folder, asked):  # whose name is the same
        folder = folder.with_name(f"{folder.name}-{asked.weights_sha256[:8]}")
    config = None
    if untrained:
        normal = untrained.usual(synthetic=cache.synthetic)
        config = untrained.configured(normal | read_options(network_options))
        unusual = untrained.unusual(asdict(config), synthetic=cache.synthetic)
        unusual = [re.sub(r"[^A-Za-z0-9_.=+-]+", "_", option) for option in unusual]
        folder = folder.with_name("-".join([folder.name, *unusual])[:200])
        asked = replace(asked, network_options=write_options(asdict(config)))
    if weights in released() and split in ("train", "val"):
        remarks = (f"{weights} was trained on fastMRI's train and val: their scores are flattered",)
    remarks = (*remarks, *zeros_as_measured(part))
    if sampling:
        remarks = (*remarks, *sampled_less(part, sampling))
    if ranks and (node := ranks.node) and node.store:
        fetch(node.store, folder, wanted_by(node))
    where: Ranks | Cloud | None = ranks
    if site:
        pace = None if untrained else pace_of(None if weights else job, site.cluster.vm_size)
        where = site.cloud(job_for(site, place, asked, part, folder, named), pace)
        remarks = (*remarks, *site.warnings, *site.remarks)
    assert where
    order = missing(asked, part, folder)
    return ReconstructionPlan(order, part, folder, where, config, remarks)


def _opened(place: str, *, of_run: bool) -> DatasetCache:
    """Open a dataset from this machine; see ``open_dataset`` for what it raises."""
    try:
        # To look at each file of a mount takes minutes.
        return open_dataset(place, check=this_node() is None)
    except (LoginError, OSError) as error:
        if not of_run or not is_address(place):
            raise
        # The run was trained on a cluster: its dataset may well be here too.
        raise type(error)(f"{error}; or give local_dataset, a copy of it on this machine") from None


def _with_weights(
    run: str | None, weights: str | None, asked: Order, uncertainty: int
) -> "tuple[Run, Order, str, Reconstructor]":
    """Return whose results they are, the order with the weights, and what their folder's name adds.

    The last is their network.

    Raises:
        ValueError: the weights are of another network, or maps of uncertainty need one.
        FileNotFoundError: there is no such run or file.
    """
    from workbench.recon.weights import file_of, find_weights, load_ordered  # imports torch

    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(weights or "").stem)[:80]
    own_name = stem.strip("._-") or "weights"
    name = str(run) if run is not None else own_name if weights else "brain"
    source = Run(run_folder(name)) if weights else open_run(name)
    file = find_weights(weights) if weights else file_of(source)
    asked = replace(asked, weights=str(file), weights_sha256=sha256_of(file))
    loaded = load_ordered(asked)  # weights of another network are refused here
    if uncertainty and not loaded.forms_coil_images:
        raise ValueError(
            f"uncertainty={uncertainty}: {label_of(loaded.name)} forms no images of single coils, "
            "which the maps need; give 0"
        )
    if is_own(loaded.name):
        asked = replace(asked, code=digest_of(loaded.name))
    trained = (source.folder / "job.json").exists()
    return source, asked, own_name if weights and trained else "", loaded


def _of_weights(loaded: "Reconstructor", asked: Order) -> Iterator[str]:
    """Say what a person should know of how a network has learned, as its file tells."""
    from workbench.recon.weights import changed_code

    if started := loaded.job.get("start_from"):
        yield f"the run {Start.model_validate(started).remark([asked.split])}"
    if said := changed_code(loaded):
        yield said


def _beside(run: str | None, network: str, dataset: str | None) -> tuple[Run, str]:
    """Return whose results those of a network that learns nothing lie beside.

    With a dataset and without a run they have a folder of the network's own name. Returned as well
    is what their folder's name adds to the run's.
    """
    own_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", network)
    if dataset is None:
        return open_run(run or "brain"), own_name
    source = Run(run_folder(own_name if run is None else str(run)))
    return source, "" if source.name == own_name else own_name


def _is_of_another_file(folder: Path, order: Order) -> bool:
    """Say whether a folder's results were made with other weights, from another file."""
    with suppress(OSError, ValueError):
        made = read_order(folder)
        return made.weights != order.weights and made.weights_sha256 != order.weights_sha256
    return False


def reconstruct(*plans: ReconstructionPlan) -> Iterator[str]:
    """Reconstruct what is missing, all of it by the same ranks; yield the lines that are printed.

    The ranks hold the lock of the first plan's folder, this process those of all.

    Raises ``TrainingFailedError`` with a failing rank's own error.
    """
    waiting = [plan for plan in plans if plan.order.volumes]
    for plan in plans:
        if plan.order.volumes:
            continue
        # Readers are told what the plan has found, such as where the dataset is now.
        before, listed = held(plan.folder)
        same = before is not None and before.dataset == plan.order.dataset
        if not same or listed[: len(plan.cache)] != plan.cache.volumes:
            with only_writer(Run(plan.folder)):
                begin(plan.order, plan.cache, plan.folder)
        yield f"{shown(plan.folder)} holds every volume already"
    for plan in list(waiting):
        if isinstance(plan.where, Cloud):
            waiting.remove(plan)
            lines = reconstruct_on_cluster(plan.where, plan.order, plan.cache, plan.folder)
            yield from relayed(lines)
    if not waiting:
        return
    with ExitStack() as stack:
        first, *others = (Run(plan.folder) for plan in waiting)
        lock, *_ = [stack.enter_context(only_writer(run)) for run in (first, *others)]
        for plan in waiting:
            begin(plan.order, plan.cache, plan.folder)
        needs = {name: None for plan in waiting for name in credentials_for(plan.order.dataset)}
        folders = [str(run.folder) for run in others]
        module, ranks = "workbench.recon.reconstruction", waiting[0].where
        assert isinstance(ranks, Ranks)
        lines = run_here(first, module, ranks, *folders, needs=tuple(needs), lock=lock)
        if (node := ranks.node) and node.store:
            lines = keeping(first.folder, node, lines, wanted_by(node))
        yield from relayed(lines)
