"""The classical reconstructions beside BART's, where it is installed (Debian's package bart)."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from benchmarks.pairs import Pair, require
from benchmarks.reading import quiet_cache
from benchmarks.sizes import Size
from benchmarks.study import SAMPLING, Study
from workbench.data.slices import SliceDataset
from workbench.models.classical.network import Classical
from workbench.models.operator import transform
from workbench.recon.weights import untrained

_WEIGHT = 0.005
METHODS: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "sense": ({"iterations": 40}, ("-l2", "-r", f"{_WEIGHT}", "-i", "40")),
    "wavelet": ({"wavelet": "db2", "iterations": 100}, ("-R", f"W:3:0:{_WEIGHT}", "-i", "100")),
    # BART's ADMM needs twice the iterations for the same image.
    "tv": ({"iterations": 100}, ("-R", f"T:3:0:{_WEIGHT}", "-i", "200")),
}
"""Method -> our numbers, and BART's arguments for the same problem."""
_APART = 0.3  # of the images (L2, relative): random shifts, another algorithm, and small phantoms


def installed() -> str | None:
    """Return BART's program; None where it is not installed."""
    return shutil.which("bart")


def write(path: Path, values: np.ndarray) -> None:
    """Write an array in BART's order: its first dimension is the fastest."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, values.shape))}\n")
    values.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read(path: Path) -> np.ndarray:
    """Read an array of BART's, without its axes of length 1."""
    sizes = path.with_suffix(".hdr").read_text().splitlines()[1].split()
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64)
    return values.reshape([int(size) for size in sizes], order="F").squeeze()


def run(folder: Path, *arguments: str) -> None:
    """Run BART in a folder."""
    subprocess.run(["bart", *arguments], cwd=folder, check=True, capture_output=True, text=True)


def solve(folder: Path, *how: str) -> np.ndarray:
    """Solve by BART's pics what ``hand_over`` left in a folder: (H, W) complex."""
    run(folder, "pics", *how, "-w", "1", "kspace", "maps", "image")
    return read(folder / "image")


def hand_over(folder: Path, kspace: np.ndarray, maps: np.ndarray) -> None:
    """Write k-space and maps, both (coils, H, W), for BART's pics."""
    for name, values in (("kspace", kspace), ("maps", maps)):
        write(folder / name, np.moveaxis(values, 0, -1)[:, :, None])


def classical(method: str) -> Classical:
    """Return a classical reconstruction with the numbers of ``METHODS``."""
    numbers = {"regularisation": _WEIGHT, "maps": "espirit", **METHODS[method][0]}
    network = untrained(method, numbers)
    assert isinstance(network, Classical)
    return network


def bart_pairs(size: Size, study: Study, folder: Path) -> Iterator[Pair]:
    """Yield a slice by each method; maps are given to both, files and start count for BART.

    Args:
        size: says how often each is measured.
        study: a slice of it is reconstructed, cropped along the readout as ours are.
        folder: where BART finds its files, best in memory.
    """
    if not installed():
        print("classical/*: left out, BART is not installed", flush=True)
        return
    cache = quiet_cache(study.few)
    sample = SliceDataset(cache, SAMPLING)[0]
    known = untrained("sense", {"maps": "centre"})
    assert isinstance(known, Classical)
    rows = sample.crop_size[0]
    problem = known.problem(sample.masked_kspace[None], sample.mask[None], None, rows)
    # BART takes for sampled what is not exactly zero.
    kspace = transform(problem.measured, (-2, -1))[0] * sample.mask[..., 0]
    hand_over(folder, kspace.numpy(), problem.maps[0].numpy())
    for method, (_, how) in METHODS.items():
        network = classical(method)
        theirs = partial(solve, folder, *how)
        ours = partial(network.solve, problem, network.weight(sample.mask[None][..., 0]))
        yield Pair(
            f"classical/{method}",
            f"{method}, {network.config.iterations} iterations: a slice "
            f"{'x'.join(map(str, kspace.shape))} with given maps; BART's pics {' '.join(how)}",
            theirs,
            ours,
            partial(_check, method, theirs, ours),
            size.repeats,
        )


def _check(method: str, theirs: "partial[np.ndarray]", ours: "partial[Tensor]") -> None:
    expected, found = theirs(), ours()[0, 0].numpy()
    apart = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    require(f"classical/{method}", apart, _APART)
