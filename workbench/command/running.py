"""A notebook run headless, by papermill in a process of its own, on the Python that runs this."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from workbench.compute.processes import die_with_parent
from workbench.settings import project_root

_LINES_OF_ERROR = 12
_SECONDS_TO_STOP = 30


class PageFailedError(RuntimeError):
    """A notebook failed; the message is its error, and where to look."""


def run_page(
    source: Path,
    output: Path,
    parameters: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    *,
    prefix: str = "",
    stop: threading.Event | None = None,
) -> None:
    """Run a notebook by papermill into ``output``, with what it prints shown as it comes.

    Args:
        source: the notebook.
        output: where the executed one goes; where a cell fails, it holds the whole error.
        parameters: of the notebook.
        environment: variables for it, on top of this process's own.
        prefix: stands before each line that it prints.
        stop: interrupts it once it is set, from another thread.

    Raises:
        PageFailedError: a cell of it failed, or it was stopped.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    papermill = [
        *(sys.executable, "-m", "papermill", str(source), str(output)),
        # As YAML writes it: 1e-05, as JSON does, is text to papermill.
        *("--parameters_yaml", yaml.safe_dump(dict(parameters))),
        *("--no-progress-bar", "--log-level", "ERROR", "--stdout-file", "-"),
    ]
    try:
        with kernel_environment() as kernel:
            for line in _lines(papermill, {**kernel, **(environment or {})}, stop):
                print(f"{prefix}{line.rpartition(chr(13))[2]}", flush=True)
    except PageFailedError as failure:
        raise PageFailedError(_error(output) or str(failure)) from None


@contextmanager
def kernel_environment() -> Iterator[dict[str, str]]:
    """Yield variables with which Jupyter's "python3" is this Python, in this project.

    A person may have a kernel of that name from elsewhere, which Jupyter prefers to ours.
    """
    from ipykernel.kernelspec import write_kernel_spec

    with TemporaryDirectory(prefix="workbench-kernel-") as folder:
        write_kernel_spec(Path(folder, "kernels", "python3"))
        path = os.pathsep.join(filter(None, (folder, os.environ.get("JUPYTER_PATH"))))
        yield {"JUPYTER_PATH": path, "WORKBENCH_ROOT": str(project_root())}


def _lines(
    command: Sequence[str], environment: Mapping[str, str], stop: threading.Event | None
) -> Iterator[str]:
    """Run papermill and yield the lines that it prints; when the caller is interrupted, so is it.

    An interrupt is what papermill ends its kernel on, and the kernel all that it has started. The
    pages that papermill prints of a failure are in the notebook, too: of them the last line counts.
    """
    with TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, **environment},
            start_new_session=True,
            preexec_fn=_as_foreground,
        )
        assert process.stdout is not None
        if stop:
            threading.Thread(target=_interrupt, args=(process, stop), daemon=True).start()
        try:
            for line in process.stdout:
                yield line.rstrip("\n")
            process.wait()
        except BaseException:
            _interrupt(process)
            raise
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if process.returncode:
            errors.seek(0)
            last = errors.read().strip().rpartition("\n")[2]
            raise PageFailedError(f"papermill ended with exit code {process.returncode}: {last}")


def _interrupt(process: "subprocess.Popen[str]", when: threading.Event | None = None) -> None:
    """Interrupt a process, where it still runs, and kill it if it does not heed that."""
    if when:
        when.wait()
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_SECONDS_TO_STOP)
    process.kill()


def _as_foreground() -> None:
    """End with the caller; and heed an interrupt, which a shell's background jobs ignore."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _error(executed: Path) -> str | None:
    """Return the error that ended a notebook, in a few lines; None where it has none."""
    if not executed.exists():
        return None
    import nbformat

    for cell in nbformat.read(executed, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                lines = output.evalue.strip().splitlines()
                more = ["..."] if lines[_LINES_OF_ERROR:] else []
                return "\n".join(
                    [
                        f"{output.ename}: {lines[0] if lines else ''}",
                        *lines[1:_LINES_OF_ERROR],
                        *more,
                    ]
                )
    return None
