"""All figures: functions over NumPy arrays and plain values that return a matplotlib figure."""

from workbench.views.curves import learning_curves
from workbench.views.reconstructions import contact_sheet, reconstruction_figure

__all__ = ["contact_sheet", "learning_curves", "reconstruction_figure"]
