"""Volumes, the index of a dataset, and slices for training."""
