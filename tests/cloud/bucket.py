"""fastMRI's bucket under its real name: the demo's bucket behind the network, over TLS."""

from datetime import timedelta
from pathlib import Path

from tests.cloud.network import Network
from workbench_demo.bucket import LIFETIME, Bucket, Faults

HOST = "fastmri-dataset.s3.amazonaws.com"


class CloudBucket(Bucket):
    """The demo's bucket whose links begin with ``https://fastmri-dataset.s3.amazonaws.com``.

    Args:
        folder: the folder to serve.
        network: the network that leads to it.
        faults: what goes wrong.
    """

    def __init__(self, folder: Path, network: Network, *faults: Faults) -> None:
        super().__init__(folder, *faults)
        self._network = network

    def __enter__(self) -> "CloudBucket":
        super().__enter__()
        self._network.route(HOST, self._server.server_address[1], plain=True)
        return self

    @property
    def host(self) -> str:
        """The host that the links lead to."""
        return HOST

    def link(self, path: str, *, version: int = 2, lifetime: timedelta = LIFETIME) -> str:
        """Sign a link to an object, as the demo's bucket does."""
        plain = super().link(path, version=version, lifetime=lifetime)
        return "https" + plain.removeprefix("http")
