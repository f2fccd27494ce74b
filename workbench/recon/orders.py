"""The folder of a reconstruction's results: what it lacks, and what its ranks and readers need."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench.compute.evaluation import (
    SCORES,
    results_folder,
    sha256_of,
    split_sampling,
    split_volumes,
)
from workbench.compute.own_code import digest_of
from workbench.compute.runs import Run
from workbench.data.cache import DatasetCache, load_cache
from workbench.data.volume import Volume
from workbench.models.own import is_own
from workbench.recon.asked import Order, read_order
from workbench.recon.results import (
    FINGERPRINT,
    find_result,
    read_results,
    tells_slices,
    what_it_says,
)
from workbench.recon.tables import score_row, write_scores

_READ_AT_ONCE = 16  # in storage each answer takes its time


def order_of_run(run: Run, split: str, cache: DatasetCache) -> tuple[Order, DatasetCache, Path]:
    """See what of a split a run's best checkpoint has yet to reconstruct.

    Returns the order, the split's volumes, and the folder of the results; ValueError where the
    split is empty, or cannot be undersampled as asked.
    """
    sampling = split_sampling(run.job, split)
    part, folder = split_volumes(cache, split, sampling), results_folder(run, split, sampling)
    job = run.job
    code = job.code.get("network", "")  # which the ranks have imported; its file may have changed
    if not code and is_own(job.network):  # of earlier versions
        code = digest_of(job.network)
    asked = Order(str(run.best), sha256_of(run.best), job.dataset, split, sampling, code=code)
    return missing(asked, part, folder), part, folder


def missing(order: Order, part: DatasetCache, folder: Path) -> Order:
    """Return an order for the volumes that are not there already, whole and as asked.

    Files of the same name, size and attributes can hold other k-space, as of another dataset or
    converted anew: the results say what theirs was. Of a file that cannot be read now, and of
    results of earlier versions, it is not known.
    """
    needed = {"volume", "acquisition", "acceleration", "synthetic", "digest"}

    def is_there(volume: Volume) -> bool:
        path = find_result(folder, volume)
        found = what_it_says(path) if path else {}
        if not needed <= found.keys() or not order.made(found["digest"], volume):
            return False
        if not tells_slices(found):
            return False
        with suppress(OSError):
            return found.get(FINGERPRINT) in (None, part.fingerprint(volume))
        return True

    with ThreadPoolExecutor(_READ_AT_ONCE) as executor:
        there = list(executor.map(is_there, part))
    lacking = (volume.path for volume, known in zip(part, there, strict=True) if not known)
    return replace(order, volumes=tuple(lacking))


def begin(order: Order, part: DatasetCache, folder: Path) -> None:
    """Leave in a results' folder what its ranks and readers need; what it makes anew goes.

    The volumes that were asked for before in the same way stay listed, behind those of ``part``.
    """
    take_away(order, part, folder)
    before, listed = held(folder)
    if before is None or replace(before, volumes=order.volumes) != order:
        listed = ()
    asked = {volume.path for volume in part}
    order.write(folder)
    others = (volume for volume in listed if volume.path not in asked)
    part.with_volumes([*part.volumes, *others]).save(folder)


def take_away(order: Order, part: DatasetCache, folder: Path) -> None:
    """Remove the results that an order makes anew, and the table.

    Where that is broken off, readers would take results of other weights, or of other k-space
    under the same name, for what was asked.
    """
    if order.volumes:
        (folder / SCORES).unlink(missing_ok=True)
    lacking = set(order.volumes)
    for volume in (each for each in part if each.path in lacking):
        if older := find_result(folder, volume):
            older.unlink()


def held(folder: Path) -> tuple[Order | None, tuple[Volume, ...]]:
    """Return the order and the volumes that a folder holds; None and none where it says neither."""
    try:
        cache = load_cache(folder, earlier=True)
        return read_order(folder), cache.volumes if cache else ()
    except (OSError, ValueError):
        return None, ()


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
