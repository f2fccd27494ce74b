"""Results of a network that never learned anything, as the views' tests have them."""

from tests.views.conftest import in_project, project, reconstructed

__all__ = ["in_project", "project", "reconstructed"]
