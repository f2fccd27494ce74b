"""Looking through volumes in JupyterLab: linked panes on a canvas."""
