"""Calls in processes of their own: what parses foreign bytes can hang, or crash the process."""

import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from workbench.settings import cores

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

SECONDS = 5
"""Processor time that one call may take."""
_PATIENCE = 300  # seconds; a call that waits for something takes no processor time
_MEMORY = 2**30  # bytes that a process may take on top of those that it begins with
_MOST_PROCESSES = 16


class ConfinedError(Exception):
    """A call took too long or crashed its process; the message completes "it ..."."""


class Confined(Generic[Arguments, Answer]):
    """Calls a function in processes forked from this one, one for each processor.

    A process that takes too long or crashes costs its own call alone, and is replaced. Arguments
    and results travel by pickle.
    """

    def __init__(self, function: Callable[Arguments, Answer]) -> None:
        self._function = function
        self._turns = threading.BoundedSemaphore(min(cores(), _MOST_PROCESSES))
        self._idle: list[_Process] = []
        self._forking = threading.Lock()

    def __call__(self, *arguments: Arguments.args, **more: Arguments.kwargs) -> Answer:
        """Return the function's result.

        Raises:
            ConfinedError: the call took too long, or crashed its process.
            Exception: what the function raised.
        """
        with self._turns:
            try:
                process = self._idle.pop()
            except IndexError:
                with self._forking:  # no process may hold the end of another's pipe
                    process = _Process(self._function)
            try:
                raised, answer = process.ask((arguments, more))
            except BaseException:
                process.end()
                raise
            self._idle.append(process)
        if raised:
            raise answer
        return answer

    def close(self) -> None:
        """End the processes that wait for a call; the next call starts new ones."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                self._idle.pop().end()


class _Process:
    """One forked process, and this one's end of the pipe to it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        fork = multiprocessing.get_context("fork")
        self._pipe, theirs = fork.Pipe()
        self._process = fork.Process(target=_serve, args=(function, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, call: Any) -> tuple[bool, Any]:
        try:
            self._pipe.send(call)
            if not self._pipe.poll(_PATIENCE):
                raise ConfinedError(f"gave no answer in {_PATIENCE} seconds")
            return self._pipe.recv()
        except (EOFError, OSError):  # its end of the pipe is closed
            self._process.join()
            number = -(self._process.exitcode or 0)
            if number == signal.SIGXCPU:
                raise ConfinedError(f"takes more than {SECONDS} s of a processor") from None
            how = f"crashes ({signal.Signals(number).name})" if number > 0 else "ends its process"
            raise ConfinedError(how) from None

    def end(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(function: Callable[..., Any], pipe: Connection) -> None:
    """Answer calls until the pipe is closed: when the parent ends, at the latest."""
    # The parent's open files, locks and pipes are none of this process's.
    opened: list[str] = []
    with suppress(OSError):  # closed to a process that changed its user
        opened = [path.name for path in Path("/proc/self/fd").iterdir()]
    for name in opened:
        if int(name) != pipe.fileno():
            with suppress(OSError):  # the listing's own
                os.close(int(name))
    for _ in range(3):  # standard input, output and errors: the lowest free numbers
        os.open(os.devnull, os.O_RDWR)
    faulthandler.disable()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    _limit(resource.RLIMIT_CORE, 0)
    with suppress(FileNotFoundError):  # only Linux says what is held, and keeps to such a limit
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _limit(resource.RLIMIT_AS, held + _MEMORY)
    while True:
        try:
            arguments, more = pipe.recv()
        except EOFError:
            os._exit(0)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + SECONDS)
        try:
            answer = False, function(*arguments, **more)
        except Exception as error:
            answer = True, error
        pipe.send(answer)


def _limit(kind: int, value: int) -> None:
    hardest = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hardest < 0 else min(value, hardest), hardest))
