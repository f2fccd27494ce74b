"""Slices in the order of any metric: choose one and it opens in the viewer. For JupyterLab."""

from collections.abc import Sequence
from typing import Any

from workbench.data.volume import Volume
from workbench.recon.metrics import LEADING, METRICS
from workbench.recon.results import Result
from workbench.views.annotations import Annotations
from workbench.views.ranking import RankedSlice, check_order, orders, rank_slices, rank_volumes
from workbench.views.viewer.viewer import Box
from workbench.views.viewer.volumes import VolumeBrowser

_MOST = 2000  # rows of the list


def viewer_boxes(volume: Volume, annotations: Annotations | None) -> list[Box]:
    """Return a volume's annotated boxes as the viewer takes them, rows counted as stored.

    None of a volume without a target: boxes are counted on its pixels.
    """
    if annotations is None or volume.target is None:
        return []
    height = volume.target.shape[-2]
    return [
        Box(
            each.slice,
            box.left,
            height - box.top - box.height,
            box.width or 1.0,  # a point is seen as a pixel
            box.height or 1.0,
            each.label,
        )
        for each in annotations.of(volume.path)
        if (box := each.box) is not None
    ]


class SliceBrowser:
    """A list of slices, the worst first, beside the viewer that shows the chosen one.

    Args:
        results: volumes.
        sort_by: the order to begin with.
        annotations: boxes to draw, or None.
    """

    def __init__(
        self,
        results: Sequence[Result],
        sort_by: str = LEADING.name,
        annotations: Annotations | None = None,
    ) -> None:
        import ipywidgets

        self._annotations = annotations
        self.volumes = VolumeBrowser(rank_volumes(results, sort_by))
        name, turned = check_order(sort_by)
        self.order = ipywidgets.Dropdown(options=list(orders()), value=name, description="sort by")
        self.best_first = ipywidgets.Checkbox(turned, description="best first", indent=False)
        self.list = ipywidgets.Select(
            rows=10, description="slice", layout={"width": "100%", "max_width": "62em"}
        )
        self.list.add_class("workbench-slices")
        self._slices: list[RankedSlice] = []
        self._sort()
        self.order.observe(self._sort, "value")
        self.best_first.observe(self._sort, "value")
        self.list.observe(self._open, "index")

    def _sort(self, _: Any = None) -> None:
        order = f"{'-' if self.best_first.value else ''}{self.order.value}"
        ranked = rank_slices(self.volumes.results, order)
        self._slices = ranked[:_MOST]
        self.list.index = None
        self.list.options = [_row(each) for each in self._slices]
        self.list.index = None

    def _open(self, change: dict[str, Any]) -> None:
        if change["new"] is None:
            return
        chosen = self._slices[change["new"]]
        place = next(n for n, each in enumerate(self.volumes.results) if each is chosen.result)
        boxes = viewer_boxes(chosen.result.volume, self._annotations)
        self.volumes.open_volume(place, chosen.number, boxes)

    def _ipython_display_(self, **_: Any) -> None:
        import ipywidgets
        from IPython.display import display

        display(ipywidgets.HBox([self.order, self.best_first]))
        display(self.list)
        display(self.volumes)


def _row(each: RankedSlice) -> str:
    known = [metric for metric in METRICS if metric.name in each.scores]
    scores = ", ".join(metric.say(each.scores[metric.name]) for metric in known)
    return f"{each.result.name}, slice {each.number}: {scores}"
