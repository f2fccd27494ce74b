"""What Data Factory refuses of a document, found before it is stored."""

import re
from collections.abc import Container
from typing import Any

from tests.cloud.factory_expressions import Scope, evaluate
from tests.cloud.faults import ServiceError

LINKED_SERVICES = {"HttpServer": ("url",), "AzureBlobStorage": ()}
_CODECS = ("tar", "targzip", "gzip", "zipdeflate", "bzip2", "deflate")
_LOCATIONS = ("HttpServerLocation", "AzureBlobStorageLocation")
_READ = ("HttpReadSettings", "AzureBlobStorageReadSettings")
_WRITE = ("AzureBlobStorageWriteSettings",)
_UNPACK = ("TarReadSettings", "TarGZipReadSettings", "ZipDeflateReadSettings")
_PARAMETERS = ("String", "SecureString", "Int", "Float", "Bool", "Array", "Object")


def check_factory_name(name: str) -> None:
    """Refuse a factory name: 3 to 63 letters, digits and single dashes between them."""
    if not 3 <= len(name) <= 63 or not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", name):
        raise ServiceError(
            400,
            "InvalidResourceName",
            f"Factory name '{name}' is invalid. It has 3 to 63 letters, numbers and dashes, and "
            "every dash stands between letters or numbers.",
        )


def check_name(kind: str, name: str) -> None:
    """Refuse a linked service's, dataset's or pipeline's name."""
    dashes = kind != "pipelines" and "-" in name
    if dashes or not re.fullmatch(r"[A-Za-z0-9_][^<>*#.%&:\\+?/]{0,259}", name):
        raise _bad(f"'{name}' is not a valid name of an entity in {kind}.")


def check_document(kind: str, document: Any, existing: dict[str, dict[str, Any]]) -> None:
    """Refuse a document that the service would.

    Args:
        kind: "linkedservices", "datasets" or "pipelines".
        document: its JSON.
        existing: the factory's documents so far, by kind and name.

    Raises:
        ServiceError: 400, with what is wrong and where.
    """
    properties = _member(document, "properties", "")
    if kind == "linkedservices":
        _linked_service(properties)
    elif kind == "datasets":
        _dataset(properties, existing["linkedservices"])
    else:
        _pipeline(properties, existing["datasets"])


def _linked_service(properties: Any) -> None:
    kind = _type(properties, "properties", LINKED_SERVICES)
    details = _member(properties, "typeProperties", "properties")
    for name in LINKED_SERVICES[kind]:
        _member(details, name, "properties.typeProperties")
    if kind == "HttpServer" and not details.get("authenticationType"):
        raise _missing("authenticationType", "properties.typeProperties")
    if kind == "AzureBlobStorage" and not (
        {"connectionString", "sasUri", "serviceEndpoint"} & details.keys()
    ):
        raise _missing("connectionString", "properties.typeProperties")


def _dataset(properties: Any, linked_services: Container[str]) -> None:
    _type(properties, "properties", ("Binary",))
    _reference(
        _member(properties, "linkedServiceName", "properties"),
        "LinkedServiceReference",
        linked_services,
        "properties.linkedServiceName",
    )
    parameters = _parameters(properties)
    details = _member(properties, "typeProperties", "properties")
    where = "properties.typeProperties"
    _type(_member(details, "location", where), f"{where}.location", _LOCATIONS)
    if compression := details.get("compression"):
        kind = _type(compression, f"{where}.compression", None)
        if kind.lower() not in _CODECS:
            raise _bad(f"Compression type '{kind}' is not supported by binary datasets.")
    evaluate(details, Scope(dataset=parameters))


