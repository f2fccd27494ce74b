"""What a run found, for people and for programs."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.pairs import Row
from workbench.stores.disk import write_text


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, versions, and the GPU."""
    import torch

    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    versions = {}
    for name in ("torch", "fastmri", "numpy", "h5py", "scikit-image", "fsspec"):
        with suppress(PackageNotFoundError):  # a GPU's machine may have few
            versions[name] = version(name)
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "processor": model,
        "processors": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_report(
    folder: Path,
    size: str,
    rows: Sequence[Row],
    where: dict[str, Any],
    name: str = "bench",
    more: str = "",
) -> None:
    """Write ``NAME.json`` and ``NAME.md``, which ends with ``more``."""
    document = {"size": size, "machine": where, "rows": [asdict(row) for row in rows]}
    text = markdown(size, rows, where) + (f"\n\n{more}" if more else "")
    write_document(folder, name, document, text)


def write_document(folder: Path, name: str, document: Mapping[str, Any], text: str) -> None:
    """Write ``NAME.json`` and ``NAME.md``, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.json", json.dumps(document, indent=1) + "\n")
    write_text(folder / f"{name}.md", text + "\n")


def markdown(size: str, rows: Sequence[Row], where: dict[str, Any]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        f"Size {size}; {where['processor']}, {where['threads']} threads; torch "
        f"{where['versions']['torch']}, fastmri {where['versions']['fastmri']}. Medians of n pairs "
        "measured in turn; a ratio above 1 means better than the reference: fastMRI, for classical "
        "rows BART, for promptmr rows its authors' code. Roofline: the rate of the "
        "workbench's convolutions over that of a product of large float32 matrices.",
        *busy(where),
        "",
        "| | what is measured | reference | workbench | ratio | roofline | n |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.measured} | {_figure(row.reference)} {row.unit} "
        f"| {_figure(row.ours)} {row.unit} | {row.ratio:.2f}{_worse(row)} "
        f"| {'' if row.roofline is None else format(row.roofline, '.0%')} | {row.n} |"
        for row in rows
    ]
    return "\n".join(lines)


def busy(where: Mapping[str, Any]) -> list[str]:
    """Say that other work shared the processors; threads that wait for each other then wait long.

    Of the many small steps of a small network each waits: one that takes half the time alone was
    seen to take a fourteenth beside other work.
    """
    if where["load_at_start"] <= where["processors"] / 4:
        return []
    return [
        "",
        f"**The machine was busy, its load {where['load_at_start']} at the start: these ratios may "
        "be far off.**",
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _worse(row: Row) -> str:
    return " (worse)" if row.ratio < 1 else ""
