"""AzureML through its SDK v2, azure-ai-ml: the package's extra ``sdkv2``, or Python 3.13."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from functools import cached_property
from io import StringIO
from typing import TYPE_CHECKING, Any

from workbench.azure_login import check_login, credential
from workbench.compute.cluster_job import ClusterJob, snapshot
from workbench.compute.sender import (
    Cluster,
    ClusterError,
    Datastore,
    LostContactError,
    RunState,
    Sender,
    refusal,
)
from workbench.settings import Secret

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

_MODES = {"mount": "ro_mount", "download": "download", "write": "rw_mount"}


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
        headers = getattr(error.response, "headers", {})
        problem = refusal(error.status_code or 503, str(said), headers.get("Retry-After"))
    except MlException as error:  # is an AzureError too
        problem = ClusterError(" ".join(str(error.message).split())[:500])
    except AzureError as error:
        problem = LostContactError(f"AzureML cannot be reached ({type(error).__name__})")
    raise problem


class AzureMLv2(Sender):
    """A workspace through SDK v2; see ``Sender``."""

    sdk = "v2"
    package = "azure-ai-ml"

    @cached_property
    def client(self) -> "MLClient":
        """The SDK's own client."""
        from azure.ai.ml import MLClient

        # It warns of each experimental class of its own, and that our environment has a name.
        logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)
        return MLClient(
            credential(),
            self.address.subscription_id,
            self.address.resource_group,
            self.address.name,
            enable_telemetry=False,
            show_progress=False,  # a bar for each job's code, in the middle of what we tell
        )

    @_our_errors()
    def open(self) -> None:
        """Log in, and look the workspace up."""
        check_login()
        self.client.workspaces.get(self.address.name)

    @_our_errors()
    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""
        return [
            Cluster(
                each.name,
                (each.size or "").upper(),
                "low" in _word(each.tier or "").lower(),
                each.max_instances or 0,
                None,
                _word(each.provisioning_state or "Succeeded"),
                str(getattr(each, "provisioning_errors", None) or ""),
                _word(getattr(each.identity, "type", None) or "none").lower() != "none",
                each.location or "",
            )
            for each in self.client.compute.list(compute_type="AmlCompute")
        ]

    @_our_errors()
    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""
        from azure.ai.ml.entities import AzureBlobDatastore

        known = self.client.datastores
        default, found = known.get_default().name, []
        for name in [each.name for each in known.list()]:
            each = known.get(name, include_secrets=True)
            if isinstance(each, AzureBlobDatastore):
                held = (
                    getattr(each.credentials, kind, None) for kind in ("account_key", "sas_token")
                )
                key = next(filter(None, held), None)
                found.append(
                    Datastore(
                        str(each.name),
                        each.account_name,
                        each.container_name,
                        each.endpoint or "core.windows.net",
                        Secret(key) if key else None,
                        each.name == default,
                    )
                )
        return found

    @_our_errors()
    def submit(self, job: ClusterJob, run: str) -> None:
        """Send a job, to be the run of that id."""
        from azure.ai.ml import Input, Output, command
        from azure.ai.ml.entities import Environment

        inputs, outputs, places = {}, {}, {}
        for each in job.folders:
            path = f"azureml://datastores/{each.datastore}/paths/{each.path}/"
            mode = _MODES[each.mode]
            if each.mode == "write":
                outputs[each.name] = Output(type="uri_folder", path=path, mode=mode)
                places[each.name] = f"${{{{outputs.{each.name}}}}}"
            else:
                inputs[each.name] = Input(type="uri_folder", path=path, mode=mode)
                places[each.name] = f"${{{{inputs.{each.name}}}}}"
        with snapshot(job.code) as source:
            sent = command(
                name=run,
                code=str(source),
                command=job.command(places),
                inputs=inputs,
                outputs=outputs,
                environment=Environment(
                    name=job.environment,
                    image=job.image,
                    conda_file=job.packages,
                ),
                environment_variables=job.variables,
                compute=job.cluster,
                instance_count=job.nodes,
                distribution={"type": "PyTorch", "process_count_per_instance": 1},
                shm_size=job.shared_memory,
                experiment_name=job.experiment,
                display_name=job.name,
                tags=dict(job.tags),
            )
            self.client.jobs.create_or_update(sent)

    @_our_errors()
    def state(self, run: str) -> RunState:
        """Return how a run stands."""
        found = self.client.jobs.get(run)
        status = _word(found.status)
        reason = self._reason(run) if status == "Failed" else ""
        return RunState(status, str(found.studio_url or ""), reason)

    def _reason(self, run: str) -> str:
        """Return why a run failed: the SDK tells it where a log would be printed, and there alone.

        Returns "" where AzureML does not say it.
        """
        from azure.ai.ml.exceptions import JobException

        try:
            with redirect_stdout(StringIO()):
                self.client.jobs.stream(run)
        except JobException as failure:
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(str(failure.message).partition(":")[2])
                return str(told["error"]["message"])
        return ""

    @_our_errors()
    def cancel(self, run: str) -> None:
        """Cancel a run."""
        self.client.jobs.begin_cancel(run)


def _word(value: Any) -> str:
    """Return the text of one of the SDK's enumerations."""
    return str(getattr(value, "value", value))
