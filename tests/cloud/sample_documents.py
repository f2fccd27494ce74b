"""Documents for Data Factory, as small as they can be and still right."""

NAME = "fastmri-copy-data-0123abcd"


def binary(service, location, compression=None, **parameters):
    details = {"location": location}
    if compression:
        details["compression"] = {"type": compression}
    return {
        "properties": {
            "type": "Binary",
            "linkedServiceName": {"referenceName": service, "type": "LinkedServiceReference"},
            "parameters": {key: {"type": "String"} for key in parameters or ("file",)},
            "typeProperties": details,
        }
    }


def expression(text):
    return {"value": text, "type": "Expression"}


def copying(source, sink, *, unpack=None, retry=0, after=None, link="link"):
    def reference(name, value):
        parameters = {"file": expression(f"@pipeline().parameters.{value}")}
        if name == "folder":
            parameters = {"folder": "knee_multicoil"}
        return {"referenceName": name, "type": "DatasetReference", "parameters": parameters}

    settings = {"type": "HttpReadSettings" if source == "web" else "AzureBlobStorageReadSettings"}
    reading = {"type": "BinarySource", "storeSettings": settings}
    if unpack:
        reading["formatSettings"] = {
            "type": "BinaryReadSettings",
            "compressionProperties": {
                "type": unpack,
                "preserveCompressionFileNameAsFolder": False,
            },
        }
    writing = {
        "type": "BinarySink",
        "storeSettings": {"type": "AzureBlobStorageWriteSettings"},
    }
    return {
        "name": f"copy to {sink}",
        "type": "Copy",
        "dependsOn": [{"activity": after, "dependencyConditions": ["Succeeded"]}] if after else [],
        "policy": {
            "timeout": "1.00:00:00",
            "retry": retry,
            "retryIntervalInSeconds": 30,
            "secureInput": source == "web",
        },
        "inputs": [reference(source, link if source == "web" else "file")],
        "outputs": [reference(sink, "file")],
        "typeProperties": {"source": reading, "sink": writing},
    }
