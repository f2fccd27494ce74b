"""The parameters of ``explore.ipynb``, which is a page to read and has no form."""

from typing import ClassVar, Self

from pydantic import model_validator

from workbench.data.sampling import MASKS, Sampling
from workbench.forms.parameters import Field, Parameters
from workbench.pages.checks import check_sampling


class ExploreParameters(Parameters):
    """What ``explore.ipynb`` asks for."""

    notebook: ClassVar[str] = "explore"

    dataset: str = Field("brain_multicoil", "name under datasets/, or a folder's path")
    volume: str = Field(
        "",
        "file name, or the number it ends with; empty takes the first validation volume",
        also=(int,),
    )
    slice_number: int = Field(-1, "0 is the first, -1 the middle one")
    mask: str = Field(
        "equispaced",
        "random, equispaced, equispaced_fraction, magic or magic_fraction",
        choices=MASKS,
    )
    acceleration: float = Field(4.0, "one line of so many is measured; 1 or more", ge=1, lt=100)
    center_fraction: float = Field(
        0.08, "share of lines around the centre that are always measured", gt=0, lt=1
    )
    annotations: str | None = Field(
        None, "path of fastMRI+'s knee.csv or brain.csv: findings are drawn as boxes"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_sampling(self.mask, str(self.acceleration), str(self.center_fraction), Sampling())
        return self
