"""What the options that change numbers do to SSIM: ``python -m benchmarks.options``.

A small network is trained on a phantom, alike but for one option and the seed, and its last
validation's SSIM compared. Several seeds say how much of a difference is chance.
"""

import argparse
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.settings import resolve

OPTIONS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"precision": "bf16"},
    "crop_readout": {"crop_readout": True},
    "tf32": {"tf32": True},
}
FEW = {"train": 4, "val": 2}
"""Volumes of the phantom."""
_NETWORK = {"cascades": 3, "chans": 6, "pools": 3, "sens_chans": 4, "sens_pools": 3}


@dataclass(frozen=True)
class Effect:
    """An option's validation SSIM for each seed, and the seconds of its trainings together."""

    option: str
    ssim: tuple[float, ...]
    seconds: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.ssim)


def effects(
    folder: Path,
    epochs: int,
    seeds: int,
    recon: int = 64,
    options: Mapping[str, Mapping[str, Any]] = OPTIONS,
    volumes: Mapping[str, int] = FEW,
) -> Iterator[Effect]:
    """Train with each option, from each seed; TF32 where a GPU has it."""
    import torch

    from workbench.compute.jobs import training_job
    from workbench.data.cache import open_cache
    from workbench.recon.run import fit
    from workbench_demo.phantom.study import write_study

    study = folder / f"study{recon}-{volumes['train']}"
    write_study(
        study,
        "knee_multicoil",
        volumes=volumes,
        recon=recon,
        slices=6,
        coils=(4,),
        widths=(1.15,),
        workers=1,
    )
    open_cache(study)
    for option, choices in options.items():
        if option == "tf32" and not torch.cuda.is_available():
            continue
        found, began = [], time.perf_counter()
        named = re.sub(r"\W+", "-", option)
        for seed in range(seeds):
            job = training_job(
                study,
                synthetic=True,
                model="knee",
                name=f"options/{named}-{seed}",
                lr_step=max(1, choices.get("epochs", epochs) * 3 // 4),
                seed=seed,
                checkpoint_minutes=1e6,
                images=0,
                **{"epochs": epochs, **_NETWORK, **choices},
            )
            run = folder / f"{named}-{seed}-{time.time_ns()}"
            scores = fit(job, run).volume_scores
            found.append(statistics.fmean(score["ssim"] for score in scores))
        yield Effect(option, tuple(found), time.perf_counter() - began)


def table(
    found: Iterable[Effect], option: str, compared: str, compare: Callable[[float], str]
) -> str:
    """Return the effects as a Markdown table.

    Args:
        found: a row each.
        option: heading of their names.
        compared: heading of what ``compare`` makes of a mean.
        compare: sets an effect's mean beside others.
    """
    lines = [
        f"| {option} | validation SSIM, by seed | mean | {compared} | seconds |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for each in found:
        seeds = ", ".join(f"{value:.4f}" for value in each.ssim)
        row = each.option, seeds, f"{each.mean:.4f}", compare(each.mean), f"{each.seconds:.0f}"
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.options", description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recon", type=int, default=64, help="rows and columns of the images")
    parser.add_argument("--out", default="outputs/options", help="folder of what is trained")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.seeds) < 1 or options.recon < 32:
        parser.error("give 1 or more epochs and seeds, and a recon of 32 or more")
    folder = resolve(options.out)
    found = list(effects(folder, options.epochs, options.seeds, options.recon))
    base = found[0].mean
    print(table(found, "option", "against float32", lambda mean: f"{mean - base:+.4f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
