"""Validation reconstructions epoch by epoch, from a run's TensorBoard log."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from workbench.views.reconstructions import error_factor
from workbench.views.style import SMALL, add_colour_bar, new_figure, show_image

_KINDS = ("reconstruction", "target", "error")
_MOST_EPOCHS = 4
_MOST_SLICES = 3
_MOST_FACTOR = 10


class Samples:
    """The samples that a run has logged so far: slice -> kind -> epoch (from 1) -> PNG."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._sizes: dict[Path, int] = {}
        self.images: dict[str, dict[str, dict[int, bytes]]] = {}

    @property
    def epochs(self) -> list[int]:
        """The epochs with samples."""
        kinds = self.images.values()
        return sorted({epoch for kind in kinds for epoch in kind.get("reconstruction", ())})

    def read(self) -> bool:
        """Read what the log holds, if it has grown; return whether there is a new epoch."""
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

        before = self.epochs
        for path in sorted(self._folder.rglob("events.out.tfevents.*")):
            size = path.stat().st_size
            if self._sizes.get(path) == size:
                continue
            self._sizes[path] = size
            begun = False
            for event in LegacyEventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    name, _, kind = value.tag.rpartition("/")
                    if kind in _KINDS and value.HasField("image"):
                        if not begun:
                            self._forget_from(event.step + 1)
                        begun = True
                        epochs = self.images.setdefault(name, {}).setdefault(kind, {})
                        epochs[event.step + 1] = value.image.encoded_image_string
        return self.epochs != before

    def _forget_from(self, first: int) -> None:
        """Forget what an earlier start has of the epochs that a later one begins with, and on."""
        for kinds in self.images.values():
            for kind, epochs in kinds.items():
                kinds[kind] = {epoch: png for epoch, png in epochs.items() if epoch < first}


def samples_figure(samples: Samples, *, synthetic: bool = False) -> Figure | None:
    """Show some slices as the network has them after its first and its latest epochs.

    Each row is a slice: reconstructions by epoch, the target, and the last epoch's error. Images
    are in % of the slice's largest target value; all errors have one scale. None where nothing is
    logged yet.
    """
    from PIL import Image

    epochs = samples.epochs
    if not epochs:
        return None
    last, count = epochs[-1], min(len(epochs), _MOST_EPOCHS)
    chosen = [epochs[round(n * (len(epochs) - 1) / max(count - 1, 1))] for n in range(count)]
    names = [name for name, kinds in samples.images.items() if last in kinds["reconstruction"]]
    names = names[:_MOST_SLICES]
    number = r"(?:.*[_/])?(\w+)(?:\.h5)? slice (\d+)"
    short = [re.sub(f"^{number}$", r"\1, slice \2", name) for name in names]
    short = short if len(set(short)) == len(names) else names
    columns = [("reconstruction", epoch) for epoch in chosen] + [("target", last), ("error", last)]
    title = f"Validation slices after epoch{'s' if count > 1 else ''} {', '.join(map(str, chosen))}"
    size = 1.75 * len(columns) + 0.8, 2.0 * len(names) + 0.6
    figure = new_figure(*size, title=title, synthetic=synthetic)
    grid = figure.subplots(len(names), len(columns), squeeze=False)
    pixels = {
        (name, kind, epoch): 100 / 255 * np.asarray(Image.open(BytesIO(png)).convert("L"), float)
        for name in names
        for kind, epoch in columns
        if (png := samples.images[name][kind].get(epoch)) is not None
    }
    errors = [image for (_, kind, _), image in pixels.items() if kind == "error"]
    # Logged images have 256 levels: a larger factor would show these.
    factor = min([_MOST_FACTOR, *(error_factor(error, [error], 100) for error in errors)])
    drawn = {}
    for place, (row, name, text) in enumerate(zip(grid, names, short, strict=True)):
        for axes, (kind, epoch) in zip(row, columns, strict=True):
            axes.set_axis_off()
            label = f"epoch {epoch}" if kind == "reconstruction" else kind
            top, colours = (100 / factor, "inferno") if kind == "error" else (100.0, "gray")
            if (image := pixels.get((name, kind, epoch))) is not None:
                title = label if place == 0 else ""
                drawn[kind] = show_image(axes, image, (0, top), title, colours=colours)
        style = {"transform": row[0].transAxes, "fontsize": SMALL, "va": "top", "clip_on": False}
        row[0].text(0, -0.02, text, **style)
    for kind, label in (("target", "signal"), ("error", "error")):
        if kind in drawn:
            panels = list(grid[:, :-1].flat if kind == "target" else grid[:, -1])
            extend = "max" if kind == "error" else "neither"
            text = f"{label}, % of the slice's maximum"
            add_colour_bar(figure, drawn[kind], panels, text, rows=len(names), extend=extend)
    return figure
