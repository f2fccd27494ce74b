import re
import shutil
from html.parser import HTMLParser

import pytest

from workbench.compute.jobs import training_job
from workbench.stores.disk import write_text
from workbench.views.compared import find_compared
from workbench.views.export.report import run_report


class Page(HTMLParser):
    """What a page refers to, and whether its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


@pytest.fixture(scope="module")
def report(reconstructed, project):
    """The report of a run in a folder, with three folders of results."""
    inside = project / "outputs/team/weights"
    for sampling in ({}, {"acceleration": 8, "center_fraction": 0.04}, {"split": "test"}):
        made = reconstructed(**sampling).folder
        shutil.copytree(made, inside / "reconstructions" / made.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_ROOT", str(project))
        yield run_report("team/weights")
    shutil.rmtree(inside.parent)


def test_report_is_one_file_that_asks_for_nothing_and_tells_every_folder_of_results(report):
    page = Page(report.read_text())
    assert report.name == "report.html"
    assert page.open == []
    assert len(page.sources) >= 2 * 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", report.read_text())
    assert "prefers-color-scheme: dark" in report.read_text()
    start = report.read_text().partition("<h2>")[0]
    assert start.count("<img") == 1
    assert "means of 2 volumes" in start
    assert "VarNet: SSIM 0." in start
    for words in (
        "team/weights",
        "val-equispaced-4x-0.08",
        "val-equispaced-8x-0.04",
        "2 volumes of split val of knee_multicoil, sampled",
        "synthetic phantom",
        "not for clinical use",
        "These volumes have no target",
        "file1000002.h5",
    ):
        assert words in page.text


def test_folder_of_a_reconstruction_that_was_broken_off_early_hinders_no_report(
    reconstructed, in_project
):
    first, eight = reconstructed(), reconstructed(acceleration=8, center_fraction=0.04)
    run = in_project / "outputs/broken"
    try:
        for made in (first, eight):
            shutil.copytree(made.folder, run / "reconstructions" / made.folder.name)
        for path in (run / "reconstructions" / eight.folder.name).glob("*.h5"):
            path.unlink()
        text = run_report("broken").read_text()
        assert first.folder.name in text
        assert eight.folder.name not in text
        with pytest.raises(
            FileNotFoundError, match=r"nothing of split val fits; it has broken@val"
        ):
            find_compared("broken@8x", first.folder, first.order)
    finally:
        shutil.rmtree(run)


def test_report_of_a_trained_run_tells_its_job_and_curves(in_project):
    folder = in_project / "outputs/trained"
    dataset = in_project / "datasets/knee_multicoil"
    job = training_job(dataset, synthetic=True, model="knee", name="trained", epochs=3)
    write_text(folder / "job.json", job.to_json())
    rows = "epoch,train_loss,val_ssim,val_psnr,val_nmse\n1,0.4,0.6,30,0.02\n2,0.3,0.7,31,0.01\n"
    write_text(folder / "metrics.csv", rows)
    text = run_report("trained").read_text()
    assert "Training loss and validation metrics by epoch" in text
    assert text.index("by epoch") < text.index("<details><summary>What was asked</summary>")
    assert "<td>epochs</td><td>3</td>" in text


def test_run_that_is_not_there_is_named(in_project):
    with pytest.raises(FileNotFoundError, match="outputs/nobody holds no run"):
        run_report("nobody")