def _pipeline(properties: Any, datasets: dict[str, Any]) -> None:
    activities = _member(properties, "activities", "properties")
    parameters = _parameters(properties)
    if not 1 <= len(activities) <= 80:
        raise _bad(f"A pipeline has 1 to 80 activities, not {len(activities)}.")
    scope = Scope(parameters=parameters)
    names: list[str] = []
    for number, activity in enumerate(activities):
        where = f"properties.activities[{number}]"
        name = _member(activity, "name", where)
        _type(activity, where, ("Copy",))
        for dependency in activity.get("dependsOn", []):
            if dependency.get("activity") not in names:
                raise _bad(
                    f"{where} depends on '{dependency.get('activity')}', which is not known."
                )
            if not dependency.get("dependencyConditions"):
                raise _missing("dependencyConditions", f"{where}.dependsOn")
        if name in names:
            raise _bad(f"Activity name '{name}' is used twice.")
        names.append(name)
        _policy(activity.get("policy", {}), f"{where}.policy")
        _copy(activity, where, datasets)
        evaluate([activity.get(part) for part in ("inputs", "outputs", "typeProperties")], scope)


def _policy(policy: dict[str, Any], where: str) -> None:
    timeout = policy.get("timeout", "0.12:00:00")
    if not re.fullmatch(r"(\d+\.)?\d{1,2}:\d{2}:\d{2}", timeout):
        raise _bad(f"Timeout '{timeout}' is not of the form D.HH:MM:SS. Path '{where}.timeout'.")
    if not 30 <= policy.get("retryIntervalInSeconds", 30) <= 86400:
        raise _bad(f"retryIntervalInSeconds is 30 to 86400. Path '{where}'.")


def _copy(activity: dict[str, Any], where: str, datasets: dict[str, Any]) -> None:
    for side in ("inputs", "outputs"):
        references = _member(activity, side, where)
        if len(references) != 1:
            raise _bad(f"A copy has one dataset in {where}.{side}.")
        name = _reference(references[0], "DatasetReference", datasets, f"{where}.{side}[0]")
        declared = datasets[name]["properties"].get("parameters", {})
        given = references[0].get("parameters", {})
        absent = [k for k, v in declared.items() if k not in given and "defaultValue" not in v]
        if absent or given.keys() - declared.keys():
            raise _bad(
                f"{where}.{side}[0] gives {sorted(given)} to {name}, not {sorted(declared)}."
            )
    details = _member(activity, "typeProperties", where)
    where = f"{where}.typeProperties"
    source, sink = (_member(details, side, where) for side in ("source", "sink"))
    _type(source, f"{where}.source", ("BinarySource",))
    _type(sink, f"{where}.sink", ("BinarySink",))
    _type(_member(source, "storeSettings", where), f"{where}.source.storeSettings", _READ)
    _type(_member(sink, "storeSettings", where), f"{where}.sink.storeSettings", _WRITE)
    if settings := source.get("formatSettings"):
        where = f"{where}.source.formatSettings"
        _type(settings, where, ("BinaryReadSettings",))
        if unpacking := settings.get("compressionProperties"):
            _type(unpacking, f"{where}.compressionProperties", _UNPACK)


def _parameters(properties: dict[str, Any]) -> dict[str, Any]:
    parameters = properties.get("parameters", {})
    for name, parameter in parameters.items():
        _type(parameter, f"properties.parameters.{name}", _PARAMETERS)
    return dict.fromkeys(parameters, "")


def _reference(value: Any, kind: str, existing: Container[str], where: str) -> str:
    _type(value, where, (kind,))
    name = _member(value, "referenceName", where)
    if name not in existing:
        raise _bad(f"The document creation or update failed because of invalid reference '{name}'.")
    return name


def _member(value: Any, name: str, where: str) -> Any:
    if not isinstance(value, dict) or value.get(name) is None:
        raise _missing(name, where)
    return value[name]


def _type(value: Any, where: str, allowed: Container[str] | None) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if not kind:
        raise _missing("type", where)
    if allowed is not None and kind not in allowed:
        raise _bad(f"The value '{kind}' of 'type' is not known or not emulated. Path '{where}'.")
    return kind


def _missing(name: str, where: str) -> ServiceError:
    return _bad(f"Required property '{name}' not found in JSON. Path '{where}'.")


def _bad(message: str) -> ServiceError:
    return ServiceError(400, "BadRequest", message)
