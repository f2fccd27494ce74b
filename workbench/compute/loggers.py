"""Where a training's curves go: a line each. The rank that writes is in ``recon.tracking``."""

import importlib.util
import os
from dataclasses import dataclass

from workbench.settings import TRACKING_LOGIN

TRACKING_URI = "MLFLOW_TRACKING_URI"
"""Names MLflow's server; AzureML sets it on every node of a job."""


@dataclass(frozen=True)
class LoggerEntry:
    """A logger of Lightning's, by which a training's curves go somewhere.

    Attributes:
        tracker: class in ``workbench.recon.tracking`` that speaks with it; "" where Lightning's
            trainer does.
        modules: what has to be installed for it, by the extra of its name.
        on_nodes: whether the nodes of a cluster can use it.
    """

    tracker: str = ""
    modules: tuple[str, ...] = ()
    on_nodes: bool = True


LOGGERS: dict[str, LoggerEntry] = {
    "tensorboard": LoggerEntry(),
    "mlflow": LoggerEntry("Mlflow", ("mlflow", "sqlalchemy", "alembic")),
    "wandb": LoggerEntry("Wandb", ("wandb",), on_nodes=False),
}
USUAL = "tensorboard"
USUAL_ON_CLUSTER = "tensorboard, mlflow"
"""There MLflow's run is the job's own: the studio shows its curves."""


def names_of(loggers: str) -> list[str]:
    """Return the names in a text such as "tensorboard, mlflow"."""
    return [name.strip() for name in loggers.split(",") if name.strip()]


def read_loggers(loggers: str) -> str:
    """Check loggers, and write them in one way; ValueError lists those that there are."""
    names = names_of(loggers)
    if not names or not set(names) <= LOGGERS.keys():
        raise ValueError(f"logger={loggers!r}: give one or several of {', '.join(LOGGERS)}")
    return ", ".join(name for name in LOGGERS if name in names)


def check_installed(loggers: str) -> None:
    """Refuse loggers whose packages are not installed here; ValueError says how to install them.

    With a server of MLflow's its own package does; without one it takes a database's as well.
    """
    for name in names_of(loggers):
        modules = LOGGERS[name].modules
        if name == "mlflow" and os.environ.get(TRACKING_URI):
            modules = modules[:1]
        if lacking := [each for each in modules if importlib.util.find_spec(each) is None]:
            raise ValueError(
                f"logger={name} needs {' and '.join(lacking)}, not installed here: "
                f'pip install -e ".[{name}]"'
            )


def check_on_cluster(loggers: str) -> None:
    """Refuse loggers that the nodes of a cluster cannot use."""
    for name in names_of(loggers):
        if not LOGGERS[name].on_nodes:
            can = ", ".join(each for each, entry in LOGGERS.items() if entry.on_nodes)
            raise ValueError(
                f"logger={name}: its key is a secret, which no job takes along to a cluster: give "
                f"{can}"
            )


def login_of(loggers: str) -> tuple[str, ...]:
    """Return which secrets loggers need, as ``child_environment`` takes them."""
    return (TRACKING_LOGIN,) if any(LOGGERS[name].tracker for name in names_of(loggers)) else ()
