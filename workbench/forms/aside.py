"""Errands that may take their time, such as a look at a disk that does not answer."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

SECONDS_UNTIL_ASKED = 0.25  # so that not every letter asks
SECONDS_UNTIL_TOLD = 2.0
_MOST_AT_ONCE = 40

Errand = tuple[Callable[[], Any], Callable[[Any], None]]
"""What to find out, and who is told: the value, the exception, or a TimeoutError meanwhile."""


class Aside:
    """Runs errands in threads of their own; only the answers to the latest ones are told.

    An errand that never ends keeps its thread, and nobody waits for it.

    Args:
        soon: calls what is told on the thread where that belongs.
    """

    def __init__(self, soon: Callable[..., None]) -> None:
        self._soon = soon
        self._turn, self._at_once = 0, threading.Semaphore(_MOST_AT_ONCE)
        self._timers: list[threading.Timer] = []

    def ask(self, errands: Mapping[str, Errand]) -> None:
        """Begin with errands in a moment, unless others are asked for before."""
        self._turn += 1
        for timer in self._timers:
            timer.cancel()
        waiting = set(errands)
        arguments = self._turn, errands, waiting
        self._timers = [
            threading.Timer(SECONDS_UNTIL_ASKED, self._begin, arguments),
            threading.Timer(SECONDS_UNTIL_TOLD, self._tell_waiting, arguments),
        ]
        for timer in self._timers:
            timer.daemon = True
            timer.start()

    def _begin(self, turn: int, errands: Mapping[str, Errand], waiting: set[str]) -> None:
        for name, errand in errands.items():
            arguments = turn, name, errand, waiting
            if self._at_once.acquire(blocking=False):
                threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _run(self, turn: int, name: str, errand: Errand, waiting: set[str]) -> None:
        find, tell = errand
        try:
            found = find()
        except Exception as error:
            found = error
        finally:
            self._at_once.release()
        waiting.discard(name)
        if turn == self._turn:
            self._soon(tell, found)

    def _tell_waiting(self, turn: int, errands: Mapping[str, Errand], waiting: set[str]) -> None:
        for name in list(waiting):
            if turn == self._turn:
                self._soon(errands[name][1], TimeoutError("no answer yet"))
