"""One progress message: a bar in JupyterLab, a listener's where there is one, else a line.

Lines come every ten seconds at first and become rarer, so that days of work do not fill a notebook.
A process that was started for another writes its messages as lines that ``relayed`` reads there.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

SECONDS_BETWEEN_LINES = 10.0
RELAY = "WORKBENCH_PROGRESS"
"""Set to "relay" in a process whose messages ``relayed`` reads."""

_MARK = "\x1f"  # ASCII's unit separator, which no text has, and which ends no line
_LINES_IN_ALL = 50  # in the time that the work has taken so far

Listener = Callable[[str, float | None, str], None]
"""Is told a title, the share that is done (None where it is unknown) and a line for people."""

_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Have all progress of this process told to a listener, from any thread, and not printed."""
    _listeners.append(listener)


def tell(title: str, share: float | None, line: str) -> bool:
    """Tell the listener, if there is one, how far something is; return whether there is one."""
    for listener in _listeners:
        listener(title, share, line)
    return bool(_listeners)


def say(title: str, share: float | None, line: str) -> None:
    """Tell the listener how far something is, or else print the line."""
    if tell(title, share, line):
        return
    if os.environ.get(RELAY) == "relay":
        line = _MARK + json.dumps({"title": title, "share": share, "line": line})
    # In one piece: the lines of several processes may meet in one pipe.
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def relayed(lines: Iterable[str]) -> Iterator[str]:
    """Tell the listener of the messages among a process's lines; yield all lines for people."""
    for line in lines:
        before, mark, message = line.partition(_MARK)
        if not mark:
            yield line
            continue
        if before:  # another process's, without its end
            yield before
        try:
            found = json.loads(message)
            title, share, text = found["title"], found["share"], found["line"]
        except (ValueError, TypeError, KeyError):
            yield message
            continue
        tell(title, share, text)
        yield text


def interactive() -> bool:
    """Say whether a person sits at this kernel: True in JupyterLab, False under papermill.

    The kernel's ``_allow_stdin`` is private, and the only sign that tells the two apart.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))


def amount(value: float, unit: str) -> str:
    """Write an amount for people: ``amount(2.1e9, "B")`` is "2.1 GB", other units are counted."""
    if unit != "B":
        return f"{value:,.0f} {unit}"
    for prefix in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or prefix == "T":
            break
        value /= 1000
    return (
        f"{value:.0f} {prefix}B" if not prefix or abs(value) >= 99.5 else f"{value:.1f} {prefix}B"
    )


def duration(seconds: float) -> str:
    """Write a time span for people: "45 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Progress of one stage, advanced from any thread.

    Args:
        title: what is going on, such as "unpacking knee_multicoil".
        total: the amount that makes it complete, in ``unit``; None where it is unknown.
        unit: "B" for bytes, else the plural that is counted ("volumes", "slices").
        start: the amount that an earlier run had done; it counts for neither speed nor time left.
    """

    def __init__(
        self, title: str, total: float | None, unit: str = "B", *, start: float = 0
    ) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._start = start
        self._began = time.monotonic()
        self._last_line = self._began
        self._lock = threading.Lock()
        self._bar = None
        if interactive():
            from tqdm.auto import tqdm

            scale = unit == "B"
            self._bar = tqdm(
                total=total, initial=start, desc=title, unit=unit, unit_scale=scale, leave=False
            )

    def advance(self, step: float = 1, note: str = "") -> None:
        """Add ``step`` to what is done; ``note`` says what was just worked on."""
        with self._lock:
            self.done += step
            if self._bar is not None:
                self._bar.set_postfix_str(note, refresh=False)
                self._bar.update(step)
            elif not tell(self.title, self.share, self.line(note)):
                now = time.monotonic()
                rarer = (now - self._began) / _LINES_IN_ALL
                if now - self._last_line >= max(SECONDS_BETWEEN_LINES, rarer):
                    self._last_line = now
                    say(self.title, self.share, self.line(note))

    @property
    def share(self) -> float | None:
        """The share that is done, 0 to 1; None where it is unknown."""
        return self.done / self.total if self.total else None

    def line(self, note: str = "") -> str:
        """Return the state as one line: title, done, total, speed, time left, note."""
        elapsed = time.monotonic() - self._began
        speed = (self.done - self._start) / elapsed if elapsed > 0 else 0.0
        text = f"{self.title}: {amount(self.done, self.unit)}"
        if self.total:
            done = amount(self.done, "B") if self.unit == "B" else f"{self.done:,.0f}"
            share = f"{100 * self.done / self.total:.0f} %"
            text = f"{self.title}: {done} of {amount(self.total, self.unit)} ({share})"
        if self.unit == "B":
            text += f", {amount(speed, 'B')}/s"
        if self.total and speed > 0:
            text += f", {duration(max(self.total - self.done, 0) / speed)} left"
        return f"{text}, {note}" if note else text

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            if error is None:  # an estimate that was not reached is no failure
                self._bar.total = self._bar.n
            self._bar.close()


def count_of(volumes: int, kind: str = "") -> str:
    """Write a number of volumes, of some kind such as "training"."""
    noun = f"{kind} volume" if kind else "volume"
    return f"1 {noun}" if volumes == 1 else f"{volumes} {noun}s"
