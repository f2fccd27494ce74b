"""The demo's notebooks: run by papermill, rendered to HTML, and read for their pictures."""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
_LINES_OF_ERROR = 12


class PageFailedError(RuntimeError):
    """A notebook failed; the message is its error, and where to look."""


@dataclass(frozen=True)
class Picture:
    """A picture of an executed notebook.

    Attributes:
        heading: the Markdown heading that it stands under.
        png: the image, base64.
    """

    heading: str
    png: str


class _Indented(io.TextIOBase):
    """Shows what a notebook prints, indented under its stage."""

    def __init__(self) -> None:
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            print(f"    | {line.rpartition(chr(13))[2]}", flush=True)
        return len(text)


def run_page(source: Path, output: Path, parameters: Mapping[str, Any]) -> None:
    """Run a notebook by papermill into ``output``, with what it prints shown as it comes.

    Raises:
        PageFailedError: a cell of it failed.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            source, output, dict(parameters), progress_bar=False, stdout_file=_Indented()
        )
    except PapermillExecutionError as failure:
        raise PageFailedError(f"{failure.ename}: {_few_lines(failure.evalue)}") from None
    except DeadKernelError:
        raise PageFailedError("its kernel was killed, perhaps for lack of memory") from None


def render(executed: Path) -> Path:
    """Render an executed notebook beside it as a page of HTML that needs nothing from outside."""
    page = executed.with_suffix(".html")
    if page.exists() and page.stat().st_mtime_ns > executed.stat().st_mtime_ns:
        return page
    from nbconvert import HTMLExporter

    # Empty addresses: MathJax and the like would come from a server.
    exporter = HTMLExporter(
        mathjax_url="", require_js_url="", jquery_url="", mermaid_js_url="", embed_images=True
    )
    html, _ = exporter.from_filename(str(executed))
    partial = page.with_name(f".{page.name}.partial")
    partial.write_text(html, encoding="utf-8")
    return partial.replace(page)


def pictures(executed: Path) -> Iterator[Picture]:
    """Yield the pictures of an executed notebook, each with its heading."""
    import nbformat

    heading = ""
    for cell in nbformat.read(executed, as_version=4).cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            heading = lines[-1].lstrip("# ") if lines else heading
        for output in cell.get("outputs", ()):
            if png := output.get("data", {}).get("image/png"):
                yield Picture(heading, png.replace("\n", ""))


def _few_lines(text: str) -> str:
    lines = text.strip().splitlines()
    return "\n".join([*lines[:_LINES_OF_ERROR], *(["..."] if lines[_LINES_OF_ERROR:] else [])])
