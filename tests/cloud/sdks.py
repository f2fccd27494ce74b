"""AzureML's SDKs, as tests take them: azureml-core runs on no Python after 3.12."""

from importlib.util import find_spec

import pytest

_FOUND = find_spec("azureml") is not None

OLDEST = "v1" if _FOUND else "v2"
"""The first that this Python has, where either will do."""

needs_v1 = pytest.mark.skipif(not _FOUND, reason="azureml-core does not run on this Python")
SDKS = (pytest.param("v1", marks=needs_v1), "v2")
