"""How far each archive is: a table that lives in JupyterLab, lines every half minute elsewhere."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.ingest.report import table
from workbench.progress import amount, duration, interactive

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BETWEEN_TABLES = 1.0
# What can be true of an archive, in the order in which it comes.
PHASES = (
    "queued",
    "copying",
    "landed",
    "unpacking",
    "verified",
    "not listed",
    "was there",
    "failed",
)
_AT_WORK = ("copying", "unpacking")


@dataclass
class Row:
    """One archive.

    Attributes:
        name: its name.
        total: its bytes; 0 where unknown.
        phase: one of ``PHASES``; "not listed" is a verified one of which fastMRI lists no hash.
        done: bytes of the phase that are done.
        since: when the phase began, on the monotonic clock.
    """

    name: str
    total: int
    phase: str = "queued"
    done: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def speed(self) -> float:
        """Bytes a second in this phase."""
        return self.done / max(time.monotonic() - self.since, 1e-3)

    def progress(self) -> tuple[str, str, str]:
        """Return what is done, how fast, and the time left, for people."""
        if self.phase not in _AT_WORK:
            return (amount(self.total, "B") if self.total else "", "", "")
        done = f"{amount(self.done, 'B')} of {amount(self.total, 'B')}"
        if not self.done:
            return (done, "", "")
        left = duration(max(self.total - self.done, 0) / self.speed)
        return (done, f"{amount(self.speed, 'B')}/s", left)


class Board:
    """All archives of an ingest, moved on from any thread.

    Args:
        archives: name and bytes of each.
    """

    def __init__(self, archives: Sequence[tuple[str, int]]) -> None:
        self._rows = {name: Row(name, size) for name, size in archives}
        self._lock = threading.Lock()
        self._shown = time.monotonic()
        self._display: Any = None
        self.note = ""
        if interactive():
            from IPython.display import HTML, display

            self._display = display(HTML(self.html()), display_id=True)

    def move(self, name: str, phase: str, done: int | None = None) -> None:
        """Put an archive into a phase, or say how many bytes of it are done."""
        with self._lock:
            row = self._rows[name]
            if row.phase != phase:
                row.phase, row.done, row.since = phase, 0, time.monotonic()
            if done is not None:
                row.done = done
        self.show()

    def advance(self, name: str, count: int) -> None:
        """Count bytes of an archive's phase."""
        with self._lock:
            self._rows[name].done += count
        self.show()

    def show(self, *, now: bool = False) -> None:
        """Show the state, if it is time to."""
        wait = SECONDS_BETWEEN_TABLES if self._display is not None else SECONDS_BETWEEN_LINES
        with self._lock:
            if not now and time.monotonic() - self._shown < wait:
                return
            self._shown = time.monotonic()
        if self._display is not None:
            from IPython.display import HTML

            self._display.update(HTML(self.html()))
        else:
            print("\n".join(self.lines()), flush=True)

    def say(self, text: str) -> None:
        """Tell what happened: above the table in JupyterLab, as a line elsewhere."""
        self.note = text
        if self._display is None:
            print(text, flush=True)
        else:
            self.show(now=True)

    def lines(self) -> list[str]:
        """Return the state as lines: a summary, then each archive at work."""
        rows = list(self._rows.values())
        phases = Counter(row.phase for row in rows)
        counts = ", ".join(f"{phases[phase]} {phase}" for phase in PHASES if phases[phase])
        return [
            f"{len(rows)} archives: {counts}",
            *(
                f"  {row.name} {row.phase}: {', '.join(text for text in row.progress() if text)}"
                + (" left" if row.done else "")
                for row in rows
                if row.phase in _AT_WORK
            ),
        ]

    def html(self) -> str:
        """Return the state as a table."""
        import html

        rows = [(row.name, row.phase, *row.progress()) for row in self._rows.values()]
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return note + table(("archive", "state", "bytes", "speed", "time left"), rows)
