"""Figures and forms."""
