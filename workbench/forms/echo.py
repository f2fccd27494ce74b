"""What a headless page prints, shown on papermill's stderr where its stdout gets the notebook.

``papermill notebooks/train.ipynb -p model brain > train.ipynb`` has no other place for lines, and
would be silent for as long as it trains.
"""

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path


class _Both(io.TextIOBase):
    """A standard output that writes to a descriptor, too."""

    def __init__(self, stream: io.TextIOBase, descriptor: int) -> None:
        self._stream, self._descriptor = stream, descriptor

    def write(self, text: str) -> int:
        """Write a text to both; whoever reads the descriptor may have gone."""
        with suppress(OSError):
            os.write(self._descriptor, text.encode())
        return self._stream.write(text)

    def flush(self) -> None:
        """Send what was written."""
        self._stream.flush()


@contextmanager
def lines_on_stderr() -> Iterator[None]:
    """Write what is printed to papermill's stderr as well, where it is shown nowhere else."""
    if not shows_nothing(_parent()):
        yield
        return
    # The stderr that the kernel was started with, papermill's: ipykernel has made a copy of it
    # where it collects what is written to descriptor 2.
    descriptor = getattr(sys.stderr, "_original_stdstream_copy", 2)
    with redirect_stdout(_Both(sys.stdout, descriptor)):  # type: ignore[arg-type]
        yield


def shows_nothing(command: Sequence[str]) -> bool:
    """Say whether a command is papermill that writes the notebook to its stdout, and no lines."""
    words = [Path(word).stem for word in command]
    if "papermill" not in words:
        return False
    given = command[words.index("papermill") + 1 :]
    if len(given) > 1 and all(word and not word.startswith("-") for word in given[:2]):
        return False  # an input and an output, as most write it: papermill takes a second to import
    import click
    from papermill.cli import papermill

    context = click.Context(papermill, resilient_parsing=True)
    asked, *_ = papermill.make_parser(context).parse_args(list(given))
    to_file = isinstance(asked.get("output_path"), str) and asked["output_path"] not in ("", "-")
    # Papermill logs outputs as INFO, which it leaves out where the notebook goes to its stdout.
    logged = asked.get("log_output") is True and asked.get("log_level") in ("NOTSET", "DEBUG")
    return not (to_file or logged or "stdout_file" in asked)


def _parent() -> list[str]:
    import psutil

    with suppress(psutil.Error):
        return psutil.Process(os.getppid()).cmdline()
    return []
