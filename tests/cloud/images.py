"""Microsoft's container registry, and the images that AzureML can build on.

The names come from github.com/Azure/AzureML-Containers: its folders ``base/cpu``, ``base/gpu`` and
``images``, whose release notes say ``docker pull mcr.microsoft.com/azureml/NAME`` (looked up in
2026; of the folders, those that Ubuntu still serves). 12.8 has no folder there; Microsoft's curated
environment slime-pytorch-2.9-cuda12.8 of github.com/Azure/azureml-assets is built on it.
"""

from typing import Any

from tests.cloud.faults import Faults
from tests.cloud.service import Answer, Request, Service

HOST = "mcr.microsoft.com"
PUBLISHED = (
    "openmpi4.1.0-ubuntu20.04",
    "openmpi4.1.0-ubuntu22.04",
    "openmpi5.0-ubuntu24.04",
    "openmpi4.1.0-cuda11.1-cudnn8-ubuntu20.04",
    "openmpi4.1.0-cuda11.2-cudnn8-ubuntu20.04",
    "openmpi4.1.0-cuda11.3-cudnn8-ubuntu20.04",
    "openmpi4.1.0-cuda11.6-cudnn8-ubuntu20.04",
    "openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
    "openmpi5.0-cuda12.4-ubuntu22.04",
    "openmpi5.0-cuda12.5-ubuntu22.04",
    "openmpi5.0-cuda12.6-ubuntu24.04",
    "openmpi5.0-cuda12.8-ubuntu24.04",
)


class Registry(Service):
    """The registry's API for pulling, as far as manifests go.

    Attributes:
        repositories: what it has.
    """

    def __init__(self, faults: Faults) -> None:
        super().__init__("registry", faults)
        self.repositories = {f"azureml/{name}" for name in PUBLISHED}
        self.on("GET|HEAD", r"/v2/(?P<repository>.+)/manifests/(?P<tag>[^/]+)", self._manifest)

    def _manifest(self, request: Request, repository: str, tag: str) -> Answer:
        if repository not in self.repositories or tag != "latest":
            code = "NAME_UNKNOWN" if repository not in self.repositories else "MANIFEST_UNKNOWN"
            error = {"code": code, "message": f"{repository}:{tag} not found", "detail": {}}
            return Answer({"errors": [error]}, 404)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        return Answer({"schemaVersion": 2, "mediaType": kind, "layers": []}, type=kind)


def build_problem(image: str, conda: dict[str, Any]) -> str:
    """Say why an environment's image cannot be built; "" where it can.

    Where ``nodefaults`` is not among conda's channels, Anaconda's own are asked as well, whose
    terms nobody accepts in a container: github.com/rapidsai/deployment, issue 622.
    """
    name = image.removeprefix(f"{HOST}/azureml/").removesuffix(":latest")
    if name not in PUBLISHED:
        return f"Image build failed. manifest for {image} not found: manifest unknown"
    if "nodefaults" not in conda.get("channels", ()):
        return (
            "Image build failed. CondaToSNonInteractiveError: Terms of Service have not been "
            "accepted for the following channels: https://repo.anaconda.com/pkgs/main"
        )
    return ""
