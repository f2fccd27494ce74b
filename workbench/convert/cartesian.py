"""Scans of the lines of a Cartesian measurement, in two or three dimensions."""

from workbench.convert.lines import Measurement
from workbench.convert.scan import Choices, Scan


def scans_of_lines(measurement: Measurement, choices: Choices) -> list[Scan]:
    """Make volumes of a measurement's lines.

    Raises:
        RefusedError: the lines cannot become a volume.
    """
    raise NotImplementedError
