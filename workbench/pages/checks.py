"""What the parameters of several notebooks share."""

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from workbench.compute.jobs import run_folder
from workbench.data.sampling import Sampling, numbers
from workbench.forms.parameters import concerning


def _check_run(value: str, info: ValidationInfo) -> str:
    run_folder(value, str(info.field_name))
    return value


RunName = Annotated[str, AfterValidator(_check_run)]
"""Folder of a run under ``outputs/``."""


def check_sampling(
    mask: str | None, acceleration: str | None, center_fraction: str | None, usual: Sampling
) -> None:
    """Check how k-space is to be undersampled, where None stands for the usual.

    Raises:
        WrongValueError: the values do not go together.
    """
    accelerations, fractions = usual.accelerations, usual.center_fractions
    if acceleration is not None:
        accelerations = numbers("acceleration", acceleration)
    if center_fraction is not None:
        fractions = numbers("center_fraction", center_fraction)
    one_more = center_fraction is not None and acceleration is None
    with concerning("center_fraction" if one_more else "acceleration"):
        Sampling(mask or usual.mask, accelerations, fractions)
