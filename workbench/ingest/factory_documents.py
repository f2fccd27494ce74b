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

# Kind of archive -> the factory's name for it, from which names of datasets and pipelines follow.
CODECS = {".tar": "Tar", ".tar.gz": "TarGzip", ".tar.xz": "TarXz"}
# The types of the activity that unpacks; the factory has none for xz.
_SETTINGS = {"Tar": "TarReadSettings", "TarGzip": "TarGZipReadSettings"}
_BLOB = ("container", "folder", "file")
_POLICY = {
    # An activity's limit (days.hours:minutes:seconds): the largest archive, 1,229 GB, takes 17
    # hours at 20 MB/s. The service's own default for a copy is 12 hours.
    "timeout": "2.00:00:00",
    "retry": 2,
    "retryIntervalInSeconds": 60,
    "secureInput": False,
    "secureOutput": False,
}


@dataclass(frozen=True)
class RunRequest:
    """One run to ask the factory for; its parameters can hold the signed link."""

    pipeline: str
    parameters: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class FactoryDocuments:
    """What a factory has to hold, name -> document, and the run to ask for by archive's stem."""

    linked_services: dict[str, Document] = field(repr=False)
    datasets: dict[str, Document] = field(repr=False)
    pipelines: dict[str, Document] = field(repr=False)
    runs: dict[str, RunRequest]


def factory_documents(
    archives: Sequence[tuple[SignedLink, str, str]],
    container: str,
    connection: Secret,
    *,
    secure_runs: bool = True,
) -> FactoryDocuments:
    """Write the documents of a factory that brings archives into a container.

    Args:
        archives: link, kind (extension by its first bytes) and name in ``DATASET_compressed``.
        container: name of the storage container.
        connection: the storage account's connection string, sent as a SecureString.
        secure_runs: True sends each signed link as a SecureString parameter of its run, which the
            service keeps from view. False writes it into a dataset of its own, for a service that
            refuses the former; whoever may read the factory can read it there until the factory
            is deleted.
    """
    urls = [urlsplit(link.url.reveal()) for link, _, _ in archives]
    sites = sorted({f"{url.scheme}://{url.netloc}/" for url in urls})
    services = {
        f"FastmriBucket{number}": _properties(
            "HttpServer",
            url=site,
            authenticationType="Anonymous",
            enableServerCertificateValidation=True,
        )
        for number, site in enumerate(sites)
    }
    secret = {"type": "SecureString", "value": connection.reveal()}
    services["DatasetStorage"] = _properties("AzureBlobStorage", connectionString=secret)
    datasets = {"LandedArchive": _archive_blob(), "DatasetFolder": _blobs()}
    documents = FactoryDocuments(services, datasets, {}, {})
    for number, ((link, kind, file), url) in enumerate(zip(archives, urls, strict=True)):
        site = sites.index(f"{url.scheme}://{url.netloc}/")
        path, source = f"{url.path.lstrip('/')}?{url.query}", site if secure_runs else number
        codec = CODECS[kind if unpacked_by_factory(kind, link.name) else ".tar.xz"]
        datasets[f"SignedFile{source}"] = _dataset(
            f"FastmriBucket{site}",
            ("relativeUrl",) if secure_runs else (),
            type="HttpServerLocation",
            relativeUrl=_expression("@dataset().relativeUrl") if secure_runs else path,
        )
        if codec in _SETTINGS:
            datasets[f"LandedArchive{codec}"] = _archive_blob(codec)
        pipeline = f"ingest-{codec.lower()}-{source}"
        documents.pipelines[pipeline] = _pipeline(codec, source, secure_runs)
        values = (link.stem, container, str(link.dataset), file)
        parameters = dict(zip(("archive", *_BLOB), values, strict=True))
        parameters |= {"relativeUrl": path} if secure_runs else {}
        documents.runs[link.stem] = RunRequest(pipeline, parameters)
    return documents


def unpacked_by_factory(kind: str, name: str) -> bool:
    """Say whether the factory unpacks an archive, or only lands it, as it does xz.

    The fully sampled test scans may lie in the folder of the masked ones, under the same names:
    the pass that verifies an archive puts them elsewhere, the factory would overwrite.
    """
    return CODECS.get(kind) in _SETTINGS and "test_full" not in name


def _properties(kind: str, **type_properties: Any) -> Document:
    return {"properties": {"type": kind, "typeProperties": type_properties}}


def _expression(text: str) -> Document:
    return {"value": text, "type": "Expression"}


def _dataset(service: str, parameters: Sequence[str], **location: Any) -> Document:
    document = _properties("Binary", location=location)
    document["properties"] |= {
        "linkedServiceName": {"referenceName": service, "type": "LinkedServiceReference"},
        "parameters": {name: {"type": "String"} for name in parameters},
    }
    return document


def _blobs(folder: str = "@dataset().folder", **more: Document) -> Document:
    return _dataset(
        "DatasetStorage",
        _BLOB if more else _BLOB[:2],
        type="AzureBlobStorageLocation",
        container=_expression("@dataset().container"),
        folderPath=_expression(folder),
        **more,
    )


def _archive_blob(compression: str = "") -> Document:
    file = _expression("@dataset().file")
    document = _blobs("@{dataset().folder}_compressed", fileName=file)
    if compression:
        document["properties"]["typeProperties"]["compression"] = {"type": compression}
    return document


def _pipeline(codec: str, source: int, secure: bool) -> Document:
    land = _copy(
        "land",
        _reference(f"SignedFile{source}", *(("relativeUrl",) if secure else ())),
        _reference("LandedArchive", *_BLOB),
        storeSettings={
            "type": "HttpReadSettings",
            "requestMethod": "GET",
            # Time for the server to begin to answer; it does not bound the transfer.
            "requestTimeout": "00:05:00",
        },
    )
    land["policy"]["secureInput"] = True
    activities = [land]
    if codec in _SETTINGS:
        unpack = _copy(
            "unpack",
            _reference(f"LandedArchive{codec}", *_BLOB),
            _reference("DatasetFolder", *_BLOB[:2]),
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
    parameters = {name: {"type": "String"} for name in ("archive", *_BLOB)}
    if secure:
        # The signed part of a link: neither the run nor its activities show it.
        parameters["relativeUrl"] = {"type": "SecureString"}
    return {"properties": {"parameters": parameters, "activities": activities}}


def _copy(name: str, source: Document, sink: Document, **source_settings: Document) -> Document:
    # 100 MB x 50,000 blocks: Azure's largest blob at that block size is 4.7 TB.
    settings = {"type": "AzureBlobStorageWriteSettings", "blockSizeInMB": 100}
    return {
        "name": name,
        "type": "Copy",
        "policy": dict(_POLICY),
        "inputs": [source],
        "outputs": [sink],
        "typeProperties": {
            "source": {"type": "BinarySource", **source_settings},
            "sink": {"type": "BinarySink", "storeSettings": settings},
        },
    }


def _reference(dataset: str, *parameters: str) -> Document:
    return {
        "referenceName": dataset,
        "type": "DatasetReference",
        "parameters": {name: _expression(f"@pipeline().parameters.{name}") for name in parameters},
    }
