"""Who we are in Azure and which workspace we mean: asked once, used by all.

Data Factory, storage and AzureML take the same credential and the same workspace.
"""

import json
import logging
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.progress import interactive
from workbench.settings import Secret, project_root, resolve, shown

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CONFIG_VARIABLE = "AZUREML_CONFIG"
MANAGEMENT = "https://management.azure.com/.default"
STORAGE = "https://storage.azure.com/.default"

# The names of one thing, the first that is set counts: today's, AzureML's own on its nodes, and
# those of the tools of 2021.
_VARIABLES = {
    "subscription_id": "AZURE_SUBSCRIPTION_ID AZUREML_ARM_SUBSCRIPTION HIML_SUBSCRIPTION_ID",
    "resource_group": "AZURE_RESOURCE_GROUP AZUREML_ARM_RESOURCEGROUP HIML_RESOURCE_GROUP",
    "workspace_name": "AZURE_WORKSPACE_NAME AZUREML_ARM_WORKSPACE_NAME HIML_WORKSPACE_NAME",
    "tenant": "AZURE_TENANT_ID HIML_TENANT_ID TENANT_ID",
    "client": "AZURE_CLIENT_ID HIML_SERVICE_PRINCIPAL_ID APPLICATION_ID",
    "secret": "AZURE_CLIENT_SECRET HIML_SERVICE_PRINCIPAL_PASSWORD APPLICATION_KEY",
}
_WORKSPACE = ("subscription_id", "resource_group", "workspace_name")
_FORMS = (
    (
        r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        "a GUID such as 01234567-89ab-cdef-0123-456789abcdef; `az account show` prints it",
    ),
    (
        r"[\w().-]{0,89}[\w()-]",
        "a resource group's name of up to 90 letters, digits and ( ) . - _, without a period at "
        "its end",
    ),
    (r"[A-Za-z0-9][\w-]{2,32}", "a workspace's name, 3 to 33 letters, digits, - and _"),
)
_PRINCIPAL = ("tenant", "client", "secret")
_HOW_TO_CONFIGURE = (
    "download config.json from https://ml.azure.com (the workspace's name at the upper right) into "
    "the project's folder, or set AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and "
    "AZURE_WORKSPACE_NAME"
)


class LoginError(Exception):
    """Azure does not let us in; the message says what to do."""


def _configured(part: str) -> str:
    """Return what the environment names; "" where none of its variables is set."""
    values = (os.environ.get(name, "").strip() for name in _VARIABLES[part].split())
    return next(filter(None, values), "")


# ---- the workspace -----------------------------------------------------------------------


@dataclass(frozen=True)
class Workspace:
    """An AzureML workspace by its address; ValueError where a part is missing or cannot be one."""

    subscription_id: str
    resource_group: str
    name: str

    def __post_init__(self) -> None:
        """Check the address."""
        parts = (self.subscription_id, self.resource_group, self.name)
        for name, part, (form, advice) in zip(_WORKSPACE, parts, _FORMS, strict=True):
            if not re.fullmatch(form, part):
                raise ValueError(f"{name}={part!r}: give {advice}")


