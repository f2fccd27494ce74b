"""All figures: functions over NumPy arrays and plain values that return a matplotlib figure."""

from workbench.views.curves import learning_curves
from workbench.views.kspace import (
    coils_figure,
    kspace_and_mask_figure,
    point_spread_figure,
    sensitivities_figure,
)
from workbench.views.reconstructions import contact_sheet, reconstruction_figure
from workbench.views.scores import comparison_figure, scores_figure

__all__ = [
    "coils_figure",
    "comparison_figure",
    "contact_sheet",
    "kspace_and_mask_figure",
    "learning_curves",
    "point_spread_figure",
    "reconstruction_figure",
    "scores_figure",
    "sensitivities_figure",
]
