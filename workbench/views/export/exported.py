"""What every export starts from: a reconstructed volume, read whole, and files written whole."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.data.volume import Volume
from workbench.recon.results import Result, Results, open_result
from workbench.stores import open_store
from workbench.stores.disk import naming, write_text
from workbench.views.export.geometry import Geometry, scan_geometry

NOTICE = "Research reconstruction, not for clinical use."
_LIST = "exports.json"


@dataclass(frozen=True)
class ReconstructedVolume:
    """A reconstructed volume as it is exported.

    Attributes:
        result: its metrics and order.
        volume: the volume that it was reconstructed from.
        images: (slices, h, w) float32, as stored: upside down.
        run: name of the run or weights, and the results' folder, for people.
        digest: of weights, sampling and volume.
        sampling: for people.
        geometry: the header's.
    """

    result: Result
    volume: Volume
    images: np.ndarray
    run: str
    digest: str
    sampling: str
    geometry: Geometry

    @property
    def assumptions(self) -> str:
        """What no header says, as one sentence."""
        plane = f"{self.geometry.plane.name} slices, left and right as radiologists see them"
        return f"Assumed: {'; '.join([plane, *self.geometry.assumed])}."


def read_reconstructed(results: Results, result: Result) -> ReconstructedVolume:
    """Read a result's images and the header of its volume."""
    volume = result.volume
    with closing(open_store(result.order.dataset).source(volume.path, volume.size)) as source:
        geometry = scan_geometry(volume, source)
    with open_result(result.path) as (file, attributes):
        images = file["reconstruction"][()]
    return ReconstructedVolume(
        result,
        volume,
        images.astype(np.float32, copy=False),
        f"{results.run}/{results.folder.name}",
        str(attributes["digest"]),
        str(attributes["sampling"]),
        geometry,
    )


class Exports:
    """A folder of exports, and what each of them was made from.

    Args:
        folder: where they go; it is made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._made_from = folder, dict[str, str]()
        with suppress(OSError, ValueError, TypeError, RecursionError):
            self._made_from = dict(json.loads((folder / _LIST).read_text()))

    def make(self, name: str, made_from: str, write: Callable[[Path], None]) -> Path:
        """Write a file or a folder whole, or not at all; keep one that was made from the same.

        Args:
            name: relative to the folder.
            made_from: what decides its content, as text.
            write: writes a file or a new folder at the path that it is given.

        Returns:
            Its path.

        Raises:
            CannotWriteError: the disk refuses it.
        """
        path = self.folder / name
        if path.exists() and self._made_from.get(name) == made_from:
            return path
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # The extension stays last: some writers go by it.
            partial = path.with_name(f".partial.{os.getpid()}.{path.name}")
            before = path.with_name(f".before.{path.name}")
            _remove(partial)
            try:
                write(partial)
                if path.is_dir():  # a folder with files in it cannot be replaced at one stroke
                    _remove(before)
                    path.rename(before)
                partial.replace(path)
                _remove(before)
            finally:
                _remove(partial)
        self._made_from[name] = made_from
        write_text(self.folder / _LIST, json.dumps(self._made_from, indent=2))
        return path


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
