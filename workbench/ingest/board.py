"""How far each archive of an ingest is, written by its threads for whoever watches."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from workbench.ingest.plan import Action, PlannedArchive
from workbench.ingest.report import table
from workbench.progress import amount


@dataclass
class Standing:
    """How far one archive is; sizes are in bytes.

    Attributes:
        state: in words, such as "downloading".
        came: bytes of the archive that are here, or in the container.
        through: bytes of the archive that were verified and unpacked.
    """

    planned: PlannedArchive
    state: str = "waits"
    came: int = 0
    through: int = 0
    problem: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def advance(self, came: int = 0, through: int = 0) -> None:
        """Add bytes, from any thread."""
        with self._lock:
            self.came += came
            self.through += through

    def cells(self) -> Sequence[str]:
        """Return it as a table's row."""
        link, size = self.planned.link, self.planned.size
        through = _share(self.through, size) if self.through else "-"
        return link.name, self.state, _share(self.came, size), through, self.problem


class Board:
    """The archives of an ingest, in the plan's order."""

    def __init__(self) -> None:
        self.standings: list[Standing] = []

    def add(self, planned: PlannedArchive) -> Standing:
        """Add an archive."""
        here = planned.action in (Action.NOTHING, Action.UNPACK)
        self.standings.append(Standing(planned, came=planned.size if here else planned.there))
        return self.standings[-1]

    def html(self) -> str:
        """Show it as a table; "" before there is an archive."""
        rows = [standing.cells() for standing in self.standings]
        return table("archive, state, came, verified and unpacked, problem", rows) if rows else ""


def _share(done: int, total: int) -> str:
    if not total:
        return "-"
    return f"{amount(done, 'B')} of {amount(total, 'B')} ({min(done / total, 1):.0%})"
