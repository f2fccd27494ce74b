"""How large the benchmarks are."""

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, int, int]  # coils, readout, phase encode


@dataclass(frozen=True)
class Size:
    """Inputs and repeats of a run.

    Attributes:
        name: "toy", "quick" or "full".
        network: arguments of the VarNet; fastMRI's defaults where none is given.
        inference: row -> k-space that is reconstructed.
        training: k-space of a training step.
        crop: rows and columns of its target.
        recon: of the phantom whose files are read; its k-space is 2 recon x 1.15 recon.
        coils: of the phantom.
        volumes: files of the phantom; few are made, the others are the same under other names.
        image: slices, height and width of the images that are scored.
        repeats: of what takes seconds.
        short_repeats: of what takes milliseconds.
    """

    name: str
    inference: dict[str, Shape]
    training: Shape
    crop: int
    recon: int
    coils: int
    volumes: int
    image: Shape
    repeats: int
    short_repeats: int
    network: dict[str, Any] = field(default_factory=dict)


SIZES = {
    size.name: size
    for size in (
        Size(
            "toy",
            inference={"knee": (3, 48, 37), "brain": (2, 48, 32), "flair": (2, 32, 27)},
            training=(3, 48, 37),
            crop=24,
            recon=32,
            coils=3,
            volumes=4,
            image=(2, 32, 32),
            repeats=1,
            short_repeats=2,
            network={"num_cascades": 3, "chans": 4, "pools": 2, "sens_chans": 3, "sens_pools": 2},
        ),
        Size(
            "quick",
            inference={"knee": (8, 320, 184), "brain": (8, 320, 160), "flair": (4, 256, 107)},
            training=(8, 320, 184),
            crop=160,
            recon=320,
            coils=15,
            volumes=64,
            image=(8, 320, 320),
            repeats=3,
            short_repeats=15,
            network={"num_cascades": 6},
        ),
        Size(
            "full",
            inference={"knee": (15, 640, 368), "brain": (16, 640, 320), "flair": (4, 512, 213)},
            training=(15, 640, 368),
            crop=320,
            recon=320,
            coils=15,
            volumes=512,
            image=(36, 320, 320),
            repeats=5,
            short_repeats=25,
        ),
    )
}
