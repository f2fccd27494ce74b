"""The parameters of ``explore.ipynb``, which is a page to read and has no form."""

from typing import Self

from pydantic import model_validator

from workbench.data.sampling import MASKS, Sampling
from workbench.forms.parameters import Field, Parameters
from workbench.pages.shared import check_sampling


class ExploreParameters(Parameters):
    """A volume, a slice, and how to undersample it."""

    notebook = "explore"

    dataset: str = "brain_multicoil"
    """name under datasets/, or a folder's path"""
    volume: str = Field("", numeric=True)
    """file name, or the number it ends with; empty takes the first validation volume"""
    slice_number: int = -1
    """0 is the first, -1 the middle one"""
    mask: str = Field("equispaced", choices=MASKS)
    """kind of mask, such as random; an unknown kind is refused with the list"""
    acceleration: float = Field(4.0, ge=1, lt=100)
    """one line of so many is measured; 1 or more"""
    center_fraction: float = Field(0.08, gt=0, lt=1)
    """share of lines around the centre that are always measured"""
    annotations: str | None = None
    """path of fastMRI+'s knee.csv or brain.csv: findings are drawn as boxes"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_sampling(self, Sampling())
        return self
