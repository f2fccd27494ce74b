"""A notebook-driven workbench for fastMRI: ingest, cache, train, reconstruct, look."""
