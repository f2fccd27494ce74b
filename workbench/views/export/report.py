"""A run in one HTML file: how good it is, what it looks like, how it learned, what was asked.

It holds its pictures itself, fetches nothing, and is read on dark and on light ground.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
from workbench.recon.asked import is_current
from workbench.recon.metrics import described
from workbench.recon.results import KINDS, Results
from workbench.settings import shown
from workbench.stores.disk import write_text
from workbench.views.compared import left_out_of_comparison, results_of_run
from workbench.views.comparison import comparing_figure, comparison_table
from workbench.views.curves import learning_curves, loss_in_words
from workbench.views.paired import METHOD, difference_table
from workbench.views.ranking import score_table
from workbench.views.reconstructions import (
    common_factor,
    extreme_slices,
    sheet_figure,
    slice_figure,
)
from workbench.views.scores import spread_figure
from workbench.views.style import png
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1a1a1a; --soft: #6a6a6a; --line: #ddd; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181c; --ink: #e8e8e8; --soft: #a0a0a0; --line: #3a3d44; }
}
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th { font-weight: 600; } th:first-child, td:first-child, .pairs td { text-align: left; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
.wide { overflow-x: auto; } .note { color: var(--soft); }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; padding: .5rem; border-radius: 4px; }
"""
_DPI = 90


def run_report(name: str) -> Path:
    """Write the report of a run, given by its name, with all that it has reconstructed.

    It is ``report.html`` in the run's folder; written whole, or not at all.

    Raises:
        FileNotFoundError: the run has neither trained nor reconstructed.
    """
    run = Run(run_folder(name))
    trained = (run.folder / "job.json").exists()
    sets = [Results(folder) for folder in results_of_run(name)]
    if not trained and not sets:
        raise FileNotFoundError(f"{shown(run.folder)} holds no run: train it, or reconstruct first")
    synthetic = run.synthetic or any(each.synthetic for each in sets)
    what = "Research reconstructions of undersampled MR measurements, not for clinical use."
    if synthetic:
        what += " The volumes are a synthetic phantom, not patient data."
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head>\n<body>",
        f'<h1>{escape(name)}</h1>\n<p class="note">{what}</p>',
        *_in_short(sets),
        *_compared([each for each in sets if each.scored]),
        *(part for each in sets for part in _results(each)),
        *(_training(run, synthetic) if trained else ()),
        "</body></html>\n",
    ]
    path = run.folder / "report.html"
    write_text(path, "\n".join(parts))
    return path


def _in_short(sets: list[Results]) -> Iterator[str]:
    """Begin with the means of each folder of results, and the median slice of the first."""
    scored = [each for each in sets if each.scored]
    for each in scored:
        kinds = {kind: list(each.scored.scores(kind).values()) for kind in KINDS}
        words = "; ".join(
            f"{each.labels[kind]}: {described(scores)}" for kind, scores in kinds.items()
        )
        yield (
            f"<p><strong>{escape(each.order.split)}, {escape(str(each.order))}</strong>, true "
            f"acceleration {each.acceleration:.2f}: {escape(words)}.</p>"
        )
    for each in scored[:1]:
        median = [found for found in extreme_slices(each) if found[0].startswith("median")]
        if median and each.dataset_is_here:
            title, result, number = median[0]
            figure = slice_figure(result, number, title)
            yield _picture(figure, f"{title}: {result.name}, slice {number}")


def _training(run: Run, synthetic: bool) -> Iterator[str]:
    if run.metrics:
        yield "<h2>How it learned</h2>"
        loss = loss_in_words(run.job)
        figure = learning_curves(run.metrics, loss=loss, synthetic=synthetic)
        yield _picture(figure, "Training loss and validation metrics by epoch")
    if run.job.start_from:
        text = f"It {run.job.start_from.remark(['val'])}."
        yield f'<p class="note">{escape(text)}</p>'
    job = run.job.parameters
    own = {"dataset": Path(job["dataset"]).name, "sampling": str(run.job.sampling)}
    yield "<details><summary>What was asked</summary>" + _pairs({**job, **own}) + "</details>"
    versions = run.folder / "versions.json"
    if versions.exists():
        yield "<details><summary>What ran</summary>"
        yield _pairs(json.loads(versions.read_text())) + "</details>"


def _compared(known: list[Results]) -> Iterator[str]:
    if len(known) < 2:
        return
    yield "<h2>Accelerations and masks</h2>"
    try:
        if left_out := left_out_of_comparison(known):
            yield f'<p class="note">{escape(left_out)}</p>'
        html = styled_table(comparison_table(known), index=False).to_html()
        yield f'<div class="wide">{html}</div>'
        html = styled_table(difference_table(known), index=False).to_html()
        yield f'<div class="wide">{html}</div><p class="note">{escape(METHOD)}</p>'
        yield _picture(comparing_figure(known), "Metrics by true acceleration")
    except ValueError as error:  # splits without a volume in common
        yield f'<p class="note">Not compared: {escape(str(error))}.</p>'


def _results(results: Results) -> Iterator[str]:
    count, order = len(results), results.order
    yield f"<h2>{escape(results.folder.name)}</h2>"
    yield (
        f"<p>{count} volume{'s' if count > 1 else ''} of split {escape(order.split)} of "
        f"{escape(Path(order.dataset).name)}, sampled {escape(str(order))}; true acceleration "
        f"{results.acceleration:.2f}.</p>"
    )
    if not is_current(results.folder, results.order):
        yield (
            '<p class="note">They were made with weights that their file holds no more, as where '
            "a training has gone on since: reconstruct again for those.</p>"
        )
    if results.scored:
        for by in ("acquisition", "volume"):
            html = score_table(results, by=by).to_html()
            yield f'<h3>By {by}</h3><div class="wide">{html}</div>'
        yield _picture(spread_figure(results), "Spread of the metrics over volumes")
    else:
        yield '<p class="note">These volumes have no target: they cannot be scored.</p>'
    if not results.dataset_is_here:
        yield '<p class="note">The dataset is not here, so its slices are not shown.</p>'
        return
    extremes = extreme_slices(results)
    factor = common_factor(extremes)
    for title, result, number in extremes:
        images = slice_figure(result, number, title, factor)
        yield _picture(images, f"{title}: {result.name}, slice {number}")
    yield _picture(sheet_figure(results[0]), f"Every slice of {results[0].name}")


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f'<table class="pairs">{rows}</table>'


def _picture(figure: "Figure", text: str) -> str:
    data = base64.b64encode(png(figure, _DPI)).decode()
    return f'<figure><img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'
