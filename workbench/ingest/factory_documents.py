"""The documents that a Data Factory is made of, as plain JSON (REST version 2018-06-01).

They are dicts, not the client's models: those of azure-mgmt-datafactory 10.0.0 lose the "type" of
most polymorphic classes, and the service refuses what has none. Names of linked services and
datasets may hold no dash.

One pipeline for each codec that the factory can read. What it cannot, xz, it lands as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from workbench.ingest.links import SignedLink
from workbench.settings import Secret

Document = dict[str, Any]

STORAGE = "DatasetStorage"
LANDED = "LandedArchive"
FOLDER = "DatasetFolder"

# Kind of archive -> the factory's name for it, from which names of datasets and pipelines follow.
CODECS = {".tar": "Tar", ".tar.gz": "TarGzip", ".tar.xz": "TarXz"}
# The types of the activity that unpacks; the factory has none for xz.
_SETTINGS = {"Tar": "TarReadSettings", "TarGzip": "TarGZipReadSettings"}

# An activity's limit (days.hours:minutes:seconds): the largest archive, 931 GB, takes under a day
# at 20 MB/s. The service's own default for a copy is 12 hours.
_TIMEOUT = "2.00:00:00"
_RETRIES = 2
_SECONDS_BETWEEN = 60
# Time for the server to begin to answer; it does not bound the transfer.
_REQUEST_TIMEOUT = "00:05:00"


@dataclass(frozen=True)
class RunRequest:
    """One run to ask the factory for.

    Attributes:
        pipeline: name of the pipeline.
        parameters: of the run; they can hold the signed link.
    """

    pipeline: str
    parameters: dict[str, str] = field(repr=False)


class FactoryDocuments:
    """What a factory has to hold to bring archives in, and how to ask it for each.

    Args:
        archives: links and the kind of each (extension by its first bytes).
        connection: the storage account's connection string, sent as a SecureString.
        secure_runs: True sends each signed link as a SecureString parameter of its run, which the
            service keeps from view. False writes it into a dataset of its own, for a service that
            refuses the former; whoever may read the factory can read it there until the factory
            is deleted.

    Attributes:
        linked_services: name -> document; to be put there first.
        datasets: name -> document.
        pipelines: name -> document; to be put there last.
    """

    def __init__(
        self,
        archives: Sequence[tuple[SignedLink, str]],
        connection: Secret,
        *,
        secure_runs: bool = True,
    ) -> None:
        self._links, self._secure = [link for link, _ in archives], secure_runs
        self._sites = sorted({_split(link)[0] for link in self._links})
        self.linked_services = {
            f"FastmriBucket{i}": _site(url) for i, url in enumerate(self._sites)
        }
        self.linked_services[STORAGE] = _properties(
            "AzureBlobStorage",
            connectionString={"type": "SecureString", "value": connection.reveal()},
        )
        self.datasets = {LANDED: _archive_blob(), FOLDER: _folder()}
        self.pipelines = {}
        for link, kind in archives:
            site, path = _split(link)
            codec, source = _codec(link, kind), self._source(link)
            service = f"FastmriBucket{self._sites.index(site)}"
            self.datasets[f"SignedFile{source}"] = _signed_file(
                service, None if secure_runs else path
            )
            if codec in _SETTINGS:
                self.datasets[f"{LANDED}{codec}"] = _archive_blob(codec)
            self.pipelines[_pipeline_name(codec, source)] = _pipeline(codec, source, secure_runs)

    def run(self, link: SignedLink, kind: str, container: str, file: str) -> RunRequest:
        """Return the run that brings one archive.

        Args:
            link: where it comes from.
            kind: extension by its first bytes.
            container: name of the storage container.
            file: name that it gets in ``DATASET_compressed``.
        """
        parameters = {
            "archive": link.stem,
            "container": container,
            "folder": str(link.dataset),
            "file": file,
        }
        if self._secure:
            parameters["relativeUrl"] = _split(link)[1]
        return RunRequest(_pipeline_name(_codec(link, kind), self._source(link)), parameters)

    def _source(self, link: SignedLink) -> int:
        if self._secure:
            return self._sites.index(_split(link)[0])
        return self._links.index(link)


def _codec(link: SignedLink, kind: str) -> str:
    """Return the codec of an archive's pipeline: that of xz, which only lands, where it has to.

    The fully sampled test scans may lie in the folder of the masked ones, under the same names:
    the pass that verifies an archive puts them elsewhere, the factory would overwrite.
    """
    return CODECS[".tar.xz" if "test_full" in link.name else kind]


def _split(link: SignedLink) -> tuple[str, str]:
    """Return a link's server, such as ``https://host/``, and the rest of it."""
    url = urlsplit(link.url.reveal())
    return f"{url.scheme}://{url.netloc}/", f"{url.path.lstrip('/')}?{url.query}"


