import nbformat
import papermill
import pytest

from demo.bucket import Bucket
from workbench.ingest.request import decoded, email_text, ingest_request
from workbench.settings import project_root

NOTEBOOK = project_root() / "notebooks" / "ingest.ipynb"
GOOD = {
    "datasets": "",
    "destination": "local",
    "root": "datasets",
    "keep_archives": True,
    "accept_mismatch": "",
    "side_by_side": 4,
    "connections": 4,
}


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
def test_notebook_brings_the_data_in_and_holds_no_link(knee, tmp_path, members_in):
    folder, members = knee
    with Bucket(folder) as bucket:
        (tmp_path / "curl.txt").write_text(bucket.email())
        shown = run(tmp_path, links_file=str(tmp_path / "curl.txt"), root=str(tmp_path / "d"))
    assert members_in(tmp_path / "d" / "knee_multicoil") == members
    assert "3 archives brought in" in shown
    assert "knee_multicoil_train_batch_1" in shown
    assert "AKIA" not in shown
    assert "Signature" not in shown
    assert "widgets" not in nbformat.reads(shown, 4).metadata


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_notebook_fails_where_an_archive_failed_and_holds_no_link(knee, tmp_path):
    folder, _ = knee
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
        ({"destination": "moon"}, "destination='moon': give 'local' or 'azure'"),
        ({"datasets": "knee"}, "datasets='knee': give one of knee_singlecoil, "),
        ({"datasets": 7}, "datasets=7: give names"),
        ({"keep_archives": "no"}, "keep_archives='no': give True or False"),
        ({"side_by_side": 0}, "side_by_side=0: give a whole number from 1 to 32"),
        ({"connections": "four"}, "connections='four': give a whole number"),
        ({"connections": True}, "connections=True: give a whole number"),
        ({"root": 3}, "root=3: give a text"),
    ],
)
def test_wrong_parameter_is_refused_with_what_is_allowed(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ingest_request(**(GOOD | change))


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="it is a file, give a folder"):
        ingest_request(**(GOOD | {"root": str(tmp_path / "file")}))


def test_names_are_read_from_a_list_with_blanks():
    request = ingest_request(
        **(
            GOOD
            | {
                "datasets": " knee_multicoil , brain_multicoil,",
                "accept_mismatch": "brain_fastMRI_DICOM.tar.gz",
            }
        )
    )
    assert request.datasets == ("knee_multicoil", "brain_multicoil")
    assert request.accept_mismatch == ("brain_fastMRI_DICOM",)
    assert request.root == project_root() / "datasets"


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_file_is_read_as_editors_save_it(encoding):
    assert decoded("für: https://x".encode(encoding)) == "für: https://x"
