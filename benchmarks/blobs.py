"""The dataset cache of thousands of volumes in blob storage, from a few hundred.

``python -m benchmarks.blobs`` puts small volumes into the storage of the Azure on loopback that the
tests use, adds 20 ms to every request, and builds the cache twice: of some of the volumes, and of
all. From n volumes in t seconds and N in T, the time for fastMRI's 5,847 multi-coil volumes is
T + (5,847 - N) (T - t) / (N - n). Head and tail of a file are all that is read, so that the
size of the volumes plays no part. Client, proxy and storage share this machine's processors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cloud.cloud import Cloud
from workbench.data.cache import build_cache
from workbench.stores.blob import configured_store
from workbench_demo.phantom.study import write_study

VOLUMES = 5847
"""Multi-coil volumes of knee and brain that fastMRI lists, in all splits."""

COUNTS = 128, 512
SECONDS_A_REQUEST = 0.02


def _fill(cloud: Cloud, counts: tuple[int, ...]) -> None:
    """Lay as many volumes as asked for into a folder each, the same ones under other names."""
    [made, *_] = write_study(
        cloud.folder / "study",
        "knee_multicoil",
        volumes={"train": 1},
        recon=96,
        slices=2,
        coils=(2,),
        widths=(1.15,),
        workers=1,
    )
    content, container = made.read_bytes(), cloud.storage.container()
    names = [f"of{n}/multicoil_train/file{i}.h5" for n in counts for i in range(n)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: container.upload_blob(name, content), names))


def _timed(count: int) -> tuple[float, float]:
    """Build the cache of a folder; return its seconds, and this process's of a processor."""
    began, worked = time.perf_counter(), time.process_time()
    cache = build_cache(configured_store(f"of{count}"), refresh=False)
    if len(cache) != count:
        raise RuntimeError(f"found {len(cache)} of {count} volumes: {cache.problems[:1]}")
    return time.perf_counter() - began, time.process_time() - worked


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table and the extrapolation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blobs", description=__doc__)
    parser.add_argument("--counts", type=int, nargs=2, default=COUNTS, metavar=("FEW", "MANY"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    few, many = given.counts
    if not 0 < few < many:
        parser.error(f"--counts {few} {many}: give two rising numbers")
    if given.inside:
        # The first connections, imports and the login are not what grows with the volumes.
        print(json.dumps([_timed(count) for count in (few, few, many)][1:]))
        return 0
    with tempfile.TemporaryDirectory(prefix="cloud-") as folder, Cloud(Path(folder)) as cloud:
        _fill(cloud, (few, many))
        cloud.network.latency(cloud.storage.host, SECONDS_A_REQUEST)
        environment = os.environ | cloud.environment
        environment["AZURE_STORAGE_CONNECTION_STRING"] = cloud.storage.connection_string
        counts = [str(count) for count in (few, many)]
        # In a process of its own: the cloud's proxy must not share the client's interpreter.
        output = subprocess.run(
            [sys.executable, "-m", "benchmarks.blobs", "--inside", "--counts", *counts],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    (t, _), (T, worked) = json.loads(output.splitlines()[-1])
    each = (T - t) / (many - few)
    print(
        f"{few} volumes {t:.2f} s, {many} volumes {T:.2f} s, of which {1000 * worked / many:.1f} "
        f"ms of a processor a volume here\n{VOLUMES:,} volumes: {T:.2f} + ({VOLUMES:,} - {many}) x "
        f"{1000 * each:.2f} ms = {T + (VOLUMES - many) * each:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
