"""Processes that are started from a notebook: their lines as they come, and no orphans."""

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from workbench.settings import child_environment

_SECONDS_TO_STOP = 15
_PR_SET_PDEATHSIG = 1


class ProcessFailedError(RuntimeError):
    """A started process ended with an error."""


def die_with_parent(how: int = signal.SIGTERM) -> None:
    """Have this process get a signal when the one that started it ends, however it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, how)


def begin_rank() -> None:
    """Begin a process that shares its output with others: it ends with its parent.

    What it prints goes out line by line: written in pieces, as Python's unbuffered mode does, two
    ranks' lines would run into each other in their pipe.
    """
    # Killed: on SIGTERM Lightning waits for the other ranks, which may be gone. Nothing is lost.
    die_with_parent(signal.SIGKILL)
    sys.stdout.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]


def lines_of(
    command: Sequence[str],
    environment: Mapping[str, str],
    needs: Sequence[str] = (),
    holding: int = subprocess.DEVNULL,
) -> Iterator[str]:
    """Run a command and yield the lines of its output as they come.

    The command runs in a session of its own. When the caller is interrupted, fails or stops
    listening, the whole session is terminated, and killed if it still stands after 15 seconds;
    when the caller's process is killed, the kernel terminates the command.

    ``needs`` are secrets that it is handed. ``holding`` is the descriptor of an empty file, such as
    a lock's, that it holds as its standard input: all that it starts holds the lock to its end.

    Raises:
        ProcessFailedError: the command's exit code is not 0; with its last lines.
    """
    process = subprocess.Popen(
        command,
        stdin=holding,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
        errors="replace",
        env=child_environment(*needs, **environment),
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=20)
    try:
        for line in process.stdout:
            last.append(line.rstrip("\n"))
            yield last[-1]
        code = process.wait()
    except BaseException:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, how)
                process.wait(_SECONDS_TO_STOP)
        process.poll()
        raise
    finally:
        process.stdout.close()
    if code:
        raise ProcessFailedError(f"exit code {code}:\n" + "\n".join(last))
