"""One rank of a reconstruction, started by ``workbench.compute.ranks``: FOLDER [FOLDER...].

Each volume is one HDF5 file in the form of fastMRI's leaderboard: ``reconstruction``, float32
(slices, h, w). Its attributes say what made it and, where there is a target, how good it is.
"""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.distributed.elastic.multiprocessing.errors import record

from workbench.compute.node import this_node
from workbench.compute.runs import kept_cache
from workbench.data.cache import DatasetCache
from workbench.data.images import zero_filled
from workbench.data.slices import SliceDataset
from workbench.data.volume import Volume
from workbench.models import label_of
from workbench.models.reconstructor import Reconstructor
from workbench.progress import Progress
from workbench.recon.arrays import reconstruct_sample
from workbench.recon.asked import Order, read_order
from workbench.recon.metrics import LEADING, metrics_of
from workbench.recon.orders import result_place
from workbench.recon.results import FINGERPRINT, KINDS, PEAK, SAMPLED, true_acceleration
from workbench.recon.scoring import judged_slices
from workbench.recon.tables import named_scores
from workbench.recon.weights import load_made_by
from workbench.stores.disk import naming, replacing


def share(volumes: Sequence[Volume], rank: int, ranks: int) -> list[Volume]:
    """Return the volumes of a rank: the largest first, each to the rank with least to do."""
    loads = [0] * ranks
    own = []
    for volume in sorted(volumes, key=lambda each: (-each.slices * each.coils, each.path)):
        least = loads.index(min(loads))
        loads[least] += volume.slices * volume.coils
        if least == rank:
            own.append(volume)
    return own


def reconstruct_volume(
    network: Reconstructor, data: SliceDataset, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, int]:
    """Reconstruct every slice of a dataset of one volume.

    Returns:
        Reconstructed and zero-filled images, the target or None, each (slices, h, w) float32, and
        how many lines were sampled.
    """
    (volume,) = data.volumes
    images, filled, targets = [], [], []
    for number in range(len(data)):
        sample = data[number]
        images.append(reconstruct_sample(network, sample))
        masked = torch.view_as_complex(sample.middle).numpy()
        filled.append(zero_filled(masked, volume.recon[:2]))
        targets.append(sample.target.numpy())
        if progress:
            progress.advance(1, volume.name)
    target = None if volume.target is None else np.stack(targets)
    return np.stack(images), np.stack(filled), target, int(sample.mask.sum())


def write_result(path: Path, images: np.ndarray, attributes: dict[str, Any]) -> None:
    """Write a volume's file so that it is there whole or not at all.

    Raises:
        CannotWriteError: the disk refuses it.
    """
    # Into memory first: the HDF5 library has no plain words for a full disk.
    content = io.BytesIO()
    # HDF5 checks all that is read of this version, but for text of no fixed length: that can even
    # stop its reader for ever where it is damaged.
    with h5py.File(content, "w", libver="v110") as file:
        chunks = (1, *images.shape[1:])
        values = images.astype(np.float32)
        file.create_dataset("reconstruction", data=values, chunks=chunks, fletcher32=True)
        for name, value in attributes.items():
            text = isinstance(value, str)
            file.attrs[name] = np.bytes_(value.encode() or b" ") if text else value
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as whole:
        whole.write(content.getbuffer())


def reconstruct_share(
    order: Order,
    cache: DatasetCache,
    folder: Path,
    network: Reconstructor,
    among: Sequence[Volume] | None = None,
) -> Iterator[dict[str, Any]]:
    """Reconstruct this rank's share of the volumes that an order still lacks.

    Args:
        order: what to reconstruct.
        cache: the part of the dataset that has results in the folder, the order's volumes and more.
        folder: where the results go.
        network: the order's.
        among: volumes that the ranks share out, instead of the order's.

    Yields:
        The row of each volume for ``scores.csv``.
    """
    rank, ranks, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    network = network.to(device)
    wanted = set(order.volumes)
    own = share(among or [volume for volume in cache if volume.path in wanted], rank, ranks)
    own = [volume for volume in own if volume.path in wanted]
    title, slices = f"reconstructing by {label_of(network.name)}", sum(v.slices for v in own)
    progress = Progress(title, slices, "slices") if rank == 0 else None  # of its share
    for number, volume in enumerate(own, start=1):
        part = cache.with_volumes([volume])
        data = SliceDataset(part, order.sampling, neighbours=network.neighbours)
        images, filled, target, sampled = reconstruct_volume(network, data, progress)
        attributes = {
            "digest": order.digest(volume),
            FINGERPRINT: part.fingerprint(volume),
            "network": network.name,
            "weights_sha256": "",
            **order.method,
            "sampling": str(order.sampling) if order.sampling else "the file's own mask",
            "volume": volume.path,
            "acquisition": volume.acquisition,
            "acceleration": true_acceleration(volume, sampled),
            SAMPLED: sampled,
            "synthetic": volume.synthetic,
        }
        if network.begins_with:
            attributes["first_estimate"] = network.begins_with
        name = cache.names[volume.path]
        line = f"rank {rank}: {number} of {len(own)}, {name}, {volume.slices} slices"
        if target is not None:
            made = dict(zip(KINDS, (filled, images), strict=True))
            truth = torch.from_numpy(target)
            parts = {
                kind: [s.parts for s in judged_slices(torch.from_numpy(it), truth, volume.path)]
                for kind, it in made.items()
            }
            scores = {kind: metrics_of(each) for kind, each in parts.items()}
            slice_ssim = np.array([each[LEADING.name] for each in parts["reconstruction"]])
            attributes |= {**named_scores(scores), "slice_ssim": slice_ssim}
            attributes[PEAK] = parts["reconstruction"][0]["peak"]
            for kind, label in zip(KINDS, ("zero-filled", label_of(network.name)), strict=True):
                line += f", {LEADING.say(scores[kind][LEADING.name], LEADING.short)} {label}"
        write_result(result_place(folder, volume, name), images, attributes)
        print(line, flush=True)
        yield attributes | {"slices": volume.slices}


def reconstruct(order: Order, folder: Path) -> None:
    """Reconstruct this rank's share of what a folder's order asks for."""
    network = load_made_by(order)
    cache, node = kept_cache(order.dataset, folder), this_node()
    # Nodes that began at different times may know of different results: all share out alike.
    among = cache.volumes if node and node.count > 1 else None
    for _ in reconstruct_share(order, cache, folder, network, among):
        pass


@record
def main() -> None:
    """Run the jobs of the folders that the command line names, one after the other."""
    for folder in map(Path, sys.argv[1:]):
        with naming(folder):
            reconstruct(read_order(folder), folder)


if __name__ == "__main__":
    main()
