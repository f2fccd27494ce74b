"""Weights that a training begins with, and what those had learned from."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pydantic
from pydantic import ConfigDict, Field

from workbench.stores.disk import replacing

START = "checkpoints/start.pt"
"""The file's copy in the folder of a run: it travels with the run, and the source may change."""


class Start(pydantic.BaseModel):
    """Weights that a training begins with: the weights alone, its optimiser is new.

    Attributes:
        asked: as it was asked for: a run, a file, or a name of released weights.
        weights_sha256: of the file.
        seen: dataset -> its splits that those weights were trained on; None where the file does not
            say.
        network: whose weights they are; like the next three it is in no file: the job has it.
        config: that network's numbers.
        first_estimate: what that network begins with.
        file: the file, where it is on this machine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: str
    weights_sha256: str
    seen: dict[str, tuple[str, ...]] | None = None
    network: str = Field("", exclude=True)
    config: dict[str, Any] = Field(default_factory=dict, exclude=True)
    first_estimate: str | None = Field(None, exclude=True)
    file: Path | None = Field(None, exclude=True)

    def __str__(self) -> str:
        return f"{self.asked} (SHA256 {self.weights_sha256[:8]})"

    def remark(self, splits: Iterable[str]) -> str:
        """Say what they had been trained on, and which of some splits' scores that flatters."""
        said = f"began with the weights {self}; "
        if self.seen is None:
            return f"{said}what they had been trained on is not known"
        parts = [f"{' and '.join(each)} of {name}" for name, each in self.seen.items()]
        met = {split for each in self.seen.values() for split in each} & set(splits)
        flattered = f": scores on volumes of {', '.join(sorted(met))} among those flatter"
        return f"{said}they had been trained on {', '.join(parts)}{flattered if met else ''}"

    def check(self, name: str, asked: Any, there: Any) -> None:
        """Refuse a network, or a number of it, that the weights do not have."""
        if asked != there:
            raise ValueError(
                f"{name}={asked!r}: the weights {self.asked} have {name} {there}: leave it out"
            )

    def leave(self, folder: Path) -> None:
        """Copy the file into a run's folder, unless it is there already."""
        if self.file is None or self.file == (to := folder / START):
            return
        known = self.file.stat()
        if to.exists() and (to.stat().st_size, to.stat().st_mtime_ns) == (
            known.st_size,
            known.st_mtime_ns,
        ):
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("rb") as source, replacing(to) as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        os.utime(to, ns=(known.st_atime_ns, known.st_mtime_ns))