def find_workspace(named: str = "") -> Workspace | None:
    """Find the workspace: as it is named, in the environment, or in AzureML's ``config.json``.

    It is named "SUBSCRIPTION/GROUP/WORKSPACE", or by its resource ID. The file is the one that the
    variable AZUREML_CONFIG names (or the folder that holds it), else the project's
    ``.azureml/config.json`` or ``config.json``. None where nothing is configured.

    Raises:
        ValueError: what is configured is no workspace.
        FileNotFoundError: AZUREML_CONFIG leads to no file.
    """
    where, parts = "the environment", [_configured(part) for part in _WORKSPACE]
    if named.strip():
        where, parts = "workspace", named.strip().strip("/").split("/")
        if len(parts) == 8 and parts[0].lower() == "subscriptions":
            parts = [parts[1], parts[3], parts[7]]
        if len(parts) != 3:
            raise ValueError(f"workspace={named!r}: give SUBSCRIPTION-ID/RESOURCE-GROUP/WORKSPACE")
    elif not all(parts):
        file = _config_file()
        if file is None:
            return None
        where = shown(file)
        try:
            content = json.loads(file.read_text("utf-8-sig"))
            if scope := content.get("Scope"):  # The form of early versions of the SDK.
                parts = [scope.split("/")[place] for place in (2, 4, 8)]
            else:
                parts = [str(content[part]).strip() for part in _WORKSPACE]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            raise ValueError(
                f"{where} is not AzureML's config.json, which names subscription_id, "
                f"resource_group and workspace_name: {_HOW_TO_CONFIGURE}"
            ) from None
    try:
        return Workspace(*parts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def require_workspace(named: str = "") -> Workspace:
    """Return the workspace, see ``find_workspace``; ValueError where none is configured."""
    found = find_workspace(named)
    if found is None:
        raise ValueError(f"no AzureML workspace is configured: {_HOW_TO_CONFIGURE}")
    return found


def _config_file() -> Path | None:
    if named := os.environ.get(CONFIG_VARIABLE, "").strip():
        file = resolve(named)
        file = file / "config.json" if file.is_dir() else file
        if not file.is_file():
            raise FileNotFoundError(f"{CONFIG_VARIABLE}={shown(file)}: no such file")
        return file
    places = (project_root() / ".azureml/config.json", project_root() / "config.json")
    return next((place for place in places if place.is_file()), None)


# ---- the login ---------------------------------------------------------------------------


def credential() -> "TokenCredential":
    """Return the credential for everything in Azure; tokens are renewed by it as they expire.

    It is azure-identity's default chain: service principal from ``AZURE_*``, workload and managed
    identity, Azure CLI and, where a person sits at the notebook, the browser. The variables that
    the tools of 2021 read for a service principal serve as well. Nothing is asked of Azure yet.
    """
    return _credential(*(Secret(_configured(part)) for part in _PRINCIPAL), person=interactive())


def new_login() -> "TokenCredential":
    """Return the credential anew, without the tokens that it had: for when they are refused."""
    _credential.cache_clear()
    return credential()


@lru_cache(maxsize=1)  # One login for all that a kernel does: the browser asks only once.
def _credential(
    tenant: Secret, client: Secret, secret: Secret, *, person: bool
) -> "TokenCredential":
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    # It warns at length of each kind of login that is not there; our own errors say it shorter.
    logging.getLogger("azure.identity").setLevel(logging.ERROR)
    if not (tenant and client and secret):
        return DefaultAzureCredential(exclude_interactive_browser_credential=not person)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", tenant.reveal()):
        raise LoginError(
            f"AZURE_TENANT_ID={tenant.reveal()!r}: give the tenant's GUID or domain name; "
            "`az account show` prints it as tenantId"
        )
    return ClientSecretCredential(tenant.reveal(), client.reveal(), secret.reveal())


def check_login(login: "TokenCredential | None" = None, scope: str = MANAGEMENT) -> None:
    """Log in once, so that a missing or expired login shows before anything starts.

    Raises:
        LoginError: no login works; the message says what to do.
    """
    from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

    try:
        (login or credential()).get_token(scope)
        return
    except ClientAuthenticationError as error:
        problem = login_problem(str(error))
    except ServiceRequestError:
        problem = "login.microsoftonline.com cannot be reached: check the network and the proxy"
    raise LoginError(problem)


_NO_TENANT = "the tenant does not exist: check AZURE_TENANT_ID"
_KNOWN = {
    "AADSTS7000215": "the service principal's secret is wrong: mind that it is the secret's "
    "value, not its ID; set AZURE_CLIENT_SECRET anew",
    "AADSTS7000222": "the service principal's secret has expired: make a new one in the portal "
    "(App registrations, Certificates & secrets) and set AZURE_CLIENT_SECRET",
    "AADSTS700016": "the service principal is not known in this tenant: check AZURE_CLIENT_ID "
    "and AZURE_TENANT_ID",
    "AADSTS90002": _NO_TENANT,
    # Which of the two appears is up to the version of msal, which asks for the tenant first.
    "Unable to get authority configuration": _NO_TENANT,
    "AADSTS700082": "the login has expired: run `az login` again",
    "AADSTS50173": "the login was withdrawn: run `az login` again",
}


def login_problem(text: str) -> str:
    """Say what a refused login means, by Microsoft's error codes (AADSTS...), and what to do."""
    for code, what in _KNOWN.items():
        if re.search(rf"{code}\b", text):
            return f"{what} ({code})" if code.startswith("AADSTS") else what
    other = re.search(r"AADSTS\d+", text)
    return (
        f"Azure refuses the login{f' ({other[0]})' if other else ''}: run `az login`, or set "
        "AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET for a service principal"
    )
