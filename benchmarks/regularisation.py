"""Which regularisation a classical reconstruction wants, looked for on training volumes alone.

    python -m benchmarks.regularisation outputs/demo/datasets/brain_multicoil --network wavelet \
        --values 0.002,0.005,0.01 --options wavelet=haar

prints the means of SSIM, PSNR and NMSE over the training volumes for each value. Masks are those of
the file names, as in a validation. ``--several maps=centre,espirit`` tries an option's values too.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from workbench.data.cache import DatasetCache, open_dataset
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.models import NETWORKS, trains
from workbench.models.entry import read_options
from workbench.recon.metrics import METRICS, Scores, mean_scores
from workbench.recon.reconstruction import reconstruct_volume
from workbench.recon.scoring import score_volume
from workbench.recon.weights import untrained


def training_scores(
    cache: DatasetCache, network: str, options: Mapping[str, Any], sampling: Sampling
) -> Iterator[Scores]:
    """Reconstruct training volumes; yield the metrics of each."""
    method = untrained(network, options)
    for volume in cache.split("train"):
        data = SliceDataset(cache.with_volumes([volume]), sampling)
        images, _, target, _ = reconstruct_volume(method, data)
        yield score_volume(torch.from_numpy(images), torch.from_numpy(target), volume.path)


def main(words: Sequence[str] | None = None) -> None:
    """Print a row of means for each value."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regularisation")
    parser.add_argument("dataset", help="its folder or name")
    methods = [name for name in NETWORKS if not trains(name)]
    parser.add_argument("--network", choices=methods, required=True)
    parser.add_argument("--values", required=True, help="regularisations, with commas between")
    parser.add_argument("--options", default="", help="other options, such as iterations=100")
    parser.add_argument("--several", default="=", help="an option's values: maps=centre,espirit")
    parser.add_argument("--volumes", type=int, help="so many training volumes; all by default")
    parser.add_argument("--acceleration", type=float, default=4)
    parser.add_argument("--centre", type=float, default=0.08, help="share of ACS columns")
    asked = parser.parse_args(words)
    cache = open_dataset(asked.dataset)
    cache = cache.with_volumes(cache.split("train").volumes[: asked.volumes])
    sampling = Sampling("equispaced", asked.acceleration, asked.centre)
    name, _, others = asked.several.partition("=")
    print(f"{asked.network} on {len(cache)} training volumes, {sampling}", flush=True)
    for other in others.split(",") if name else [""]:
        for value in asked.values.split(","):
            options = read_options(asked.options) | {"regularisation": float(value)}
            options |= read_options(f"{name}={other}" if name else None)
            began = time.perf_counter()
            means = mean_scores(training_scores(cache, asked.network, options, sampling))
            seconds = (time.perf_counter() - began) / cache.slices
            said = "  ".join(
                f"{metric.label} {metric.text(means[metric.name])}" for metric in METRICS
            )
            print(f"{value:>8} {other:10} {said}  {seconds:.2f} s a slice", flush=True)


if __name__ == "__main__":
    main()
