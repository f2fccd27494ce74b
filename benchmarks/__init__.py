"""What the workbench costs, each figure against the ``fastmri`` package in one run."""
