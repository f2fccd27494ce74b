"""Look through volumes in JupyterLab, and a sheet of the same slices for when it has ended.

The viewer answers to the wheel, dragging and keys; "?" lists them. ``viewer.js`` draws the arrays
themselves, float32 and complex64, each slice sent once. Values under the cursor are therefore those
of the arrays, to the last bit of single precision.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from matplotlib import colormaps
from matplotlib.figure import Figure

from workbench.data.images import center_crop
from workbench.views.annotations import draw_boxes
from workbench.views.style import (
    LABEL,
    SMALL,
    SYNTHETIC_NOTE,
    add_colour_bar,
    new_figure,
    show_image,
    window_of,
)
from workbench.views.viewer.panes import Pane

_FOLDER = Path(__file__).parent
# In the browser they are one module.
_SCRIPTS = ("planes.js", "pane.js", "toolbar.js", "viewer.js")
_PLANE = ("pane", "domain", "slice", "coil")
_ONE_PANE, _SEVERAL = 10, 4  # most slices on a sheet
# A notebook opened without its kernel has no viewer, only the line "model not found" in its place.
# The picture hides that line, and a live viewer hides the picture. Both by style: nothing else in
# a stored notebook runs.
_STILL = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .workbench-still):not(:has(.workbench-live)),
.jp-OutputArea-child:has(.workbench-live) + .jp-OutputArea-child:has(.workbench-still) {
  display: none;
}
</style><div class="workbench-still"><img alt="%s" src="data:image/jpeg;base64,%s"></div>"""


def _slice_of(panes: Sequence[Pane], wanted: int | None) -> int:
    """Return the number of the slice to begin with."""
    return panes[0].slices // 2 if wanted is None else wanted


