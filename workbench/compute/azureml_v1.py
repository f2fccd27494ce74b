"""AzureML through its SDK v1, azureml-core.

Microsoft's support for this SDK ended on 2026-06-30, while existing workflows go on to work;
``azureml_v2`` sends the same job through its successor.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
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
    from azureml.core import ScriptRunConfig
    from azureml.core import Workspace as SdkWorkspace
    from azureml.data.data_reference import DataReference


class AzureMLv1:
    """A workspace through SDK v1; see ``sender.Sender``."""

    sdk = "v1"
    package = "azureml-core, which Microsoft supported until June 2026"

    def __init__(self, workspace: Workspace) -> None:
        self.address = workspace

    @cached_property
    def workspace(self) -> "SdkWorkspace":
        """The SDK's own workspace."""
        from azureml.core import Workspace as SdkWorkspace
        from azureml.core.authentication import TokenAuthentication

        def token(audience: str) -> str:
            return credential().get_token(f"{audience.rstrip('/')}/.default").token

        with _our_errors():
            return SdkWorkspace.get(
                self.address.name,
                auth=TokenAuthentication(token, cloud="AzureCloud"),
                subscription_id=self.address.subscription_id,
                resource_group=self.address.resource_group,
            )

    def open(self) -> None:
        """Log in, and look the workspace up."""
        check_login()
        _ = self.workspace

    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""
        from azureml.core.compute import AmlCompute

        with _our_errors():
            targets = self.workspace.compute_targets.values()
            return [_cluster(each) for each in targets if isinstance(each, AmlCompute)]

    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""
        from azureml.data.azure_storage_datastore import AzureBlobDatastore

        with _our_errors():
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

    def submit(self, job: ClusterJob) -> str:
        """Send a job; return its run's id."""
        from azureml.core import Experiment

        with _our_errors():
            configuration = self._configuration(job)
            run = Experiment(self.workspace, job.experiment).submit(
                configuration, tags=dict(job.tags)
            )
            run.display_name = job.name
            return run.id

    def _configuration(self, job: ClusterJob) -> "ScriptRunConfig":
        from azureml.core import Environment, ScriptRunConfig
        from azureml.core.conda_dependencies import CondaDependencies
        from azureml.core.runconfig import DockerConfiguration, PyTorchConfiguration

        environment = Environment(job.environment)
        environment.python.conda_dependencies = CondaDependencies(
            _underlying_structure=job.packages
        )
        environment.docker.base_image = job.image
        references = {folder.name: self._reference(folder) for folder in job.folders}
        configuration = ScriptRunConfig(
            source_directory=str(SOURCE),
            command=job.command({name: str(each) for name, each in references.items()}),
            compute_target=job.cluster,
            environment=environment,
            distributed_job_config=PyTorchConfiguration(node_count=job.nodes),
            docker_runtime_config=DockerConfiguration(use_docker=True, shm_size=job.shared_memory),
        )
        configuration.run_config.data_references = {
            name: each.to_config() for name, each in references.items()
        }
        configuration.run_config.environment_variables = job.variables
        return configuration

    def _reference(self, folder: DataFolder) -> "DataReference":
        from azureml.core import Datastore as SdkDatastore

        place = SdkDatastore.get(self.workspace, folder.datastore).path(
            folder.path, data_reference_name=folder.name
        )
        return place.as_download() if folder.mode == "download" else place.as_mount()

    def state(self, run: str) -> RunState:
        """Return how a run stands."""
        with _our_errors():
            found = self.workspace.get_run(run)
            details = found.get_details()
            error = (details.get("error") or {}).get("error") or {}
            return RunState(
                found.get_status(), found.get_portal_url(), str(error.get("message") or "")
            )

    def cancel(self, run: str) -> None:
        """Cancel a run."""
        with _our_errors():
            self.workspace.get_run(run).cancel()


def _cluster(target: Any) -> Cluster:
    status = target.get_status()
    errors = getattr(status, "errors", None) or []
    scale = target.scale_settings
    return Cluster(
        target.name,
        (target.vm_size or "").upper(),
        "low" in (target.vm_priority or "").lower(),
        scale.maximum_node_count if scale else 0,
        getattr(status, "current_node_count", 0) or 0,
        target.provisioning_state or "Succeeded",
        "; ".join(_message(each) for each in errors),
        (target.identity_type or "none").lower() != "none",
        target.cluster_location or target.location or "",
    )


def _message(error: Any) -> str:
    if isinstance(error, dict):
        error = error.get("error", error)
        return str(error.get("message") or error.get("code") or error)
    return str(getattr(error, "message", error))


@contextmanager
def _our_errors() -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    import requests
    from azure.core.exceptions import AzureError
    from azureml._restclient.exceptions import ServiceException
    from azureml.exceptions import AzureMLException

    try:
        yield
    except ClusterError:
        raise
    except (requests.ConnectionError, requests.Timeout, ConnectionError, TimeoutError) as error:
        raise LostContactError(f"AzureML cannot be reached ({type(error).__name__})") from None
    except (AzureMLException, ServiceException, AzureError) as error:
        status, message = _answer(str(getattr(error, "message", "") or error))
        raise refusal(getattr(error, "status_code", None) or status, message) from None


def _answer(text: str) -> tuple[int | None, str]:
    """Return the service's HTTP status and its own words out of an error's text.

    A refused submission quotes the answer as JSON, other errors as lines such as "Code: 403".
    """
    with suppress(ValueError, KeyError, TypeError):
        answer = json.loads(text)
        return int(answer["status_code"]), _message(answer["error_details"])
    found = re.search(r"(?:StatusCode|Response Code|Code)\s*[:=]\s*(\d{3})", text)
    return (int(found[1]) if found else None), text
