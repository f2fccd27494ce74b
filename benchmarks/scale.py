"""How cost grows: ``python -m benchmarks.scale`` measures it here and draws the figure of docs.

It measures training steps of several coil counts, widths and cascades, an epoch on one and two
ranks of one core each, and the dataset cache over storage of several latencies; fits the model of
``benchmarks.scale_model``; and writes ``outputs/scale.json`` and ``docs/pictures/scale.png``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.scale_model import Step, StepCost, fit_steps
from workbench.settings import project_root, resolve, shown

CHANNELS, ROWS, CROP = 18, 320, 160
STEPS = (
    *(Step(coils, ROWS * 160, 4) for coils in (1, 4, 8, 12, 16, 20)),
    *(Step(4, ROWS * width, 4) for width in (96, 224, 288)),
    *(Step(4, ROWS * 160, cascades) for cascades in (1, 2, 8, 12)),
    # With few coils alone, what a coil costs could not be told from what it costs a cascade.
    *(Step(16, ROWS * 160, cascades) for cascades in (1, 8, 12)),
)
LATENCIES = (0.005, 0.02, 0.08)
VOLUMES = (16, 64, 256)


def measure_steps(steps: tuple[Step, ...] = STEPS, repeats: int = 3) -> list[tuple[Step, float]]:
    """Return the median seconds of a processor that each step takes, on one thread, in turns."""
    import torch

    from benchmarks.networks import TrainingStep
    from workbench.models import VarNet

    torch.set_num_threads(1)
    work = {}
    for step in steps:
        network = VarNet(num_cascades=step.cascades, chans=CHANNELS)
        work[step] = TrainingStep(network, (step.coils, ROWS, step.pixels // ROWS), CROP)
        work[step]()
    found: dict[Step, list[float]] = {step: [] for step in steps}
    for _ in range(repeats):
        for step in steps:
            began = time.process_time()
            work[step]()
            found[step].append(time.process_time() - began)
    return [(step, statistics.median(seconds)) for step, seconds in found.items()]


def measure_epochs(folder: Path, ranks: tuple[int, ...] = (1, 2)) -> dict[int, float]:
    """Return the seconds of an epoch of a phantom's training on each number of ranks.

    Each rank has a core of its own; the first epoch, which warms up, does not count.
    """
    from workbench_demo.phantom.study import write_study

    study = folder / "study"
    write_study(
        study,
        "brain_multicoil",
        volumes={"train": 3, "val": 1},
        recon=128,
        slices=8,
        coils=(8,),
        workers=2,
    )
    found = {}
    cores = sorted(os.sched_getaffinity(0))
    for count in ranks:
        if count > len(cores):
            print(f"{count} ranks: this machine has {len(cores)} cores, so they are left out")
            continue
        code = (
            "import os, sys; os.sched_setaffinity(0, set(map(int, sys.argv[3].split(','))))\n"
            "from workbench.compute.training import plan_training, train\n"
            "plan = plan_training(model='brain', nodes=int(sys.argv[1]), target='local',\n"
            "    local_dataset=sys.argv[2], name='scale/ranks' + sys.argv[1], resume=False,\n"
            "    epochs=3, cascades=4, chans=8, sens_chans=4)\n"
            "for line in train(plan): pass\n"
            "print(min(row['seconds'] for row in plan.run.metrics[1:]))\n"
        )
        taken = ",".join(map(str, cores[:count]))
        done = subprocess.run(
            [sys.executable, "-c", code, str(count), str(study), taken],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"WORKBENCH_ROOT": str(folder / f"of{count}")},
        )
        found[count] = float(done.stdout.splitlines()[-1])
    return found


def measure_caches(folder: Path) -> list[tuple[int, float, float]]:
    """Return (volumes, latency, seconds) of building the cache over slow storage."""
    import urllib3

    from benchmarks.remote import remote_cache, storage
    from workbench.data.index import WORKERS
    from workbench_demo.phantom.study import write_study

    [volume, *_] = write_study(
        folder / "volume",
        "knee_multicoil",
        volumes={"train": 1},
        recon=96,
        slices=2,
        coils=(2,),
        widths=(1.15,),
        workers=1,
    )
    name = str(volume.relative_to(folder / "volume"))
    found = []
    for latency in LATENCIES:
        with (
            storage(folder / "volume", latency) as url,
            urllib3.connection_from_url(url, maxsize=WORKERS) as server,
        ):
            remote_cache(folder, [name] * WORKERS, server)
            for count in VOLUMES:
                began = time.perf_counter()
                remote_cache(folder, [name] * count, server)
                found.append((count, latency, time.perf_counter() - began))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, fit, draw, and print what was found."""
    import tempfile

    from benchmarks.report import machine
    from benchmarks.scale_figure import scale_figure
    from workbench.views.style import png

    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--drawn", action="store_true", help="draw outputs/scale.json again")
    given = parser.parse_args(arguments)
    written = resolve("outputs/scale.json")
    if not given.drawn:
        with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
            steps = measure_steps()
            caches = measure_caches(Path(temporary))
            epochs = measure_epochs(Path(temporary))
        document: dict[str, Any] = {
            "machine": machine(),
            "steps": [asdict(step) | {"seconds": seconds} for step, seconds in steps],
            "cost": asdict(fit_steps(steps)),
            "epochs": epochs,
            "caches": caches,
        }
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(json.dumps(document, indent=1) + "\n")
    document = json.loads(written.read_text())
    cost = StepCost(**document["cost"])
    print("coils  pixels  cascades   measured     model")
    for row in document["steps"]:
        seconds = row.pop("seconds")
        step = Step(**row)
        print(
            f"{step.coils:5} {step.pixels:7,} {step.cascades:9} {seconds:8.2f} s "
            f"{cost.seconds(step):7.2f} s"
        )
    print(", ".join(f"{name} {value:.3g} s" for name, value in asdict(cost).items()))
    one = document["epochs"].get("1")
    for ranks, seconds in document["epochs"].items():
        print(
            f"epoch on {ranks} rank(s): {seconds:.1f} s, {one / seconds / int(ranks):.0%} efficient"
        )
    for volumes, latency, seconds in document["caches"]:
        print(f"cache of {volumes} volumes at {1000 * latency:.0f} ms a request: {seconds:.2f} s")
    document = json.loads(written.read_text())
    picture = project_root() / "docs/pictures/scale.png"
    picture.write_bytes(png(scale_figure(document)))
    print(f"Written to {shown(written)} and {shown(picture)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
