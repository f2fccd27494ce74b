"""The command ``workbench``: the notebooks headless, working copies in JupyterLab, the demo."""
