"""AzureML through its SDK v2, azure-ai-ml: the package's extra ``sdkv2``."""

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.azure_login import Workspace, check_login, credential
from workbench.compute.cluster import (
    Cluster,
    ClusterError,
    Datastore,
    LostContactError,
    RunState,
    explain,
    is_passing,
)
from workbench.compute.cluster_job import (
    ENVIRONMENT,
    IMAGE,
    SHARED_MEMORY,
    SOURCE,
    ClusterJob,
    DataFolder,
    conda_specification,
)
from workbench.settings import Secret

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Command

_MODES = {"mount": "ro_mount", "download": "download", "write": "rw_mount"}


class AzureMLv2:
    """A workspace through SDK v2; see ``cluster.Backend``.

    Raises:
        LoginError: no login works.
        ValueError: the SDK is not installed.
    """

    def __init__(self, workspace: Workspace) -> None:
        try:
            import azure.ai.ml  # noqa: F401
        except ImportError:
            raise ValueError(
                "sdk='v2': azure-ai-ml is not installed; install it with "
                "`.venv/bin/uv pip install --python .venv/bin/python 'azure-ai-ml~=1.30'`"
            ) from None
        # It warns of each experimental class of its own, and that our environment has a name.
        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        check_login()
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

    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""
        with _explained():
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
                )
                for each in computes
            ]

    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""
        from azure.ai.ml.entities import AzureBlobDatastore

        with _explained():
            default = self.client.datastores.get_default().name
            names = [each.name for each in self.client.datastores.list()]
            found = [self.client.datastores.get(name, include_secrets=True) for name in names]
        return [
            Datastore(
                str(each.name),
                each.account_name,
                each.container_name,
                each.endpoint or "core.windows.net",
                _secret(each.credentials, "account_key"),
                _secret(each.credentials, "sas_token"),
                each.name == default,
            )
            for each in found
            if isinstance(each, AzureBlobDatastore)
        ]

    def submit(self, job: ClusterJob) -> str:
        """Send a job; return its run's id."""
        with _explained(), _code() as source:
            return str(self.client.jobs.create_or_update(self.command(job, source)).name)

    def command(self, job: ClusterJob, source: Path = SOURCE) -> "Command":
        """Form the SDK's description of a job; its code is in ``source``."""
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
            environment=Environment(
                name=ENVIRONMENT, image=IMAGE, conda_file=conda_specification(job.torch_build)
            ),
            environment_variables=job.variables,
            compute=job.cluster,
            instance_count=job.nodes,
            distribution={"type": "PyTorch", "process_count_per_instance": 1},
            shm_size=SHARED_MEMORY,
            experiment_name=job.experiment,
            display_name=job.name,
            tags=dict(job.tags),
        )

    def state(self, run: str) -> RunState:
        """Return how a run stands."""
        with _explained():
            found = self.client.jobs.get(run)
        error = getattr(found, "error", None)
        return RunState(
            _word(found.status),
            str(found.studio_url or ""),
            str(getattr(error, "message", "") or ""),
        )

    def cancel(self, run: str) -> None:
        """Cancel a run."""
        with _explained():
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


def _secret(credentials: Any, name: str) -> Secret | None:
    value = getattr(credentials, name, None)
    return Secret(value) if value else None


def _word(value: Any) -> str:
    """Return the text of one of the SDK's enumerations."""
    return str(getattr(value, "value", value))


def _problem(compute: Any) -> str:
    errors = getattr(compute, "provisioning_errors", None)
    return "" if not errors else str(errors)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError, HttpResponseError

    problem: ClusterError
    try:
        yield
        return
    except HttpResponseError as error:
        status = error.status_code
        problem = (
            LostContactError(f"AzureML answers {status}")
            if is_passing(status)
            else ClusterError(explain(status, _message(error)))
        )
    except AzureError as error:
        problem = LostContactError(f"AzureML cannot be reached ({type(error).__name__})")
    except MlException as error:
        problem = ClusterError(" ".join(str(error.message).split())[:500])
    raise problem


def _message(error: Any) -> str:
    inner = getattr(error, "error", None)
    message = getattr(inner, "message", None)
    if not message:
        try:
            message = json.loads(error.response.text())["error"]["message"]
        except Exception:
            message = getattr(error, "reason", "") or "no reason given"
    return " ".join(str(message).split())[:500]
