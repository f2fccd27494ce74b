"""Names come from outside: nowhere may one of them become markup, a formula, or an error."""

import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure

import workbench
from tests.views.conftest import results_of, write
from workbench.compute.jobs import training_job
from workbench.compute.runs import Run
from workbench.data.cache import open_cache
from workbench.data.volume import Problem
from workbench.forms.cells import show
from workbench.ingest.report import IngestReport, Outcome, progress_html, report_html, table
from workbench.models import VarNet
from workbench.pages import cache as cache_views
from workbench.pages import reconstruct as result_views
from workbench.recon.orders import begin
from workbench.recon.reconstruction import reconstruct_share
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Results
from workbench.recon.weights import load_network
from workbench.views import explore, overview
from workbench.views.annotations import read_annotations
from workbench.views.compared import find_compared
from workbench.views.explored import open_slice
from workbench.views.export.report import run_report
from workbench.views.header import attribute_table, header_table
from workbench.views.header import volume_table as header_of
from workbench.views.scores import against_figure, spread_figure
from workbench.views.style import new_figure
from workbench.views.tables import styled_table
from workbench.views.training import show_run, volume_table
from workbench.views.viewer.slice_browser import SliceBrowser
from workbench_demo.pages import pictures, render

EVIL = "<img src=x onerror=alert(1)>&\"'$x^$_"


class Tags(HTMLParser):
    """The pictures and scripts of a page that are not the package's own."""

    def __init__(self, html):
        super().__init__()
        self.foreign = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if "onerror" in given or (tag == "img" and not given["src"].startswith("data:")):
            self.foreign.append((tag, given))


