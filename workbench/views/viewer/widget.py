"""The viewer's half in Python: it answers the browser's requests for slices."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from workbench.views.style import SYNTHETIC_NOTE
from workbench.views.viewer.panes import Pane
from workbench.views.viewer.viewer import Box, viewer_figure

_FOLDER = Path(__file__).parent
# In the browser they are one module.
_SCRIPTS = ("planes.js", "pane.js", "toolbar.js", "viewer.js")
_PLANE = ("pane", "domain", "slice", "coil")
# A notebook that is opened without its kernel has no viewer, only the line "model not found" in its
# place: the picture hides that line, and where there is a viewer it hides itself. Both by style,
# because nothing else in a stored notebook runs.
_STILL = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .workbench-still):not(:has(.workbench-live)) {
  display: none;
}
.jp-OutputArea-child:has(.workbench-live) + .jp-OutputArea-child:has(.workbench-still) {
  display: none;
}
</style><div class="workbench-still"><img alt="%s" src="data:image/jpeg;base64,%s"></div>"""


class Viewer(anywidget.AnyWidget):
    """A viewer of some panes; see ``workbench.views.viewer.viewer.viewer``.

    Attributes:
        slice_number: the slice that is shown, 0 first; setting it goes there.
        coil: the coil that is shown; -1 for all combined.
        view: "magnitude", "phase", "real", "imaginary" or "kspace".
        upright: whether images are turned over, since fastMRI stores them upside down.
        boxes: rectangles as ``Box`` describes them, as dictionaries.
        note: shown at the lower right, such as that it is a phantom.
        edition: goes up whenever other panes are opened.
        sent: how many planes the browser has asked for and got.
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
    # The planes to begin with travel with the widget, so that they are there even while the
    # kernel is busy with the cells below. The browser empties it: it is in no saved notebook.
    first = traitlets.Dict().tag(sync=True)
    edition = traitlets.Int().tag(sync=True)

    def __init__(self, panes: Sequence[Pane], **shown: Any) -> None:
        self.sent = 0
        super().__init__(**self._state(panes, **shown))
        self.on_msg(self._answer)

    def replace_panes(self, panes: Sequence[Pane], **shown: Any) -> None:
        """Show other panes in the place of what is shown; arguments as for a new viewer."""
        state = self._state(panes, **shown)
        with self.hold_sync():
            for name, value in state.items():
                setattr(self, name, value)

    def _state(
        self,
        panes: Sequence[Pane],
        *,
        title: str = "",
        slice_number: int = 0,
        boxes: Sequence[Box] = (),
        synthetic: bool = False,
    ) -> dict[str, Any]:
        """Take panes; return the traits that show them."""
        self._panes, self._synthetic = tuple(panes), synthetic
        edition = self.edition + 1
        planes = [
            self._plane((number, "image", slice_number, -1), edition)
            for number in range(len(panes))
        ]
        return {
            "edition": edition,
            "title": title,
            "note": SYNTHETIC_NOTE if synthetic else "",
            "slice_number": slice_number,
            "coil": -1,
            "boxes": [asdict(box) for box in boxes],
            "panes": [_described(pane) for pane in panes],
            "first": {"planes": [{**about, "data": data} for about, data in planes]},
        }

    def still(self) -> bytes:
        """Return a JPEG file of some of the slices, ``slice_number`` among them."""
        figure = viewer_figure(
            self._panes,
            title=self.title,
            slice_number=self.slice_number,
            boxes=[Box(**box) for box in self.boxes],
            synthetic=self._synthetic,
        )
        buffer = BytesIO()
        # Noise makes a PNG several times as large, and this is stored with the notebook.
        figure.savefig(buffer, format="jpeg", dpi=80, pil_kwargs={"quality": 85})
        return buffer.getvalue()

    def _ipython_display_(self, **_: Any) -> None:
        """Show the viewer, and for when the notebook is opened without its kernel, a picture."""
        from IPython.display import display

        data, metadata = self._repr_mimebundle_() or ({}, {})
        display(data, metadata=metadata, raw=True)
        picture = base64.b64encode(self.still()).decode()
        html = _STILL % (escape(self.title or "some of the slices", quote=True), picture)
        display({"text/html": html, "text/plain": f"slices of {self.title}"}, raw=True)

    def _plane(
        self, asked: tuple[int, str, int, int], edition: int
    ) -> tuple[dict[str, Any], memoryview]:
        """Read a plane (pane, domain, slice, coil); return what it is and its bytes."""
        pane = self._panes[asked[0]]
        domain, number, coil = asked[1:]
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
        asked = tuple(content[name] for name in _PLANE)
        try:
            about, data = self._plane(asked, self.edition)
        except (OSError, KeyError, ValueError) as error:
            self.send({**content, "kind": "failed", "text": str(error)})
            return
        self.sent += 1
        self.send({"kind": "plane", **about}, [data])


def _described(pane: Pane) -> dict[str, Any]:
    """Return what the browser must know of a pane before it has a slice of it."""
    return {
        "name": pane.name,
        "slices": pane.slices,
        "coils": pane.coils,
        "scale": pane.scale,
        "window": list(pane.window) if pane.window else None,
        "crop": list(pane.crop) if pane.crop else None,
        "colours": _colours(pane.colours),
        "phaseColours": _colours("twilight"),
    }


def _colours(name: str) -> str:
    """Return a colour map's 256 colours as hexadecimal digits, six a colour."""
    from matplotlib import colormaps

    table = colormaps[name](np.arange(256), bytes=True)[:, :3]
    return table.tobytes().hex()
