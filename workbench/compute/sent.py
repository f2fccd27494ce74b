"""The job that was sent to a cluster for a folder: what is kept of it here, and its cancelling."""

from pathlib import Path

import pydantic

from workbench.azure_login import require_workspace
from workbench.compute.cluster import connect
from workbench.compute.runs import SENT, damaged
from workbench.settings import shown
from workbench.stores.disk import write_text


class Record(pydantic.BaseModel):
    """What is kept here of a run on a cluster, AzureML's id of it first.

    Attributes:
        slices: training and validation slices of an epoch; of a training alone.
        asked: what the notebook there was given, as a digest; "" of a training.
        lines: that its log had before it, of earlier jobs for the same folder.
        epochs: of the training that were done before it, and when it was brought here: those
            between are its own.
        fetched: whether all that it kept has been brought here since it ended.
    """

    run: str
    sdk: str
    cluster: str
    vm_size: str
    nodes: int
    slices: tuple[int, int] = (0, 0)
    asked: str = ""
    lines: int = 0
    epochs: tuple[int, int | None] = (0, None)
    attempts: int = 1
    fetched: bool = False

    def keep(self, folder: Path) -> None:
        """Write it into the run's folder."""
        write_text(folder / SENT, self.model_dump_json(indent=2))


def read_record(folder: Path) -> Record | None:
    """Read what is kept of the last job for a folder; None where none was sent.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / SENT
    try:
        return Record.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        raise ValueError(damaged(path, error)) from None


def cancel_job(folder: Path) -> str:
    """Cancel the job that is at work for a folder; return what happens.

    Nothing that it has kept is lost: the next start of its notebook brings it here.

    Raises:
        ValueError: none is at work for it, or no workspace is configured.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    record = read_record(folder)
    if record is None:
        raise ValueError(f"no job was sent for {shown(folder)}: give a folder that one fills")
    sender = connect(require_workspace(), record.sdk)  # v1 does not cancel what v2 sent
    state = sender.known(record.run)
    if state is None or state.ended:
        status = state.status if state else "not known to the workspace"
        raise ValueError(f"no job is at work for {shown(folder)}: run {record.run} is {status}")
    sender.cancel(record.run)
    return (
        f"run {record.run} on {record.cluster} is being cancelled; running its notebook again "
        "brings what it has kept"
    )
