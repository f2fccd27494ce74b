"""Azure on loopback: everything that an unpatched SDK meets, in one context manager."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cloud.authority import Authority
from tests.cloud.azureml import PATTERN as AZUREML_PATTERN
from tests.cloud.azureml import AzureML
from tests.cloud.azurite import Azurite
from tests.cloud.bucket import CloudBucket
from tests.cloud.factory import DataFactory
from tests.cloud.factory_copy import Copier
from tests.cloud.faults import Fault, Faults
from tests.cloud.images import HOST as REGISTRY_HOST
from tests.cloud.images import Registry
from tests.cloud.login import HOST as LOGIN_HOST
from tests.cloud.login import Login, Principal
from tests.cloud.management import HOST as MANAGEMENT_HOST
from tests.cloud.management import Management
from tests.cloud.network import Network
from tests.cloud.storage import Storage
from tests.cloud.tracking import Tracking

if TYPE_CHECKING:
    import pytest

# What the caller's own Azure account may be known by; the cloud's clients must not see it.
_FOREIGN = (
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_AUTHORITY_HOST"),
    *("AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_USERNAME", "AZURE_PASSWORD"),
    *("AZURE_FEDERATED_TOKEN_FILE", "IDENTITY_ENDPOINT", "MSI_ENDPOINT", "AZUREML_CONFIG"),
    *("ALL_PROXY", "all_proxy", "AZUREML_RUN_ID", "AZUREML_RUN_TOKEN"),
)


@dataclass(frozen=True)
class WorkspaceAddress:
    """The AzureML workspace of the cloud."""

    subscription_id: str
    resource_group: str
    name: str


class Ground:
    """What clouds can share: a certificate authority, an Azurite, which takes a second, a cache.

    The cache has what any machine makes once, in two seconds: kernels and the list of fonts.
    """

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.authority = Authority(folder)
        self.azurite = Azurite(self.authority)

    def __enter__(self) -> "Ground":
        self.azurite.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.azurite.__exit__()


class Cloud:
    """One subscription with a resource group, a workspace, a storage account and a bucket.

    Args:
        folder: where the cloud keeps its files; HOME of its clients lies there too.
        ground: shared with other clouds; by default the cloud has its own.

    Attributes:
        cache: XDG_CACHE_HOME of clients and nodes.
        network: the clients' proxy, with what was connected and what was refused.
        backbone: the same for what runs in the cloud: the factory's copies, the nodes of jobs.
        login: the token service.
        management: Azure Resource Manager: who may do what, what is registered.
        factory: Data Factory.
        azureml: AzureML.
        registry: Microsoft's registry of images.
        tracking: the workspace's MLflow.
        storage: the storage account.
        bucket: fastMRI's bucket; put files into ``bucket.folder``.
        workspace: the workspace's address.
        principal: the service principal that may log in.
    """

    def __init__(self, folder: Path, ground: Ground | None = None) -> None:
        self.folder = folder
        self._ground = ground
        self.faults = Faults()
        self.principal = Principal(
            "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
        )
        self.workspace = WorkspaceAddress(
            "00000000-0000-4000-8000-000000000001", "fastmri-group", "fastmri-workspace"
        )

    def __enter__(self) -> "Cloud":
        self.home = self.folder / "home"
        objects = self.folder / "bucket"
        for made in (self.home, objects):
            made.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            enter = stack.enter_context
            ground = self._ground or enter(Ground(self.folder / "authority"))
            self.ca, self.cache = ground.authority.ca, ground.cache
            tls = ground.authority.server_context()
            self.backbone = enter(Network(tls))
            self.network = enter(Network(tls, inside=self.backbone))
            self.login = enter(Login(self.faults, self.principal))
            self.network.route(LOGIN_HOST, self.login.port, plain=True)
            self.storage = enter(Storage(ground.azurite, self.network, self.ca))
            self.bucket = enter(CloudBucket(objects, self.network))
            self.management = enter(
                Management(
                    self.faults,
                    self.login,
                    self.workspace.subscription_id,
                    self.workspace.resource_group,
                    self.storage.account,
                )
            )
            self.network.route(MANAGEMENT_HOST, self.management.port, plain=True)
            self.registry = enter(Registry(self.faults))
            self.network.route(REGISTRY_HOST, self.registry.port, plain=True)
            self.factory = enter(DataFactory(self.management, Copier(self.backbone, self.ca)))
            self.tracking = enter(Tracking(self.faults))
            self.azureml = enter(
                AzureML(
                    self.faults,
                    self.login,
                    self.management,
                    self.storage,
                    self.workspace.name,
                    self.folder / "jobs",
                    self._environment(self.backbone),
                    self.tracking,
                )
            )
            self.network.route(AZUREML_PATTERN, self.azureml.port, plain=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- for its clients -------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a process into this cloud, logged in, and nowhere else."""
        return self._environment(self.network)

    def _environment(self, network: Network) -> dict[str, str]:
        proxies = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        trusted = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
        local = ("NO_PROXY", "no_proxy")
        home = str(self.home)
        return {
            **dict.fromkeys(proxies, network.url),
            **dict.fromkeys(trusted, str(self.ca)),
            **dict.fromkeys(local, "127.0.0.1,localhost"),
            "HOME": home,
            "XDG_CACHE_HOME": str(self.cache),
            "XDG_CONFIG_HOME": f"{home}/.config",
            "XDG_DATA_HOME": f"{home}/.local/share",
            "AZURE_CONFIG_DIR": f"{home}/.azure",
            "AZURE_CORE_COLLECT_TELEMETRY": "0",
            "AZURE_TENANT_ID": self.principal.tenant,
            "AZURE_CLIENT_ID": self.principal.client,
            "AZURE_CLIENT_SECRET": self.principal.secret,
            "AZURE_SUBSCRIPTION_ID": self.workspace.subscription_id,
            "AZURE_RESOURCE_GROUP": self.workspace.resource_group,
            "AZURE_WORKSPACE_NAME": self.workspace.name,
        }

    def apply(self, monkeypatch: "pytest.MonkeyPatch") -> None:
        """Lead this very process into the cloud for the length of a test."""
        for name in _FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    # ---- trouble ---------------------------------------------------------------------

    def fail(self, pattern: str, status: int | None = None, **more: object) -> Fault:
        """Have requests to management, login or AzureML fail; see ``Fault`` for what can be said.

        ``storage.fail`` does the same for storage, ``bucket.faults`` for the bucket, ``network``
        for connections.
        """
        return self.faults.add(pattern, status, **more)

    def recover(self) -> None:
        """Take back all faults of services and storage."""
        self.faults.clear()
        self.storage.recover()
