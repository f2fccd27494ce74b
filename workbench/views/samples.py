"""Validation reconstructions epoch by epoch, from a run's TensorBoard log."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from workbench.views.style import new_figure, show_image

_KINDS = ("reconstruction", "target", "error")
_MOST_EPOCHS = 4
_MOST_SLICES = 3


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
            for event in LegacyEventFileLoader(str(path)).Load():
                for value in event.summary.value:
                    name, _, kind = value.tag.rpartition("/")
                    if kind in _KINDS and value.HasField("image"):
                        epochs = self.images.setdefault(name, {}).setdefault(kind, {})
                        epochs[event.step + 1] = value.image.encoded_image_string
        return self.epochs != before


def samples_figure(samples: Samples, *, synthetic: bool = False) -> Figure | None:
    """Show some slices as the network has them after its first and its latest epochs.

    Each row is a slice: reconstructions by epoch, the target, and the last epoch's error, drawn on
    the target's scale. None where nothing is logged yet.
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
    size = 1.75 * len(columns), 1.9 * len(names) + 0.5
    figure = new_figure(*size, title=title, synthetic=synthetic)
    grid = figure.subplots(len(names), len(columns), squeeze=False)
    for place, (row, name, text) in enumerate(zip(grid, names, short, strict=True)):
        for axes, (kind, epoch) in zip(row, columns, strict=True):
            axes.set_axis_off()
            if (png := samples.images[name][kind].get(epoch)) is not None:
                pixels = np.asarray(Image.open(BytesIO(png)).convert("L"), float) / 255
                label = f"epoch {epoch}" if kind == "reconstruction" else kind
                show_image(axes, pixels, (0, 1), label if place == 0 else "")
        style = {"transform": row[0].transAxes, "fontsize": 7, "va": "top", "clip_on": False}
        row[0].text(0, -0.02, text, **style)
    return figure
