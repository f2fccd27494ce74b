"""Where folders are, how many cores there are, and how secrets are held."""

import logging
import os
import re
from pathlib import Path
from typing import NoReturn

LINKS_VARIABLE = "FASTMRI_LINKS"
CONNECTION_VARIABLE = "AZURE_STORAGE_CONNECTION_STRING"
AZURE_LOGIN, AWS_LOGIN, GOOGLE_LOGIN = "Azure login", "AWS login", "Google login"
TRACKING_LOGIN = "login of MLflow or Weights & Biases"

# Who we are: in Azure for azure-identity, on a machine of Azure's, for the tools of 2021.
_LOGINS = {
    AZURE_LOGIN: (
        *("AZURE_", "AZUREML_", "ARM_", "HIML_", "IDENTITY_", "MSI_"),
        *("TENANT_ID", "APPLICATION_ID", "APPLICATION_KEY"),
    ),
    AWS_LOGIN: ("AWS_",),
    GOOGLE_LOGIN: ("GOOGLE_", "CLOUDSDK_", "GCLOUD_"),
    # A job of AzureML's has a token of its own.
    TRACKING_LOGIN: ("MLFLOW_TRACKING_", "WANDB_API_KEY", "AZUREML_"),
}
"""Login -> how the names of its variables begin; one variable may be of two."""


def child_environment(*needs: str, **changes: str) -> dict[str, str]:
    """Return the variables of a process that is started here: our own without the secrets.

    Args:
        *needs: what it is handed all the same: ``LINKS_VARIABLE``, ``CONNECTION_VARIABLE``, or a
            login such as ``AZURE_LOGIN``, all by which that cloud lets us in.
        **changes: variables set on top.
    """

    def kept(name: str) -> bool:
        if name == LINKS_VARIABLE or name.startswith("AZURE_STORAGE_"):
            return name in needs
        holders = [login for login, prefixes in _LOGINS.items() if name.startswith(prefixes)]
        return not holders or any(login in needs for login in holders)

    return {name: value for name, value in os.environ.items() if kept(name)} | changes


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def project_root() -> Path:
    """Return the project's folder, from which relative paths count.

    It is ``WORKBENCH_ROOT`` if set, else the checkout in which the package lies, else, where the
    package was installed as a wheel, the working folder. A kernel's working folder differs between
    JupyterLab (the notebook's) and papermill (the caller's).
    """
    root = os.environ.get("WORKBENCH_ROOT")
    return Path(root).resolve() if root else _checkout() or Path.cwd()


def notebooks() -> Path:
    """Return the folder of the notebooks: the checkout's, or the one inside the installed wheel."""
    checkout = _checkout()
    return checkout / "notebooks" if checkout else Path(__file__).resolve().parent / "notebooks"


def _checkout() -> Path | None:
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").exists() else None


def resolve(path: str | Path) -> Path:
    """Return a path as an absolute one; a relative path counts from the project's root."""
    if not isinstance(path, str | Path):
        raise ValueError(f"{path!r} is no path: give a folder or a file")
    try:
        path = Path(path).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{path}: no user of that name is known here: give an absolute path"
        ) from None
    return path if path.is_absolute() else project_root() / path


def shown(path: str | Path) -> str:
    """Return a path as people read it: relative to the project's root where it lies inside.

    A URL stays as it is.
    """
    if "://" in str(path):
        return str(path)
    path = Path(path)
    root = project_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


class Secret:
    """A value that is never shown: it prints as ``***`` and refuses to be pickled.

    It holds signed links, keys and connection strings. Only ``reveal()`` gives the value, at the
    one place that sends it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: pass it by environment variable or file")


class _NoQuery(logging.Filter):
    """Cuts signatures out of urllib3's log, which holds requests' paths and queries."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"\?\S*", "?***", arg) if isinstance(arg, str) else arg
                for arg in record.args
            )
        return True


_NO_QUERY = _NoQuery()


def hide_queries_in_logs() -> None:
    """Keep signatures of signed URLs out of urllib3's log, from now on."""
    for name in ("connectionpool", "connection", "poolmanager", "response", "util.retry"):
        logging.getLogger(f"urllib3.{name}").addFilter(_NO_QUERY)  # the same one counts once
