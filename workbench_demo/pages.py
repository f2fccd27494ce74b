"""The demo's notebooks: run by papermill, rendered to HTML, and read for their pictures."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.compute.processes import die_with_parent
from workbench.settings import LINKS_VARIABLE

_LINES_OF_ERROR = 12
_SECONDS_TO_STOP = 30


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


def run_page(
    source: Path,
    output: Path,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a notebook by papermill into ``output``, with what it prints shown as it comes.

    Args:
        source: the notebook.
        output: where the executed one goes; where a cell fails, it holds the whole error.
        parameters: of the notebook.
        environment: variables for it, on top of this process's own.

    Raises:
        PageFailedError: a cell of it failed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    papermill = [
        *(sys.executable, "-m", "papermill", str(source), str(output)),
        *("--parameters_yaml", json.dumps(dict(parameters))),
        *("--no-progress-bar", "--log-level", "ERROR", "--stdout-file", "-"),
    ]
    failed, last = False, ""
    try:
        for line in _lines(papermill, {**_environment(), **(environment or {})}):
            # The pages that papermill prints of a failure are in the notebook, too.
            failed = failed or line.startswith("Traceback (most recent call last)")
            last = line.strip() or last
            if not failed:
                print(f"    | {line.rpartition(chr(13))[2]}", flush=True)
    except PageFailedError as failure:
        raise PageFailedError(_error(output) or f"{failure}: {last}") from None


def _lines(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[str]:
    """Run papermill and yield the lines that it prints; when the caller is interrupted, so is it.

    An interrupt is what papermill ends its kernel on, and the kernel all that it has started.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=_as_foreground,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            yield line.rstrip("\n")
        process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_STOP)
        raise
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if process.returncode:
        raise PageFailedError(f"papermill ended with exit code {process.returncode}")


def _as_foreground() -> None:
    """End with the demo; and heed an interrupt, which a shell's background jobs ignore."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _environment() -> dict[str, str]:
    """Return the variables that every notebook of the demo gets."""
    # No proxy is to be asked for what this machine serves to itself.
    proxies = {
        name: ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost")))
        for name in ("no_proxy", "NO_PROXY")
    }
    # A person's own links are not for the demo. OpenMP's threads spin while they wait for each
    # other: where anything else runs on the processors, that takes ten times as long.
    policy = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")
    return {**proxies, LINKS_VARIABLE: "", "OMP_WAIT_POLICY": policy}


def _error(executed: Path) -> str | None:
    """Return the error that ended a notebook, in a few lines; None where it has none."""
    if not executed.exists():
        return None
    import nbformat

    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                return f"{output.ename}: {_few_lines(output.evalue)}"
    return None


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
