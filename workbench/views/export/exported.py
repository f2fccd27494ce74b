"""What every export of a volume starts from: the reconstruction, read whole, and its header."""

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from workbench.data.volume import Volume
from workbench.recon.results import Result, Results
from workbench.views.export.geometry import Geometry, scan_geometry

NOTICE = "Research reconstruction, not for clinical use."


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
    """Read a result's images and the header of its volume.

    Raises:
        ValueError: the dataset holds another volume there now than was reconstructed.
    """
    volume = result.volume
    with closing(result.dataset.source(volume)) as source:
        geometry = scan_geometry(volume, source)
    images = result.images().astype(np.float32, copy=False)
    run, drawn = f"{results.run}/{results.folder.name}", result.order.sampling
    sampling = str(drawn) if drawn else "the file's own mask"
    return ReconstructedVolume(result, volume, images, run, result.digest, sampling, geometry)
