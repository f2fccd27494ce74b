"""Azure Resource Manager: small questions that no client at hand asks, and what its errors mean."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.azure_login import LoginError, Workspace, login_problem

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

ENDPOINT = "https://management.azure.com"
ROLE = "Data Factory Contributor"


class ResourceError(Exception):
    """Azure refuses to make or use a resource; the message says what to do."""


class ResourceManager:
    """Reads resources by their path; azure.core's errors where Azure cannot be reached."""

    def __init__(self, login: "TokenCredential") -> None:
        from azure.core.pipeline import policies
        from azure.mgmt.core import ARMPipelineClient
        from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

        self._client: Any = ARMPipelineClient(
            ENDPOINT,
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy("fastmri-workbench"),
                policies.RetryPolicy(retry_total=4),
                ARMChallengeAuthenticationPolicy(login, f"{ENDPOINT}/.default"),
            ],
        )

    def get(self, path: str, version: str) -> dict[str, Any]:
        """Return a resource as JSON; an empty one where it is not there or not ours to see."""
        return self._ask(f"{ENDPOINT}{path}?api-version={version}")

    def every(self, path: str, version: str) -> Iterator[dict[str, Any]]:
        """Yield the resources of a list, which Azure gives in pages."""
        page = self.get(path, version)
        while True:
            yield from page.get("value", [])
            following = str(page.get("nextLink") or "")
            if not following.startswith(f"{ENDPOINT}/"):  # the login goes nowhere else
                return
            page = self._ask(following)

    def _ask(self, url: str) -> dict[str, Any]:
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        response = self._client.send_request(HttpRequest("GET", url))
        if response.status_code in (400, 403, 404):
            return {}
        if response.status_code != 200:
            raise HttpResponseError(response=response)
        answer: dict[str, Any] = response.json()
        return answer

    def factory_locations(self, subscription: str) -> list[str]:
        """Return the locations, such as "westeurope", where a Data Factory can be."""
        path = f"/subscriptions/{subscription}/providers/Microsoft.DataFactory"
        types = self.get(path, "2021-04-01").get("resourceTypes", [])
        found = [each["locations"] for each in types if each["resourceType"] == "factories"]
        return sorted({location_name(text) for texts in found for text in texts})

    def workspace_location(self, workspace: Workspace) -> str | None:
        """Return the location of an AzureML workspace, or None where this login cannot see it."""
        path = (
            f"/subscriptions/{workspace.subscription_id}/resourceGroups/"
            f"{workspace.resource_group}/providers/Microsoft.MachineLearningServices/workspaces/"
            f"{workspace.name}"
        )
        return location_name(self.get(path, "2022-05-01").get("location") or "") or None

    def vm_memory(self, subscription: str, location: str, vm_size: str) -> float | None:
        """Return the memory in GiB of machines of a size; None where Azure does not list it."""
        path = (
            f"/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/"
            f"locations/{location}/vmSizes"
        )
        for one in self.every(path, "2023-04-01"):
            if str(one.get("name")).lower() == vm_size.lower():
                return float(one.get("memoryGB") or 0) or None
        return None

    def storage_location(self, subscription: str, account: str) -> str | None:
        """Return the location of a storage account of a subscription, or None where it has none."""
        path = f"/subscriptions/{subscription}/providers/Microsoft.Storage/storageAccounts"
        for one in self.every(path, "2023-01-01"):
            if one.get("name") == account:
                return location_name(one["location"])
        return None


BUSY_SECONDS = 60.0
"""How long to wait where Azure is asked too often, and does not say for how long."""


def busy_seconds(status: int | None, retry_after: str | None) -> float:
    """Return in how many seconds Azure may be asked again; 0 where it was not asked too often.

    Args:
        status: HTTP status of its answer; 429 says that it was.
        retry_after: the answer's header Retry-After, if it is known.
    """
    if status != 429:
        return 0.0
    try:
        return float(retry_after or BUSY_SECONDS)
    except ValueError:
        return BUSY_SECONDS


def busy_after(error: Exception) -> float:
    """Return in how many seconds Azure may be asked again, by an error of azure-core."""
    answer = getattr(error, "response", None)
    return busy_seconds(
        getattr(error, "status_code", None), answer and answer.headers.get("Retry-After")
    )


def location_name(text: str) -> str:
    """Return a location as Azure's tools write it: "West Europe" is "westeurope"."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def resource_problem(error: Exception, workspace: Workspace) -> str:
    """Say what an error of Azure Resource Manager means, and what to do, without its text."""
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

    group, subscription = workspace.resource_group, workspace.subscription_id
    if isinstance(error, ClientAuthenticationError):
        return login_problem(str(error))
    if not isinstance(error, HttpResponseError):
        return "Azure (management.azure.com) cannot be reached: check the network and the proxy"
    code = getattr(error.error, "code", None) or str(error.status_code or "")
    forbidden = (
        f"the login may not make a Data Factory in resource group {group}: it needs the role "
        f'"{ROLE}": an owner runs `az role assignment create --role "{ROLE}" --assignee '
        f"YOUR-LOGIN --scope /subscriptions/{subscription}/resourceGroups/{group}`"
    )
    unseen = (
        f"the login does not see the subscription {subscription}: check the workspace's "
        "config.json and the login's tenant"
    )
    known = {
        "MissingSubscriptionRegistration": "the subscription is not registered for Data Factory, "
        "and this login may not register it (that takes Contributor on the subscription): an owner "
        f"runs `az provider register --namespace Microsoft.DataFactory --subscription "
        f"{subscription}`, then run again",
        "AuthorizationFailed": forbidden,
        "LinkedAuthorizationFailed": forbidden,
        "ResourceGroupNotFound": f"there is no resource group {group} in the subscription: check "
        "the workspace's config.json",
        "SubscriptionNotFound": unseen,
        "InvalidSubscriptionId": unseen,
        "LocationNotAvailableForResourceType": "Data Factory is not available at that location: "
        "give another location",
        "RequestDisallowedByPolicy": f"a policy of {group} forbids this Data Factory: ask its "
        "owner which locations and resources are allowed, or give another location",
        "QuotaExceeded": "the subscription's quota of Data Factories is used up: delete old ones, "
        "or ask for more in the portal (Help + support, Service and subscription limits)",
    }
    if code in known or error.status_code == 403:
        return f"{known.get(code, forbidden)} ({code})"
    message = without_secrets(getattr(error.error, "message", None) or "")
    return f"Azure answers {error.status_code} {code}: {message or 'try again later'}"


def without_secrets(text: str) -> str:
    """Cut signatures and keys out of a service's message, which may quote a link."""
    text = re.sub(r"\?[^\s'\"]*", "?***", text)
    names = "AWSAccessKeyId|Signature|X-Amz-[A-Za-z-]+|AccountKey|SharedAccessSignature|sig"
    return re.sub(rf"\b({names})(=|%3D)[^\s&'\";,]+", r"\1=***", text, flags=re.IGNORECASE)


def login_or_resource_error(error: Exception, workspace: Workspace) -> Exception:
    """Return our own error for one of the SDK."""
    from azure.core.exceptions import ClientAuthenticationError

    kind = LoginError if isinstance(error, ClientAuthenticationError) else ResourceError
    return kind(resource_problem(error, workspace))
