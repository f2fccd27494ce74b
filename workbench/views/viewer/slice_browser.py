"""Slices of reconstructed volumes in the order of any metric, and the viewer. For JupyterLab."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import ipywidgets
import numpy as np

from workbench.recon.metrics import LEADING, METRICS
from workbench.recon.results import Result
from workbench.views.annotations import Annotations
from workbench.views.ranking import check_order, orders, rank_slices, rank_volumes
from workbench.views.reconstructions import data_range_of, images_of, ssim_image
from workbench.views.viewer.panes import Pane, error_pane, image_pane
from workbench.views.viewer.viewer import Viewer

_MOST = 2000  # rows of the list
_SLICES_KEPT = 32


def reconstruction_panes(result: Result) -> list[Pane]:
    """Make linked panes: target, zero-filled, the reconstruction, its error, its SSIM map.

    Without a target: zero-filled and the reconstruction.
    """
    volume, label = result.volume, result.label

    images = lru_cache(maxsize=_SLICES_KEPT)(partial(images_of, result))

    def likeness(number: int) -> np.ndarray:
        _, image, target = images(number)
        return ssim_image(image, target, data_range_of(result, target))

    def pane(name: str, place: int) -> Pane:
        return image_pane(name, lambda number: images(number)[place], volume.slices)

    filled, image = pane("zero-filled", 0), pane(label, 1)
    if volume.target is None:
        return [filled, image]
    target = pane("target", 2)
    look: dict[str, Any] = {"scale": "SSIM", "colours": "viridis", "window": (0.0, 1.0)}
    ssim = image_pane(f"SSIM map of {label}", likeness, volume.slices, **look)
    return [target, filled, image, error_pane(image, target, f"error of {label}"), ssim]


class SliceBrowser:
    """A list of slices, the worst first, a list of volumes, and the viewer of the chosen one."""

    def __init__(
        self,
        results: Sequence[Result],
        sort_by: str = LEADING.name,
        annotations: Annotations | None = None,
    ) -> None:
        self.results, self._annotations = rank_volumes(results, sort_by), annotations
        order, turned = check_order(sort_by)[0], sort_by.strip().startswith("-")
        self.order = ipywidgets.Dropdown(options=list(orders()), value=order, description="sort by")
        self.best_first = ipywidgets.Checkbox(turned, description="best first", indent=False)
        wide = {"width": "100%", "max_width": "62em"}
        self.list = ipywidgets.Select(rows=10, description="slice", layout=wide)
        self.list.add_class("workbench-slices")
        volumes = [(_label(result), place) for place, result in enumerate(self.results)]
        narrow = {"width": "max-content"}
        self.volume = ipywidgets.Dropdown(
            options=volumes, value=0, description="volume", layout=narrow
        )
        self.viewer, self._open = Viewer(**self._shown(0)), 0
        self._sort()
        self.order.observe(self._sort, "value")
        self.best_first.observe(self._sort, "value")
        self.list.observe(self._slice_chosen, "index")
        self.volume.observe(self._volume_chosen, "value")

    def open(self, place: int, slice_number: int | None = None) -> None:
        """Show a volume by its place among the results, from a slice; by default the middle one."""
        shown = self._shown(place, slice_number)
        self._open = self.volume.value = place
        self.viewer.replace_panes(**shown)

    def _shown(self, place: int, slice_number: int | None = None) -> dict[str, Any]:
        result = self.results[place]
        panes, boxes = reconstruction_panes(result), []
        if self._annotations:
            number = result.volume.slices // 2 if slice_number is None else slice_number
            boxes = self._annotations.boxes(result.volume, panes[0].read("image", number).shape)
        return {
            "panes": panes,
            "title": _label(result),
            "slice_number": slice_number,
            "boxes": boxes,
            "synthetic": result.volume.synthetic,
        }

    def _sort(self, _: Any = None) -> None:
        order = f"{'-' if self.best_first.value else ''}{self.order.value}"
        slices = rank_slices(self.results, order)[:_MOST]
        known = [metric for metric in METRICS if metric.name in slices]
        self._slices = [(row["result"], row["slice"]) for _, row in slices.iterrows()]
        self.list.index = None
        self.list.options = [
            f"{row['result'].name}, slice {row['slice']}: "
            + ", ".join(metric.say(row[metric.name]) for metric in known)
            for _, row in slices.iterrows()
        ]
        self.list.index = None

    def _slice_chosen(self, change: dict[str, Any]) -> None:
        if change["new"] is not None:
            result, number = self._slices[change["new"]]
            place = next(n for n, each in enumerate(self.results) if each is result)
            self.open(place, int(number))

    def _volume_chosen(self, change: dict[str, Any]) -> None:
        if change["new"] != self._open:
            self.open(change["new"])

    def _ipython_display_(self, **_: Any) -> None:
        from IPython.display import display

        display(ipywidgets.HBox([self.order, self.best_first]))
        for part in (self.list, self.volume, self.viewer):
            display(part)


def _label(result: Result) -> str:
    scores = result.reconstruction
    score = f", {LEADING.say(scores[LEADING.name], LEADING.short)}" if scores else ""
    return f"{result.name}, {result.volume.acquisition}{score}"
