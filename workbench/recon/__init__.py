"""Training, metrics, weights, reconstruction, uncertainty."""
