"""A small dataset, as the command's tests have it."""

from tests.command.conftest import project

__all__ = ["project"]
