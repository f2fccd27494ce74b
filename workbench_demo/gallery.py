"""``make pictures``: the README's pictures, out of the demo's executed notebooks."""

import base64
import sys
from pathlib import Path

from workbench.settings import project_root, shown
from workbench_demo.pages import pictures

# File -> the demo's notebook, the heading that the picture stands under, and which one there.
GALLERY = {
    "reconstruction.png": ("brain_reconstruct", "Best, median and worst slice", 2),
    "kspace.png": ("brain_reconstruct", "Best, median and worst slice", 3),
    "scores.png": ("brain_reconstruct", "How good", 0),
    "learning.png": ("brain_train", "What came of it", 0),
}


def write_gallery(demo: Path, folder: Path) -> list[Path]:
    """Write the README's pictures; return their paths.

    Args:
        demo: the demo's folder, all of whose notebooks have run.
        folder: where the pictures go.

    Raises:
        FileNotFoundError: a notebook has not run.
        LookupError: a notebook has no such picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, (notebook, heading, number) in GALLERY.items():
        executed = demo / f"{notebook}.ipynb"
        if not executed.exists():
            raise FileNotFoundError(f"{shown(executed)} is not there: run `make demo` first")
        found = [picture for picture in pictures(executed) if picture.heading == heading]
        if number >= len(found):
            raise LookupError(f"{shown(executed)} has {len(found)} pictures under {heading!r}")
        path = folder / name
        path.write_bytes(base64.b64decode(found[number].png))
        written.append(path)
    return written


def main() -> int:
    """Write the pictures into ``docs/pictures/``."""
    for path in write_gallery(
        project_root() / "outputs" / "demo", project_root() / "docs/pictures"
    ):
        print(shown(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
