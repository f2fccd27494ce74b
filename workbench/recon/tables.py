"""Tables of metrics as CSV: ``scores.csv`` in a folder of results, and what a training writes."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench.compute.evaluation import SCORES
from workbench.recon.metrics import METRICS, Scores
from workbench.recon.results import EARLIER, KINDS, Result
from workbench.stores.disk import write_text


def score_row(result: Result) -> dict[str, Any]:
    """Return a result's row of ``scores.csv``."""
    return {
        "volume": result.volume.path,
        "acquisition": result.volume.acquisition,
        "slices": result.slices,
        "acceleration": result.acceleration,
        **named_scores(result.scores),
    }


def named_scores(scores: Mapping[str, Scores]) -> Scores:
    """Name the metrics of each kind as files do, such as "zero_filled_ssim"."""
    return {f"{kind}_{name}": v for kind, each in scores.items() for name, v in each.items()}


def write_scores(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``scores.csv``; metrics are left empty where a volume has no target."""
    columns = ["volume", "acquisition", "slices", "acceleration"]
    columns += [f"{kind}_{metric.name}" for kind in KINDS for metric in METRICS]
    in_order = sorted(rows, key=lambda row: str(row["volume"]))
    write_table(folder / SCORES, columns, in_order, missing="")


def write_table(
    file: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]], *, missing: str
) -> None:
    """Write some columns of rows as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(columns), restval=missing, extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    write_text(file, text.getvalue())


def read_scores(folder: Path) -> list[dict[str, str]]:
    """Read ``scores.csv``, a row a volume; none where it is not there."""
    try:
        with (folder / SCORES).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    earlier, now = f"{EARLIER}_", "reconstruction_"
    return [{name.replace(earlier, now): value for name, value in row.items()} for row in rows]
