"""Other ways to learn, on the phantom: ``python -m benchmarks.learning``.

How much of the gap between zero-filled and supervised self-supervision closes, and whether
augmentation helps with a tenth of the volumes. The small network of ``benchmarks.options``, the
same number of steps each, several seeds.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.options import Effect, effects, table
from workbench.settings import resolve

MANY = {"train": 10, "val": 4}


def ways(epochs: int) -> dict[str, dict[str, Any]]:
    """Return the ways by name; a tenth of the volumes is seen ten times as often."""
    tenth = {"volume_sample_rate": 0.1, "epochs": 10 * epochs}
    return {
        "supervised": {},
        "self-supervised": {"learning": "self-supervised"},
        "a tenth of the volumes": tenth,
        "a tenth, flips": tenth | {"augment": "flips"},
        "a tenth, full": tenth | {"augment": "full"},
    }


def zero_filled(study: Path) -> Effect:
    """Score the validation volumes without a network."""
    import torch

    from workbench.data.cache import open_cache
    from workbench.data.images import zero_filled
    from workbench.data.sampling import Sampling
    from workbench.data.slices import SliceDataset
    from workbench.recon.metrics import mean_scores, score_volumes
    from workbench.recon.scoring import score_slice

    scores = []
    for sample in SliceDataset(open_cache(study).split("val"), Sampling()):
        kspace = torch.view_as_complex(sample.masked_kspace).numpy()
        image = torch.from_numpy(zero_filled(kspace, sample.crop_size))
        place = sample.volume, sample.slice_num, sample.max_value
        scores.append(score_slice(image, sample.target, *place))
    return Effect("zero-filled", (mean_scores(score_volumes(scores))["ssim"],), 0)


def main(arguments: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--recon", type=int, default=64, help="rows and columns of the images")
    parser.add_argument("--only", nargs="*", help="ways to learn, beside supervised")
    parser.add_argument("--out", default="outputs/learning", help="folder of what is trained")
    asked = parser.parse_args(arguments)
    if min(asked.epochs, asked.seeds) < 1 or asked.recon < 32:
        parser.error("give 1 or more epochs and seeds, and a recon of 32 or more")
    folder, known = resolve(asked.out), ways(asked.epochs)
    wanted = {
        name: choices
        for name, choices in known.items()
        if asked.only is None or name in ("supervised", *asked.only)
    }
    found = []
    for each in effects(folder, asked.epochs, asked.seeds, asked.recon, wanted, MANY):
        print(f"{each.option}: {each.ssim}, {each.seconds:.0f} s", file=sys.stderr, flush=True)
        found.append(each)
    study = folder / f"study{asked.recon}-{MANY['train']}"
    found = [zero_filled(study), *found]
    low, high = found[0].mean, found[1].mean  # zero-filled and supervised
    print(table(found, "learned", "of the gap", lambda mean: f"{(mean - low) / (high - low):.0%}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