def assert_text_alone(html):
    assert "<img src=x" not in html
    assert Tags(html).foreign == []


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    """A project whose every name is markup: folders, files, acquisition, attributes, arrays."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "datasets" / EVIL
    for name in ("a", "b"):
        path = write(
            folder / f"multicoil_val/{EVIL}{name}.h5",
            f"_{EVIL}{name}",
            attributes={"patient_id": EVIL, EVIL: EVIL, "listed": [EVIL], "raw": EVIL.encode()},
        )
        with h5py.File(path, "a") as file:
            file[EVIL] = np.zeros(3)
            header = file["ismrmrd_header"][()].decode()
            del file["ismrmrd_header"]
            named = "<userParameters><name>&lt;img src=x onerror=alert(1)&gt;</name>"
            file["ismrmrd_header"] = header.replace(
                "</ismrmrdHeader>", f"{named}</userParameters></ismrmrdHeader>"
            )
    (folder / f"multicoil_val/{EVIL}broken.h5").write_bytes(b"no volume")
    torch.manual_seed(0)
    network = VarNet(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
    torch.save(network.state_dict(), root / f"{EVIL}.pt")
    (root / "plus.csv").write_text(
        "file,slice,study_level,x,y,width,height,label\n"
        + "".join(
            '"{0}{1}",1,No,4,6,10,5,"{0}"\n"{0}{1}",0,Yes,,,,,"{0}"\n'.format(
                EVIL.replace('"', '""'), name
            )
            for name in ("a", "b")
        )
    )
    return root


@pytest.fixture
def shown(monkeypatch):
    """What is displayed, as the notebook gets it: HTML in full, figures drawn."""
    html = []

    def display(value, **_):
        kinds = value if isinstance(value, dict) else DisplayFormatter().format(value)[0]
        html.append(kinds.get("text/html", ""))
        assert "image/png" in kinds or not isinstance(value, Figure)

    monkeypatch.setattr("IPython.display.display", display)
    return html


@pytest.fixture
def done(evil, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(evil))
    sets = []
    for rate, share in ((8, 0.04), (4, 0.08)):
        plan = plan_reconstruction(
            weights=f"{EVIL}.pt", local_dataset=EVIL, acceleration=rate, center_fraction=share
        )
        if plan.order.volumes:
            begin(plan.order, plan.cache, plan.folder)
            network = load_network(evil / f"{EVIL}.pt")
            list(reconstruct_share(plan.order, plan.cache, plan.folder, network))
        sets.append(Results(plan.folder))
    compared = tuple(find_compared(f"{sets[-1].run}@8x", sets[-1].folder, sets[-1].order))
    asked = result_views.ReconstructPage.model_construct(uncertainty=3)
    annotations = read_annotations("plus.csv")
    return result_views.Reconstructed(sets[-1], asked, compared, annotations)


def test_every_cell_of_a_reconstruction_shows_names_as_text(done, shown, capsys):
    for name in ("scores", "acquisitions", "compared", "extremes", "uncertainty", "findings"):
        show(getattr(result_views, f"show_{name}"), done)
    show(result_views.show_volumes, done)
    assert any("&lt;img" in html for html in shown)
    assert_text_alone("".join(shown))


def test_report_and_viewer_show_names_as_text(done, shown):
    html = run_report(done.results.run).read_text()
    assert html.count("&lt;img") > 10
    browser = SliceBrowser(done.results, "ssim", done.annotations)
    browser.list.index = 0
    assert EVIL in browser.list.options[0]  # a list's entries are text in the browser, too
    browser.viewer._ipython_display_()
    assert_text_alone("".join([html, *shown]))


def test_every_cell_of_the_cache_shows_names_as_text(evil, shown, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_ROOT", str(evil))
    cache = open_cache(evil / "datasets" / EVIL)
    found = cache_views.Indexed(cache, {"val": (2, 6)}, (Path(EVIL), 1, cache.problems), None)
    for name in ("splits", "acquisitions", "sizes", "problems", "comparison"):
        show(getattr(cache_views, f"show_{name}"), found)
    assert any("&lt;img" in html for html in shown)
    assert_text_alone("".join(shown))


def test_every_table_of_a_training_shows_names_as_text(evil, shown, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(evil))
    folder = evil / "outputs/evil"
    job = training_job(evil / "datasets" / EVIL, synthetic=True, model="knee", name="evil")
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(job.to_json())
    metrics = "epoch,train_loss,val_ssim,val_psnr,val_nmse\n1,0.4,0.6,30,0.02\n"
    (folder / "metrics.csv").write_text(metrics)
    name = EVIL.replace('"', '""')
    volumes = f'volume,slices,ssim,psnr,nmse\n"multicoil_val/{name}.h5",3,0.6,30,0.02\n'
    (folder / "volumes.csv").write_text(volumes)
    run = Run(folder)
    show(show_run, run)
    html = volume_table(run).to_html()
    assert "&lt;img" in html
    assert_text_alone("".join([*shown, html]))


def test_report_of_an_ingest_shows_names_as_text():
    outcome = Outcome(EVIL, EVIL, 1, state="failed", problem=f"{EVIL}: mend it")
    report = IngestReport([outcome], {EVIL: {EVIL: (1, 2)}}, [EVIL], 1.0)
    html = report_html(report) + progress_html(report)
    assert "&lt;img" in html
    assert_text_alone(html)


def test_everything_of_an_explored_volume_shows_names_as_text(evil, shown):
    explored = open_slice(str(evil / "datasets" / EVIL))
    file = explored.file
    for each in (header_of(explored.volume), header_table(file), attribute_table(file)):
        assert_text_alone(each._repr_html_())
        html = styled_table(each).to_html()
        assert "&lt;img" in html
        assert_text_alone(html)
    figures = [
        explore.slices_figure(explored),
        explore.kspace_and_image_figure(explored),
        explore.annotated_figure(explored, read_annotations(evil / "plus.csv")),
    ]
    assert all(figure._repr_png_() for figure in figures)


def test_scripts_of_the_widgets_make_no_markup_of_text():
    makes = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write")
    lines = [
        line.strip()
        for path in Path(workbench.__file__).parent.rglob("*.js")
        for line in path.read_text().splitlines()
        if makes.search(line)
    ]
    assert lines == []


def test_all_tables_go_through_the_one_that_escapes():
    package = Path(workbench.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("style", "to_html"):
                where = f"{path.relative_to(package)}, line {node.lineno}"
                if node.attr == "style":
                    assert path.name == "tables.py", f"{where}: use styled_table"
                else:
                    assert "styled_table" in path.read_text(), f"{where}: use styled_table"


def test_texts_that_are_no_str_are_escaped_as_well():
    import pandas

    frame = pandas.DataFrame(
        {EVIL: [EVIL, EVIL.encode(), Path(EVIL)], "more": [[EVIL], {EVIL: 1}, None]},
        index=[EVIL, EVIL, "twice"],
    )
    frame.index.name = frame.columns.name = EVIL
    assert_text_alone(styled_table(frame).to_html())
    frame.columns = pandas.MultiIndex.from_tuples([(EVIL, EVIL), ("", "b")])
    assert_text_alone(styled_table(frame.set_index((EVIL, EVIL))).to_html())
    assert_text_alone(overview.problem_table([Problem(EVIL, EVIL)]).to_html())
    assert_text_alone(table(EVIL, [[EVIL], [Path(EVIL)]]))


@pytest.mark.parametrize("name", [EVIL, "$x^$", "a$b", "_hidden", "x_1 ^2 \\frac{", "new\nline"])
def test_names_in_figures_are_drawn_as_they_are(name, tmp_path):
    scores = {f"{name}{n}": {"ssim": 0.8 + n / 100, "psnr": 30.0, "nmse": 0.02} for n in range(3)}
    kinds = {volume: f"{name}{volume[-1]}" for volume in scores}
    pairs = {volume: (each, each) for volume, each in scores.items()}
    first, second = (
        results_of(tmp_path / run / "reconstructions/val", pairs, kinds)
        for run in (name, f"{name}2")
    )
    figures = [
        spread_figure(first),
        against_figure(first, second),
        new_figure(4, 3, title=name),
    ]
    assert all(figure._repr_png_() for figure in figures)  # a warning would be an error
    said = [text.get_text() for legend in figures[1].legends for text in legend.get_texts()]
    assert said == sorted(set(kinds.values()))


def test_dollars_are_as_wide_as_they_are_written():
    figure = new_figure(4, 3)
    text, plain = figure.text(0, 0, "$x$"), figure.text(0, 0, "x")
    assert figure._repr_png_()
    assert text.get_window_extent().width > 2 * plain.get_window_extent().width


def test_pages_of_the_demo_show_names_as_text(tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

    outputs = [
        new_output("stream", name="stdout", text=EVIL),
        new_output("error", ename=EVIL, evalue=EVIL, traceback=[EVIL]),
        new_output("display_data", {"text/plain": EVIL}),
    ]
    code = new_code_cell(json.dumps(EVIL), outputs=outputs)
    source = tmp_path / "<img src=x onerror=alert(1)>.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# story"), code]), source)
    assert_text_alone(
        re.sub(r"<(script|style)\b.*?</\1>", "", render(source).read_text(), flags=re.S)
    )
    assert list(pictures(source)) == []
