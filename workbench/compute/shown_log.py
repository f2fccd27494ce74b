"""What is shown of the log of a run on a cluster, as it grows."""

import re
from collections.abc import Iterator

from workbench.compute.kept import LOG_FILE

BEGINS = "training on "
"""What a run prints first, in each attempt."""
_TRACEBACK = re.compile(r"(\[rank\d+\]: ?)?Traceback \(most recent call last\)")


class ShownLog:
    """What is shown of a run's growing log.

    A traceback is held back until it is known what follows. Where another attempt does, a plain
    line takes its place: ranks end so when a peer's machine is taken away.

    Args:
        seen: lines at its start that are not shown, and no part of the run.
    """

    def __init__(self, seen: int = 0) -> None:
        self.held: list[str] = []
        self.seen = seen

    def new(self, text: str) -> Iterator[str]:
        """Yield what is to be shown of the lines that came since the last call."""
        *lines, _ = text.split("\n")  # the last may yet be incomplete
        new, self.seen = lines[self.seen :], max(self.seen, len(lines))
        for line in new:
            if self.held and line.startswith(BEGINS):
                yield f"that attempt ended there ({LOG_FILE} has its traceback); the next one:"
                self.held.clear()
            if self.held or _TRACEBACK.match(line):
                self.held.append(line)
            else:
                yield line
