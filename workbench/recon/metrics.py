"""Metrics of images against their targets: one record each, in ``METRICS``.

Tables, CSV files, orders, figures and reports follow from the list. A new metric is one record.
Nothing here needs torch; ``workbench.recon.scoring`` measures the images.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Scores = dict[str, float]
"""A volume's metrics by name."""

Parts = Mapping[str, float]
"""What one slice adds to its volume's metrics.

``squared_error`` and ``squared_target`` are sums over ``pixels`` pixels, ``peak`` the data range.
A metric that is measured by slice adds a part under its own name.
"""


@dataclass(frozen=True)
class Metric:
    """A metric of images against their targets."""

    name: str  # in files, orders and code
    label: str  # for people
    unit: str  # such as "dB"; empty for a plain number
    form: str  # format of a value in tables
    short: str  # format of a value where room is short
    higher_is_better: bool
    of_volume: Callable[[Sequence[Parts]], float]  # from the parts of its slices
    # Measures images and targets (slices, H, W) with a data range, (slices,); None where the common
    # parts are enough.
    of_slices: "Callable[[Tensor, Tensor, float], Tensor] | None" = None

    @property
    def heading(self) -> str:
        """Label and unit, as a column or an axis has them."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def direction(self) -> str:
        """Which values are better, for people."""
        return "higher is better ↑" if self.higher_is_better else "lower is better ↓"

    def text(self, value: float, form: str | None = None) -> str:
        """Write a value; "–" where there is none, "∞" for the PSNR of an image without error."""
        if not math.isfinite(value):
            return "∞" if value == math.inf else "–"
        return f"{value:{form or self.form}}"

    def say(self, value: float, form: str | None = None) -> str:
        """Write a value with its label and unit, such as "PSNR 31.25 dB"."""
        unit = f" {self.unit}" if self.unit and math.isfinite(value) else ""
        return f"{self.label} {self.text(value, form)}{unit}"


def _ssim_of_slices(images: "Tensor", targets: "Tensor", data_range: float) -> "Tensor":
    from workbench.recon.ssim import mean_ssim

    return mean_ssim(images, targets, data_range)


def mean_of(name: str) -> Callable[[Sequence[Parts]], float]:
    """Return the mean over a volume's slices of a part."""
    return lambda slices: math.fsum(each[name] for each in slices) / len(slices)


# fsum: the result does not depend on the order in which the ranks report.
def _psnr(slices: Sequence[Parts]) -> float:
    error = math.fsum(each["squared_error"] for each in slices)
    error /= sum(each["pixels"] for each in slices)
    peak = max(each["peak"] for each in slices)
    if peak < 0:  # of a target that is negative everywhere
        return math.nan
    return 20 * math.log10(peak) - 10 * math.log10(error) if error else math.inf


def _nmse(slices: Sequence[Parts]) -> float:
    power = math.fsum(each["squared_target"] for each in slices)
    return math.fsum(each["squared_error"] for each in slices) / power if power else math.nan


METRICS = [
    Metric("ssim", "SSIM", "", ".4f", ".3f", True, mean_of("ssim"), _ssim_of_slices),
    Metric("psnr", "PSNR", "dB", ".2f", ".1f", True, _psnr),
    Metric("nmse", "NMSE", "", ".4f", ".4f", False, _nmse),
]
"""Every metric.

SSIM is the mean over the slices, NMSE the sum of squared errors over the sum of squares of the
target, PSNR = 20 log10(max) - 10 log10(mean squared error) over the whole volume.
"""

LEADING = METRICS[0]
"""Chooses the best checkpoint, orders volumes and slices, and is measured by slice."""


HELD_OUT = "held_out"
"""Name of the error on held-out lines, by which volumes without targets are validated."""


def unscored(volume: str, number: int, held_out: float) -> "SliceScore":
    """Return what a slice without a target adds: no metric, but its error on held-out lines."""
    parts = dict.fromkeys([metric.name for metric in METRICS if metric.of_slices], math.nan)
    common = {"squared_error": math.nan, "squared_target": math.nan, "pixels": 1.0, "peak": 1.0}
    return SliceScore(volume, number, parts | common | {HELD_OUT: held_out})


def described(scores: Iterable[Mapping[str, Any]]) -> str:
    """Write the means over volumes for people, with how many volumes each is over.

    Such as "SSIM 0.8731, PSNR 29.30 dB (of 3), NMSE 0.0247, means of 4 volumes".
    """
    scores = list(scores)
    means, counts, total = mean_scores(scores), counted(scores), len(scores)
    said = [
        metric.say(means[metric.name]) + of_fewer(counts[metric.name], total) for metric in METRICS
    ]
    if HELD_OUT in means:
        said = [say_held_out(means[HELD_OUT])]
    return ", ".join([*said, f"means of {total} volumes" if total > 1 else "of 1 volume"])


def standing(means: Mapping[str, float], prefix: str = "") -> float:
    """Return by what the best epoch is chosen: the leading metric, or less error held out."""
    held_out = means.get(f"{prefix}{HELD_OUT}")
    return means[f"{prefix}{LEADING.name}"] if held_out is None else -held_out


def say_held_out(value: float) -> str:
    """Write an error on held-out lines for people."""
    return f"error on held-out lines {value:.4f}"


def of_fewer(count: int, total: int) -> str:
    """Say beside a mean that it is over fewer volumes than there are: " (of 3)", or ""."""
    return "" if count == total else f" (of {count})"


@dataclass(frozen=True)
class SliceScore:
    """What a slice adds to its volume's metrics."""

    volume: str  # path within the dataset, which no two volumes share
    slice: int
    parts: Parts


def metrics_of(slices: Sequence[Parts]) -> Scores:
    """Form every metric from the parts of some slices, or their error on held-out lines."""
    metrics = {metric.name: metric.of_volume(slices) for metric in METRICS}
    return metrics | ({HELD_OUT: mean_of(HELD_OUT)(slices)} if HELD_OUT in slices[0] else {})


def score_volumes(scores: Iterable[SliceScore]) -> list[dict[str, Any]]:
    """Form the metrics of each volume from its slices; a slice that comes twice counts once.

    Returns:
        A row for each volume: its path as ``volume``, how many ``slices``, and its metrics.
    """
    volumes: dict[str, dict[int, Parts]] = defaultdict(dict)
    for score in scores:
        volumes[score.volume][score.slice] = score.parts
    return [
        {"volume": name, "slices": len(parts), **metrics_of(list(parts.values()))}
        for name, parts in sorted(volumes.items())
    ]


def mean_scores(scores: Iterable[Mapping[str, Any]]) -> Scores:
    """Return the mean over volumes of each metric.

    A volume whose metric is undefined (PSNR without an error, NMSE of an empty target) is left out
    of that metric's mean; NaN where none is left. ``counted`` says how many are in it.
    """
    finite = _finite(scores)
    return {name: math.fsum(v) / len(v) if v else math.nan for name, v in finite.items()}


def counted(scores: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how many volumes are in each metric's mean."""
    return {name: len(values) for name, values in _finite(scores).items()}


def deviations(scores: Iterable[Mapping[str, Any]]) -> Scores:
    """Return the sample standard deviation of each metric; NaN of fewer than 2 volumes."""
    finite = _finite(scores)
    return {name: stdev(v) if len(v) > 1 else math.nan for name, v in finite.items()}


def _finite(scores: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    scores = list(scores)
    return {
        name: [score[name] for score in scores if math.isfinite(score[name])]
        for name in (
            *(metric.name for metric in METRICS),
            *([HELD_OUT] if scores and HELD_OUT in scores[0] else []),
        )
    }
