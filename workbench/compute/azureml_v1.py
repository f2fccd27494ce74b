"""AzureML through its SDK v1, azureml-core.

Microsoft's support for this SDK ended on 2026-06-30, while existing workflows go on to work;
``azureml_v2`` sends the same job through its successor.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from workbench.azure_login import check_login, credential
from workbench.compute.cluster_job import ClusterJob, DataFolder, snapshot
from workbench.compute.sender import (
    Cluster,
    Datastore,
    LostContactError,
    RunState,
    Sender,
    refusal,
)
from workbench.settings import Secret

if TYPE_CHECKING:
    from azureml.core import Workspace as SdkWorkspace
    from azureml.data.data_reference import DataReference


_PACKING = threading.Lock()
"""Held while a job is sent: the SDK changes this process's working folder as it packs the code."""


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours.

    A refused submission quotes the service's answer as JSON, other errors as lines such as
    "Code: 403".
    """
    import requests
    from azure.core.exceptions import AzureError
    from azureml._restclient.clientbase import ClientRequestError  # made of requests' own
    from azureml._restclient.exceptions import ServiceException
    from azureml.exceptions import AzureMLException

    try:
        yield
    except (
        requests.ConnectionError,
        requests.Timeout,
        ClientRequestError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise LostContactError(f"AzureML cannot be reached ({type(error).__name__})") from None
    except (AzureMLException, ServiceException, AzureError) as error:
        text = str(getattr(error, "message", "") or error)
        found = re.search(r"(?:StatusCode|Response Code|Code)\s*[:=]\s*(\d{3})", text)
        status = int(found[1]) if found else None
        with suppress(ValueError, KeyError, TypeError):
            answer = json.loads(text)
            status, text = int(answer["status_code"]), _message(answer["error_details"])
        for each in (error, error.__cause__):  # a 403 is told as a guess at its reasons
            answer = getattr(each, "response", None)
            status = getattr(answer, "status_code", None) or status
        raise refusal(status, text) from None


class AzureMLv1(Sender):
    """A workspace through SDK v1; see ``Sender``."""

    sdk = "v1"
    package = "azureml-core, which Microsoft supported until June 2026"

    @cached_property
    def workspace(self) -> "SdkWorkspace":
        """The SDK's own workspace."""
        from azureml.core import Workspace as SdkWorkspace
        from azureml.core.authentication import TokenAuthentication

        def token(audience: str) -> str:
            return credential().get_token(f"{audience.rstrip('/')}/.default").token

        return SdkWorkspace.get(
            self.address.name,
            auth=TokenAuthentication(token, cloud="AzureCloud"),
            subscription_id=self.address.subscription_id,
            resource_group=self.address.resource_group,
        )

    @_our_errors()
    def open(self) -> None:
        """Log in, and look the workspace up; ImportError where this Python is too new for it."""
        import azureml.core._metrics  # noqa: F401  it would be missed only once a job was sent

        check_login()
        _ = self.workspace

    @_our_errors()
    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""
        from azureml.core.compute import AmlCompute

        found = []
        for each in self.workspace.compute_targets.values():
            if isinstance(each, AmlCompute):
                status, scale = each.get_status(), each.scale_settings
                problems = map(_message, getattr(status, "errors", None) or [])
                found.append(
                    Cluster(
                        each.name,
                        (each.vm_size or "").upper(),
                        "low" in (each.vm_priority or "").lower(),
                        scale.maximum_node_count if scale else 0,
                        getattr(status, "current_node_count", None),
                        each.provisioning_state or "Succeeded",
                        "; ".join(problems),
                        (each.identity_type or "none").lower() != "none",
                        each.cluster_location or each.location or "",
                    )
                )
        return found

    @_our_errors()
    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""
        from azureml.data.azure_storage_datastore import AzureBlobDatastore

        default = self.workspace.get_default_datastore().name
        return [
            Datastore(
                each.name,
                each.account_name,
                each.container_name,
                each.endpoint or "core.windows.net",
                Secret(key) if (key := each.account_key or each.sas_token) else None,
                each.name == default,
            )
            for each in self.workspace.datastores.values()
            if isinstance(each, AzureBlobDatastore)
        ]

    @_our_errors()
    def submit(self, job: ClusterJob, run: str) -> None:
        """Send a job, to be the run of that id."""
        from azureml.core import Environment, Experiment, ScriptRunConfig
        from azureml.core.conda_dependencies import CondaDependencies
        from azureml.core.runconfig import DockerConfiguration, PyTorchConfiguration

        environment = Environment(job.environment)
        packages = CondaDependencies(_underlying_structure=job.packages)
        environment.python.conda_dependencies = packages
        environment.docker.base_image = job.image
        references = {folder.name: self._reference(folder) for folder in job.folders}
        with _PACKING, snapshot(job.code) as source:
            configuration = ScriptRunConfig(
                source_directory=str(source),
                command=job.command({name: str(each) for name, each in references.items()}),
                compute_target=job.cluster,
                environment=environment,
                distributed_job_config=PyTorchConfiguration(node_count=job.nodes),
                docker_runtime_config=DockerConfiguration(
                    use_docker=True, shm_size=job.shared_memory
                ),
            )
            configuration.run_config.data_references = {
                name: each.to_config() for name, each in references.items()
            }
            configuration.run_config.environment_variables = job.variables
            experiment = Experiment(self.workspace, job.experiment)
            sent = experiment.submit(configuration, tags=dict(job.tags), run_id=run)
        sent.display_name = job.name

    def _reference(self, folder: DataFolder) -> "DataReference":
        from azureml.core import Datastore as SdkDatastore

        datastore = SdkDatastore.get(self.workspace, folder.datastore)
        place = datastore.path(folder.path, data_reference_name=folder.name)
        return place.as_download() if folder.mode == "download" else place.as_mount()

    @_our_errors()
    def state(self, run: str) -> RunState:
        """Return how a run stands."""
        found = self.workspace.get_run(run)
        status = found.get_status()  # first: a run that fails meanwhile has its reason afterwards
        error = (found.get_details().get("error") or {}).get("error") or {}
        return RunState(status, found.get_portal_url(), str(error.get("message") or ""))

    @_our_errors()
    def cancel(self, run: str) -> None:
        """Cancel a run."""
        self.workspace.get_run(run).cancel()


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("error", error)
        return str(error.get("message") or error.get("code") or error)
    return str(getattr(error, "message", error))
