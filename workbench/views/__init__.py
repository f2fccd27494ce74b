"""Figures, tables, the viewer in the browser, exports."""
