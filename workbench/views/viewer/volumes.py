"""Viewers of what the notebooks have: an explored volume, and reconstructed ones."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.data.images import cropped
from workbench.progress import interactive
from workbench.recon.metrics import LEADING
from workbench.recon.results import Result
from workbench.views.explore import ExploredSlice
from workbench.views.reconstructions import ssim_image
from workbench.views.viewer.panes import Pane, error_pane, image_pane, volume_pane
from workbench.views.viewer.viewer import Box, viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from workbench.views.viewer.widget import Viewer

_SLICES_KEPT = 32


def explored_viewer(look: ExploredSlice, boxes: Sequence[Box] = ()) -> "Viewer | Figure":
    """Show the volume of an explored slice: images and k-space, by coil or combined."""
    return viewer(
        [volume_pane(look.file, look.volume)],
        title=f"{look.name}, {look.volume.acquisition}",
        slice_number=look.number,
        boxes=boxes,
        synthetic=look.volume.synthetic,
    )


def reconstruction_panes(result: Result) -> list[Pane]:
    """Make linked panes: target, zero-filled, the reconstruction, its error, its SSIM map.

    Without a target: zero-filled and the reconstruction.
    """
    volume, label = result.volume, result.label

    @lru_cache(maxsize=_SLICES_KEPT)
    def images(number: int) -> list[np.ndarray]:
        kspace, target = result.measured(number)
        shown = result.zero_fill(kspace), result.image(number)
        return cropped(*shown, *([] if target is None else [target]))

    def pane(name: str, place: int) -> Pane:
        return image_pane(name, lambda number: images(number)[place], volume.slices)

    filled, image = pane("zero-filled", 0), pane(label, 1)
    if volume.target is None:
        return [filled, image]
    target = pane("target", 2)

    def likeness(number: int) -> np.ndarray:
        _, shown, wanted = images(number)
        largest = volume.largest or float(wanted.max()) or 1.0
        return ssim_image(shown, wanted, largest)

    ssim = image_pane(
        f"SSIM map of {label}",
        likeness,
        volume.slices,
        scale="SSIM",
        colours="viridis",
        window=(0.0, 1.0),
    )
    return [target, filled, image, error_pane(image, target, f"error of {label}"), ssim]


class VolumeBrowser:
    """Reconstructed volumes in one viewer, one at a time; for JupyterLab.

    Args:
        results: volumes, in the order in which they are offered.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        import ipywidgets

        from workbench.views.viewer.widget import Viewer

        self.results = tuple(results)
        self.viewer = Viewer(**_shown(self.results[0]))
        names = [(_label(result), place) for place, result in enumerate(self.results)]
        self.choice = ipywidgets.Dropdown(
            options=names, value=0, description="volume", layout={"width": "max-content"}
        )
        self._index = 0
        self.choice.observe(self._chosen, "value")

    def open_volume(
        self, index: int, slice_number: int | None = None, boxes: Sequence[Box] = ()
    ) -> None:
        """Show another volume in the viewer.

        Args:
            index: its place among the results.
            slice_number: where to begin; the middle by default.
            boxes: drawn over the images.

        Raises:
            ValueError: there is no such volume or slice.
        """
        if not 0 <= index < len(self.results):
            raise ValueError(f"index={index}: there are volumes 0 to {len(self.results) - 1}")
        shown = _shown(self.results[index], slice_number, boxes)
        self._index = index
        self.viewer.replace_panes(**shown)
        self.choice.value = index

    def _chosen(self, change: dict[str, Any]) -> None:
        if change["new"] != self._index:
            self.open_volume(change["new"])

    def _ipython_display_(self, **_: Any) -> None:
        from IPython.display import display

        display(self.choice)
        display(self.viewer)


def browse_volumes(results: Sequence[Result]) -> "VolumeBrowser | Figure":
    """Show reconstructed volumes beside their targets; elsewhere than in JupyterLab, the first.

    Raises:
        ValueError: there is no result.
    """
    if not results:
        raise ValueError("results is empty: give one or more")
    if interactive():
        return VolumeBrowser(results)
    return viewer(**_shown(results[0]))


def _shown(
    result: Result,
    slice_number: int | None = None,
    boxes: Sequence[Box] = (),
) -> dict[str, Any]:
    """Return what a viewer takes to show a result.

    Raises:
        ValueError: there is no such slice.
    """
    volume = result.volume
    number = volume.slices // 2 if slice_number is None else slice_number
    if not 0 <= number < volume.slices:
        raise ValueError(f"slice_number={number}: there are slices 0 to {volume.slices - 1}")
    return {
        "panes": reconstruction_panes(result),
        "title": _label(result),
        "slice_number": number,
        "boxes": boxes,
        "synthetic": volume.synthetic,
    }


def _label(result: Result) -> str:
    scores = result.reconstruction
    score = f", {LEADING.say(scores[LEADING.name], LEADING.short)}" if scores else ""
    return f"{result.name}, {result.volume.acquisition}{score}"