def viewer_figure(
    panes: Sequence[Pane],
    *,
    title: str = "",
    slice_number: int | None = None,
    boxes: Sequence[Mapping[str, Any]] = (),
    synthetic: bool = False,
) -> Figure:
    """Show some slices of each pane, evenly spaced, ``slice_number`` among them.

    Each pane has a row, a single one several. Boxes (``Annotations.boxes``) lie on their slices.
    """
    wanted, single = _slice_of(panes, slice_number), len(panes) == 1
    count = min(panes[0].slices, _ONE_PANE if single else _SEVERAL)
    numbers = [round(n) for n in np.linspace(0, panes[0].slices - 1, count)]
    if wanted not in numbers:
        numbers[int(np.argmin(np.abs(np.subtract(numbers, wanted))))] = wanted
    stacks: list[list[np.ndarray]] = []
    windows: dict[str, tuple[float, float]] = {}
    for pane in panes:
        images = [pane.read("image", number) for number in numbers]
        images = [np.abs(image) if np.iscomplexobj(image) else image for image in images]
        images = [center_crop(image, pane.crop) if pane.crop else image for image in images]
        highest = max(window_of(image)[1] for image in images)
        windows.setdefault(pane.scale, pane.window or (0.0, highest))
        stacks.append(images)
    rows = -(-count // 5) if single else len(panes)
    columns = -(-count // rows) if single else count
    tall = stacks[0][0].shape[0] / stacks[0][0].shape[1]
    size = 2.0 * columns + 0.9, rows * (2.0 * tall + 0.25) + 0.5
    figure = new_figure(*size, title=title, synthetic=synthetic)
    grid = figure.subplots(rows, columns, squeeze=False)
    for place in grid.flat:
        place.set_axis_off()
    for pane, images, places in zip(
        panes, stacks, grid.reshape(len(panes), -1).tolist(), strict=True
    ):
        for axes, image, number in zip(places, images, numbers, strict=False):
            name = f"slice {number}" if single else f"{pane.name}, slice {number}"
            drawn = show_image(axes, image, windows[pane.scale], colours=pane.colours)
            axes.set_title(name, fontsize=SMALL if len(name) > 24 else LABEL)
            draw_boxes(axes, [box for box in boxes if box["slice"] == number])
        add_colour_bar(figure, drawn, places, pane.name)
    return figure


class Viewer(anywidget.AnyWidget):
    """Linked panes of one volume: one slice, zoom and cursor for all, a window for each scale.

    Arguments are those of ``viewer_figure``.

    Attributes:
        slice_number: the slice on show, from 0; setting it goes there.
        coil: the coil on show; -1 for all combined.
        view: "magnitude", "phase", "real", "imaginary" or "kspace".
        upright: whether images are turned over, since fastMRI stores them upside down.
        boxes: rectangles with labels; see ``Annotations.boxes``.
        note: shown at the lower right, such as that it is a phantom.
        edition: goes up whenever other panes are opened.
        sent: number of planes that the browser asked for and got.
    """

    _esm = "\n".join((_FOLDER / name).read_text() for name in _SCRIPTS)
    _css = _FOLDER / "viewer.css"

    title = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)
    slice_number = traitlets.Int().tag(sync=True)
    coil = traitlets.Int(-1).tag(sync=True)
    view = traitlets.Unicode("magnitude").tag(sync=True)
    upright = traitlets.Bool(True).tag(sync=True)
    boxes: Any = traitlets.List().tag(sync=True)
    panes: Any = traitlets.List().tag(sync=True)
    # The first planes travel with the widget, so that they are there even while the kernel is busy
    # with the cells below. The browser empties this trait: no saved notebook holds images.
    first = traitlets.Dict().tag(sync=True)
    edition = traitlets.Int().tag(sync=True)

    def __init__(self, panes: Sequence[Pane], **shown: Any) -> None:
        self.sent = 0
        super().__init__()
        self.replace_panes(panes, **shown)
        self.on_msg(self._answer)

    def replace_panes(
        self,
        panes: Sequence[Pane],
        *,
        title: str = "",
        slice_number: int | None = None,
        boxes: Sequence[Mapping[str, Any]] = (),
        synthetic: bool = False,
    ) -> None:
        """Show other panes in place of the present ones."""
        number, edition = _slice_of(panes, slice_number), self.edition + 1
        self._panes, self._synthetic = tuple(panes), synthetic
        # Combined over coils there is no phase, and no real or imaginary part: one coil is shown.
        some = any(pane.coils for pane in panes) and self.view not in ("magnitude", "kspace")
        coil, domain = 0 if some else -1, "kspace" if self.view == "kspace" else "image"
        planes = [
            self._plane((place, domain, number, coil if pane.coils else -1), edition)
            for place, pane in enumerate(panes)
        ]
        with self.hold_sync():
            self.edition, self.title = edition, title
            self.note = SYNTHETIC_NOTE if synthetic else ""
            self.slice_number, self.coil = number, coil
            self.boxes = [dict(box) for box in boxes]
            self.panes = [_described(pane) for pane in panes]
            self.first = {"planes": [{**about, "data": data} for about, data in planes]}

    def still(self) -> bytes:
        """Return a JPEG file of some of the slices, ``slice_number`` among them."""
        figure = viewer_figure(
            self._panes,
            title=self.title,
            slice_number=self.slice_number,
            boxes=self.boxes,
            synthetic=self._synthetic,
        )
        buffer = BytesIO()
        # Noise makes a PNG several times as large, and this is stored with the notebook.
        figure.savefig(buffer, format="jpeg", dpi=80, pil_kwargs={"quality": 85})
        return buffer.getvalue()

    def _ipython_display_(self, **_: Any) -> None:
        """Show the viewer, and a picture for when the notebook is opened without its kernel."""
        from IPython.display import display

        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)
        picture = base64.b64encode(self.still()).decode()
        html = _STILL % (escape(self.title or "some of the slices", quote=True), picture)
        display({"text/html": html, "text/plain": f"slices of {self.title}"}, raw=True)

    def _plane(
        self, asked: tuple[int, str, int, int], edition: int
    ) -> tuple[dict[str, Any], memoryview]:
        """Read a plane (pane, domain, slice, coil); return its description and its bytes."""
        place, domain, number, coil = asked
        pane = self._panes[place]
        values = pane.read(domain, number, None if coil < 0 or not pane.coils else coil)
        about = {
            **dict(zip(_PLANE, asked, strict=True)),
            "edition": edition,
            "shape": list(values.shape),
            "complex": bool(np.iscomplexobj(values)),
        }
        return about, values.reshape(-1).view(np.uint8).data

    def _answer(self, _: object, content: Mapping[str, Any], __: object) -> None:
        if content.get("kind") != "plane" or content.get("edition") != self.edition:
            return
        pane, domain, number, coil = (content[name] for name in _PLANE)
        try:
            about, data = self._plane((pane, domain, number, coil), self.edition)
        except (OSError, KeyError, ValueError) as error:
            self.send({**content, "kind": "failed", "text": str(error)})
            return
        self.sent += 1
        self.send({"kind": "plane", **about}, [data])


def _described(pane: Pane) -> dict[str, Any]:
    """Return what the browser must know of a pane before its first slice."""
    about = {name: getattr(pane, name) for name in ("name", "slices", "coils", "scale")}
    about |= {name: list(getattr(pane, name) or ()) or None for name in ("window", "crop")}
    for name, colours in (("colours", pane.colours), ("phaseColours", "twilight")):
        # 256 colours as hexadecimal digits, six for each.
        about[name] = colormaps[colours](np.arange(256), bytes=True)[:, :3].tobytes().hex()
    return about
