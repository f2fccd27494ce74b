"""Bring the data into Azure: Data Factory copies, a pass over each archive verifies and unpacks."""
