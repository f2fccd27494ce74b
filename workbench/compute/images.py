"""The images that nodes start from, and whether Microsoft's registry still has them.

``python -m workbench.compute.images`` asks the registry for each.
"""

import sys

IMAGES = {
    "CPU": "mcr.microsoft.com/azureml/openmpi5.0-ubuntu24.04",
    "GPU": "mcr.microsoft.com/azureml/openmpi5.0-cuda12.4-ubuntu22.04",
}
"""By device. Source: the release notes in ``images/NAME`` of github.com/Azure/AzureML-Containers:
both were introduced as 20241215.v1. Microsoft's own environments (github.com/Azure/azureml-assets)
were built on both in June and July 2026.

The build of torch makes no difference: its wheels bring CUDA along, the image adds the tools that
AzureML wants. Of the images with CUDA 12 this is the oldest, which asks least of a node's driver.
"""

_SECONDS = 4.0
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_UNKNOWN = ("MANIFEST_UNKNOWN", "NAME_UNKNOWN")


def is_published(image: str) -> bool | None:
    """Ask an image's registry whether it has it; None where the registry does not say.

    Protocol: the OCI distribution specification, "Pulling manifests". A 404 counts only with the
    registry's own code: a proxy on the way may answer so too.

    Args:
        image: REGISTRY/REPOSITORY, with :TAG or without, which stands for :latest.
    """
    import requests

    registry, _, rest = image.partition("/")
    repository, _, tag = rest.partition(":")
    try:
        answer = requests.get(
            f"https://{registry}/v2/{repository}/manifests/{tag or 'latest'}",
            headers={"Accept": ", ".join(_MANIFESTS)},
            timeout=_SECONDS,
        )
        said = answer.json()
        if answer.status_code == 200:
            return True if "schemaVersion" in said else None
        codes = [each["code"] for each in said["errors"]]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
    known_not_to_be = answer.status_code == 404 and any(code in _UNKNOWN for code in codes)
    return False if known_not_to_be else None


def check_image(image: str) -> None:
    """Check that an image's registry has it, where the registry can be reached.

    Raises:
        ValueError: it has not; each job would fail as its image is built.
    """
    if is_published(image) is False:
        raise ValueError(
            f"the image {image} is no longer published, and nodes start from it: take a newer "
            "workbench, or name another in workbench/compute/images.py (Microsoft's are listed at "
            "https://github.com/Azure/AzureML-Containers)"
        )


def main() -> None:
    """Print what the registry says of each image; exit 1 where one is missing."""
    words = {True: "published", False: "not published", None: "the registry does not say"}
    found = {device: is_published(image) for device, image in IMAGES.items()}
    for device, image in IMAGES.items():
        print(f"{device}  {image}: {words[found[device]]}")
    sys.exit(False in found.values())


if __name__ == "__main__":
    main()
