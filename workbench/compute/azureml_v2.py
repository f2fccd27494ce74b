"""AzureML through its SDK v2, azure-ai-ml: the package's extra ``sdkv2``."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.azure_login import Workspace, check_login, credential
from workbench.compute.sender import (
    SOURCE,
    Cluster,
    ClusterError,
    ClusterJob,
    DataFolder,
    Datastore,
    LostContactError,
    RunState,
    refusal,
)
from workbench.settings import Secret

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Command

_MODES = {"mount": "ro_mount", "download": "download", "write": "rw_mount"}


class AzureMLv2:
    """A workspace through SDK v2; see ``sender.Sender``."""

    sdk = "v2"
    package = "azure-ai-ml"

    def __init__(self, workspace: Workspace) -> None:
        # It warns of each experimental class of its own, and that our environment has a name.
        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        self.address = workspace

    @cached_property
    def client(self) -> "MLClient":
        """The SDK's own client."""
        from azure.ai.ml import MLClient

        return MLClient(
            credential(),
            self.address.subscription_id,
            self.address.resource_group,
            self.address.name,
            enable_telemetry=False,
            show_progress=False,  # a bar for each job's code, in the middle of what we tell
        )

    def open(self) -> None:
        """Log in, and look the workspace up."""
        check_login()
        with _our_errors():
            self.client.workspaces.get(self.address.name)

    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""
        with _our_errors():
            computes = self.client.compute.list(compute_type="AmlCompute")
            return [
                Cluster(
                    each.name,
                    (each.size or "").upper(),
                    "low" in _word(each.tier or "").lower(),
                    each.max_instances or 0,
                    0,
                    _word(each.provisioning_state or "Succeeded"),
                    _problem(each),
                    _word(getattr(each.identity, "type", None) or "none").lower() != "none",
                    each.location or "",
                )
                for each in computes
            ]

    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""
        from azure.ai.ml.entities import AzureBlobDatastore

        with _our_errors():
            default = self.client.datastores.get_default().name
            names = [each.name for each in self.client.datastores.list()]
            found = [self.client.datastores.get(name, include_secrets=True) for name in names]
        return [
            Datastore(
                str(each.name),
                each.account_name,
                each.container_name,
                each.endpoint or "core.windows.net",
                _secret(each.credentials),
                each.name == default,
            )
            for each in found
            if isinstance(each, AzureBlobDatastore)
        ]

    def submit(self, job: ClusterJob) -> str:
        """Send a job; return its run's id."""
        with _our_errors(), _code() as source:
            return str(self.client.jobs.create_or_update(self._command(job, source)).name)

    def _command(self, job: ClusterJob, source: Path) -> "Command":
        from azure.ai.ml import Input, Output, command
        from azure.ai.ml.entities import Environment

        written = [each for each in job.folders if each.mode == "write"]
        read = [each for each in job.folders if each.mode != "write"]
        return command(
            code=str(source),
            command=job.command(
                {each.name: f"${{{{inputs.{each.name}}}}}" for each in read}
                | {each.name: f"${{{{outputs.{each.name}}}}}" for each in written}
            ),
            inputs={
                each.name: Input(type="uri_folder", path=_address(each), mode=_MODES[each.mode])
                for each in read
            },
            outputs={
                each.name: Output(type="uri_folder", path=_address(each), mode=_MODES[each.mode])
                for each in written
            },
            environment=Environment(name=job.environment, image=job.image, conda_file=job.packages),
            environment_variables=job.variables,
            compute=job.cluster,
            instance_count=job.nodes,
            distribution={"type": "PyTorch", "process_count_per_instance": 1},
            shm_size=job.shared_memory,
            experiment_name=job.experiment,
            display_name=job.name,
            tags=dict(job.tags),
        )

    def state(self, run: str) -> RunState:
        """Return how a run stands."""
        with _our_errors():
            found = self.client.jobs.get(run)
        error = getattr(found, "error", None)
        return RunState(
            _word(found.status),
            str(found.studio_url or ""),
            str(getattr(error, "message", "") or ""),
        )

    def cancel(self, run: str) -> None:
        """Cancel a run."""
        with _our_errors():
            self.client.jobs.begin_cancel(run)


@contextmanager
def _code() -> Iterator[Path]:
    """Copy the code into a folder of its own.

    The SDK looks at each of a folder's files several times, a checkout's thousands under ``.venv``
    included, before it asks ``.amlignore``.
    """
    litter = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    with tempfile.TemporaryDirectory() as temporary:
        for name in ("workbench", "workbench_kernels", "notebooks"):
            shutil.copytree(SOURCE / name, Path(temporary, name), ignore=litter)
        for name in ("environment.yml", ".amlignore"):
            shutil.copy(SOURCE / name, temporary)
        yield Path(temporary)


def _address(folder: DataFolder) -> str:
    return f"azureml://datastores/{folder.datastore}/paths/{folder.path}/"


def _secret(credentials: Any) -> Secret | None:
    held = (getattr(credentials, name, None) for name in ("account_key", "sas_token"))
    value = next(filter(None, held), None)
    return Secret(value) if value else None


def _word(value: Any) -> str:
    """Return the text of one of the SDK's enumerations."""
    return str(getattr(value, "value", value))


def _problem(compute: Any) -> str:
    errors = getattr(compute, "provisioning_errors", None)
    return "" if not errors else str(errors)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, HttpResponseError

    try:
        yield
        return
    except HttpResponseError as error:
        # What the SDK's own models hold of the answer, it wraps once more.
        answer = getattr(error.error, "error", None) or error.error
        said = getattr(answer, "message", None) or error.message or error.reason
        problem = refusal(error.status_code or 503, str(said))
    except AzureError as error:
        problem = LostContactError(f"AzureML cannot be reached ({type(error).__name__})")
    except MlException as error:
        problem = ClusterError(" ".join(str(error.message).split())[:500])
    raise problem