def _pipeline_name(codec: str, source: int) -> str:
    return f"ingest-{codec.lower()}-{source}"


# ---- linked services and datasets --------------------------------------------------------


def _site(url: str) -> Document:
    return _properties(
        "HttpServer",
        url=url,
        authenticationType="Anonymous",
        enableServerCertificateValidation=True,
    )


def _signed_file(service: str, path: str | None) -> Document:
    """Return the dataset of a file at a server; without a path, that is its parameter."""
    location = {
        "type": "HttpServerLocation",
        "relativeUrl": _expression("@dataset().relativeUrl") if path is None else path,
    }
    return _dataset(service, ("relativeUrl",) if path is None else (), location)


def _archive_blob(compression: str = "") -> Document:
    location = _blob_location(
        folderPath=_expression("@{dataset().folder}_compressed"),
        fileName=_expression("@dataset().file"),
    )
    document = _dataset(STORAGE, ("container", "folder", "file"), location)
    if compression:
        document["properties"]["typeProperties"]["compression"] = {"type": compression}
    return document


def _folder() -> Document:
    location = _blob_location(folderPath=_expression("@dataset().folder"))
    return _dataset(STORAGE, ("container", "folder"), location)


def _blob_location(**more: Document) -> Document:
    container = _expression("@dataset().container")
    return {"type": "AzureBlobStorageLocation", "container": container, **more}


def _dataset(service: str, parameters: Sequence[str], location: Document) -> Document:
    document = _properties("Binary", location=location)
    document["properties"] |= {
        "linkedServiceName": {"referenceName": service, "type": "LinkedServiceReference"},
        "parameters": {name: {"type": "String"} for name in parameters},
    }
    return document


def _properties(kind: str, **type_properties: Any) -> Document:
    return {"properties": {"type": kind, "typeProperties": type_properties}}


def _expression(text: str) -> Document:
    return {"value": text, "type": "Expression"}


# ---- pipelines ---------------------------------------------------------------------------


def _pipeline(codec: str, source: int, secure: bool) -> Document:
    land = _copy(
        "land",
        _reference(f"SignedFile{source}", *(("relativeUrl",) if secure else ())),
        _reference(LANDED, "container", "folder", "file"),
        storeSettings={
            "type": "HttpReadSettings",
            "requestMethod": "GET",
            "requestTimeout": _REQUEST_TIMEOUT,
        },
    )
    land["policy"]["secureInput"] = True
    activities = [land]
    if codec in _SETTINGS:
        unpack = _copy(
            "unpack",
            _reference(f"{LANDED}{codec}", "container", "folder", "file"),
            _reference(FOLDER, "container", "folder"),
            storeSettings={"type": "AzureBlobStorageReadSettings", "recursive": False},
            formatSettings={
                "type": "BinaryReadSettings",
                "compressionProperties": {
                    "type": _SETTINGS[codec],
                    # The default puts a folder named after the archive around its members.
                    "preserveCompressionFileNameAsFolder": False,
                },
            },
        )
        unpack["dependsOn"] = [{"activity": "land", "dependencyConditions": ["Succeeded"]}]
        activities.append(unpack)
    parameters = {name: {"type": "String"} for name in ("archive", "container", "folder", "file")}
    if secure:
        # The signed part of a link: neither the run nor its activities show it.
        parameters["relativeUrl"] = {"type": "SecureString"}
    return {"properties": {"parameters": parameters, "activities": activities}}


def _copy(name: str, source: Document, sink: Document, **source_settings: Document) -> Document:
    return {
        "name": name,
        "type": "Copy",
        "policy": {
            "timeout": _TIMEOUT,
            "retry": _RETRIES,
            "retryIntervalInSeconds": _SECONDS_BETWEEN,
            "secureInput": False,
            "secureOutput": False,
        },
        "inputs": [source],
        "outputs": [sink],
        "typeProperties": {
            "source": {"type": "BinarySource", **source_settings},
            "sink": {
                "type": "BinarySink",
                # 100 MB x 50,000 blocks: Azure's largest blob at that block size is 4.7 TB.
                "storeSettings": {"type": "AzureBlobStorageWriteSettings", "blockSizeInMB": 100},
            },
        },
    }


def _reference(dataset: str, *parameters: str) -> Document:
    return {
        "referenceName": dataset,
        "type": "DatasetReference",
        "parameters": {name: _expression(f"@pipeline().parameters.{name}") for name in parameters},
    }
