"""Reconstruction of a split: what is asked for, what is there already, and its start."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from workbench.azure_login import LoginError
from workbench.catalog import OWN_MASKS, SPLITS
from workbench.compute.evaluation import (
    ORDER,
    SCORES,
    results_folder,
    sha256_of,
    split_sampling,
    split_volumes,
)
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run, only_writer, open_run
from workbench.data.cache import DatasetCache, load_cache, open_dataset
from workbench.data.sampling import Sampling, numbers
from workbench.data.volume import Volume
from workbench.models import find_network, label_of, released
from workbench.models.entry import read_options, write_options
from workbench.progress import relayed
from workbench.recon.results import (
    Order,
    find_result,
    read_order,
    read_results,
    what_it_says,
)
from workbench.recon.tables import score_row, write_scores
from workbench.settings import shown
from workbench.stores import credentials_for, is_address


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is about to be reconstructed, and where it goes."""

    order: Order  # with the volumes that are missing
    cache: DatasetCache  # the split's volumes, those that are there included
    folder: Path  # of the results
    ranks: Ranks
    config: Any = None  # of a network that learns nothing
    remarks: tuple[str, ...] = ()  # what a person should know of the weights

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
        return (
            f"{made_by}\n"
            f"dataset    {self.cache.address}, {self.order.split}: {len(self.cache)} volumes "
            f"({self.cache.slices:,} slices), {done} of them reconstructed already\n"
            f"sampling   {self.order}\n"
            f"into       {shown(self.folder)}\n"
            f"where      {self.ranks}" + "".join(f"\nnote       {n}" for n in notes)
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
        nodes: without GPUs, number of processes on this machine.
        network: whose weights they are, ``package.module:MyNetwork``, where the file does not say.
            Or one that learns nothing, such as "wavelet": it takes dataset and sampling of the run
            where there is one, and its results lie beside the run's.
        network_options: arguments of that network, such as "depth=5". Results of one that learns
            nothing with other options than usual have a folder of their own, which names them.
        uncertainty: how many masks will be drawn for maps of uncertainty; 0 for no maps.

    Raises:
        ValueError: a parameter is outside what is allowed, or a split is empty.
        FileNotFoundError: there is no such run, file or dataset.
    """
    ranks = ranks_here(nodes)
    entry = None if network is None else find_network(network)
    if volumes is not None and (not isinstance(volumes, int) or volumes < 1):
        raise ValueError(f"volumes={volumes!r}: give a whole number, 1 or more, or None for all")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    asked = Order("", "", "", split, None, (), network, network_options)
    untrained = entry if entry and not entry.trains else None
    if untrained:
        if weights is not None:
            raise ValueError(f"weights={weights!r}: {network} has none, leave them out")
        untrained.configured(read_options(network_options))  # or refuses
        source, apart = _beside(run, untrained.name, local_dataset)
    else:
        source, asked, apart = _with_weights(run, weights, asked, uncertainty)
    job = source.job if (source.folder / "job.json").exists() else None
    if local_dataset is None and job is None:
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
    try:
        cache = open_dataset(local_dataset or job.dataset)  # type: ignore[union-attr]
    except (LoginError, OSError) as error:
        if local_dataset is not None or job is None or not is_address(job.dataset):
            raise
        # The run was trained on a cluster: its dataset may well be here too.
        raise type(error)(f"{error}; or give local_dataset, a copy of it on this machine") from None
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
    started = job.start_from if job and not weights and not untrained else None
    remarks = (f"the run {started.remark([split])}",) if started else ()
    if weights in released() and split in ("train", "val"):
        remarks = (f"{weights} was trained on fastMRI's train and val: their scores are flattered",)
    return ReconstructionPlan(_missing(asked, part, folder), part, folder, ranks, config, remarks)


def _with_weights(
    run: str | None, weights: str | None, asked: Order, uncertainty: int
) -> tuple[Run, Order, str]:
    """Return whose results they are, the order with the weights, and what their folder's name adds.

    Raises:
        ValueError: the weights are of another network, or maps of uncertainty need one.
        FileNotFoundError: there is no such run or file.
    """
    from workbench.recon.weights import find_weights, load_ordered  # imports torch

    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(weights or "").stem)[:80]
    own_name = stem.strip("._-") or "weights"
    name = str(run) if run is not None else own_name if weights else "brain"
    source = Run(run_folder(name)) if weights else open_run(name)
    if weights is None and not source.best.exists():
        raise FileNotFoundError(f"{shown(source.folder)} has no checkpoint yet: train it first")
    file = find_weights(weights or source.best)
    asked = replace(asked, weights=str(file), weights_sha256=sha256_of(file))
    loaded = load_ordered(asked)  # weights of another network are refused here
    if uncertainty and not loaded.forms_coil_images:
        raise ValueError(
            f"uncertainty={uncertainty}: {label_of(loaded.name)} forms no images of single coils, "
            "which the maps need; give 0"
        )
    trained = (source.folder / "job.json").exists()
    return source, asked, own_name if weights and trained else ""


def _beside(run: str | None, network: str, local_dataset: str | None) -> tuple[Run, str]:
    """Return whose results those of a network that learns nothing lie beside.

    With a dataset and without a run they have a folder of the network's own name. Returned as well
    is what their folder's name adds to the run's.
    """
    own_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", network)
    if local_dataset is None:
        return open_run(run or "brain"), own_name
    source = Run(run_folder(own_name if run is None else str(run)))
    return source, "" if source.name == own_name else own_name


def _is_of_another_file(folder: Path, order: Order) -> bool:
    """Say whether a folder's results were made with other weights, from another file."""
    try:
        made = json.loads((folder / ORDER).read_text())
        return made["weights"] != order.weights and made["weights_sha256"] != order.weights_sha256
    except (OSError, ValueError, KeyError, TypeError):
        return False


def order_of_run(run: Run, split: str, cache: DatasetCache) -> tuple[Order, DatasetCache, Path]:
    """See what of a split a run's best checkpoint has yet to reconstruct.

    Returns the order, the split's volumes, and the folder of the results; ValueError where the
    split is empty, or cannot be undersampled as asked.
    """
    sampling = split_sampling(run.job, split)
    part, folder = split_volumes(cache, split, sampling), results_folder(run, split, sampling)
    asked = Order(str(run.best), sha256_of(run.best), run.job.dataset, split, sampling)
    return _missing(asked, part, folder), part, folder


def _missing(order: Order, part: DatasetCache, folder: Path) -> Order:
    """Return an order for the volumes that are not there already, whole and as asked."""
    needed = {"volume", "acquisition", "acceleration", "synthetic"}
    missing = []
    for volume in part:
        path = find_result(folder, volume)
        found = what_it_says(path) if path else {}
        if not needed <= found.keys() or found.get("digest") != order.digest(volume):
            missing.append(volume.path)
    return replace(order, volumes=tuple(missing))


def begin(order: Order, part: DatasetCache, folder: Path) -> None:
    """Leave in a results' folder what its ranks and readers need; a table of older results goes.

    The volumes that were asked for before in the same way stay listed, behind those of ``part``.
    """
    if order.volumes:
        (folder / SCORES).unlink(missing_ok=True)
    before, listed = _held(folder)
    if before is None or replace(before, volumes=order.volumes) != order:
        listed = ()
    asked = {volume.path for volume in part}
    order.write(folder)
    others = (volume for volume in listed if volume.path not in asked)
    part.with_volumes([*part.volumes, *others]).save(folder)


def _held(folder: Path) -> tuple[Order | None, tuple[Volume, ...]]:
    """Return the order and the volumes that a folder holds; None and none where it says neither."""
    try:
        cache = load_cache(folder, earlier=True)
        return read_order(folder), cache.volumes if cache else ()
    except (OSError, ValueError):
        return None, ()


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
        before, listed = _held(plan.folder)
        same = before is not None and before.dataset == plan.order.dataset
        if not same or listed[: len(plan.cache)] != plan.cache.volumes:
            with only_writer(Run(plan.folder)):
                begin(plan.order, plan.cache, plan.folder)
        yield f"{shown(plan.folder)} holds every volume already"
    if not waiting:
        return
    with ExitStack() as stack:
        first, *others = (Run(plan.folder) for plan in waiting)
        lock, *_ = [stack.enter_context(only_writer(run)) for run in (first, *others)]
        for plan in waiting:
            begin(plan.order, plan.cache, plan.folder)
        needs = {name: None for plan in waiting for name in credentials_for(plan.order.dataset)}
        folders = [str(run.folder) for run in others]
        module, ranks = "workbench.recon.reconstruction", waiting[0].ranks
        lines = run_here(first, module, ranks, *folders, needs=tuple(needs), lock=lock)
        yield from relayed(lines)


def result_place(folder: Path, volume: Volume, name: str) -> Path:
    """Return where a volume's result goes, so that it replaces no other volume's.

    ``name`` is what ``DatasetCache.names`` calls it among those that are reconstructed.
    """
    there = what_it_says(folder / name)
    taken = there and there.get("volume") != volume.path
    return find_result(folder, volume) or folder / (volume.path if taken else name)


def keep_scores(part: DatasetCache, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table of a split's metrics; rows that are not given are read from its results.

    Given are those of some of the volumes, such as those that another machine has made.
    """
    known = {row["volume"]: row for row in rows}
    earlier = (volume for volume in part if volume.path not in known)
    there = read_results(folder, read_order(folder), earlier)
    write_scores(folder, [*known.values(), *map(score_row, there)])
