import nbformat
import papermill
import pytest

from tests.ingest.conftest import members_in
from workbench.ingest.request import decoded, email_text, plan_ingest
from workbench.pages.ingest import IngestPage
from workbench.settings import Secret, project_root
from workbench.stores import DiskStore
from workbench_demo.bucket import Bucket

NOTEBOOK = project_root() / "notebooks" / "ingest.ipynb"


def run(tmp_path, **parameters) -> str:
    """Run the notebook; return the executed one as text, also where it fails."""
    out = tmp_path / "out.ipynb"
    try:
        papermill.execute_notebook(
            NOTEBOOK, out, parameters, progress_bar=False, execution_timeout=60
        )
    finally:
        run.output = out.read_text() if out.exists() else ""
    return run.output


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_notebook_brings_the_data_in_and_holds_no_link(release, tmp_path):
    folder, members = release
    with Bucket(folder) as bucket:
        (tmp_path / "curl.txt").write_text(bucket.email())
        shown = run(tmp_path, links_file=str(tmp_path / "curl.txt"), root=str(tmp_path / "d"))
    there = members_in(tmp_path / "d" / "knee_multicoil")
    assert {path: there[path] for path in members} == members
    assert "3 archives brought in" in shown
    assert "knee_multicoil_train_batch_1" in shown
    assert "AKIA" not in shown
    assert "Signature" not in shown
    assert "widgets" not in nbformat.reads(shown, 4).metadata


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_notebook_fails_where_an_archive_failed_and_holds_no_link(release, tmp_path):
    folder, _ = release
    (folder / "SHA256").write_text(f"{'0' * 64}  knee_multicoil_val.tar.xz\n")
    with Bucket(folder) as bucket:
        (tmp_path / "curl.txt").write_text(bucket.email())
        with pytest.raises(papermill.PapermillExecutionError, match="accept_mismatch"):
            run(tmp_path, links_file=str(tmp_path / "curl.txt"), root=str(tmp_path / "d"))
    assert "1 failed" in run.output
    assert "AKIA" not in run.output
    assert "Signature" not in run.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "file"}, "it is a file, give a folder"),
        ({"datasets": "knee"}, r"datasets='knee': give one or several of knee_singlecoil, "),
        ({"destination": "moon"}, r"destination='moon': give"),
    ],
)
def test_parameter_that_cannot_be_is_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        IngestPage.of(change).looked_at()


def test_names_are_read_from_a_list_with_blanks(release):
    folder, _ = release
    with Bucket(folder) as bucket:
        plan = plan_ingest(
            Secret(bucket.email()),
            datasets=" knee_multicoil , ",
            accept_mismatch="brain_fastMRI_DICOM.tar.gz",
        )
    assert [dataset.name for dataset in plan.datasets] == ["knee_multicoil"]
    assert plan.accept_mismatch == ("brain_fastMRI_DICOM",)
    assert plan.store == DiskStore(project_root() / "datasets")


def test_text_comes_from_the_variable_then_from_the_file(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTMRI_LINKS", raising=False)
    (tmp_path / "curl.txt").write_text("from the file")
    assert email_text(str(tmp_path / "curl.txt")).reveal() == "from the file"
    monkeypatch.setenv("FASTMRI_LINKS", "from the variable")
    assert email_text(str(tmp_path / "curl.txt")).reveal() == "from the variable"


def test_no_text_and_nobody_to_ask_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.delenv("FASTMRI_LINKS", raising=False)
    with pytest.raises(FileNotFoundError, match=r"no such file: save the text .* FASTMRI_LINKS"):
        email_text(str(tmp_path / "none.txt"))
    with (tmp_path / "archive.tar").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match=r"archive\.tar: 1,099,511,627,776 bytes are no email"):
        email_text(str(tmp_path / "archive.tar"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_file_is_read_as_editors_save_it(encoding):
    assert decoded("für: https://x".encode(encoding)) == "für: https://x"
