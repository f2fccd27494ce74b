"""Azure Resource Manager: subscription, resource group, locations, providers and permissions."""

import fnmatch
import re
import threading
import time

from tests.cloud.faults import Faults, ServiceError
from tests.cloud.login import Login
from tests.cloud.service import Request, Service

HOST = "management.azure.com"
LOCATIONS = {
    "westeurope": "West Europe",
    "northeurope": "North Europe",
    "germanywestcentral": "Germany West Central",
    "uksouth": "UK South",
    "eastus": "East US",
    "westus2": "West US 2",
}
_NAMESPACES = ("Microsoft.DataFactory", "Microsoft.MachineLearningServices", "Microsoft.Storage")


class Management(Service):
    """The part of Azure Resource Manager that all resource providers share.

    Attributes:
        scope: ``/subscriptions/ID/resourceGroups/NAME``.
        location: where the resource group and all that is in it lie.
        account: name of the storage account in the group.
    """

    def __init__(
        self, faults: Faults, login: Login, subscription: str, group: str, account: str
    ) -> None:
        super().__init__("management", faults)
        self.log_in = self._admit
        self.subscription, self.group, self.account = subscription, group, account
        self.scope = f"/subscriptions/{subscription}/resourceGroups/{group}"
        self.location = "westeurope"
        self._login = login
        self._denied: list[str] = []
        self._lock = threading.Lock()
        self._ready_at = dict.fromkeys(_NAMESPACES, 0.0)  # When a provider is registered.
        own = f"/subscriptions/{subscription}"
        self.on("GET", "/metadata/endpoints", lambda _: [])
        self.on("GET", "/subscriptions/?", lambda _: {"value": [self._subscription()]})
        self.on("GET", own, lambda _: self._subscription())
        self.on("GET", f"{own}/locations", self._locations)
        self.on("GET", f"{own}/resourcegroups/[^/]+", lambda _: self._resource_group())
        self.on("GET", rf"{own}/providers/(?P<name>[\w.]+)", self._provider)
        self.on("POST", rf"{own}/providers/(?P<name>[\w.]+)/register", self._register)
        storage = "/providers/Microsoft.Storage/storageAccounts"
        for parent in (own, f"{own}/resourcegroups/[^/]+"):
            self.on("GET", parent + storage, self._storages)
        self.on("GET", f"{own}/resourcegroups/[^/]+{storage}/{account}", lambda _: self._storage())

    # ---- trouble ---------------------------------------------------------------------

    def unregister(self, namespace: str) -> None:
        """Let the subscription not be registered for a provider such as Microsoft.DataFactory."""
        self._ready_at[self._known(namespace)] = float("inf")

    def deny(self, action: str) -> None:
        """Refuse an action such as ``Microsoft.DataFactory/factories/write``; ``*`` is any part.

        ``*/register/action`` refuses to register providers. Actions are named as Azure names
        them: the types in the path, then read, write, delete or NAME/action.
        """
        self._denied.append(action.lower())

    # ---- who may do what -------------------------------------------------------------

    def _admit(self, request: Request) -> None:
        if request.path == "/metadata/endpoints":
            return
        self._login.check(request)
        action = action_of(request.method, request.path)
        with self._lock:
            refused = any(fnmatch.fnmatch(action.lower(), denied) for denied in self._denied)
        if refused:
            who = self._login.principal.client
            raise ServiceError(
                403,
                "AuthorizationFailed",
                f"The client '{who}' with object id '{who}' does not have authorization to perform "
                f"action '{action}' over scope '{request.path}' or the scope is invalid. If access "
                "was recently granted, please refresh your credentials.",
            )
        found = re.match(r"/subscriptions/([^/]+)(?:/resourcegroups/([^/]+))?", request.path, re.I)
        if found and found[1].lower() != self.subscription:
            message = f"The subscription '{found[1]}' could not be found."
            raise ServiceError(404, "SubscriptionNotFound", message)
        if found and found[2] and found[2].lower() != self.group.lower():
            message = f"Resource group '{found[2]}' could not be found."
            raise ServiceError(404, "ResourceGroupNotFound", message)
        provider = re.search(r"/providers/([\w.]+)/(?!register$)", request.path, re.I)
        if provider and self._state(provider[1]) != "Registered":
            raise ServiceError(
                409,
                "MissingSubscriptionRegistration",
                f"The subscription is not registered to use namespace '{provider[1]}'. See "
                "https://aka.ms/rps-not-found for how to register subscriptions.",
            )

    # ---- answers ---------------------------------------------------------------------

    def _known(self, namespace: str) -> str:
        for known in self._ready_at:
            if known.lower() == namespace.lower():
                return known
        message = f"The resource namespace '{namespace}' is invalid."
        raise ServiceError(404, "InvalidResourceNamespace", message)

    def _state(self, namespace: str) -> str:
        ready = self._ready_at[self._known(namespace)]
        if ready == float("inf"):
            return "NotRegistered"
        return "Registered" if ready <= time.monotonic() else "Registering"

    def _provider(self, request: Request, name: str) -> dict:
        name = self._known(name)
        kind = {"Microsoft.DataFactory": "factories", "Microsoft.Storage": "storageAccounts"}
        where = list(LOCATIONS.values())
        return {
            "id": f"/subscriptions/{self.subscription}/providers/{name}",
            "namespace": name,
            "registrationState": self._state(name),
            "resourceTypes": [{"resourceType": kind.get(name, "workspaces"), "locations": where}],
        }

    def _register(self, request: Request, name: str) -> dict:
        self._ready_at[self._known(name)] = time.monotonic()
        return self._provider(request, name)

    def _subscription(self) -> dict:
        return {
            "id": f"/subscriptions/{self.subscription}",
            "subscriptionId": self.subscription,
            "tenantId": self._login.principal.tenant,
            "displayName": "fastMRI",
            "state": "Enabled",
        }

    def _locations(self, request: Request) -> dict:
        return {
            "value": [
                {
                    "id": f"/subscriptions/{self.subscription}/locations/{name}",
                    "name": name,
                    "displayName": shown,
                    "regionalDisplayName": shown,
                    "type": "Region",
                }
                for name, shown in LOCATIONS.items()
            ]
        }

    def _resource_group(self) -> dict:
        return {
            "id": self.scope,
            "name": self.group,
            "location": self.location,
            "properties": {"provisioningState": "Succeeded"},
        }

    def _storages(self, request: Request) -> dict:
        """List the accounts in pages: the first is empty, as a page of Azure's may be."""
        if "$skiptoken" in request.query:
            return {"value": [self._storage()]}
        return {"value": [], "nextLink": f"https://{HOST}{request.target}&$skiptoken=1"}

    def _storage(self) -> dict:
        return {
            "id": f"{self.scope}/providers/Microsoft.Storage/storageAccounts/{self.account}",
            "name": self.account,
            "type": "Microsoft.Storage/storageAccounts",
            "location": self.location,
            "kind": "StorageV2",
            "sku": {"name": "Standard_LRS", "tier": "Standard"},
            "properties": {"provisioningState": "Succeeded"},
        }


def action_of(method: str, path: str) -> str:
    """Name the action of a request as role definitions do, such as ``.../factories/write``."""
    _, found, rest = path.rpartition("/providers/")
    parts = rest.strip("/").split("/") if found else path.strip("/").split("/")
    kinds = [parts[0], *parts[1::2]] if found else ["Microsoft.Resources", *parts[::2]]
    if method == "POST":
        return "/".join(kinds) + "/action"
    verb = {"GET": "read", "HEAD": "read", "DELETE": "delete"}.get(method, "write")
    return "/".join([*kinds, verb])
