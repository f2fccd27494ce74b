"""JupyterLab and a browser, for tests that look at notebooks as people do.

``open_notebook`` is all that most tests need::

    def test_explorer_answers(open_notebook, lab):
        notebook = open_notebook("explore", {"dataset": "brain_multicoil"})
        notebook.run_all()  # an error in a cell fails the test
        notebook.page.get_by_label("slice").press("ArrowRight")  # Playwright's page
        notebook.output("explorer(").get_by_text("slice 2").wait_for()
        stored = notebook.save()  # nbformat's NotebookNode, read from the file again

At the end of each test every opened notebook is closed with its kernel, and the test fails if the
page wrote an error to its console, let one go uncaught, or asked for anything outside this machine;
a test that provokes an error clears ``notebook.complaints``.

One JupyterLab serves all tests. Its project root, ``lab.project``, holds a tiny phantom under
``datasets/brain_multicoil`` (``WORKBENCH_ROOT`` leads the notebooks there) and is shared: write
what is a test's own under a name of its own. For other variables (an Azure on this machine) or
saved widget state a test starts a JupyterLab of its own, ``with JupyterLab(tmp_path, variables)``,
and gives it to ``open_notebook(..., lab=...)``.

While these fixtures live no event loop can run in this thread: run papermill as a process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.jupyterlab import JupyterLab
from tests.browser.notebook_page import FLAGS, NotebookPage, find_chromium
from tests.browser.sources import write_notebook
from workbench_demo.phantom.study import write_study


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterLab]:
    """JupyterLab on a project with a tiny phantom: 1 training, 2 validation, 1 test volume."""
    find_chromium()
    with JupyterLab(tmp_path_factory.mktemp("lab")) as lab:
        write_study(
            lab.project / "datasets/brain_multicoil",
            "brain_multicoil",
            volumes={"train": 1, "val": 2, "test": 1},
            recon=48,
            slices=4,
            coils=(3,),
            workers=1,
        )
        yield lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium.

    It ends with each module, so that tests elsewhere find no event loop in their thread.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_notebook(lab: JupyterLab, browser: Browser) -> Iterator[Callable[..., NotebookPage]]:
    """Return a function that opens a copy of a notebook in a tab and a kernel of its own.

    ``source`` is the name of one of the project's notebooks ("train"), or the sources of the code
    cells of a new one; ``parameters`` stand in a cell below the notebook's own.
    """
    opened: list[NotebookPage] = []

    def open_notebook(
        source: str | Sequence[str],
        parameters: Mapping[str, Any] | None = None,
        *,
        dark: bool = False,
        lab: JupyterLab = lab,
    ) -> NotebookPage:
        path = write_notebook(source, parameters, lab.project / "notebooks")
        notebook = NotebookPage(lab, browser, path, dark=dark)
        opened.append(notebook)
        return notebook

    yield open_notebook
    complaints = [complaint for notebook in opened for complaint in notebook.complaints]
    for notebook in opened:
        notebook.close()
    assert complaints == []
