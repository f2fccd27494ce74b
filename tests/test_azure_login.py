"""Workspace, login and storage account are found where people have them, or named as missing."""

import base64
import json

import pytest

from workbench import azure_login
from workbench.azure_login import (
    Workspace,
    credential,
    find_workspace,
    login_problem,
    require_workspace,
)
from workbench.azure_storage import find_storage, parse_connection
from workbench.settings import Secret

SUBSCRIPTION = "01234567-89ab-cdef-0123-456789abcdef"
CONFIG = {
    "subscription_id": SUBSCRIPTION,
    "resource_group": "group",
    "workspace_name": "workspace",
}
FOUND = Workspace(SUBSCRIPTION, "group", "workspace")
RESOURCE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/group/providers/"
    "Microsoft.MachineLearningServices/workspaces/workspace"
)
KEY = base64.b64encode(bytes(range(64))).decode()
CONNECTION = (
    f"DefaultEndpointsProtocol=https;AccountName=scans;AccountKey={KEY};"
    "EndpointSuffix=core.windows.net"
)


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """An environment and a project's folder that name nothing of Azure."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    names = " ".join(azure_login._VARIABLES.values()).split()
    for name in (*names, azure_login.CONFIG_VARIABLE, "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("content", [CONFIG, {"Scope": RESOURCE}], ids=["today", "early SDKs"])
@pytest.mark.parametrize(
    ("place", "variable"),
    [
        ("config.json", ""),
        (".azureml/config.json", ""),
        ("there/config.json", "there"),
        ("there/config.json", "there/config.json"),
    ],
)
def test_workspace_is_found_in_azureml_s_own_file(bare, monkeypatch, place, variable, content):
    (bare / place).parent.mkdir(exist_ok=True)
    (bare / place).write_text("\ufeff" + json.dumps(content))
    monkeypatch.setenv("AZUREML_CONFIG", variable)
    monkeypatch.setenv("AZURE_SUBSCRIPTION_ID", "half an environment does not hide it")
    assert find_workspace() == FOUND


@pytest.mark.parametrize("tool", ["AZURE", "HIML"])
def test_what_is_named_comes_before_the_environment_and_that_before_the_file(
    bare, monkeypatch, tool
):
    (bare / "config.json").write_text(json.dumps(CONFIG))
    for name, value in (
        ("SUBSCRIPTION_ID", SUBSCRIPTION),
        ("RESOURCE_GROUP", "other"),
        ("WORKSPACE_NAME", "place"),
    ):
        monkeypatch.setenv(f"{tool}_{name}", value)
    assert find_workspace() == Workspace(SUBSCRIPTION, "other", "place")
    assert find_workspace(RESOURCE) == find_workspace(f"{SUBSCRIPTION}/group/workspace") == FOUND
    with pytest.raises(ValueError, match="workspace='a/b': give SUBSCRIPTION-ID/RESOURCE"):
        find_workspace("a/b")


def test_no_workspace_says_where_to_get_the_file(monkeypatch):
    assert find_workspace() is None
    with pytest.raises(ValueError, match=r"no AzureML workspace is configured: download config"):
        require_workspace()
    monkeypatch.setenv("AZUREML_CONFIG", "nowhere.json")
    with pytest.raises(FileNotFoundError, match=r"AZUREML_CONFIG=nowhere.json: no such file"):
        find_workspace()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json is not AzureML's config.json"),
        ("[]", "config.json is not AzureML's config.json"),
        ('{"workspace_name": "x"}', "config.json is not AzureML's config.json"),
        (json.dumps(CONFIG | {"subscription_id": "mine"}), "config.json: subscription_id='mine': "),
        (json.dumps(CONFIG | {"resource_group": "a/b"}), "config.json: resource_group='a/b': "),
        (json.dumps(CONFIG | {"workspace_name": ""}), "config.json: workspace_name='': "),
    ],
)
def test_file_that_names_no_workspace_is_refused(bare, content, message):
    (bare / "config.json").write_text(content)
    with pytest.raises(ValueError, match=f"^{message}"):
        find_workspace()


@pytest.mark.parametrize(
    "names",
    [
        ("HIML_TENANT_ID", "HIML_SERVICE_PRINCIPAL_ID", "HIML_SERVICE_PRINCIPAL_PASSWORD"),
        ("TENANT_ID", "APPLICATION_ID", "APPLICATION_KEY"),
        ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "APPLICATION_KEY"),
    ],
)
def test_service_principal_of_2021_s_tools_logs_in(monkeypatch, names):
    from azure.identity import ClientSecretCredential, DefaultAzureCredential

    assert isinstance(credential(), DefaultAzureCredential)
    for name, value in zip(names, (SUBSCRIPTION, SUBSCRIPTION, "word"), strict=True):
        monkeypatch.setenv(name, value)
    assert isinstance(credential(), ClientSecretCredential)
    assert credential() is credential()


def test_refused_login_says_what_to_do():
    assert "secret's value, not its ID" in login_problem("AADSTS7000215: Invalid client secret")
    assert "has expired" in login_problem("AADSTS7000222: expired")
    assert "(AADSTS12345): run `az login`" in login_problem("AADSTS12345: something else")
    assert login_problem("nothing").startswith("Azure refuses the login: run `az login`")


# ---- the storage account -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        (CONNECTION, "https://scans.blob.core.windows.net"),
        (f'"{CONNECTION};"\n', "https://scans.blob.core.windows.net"),
        (
            f"AZURE_STORAGE_CONNECTION_STRING='{CONNECTION}'",
            "https://scans.blob.core.windows.net",
        ),
        (CONNECTION.replace(";", ";\n  "), "https://scans.blob.core.windows.net"),
        (f"AccountName=scans;AccountKey={KEY}", "https://scans.blob.core.windows.net"),
        (
            CONNECTION.replace("core.windows.net", "core.chinacloudapi.cn"),
            "https://scans.blob.core.chinacloudapi.cn",
        ),
        (
            f"AccountName=scans;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000/scans",
            "http://127.0.0.1:10000/scans",
        ),
    ],
)
def test_connection_string_is_read_as_people_paste_it(text, endpoint):
    storage = parse_connection(Secret(text))
    assert (storage.account, storage.endpoint) == ("scans", endpoint)
    assert storage.key.reveal() == KEY
    assert KEY in storage.connection.reveal()
    assert KEY not in repr(storage)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "it is empty"),
        (KEY, "this is an account key alone"),
        ("hello", "it is not a list of NAME=VALUE"),
        ("UseDevelopmentStorage=true", "it is the storage emulator's"),
        (CONNECTION.replace("AccountName=scans;", ""), "AccountName is missing"),
        (CONNECTION.replace(KEY, ""), "AccountKey is missing"),
        (CONNECTION.replace("scans", "Scans!"), "AccountName is not 3 to 24 lower-case"),
        (CONNECTION.replace(KEY, KEY[:80]), r"AccountKey is not 88 .* \(it has 80\)"),
        (CONNECTION.replace(KEY, KEY.replace("A", "ü")), "AccountKey is not 88"),
        (CONNECTION.replace("core.windows.net", "windows/x"), "EndpointSuffix is not a domain"),
        (CONNECTION.replace("https", "http"), "DefaultEndpointsProtocol is http"),
        (
            "BlobEndpoint=https://scans.blob.core.windows.net/;SharedAccessSignature=sv=1&sig=x",
            "it holds a shared access signature",
        ),
    ],
)
def test_wrong_connection_string_is_refused_without_showing_it(text, message):
    with pytest.raises(ValueError, match=f"^connection string: {message}") as caught:
        parse_connection(Secret(text))
    assert "Access keys" in str(caught.value)
    assert KEY[:20] not in str(caught.value)


def test_connection_string_comes_from_the_variable_then_from_the_file(bare, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"set AZURE_STORAGE_.*storage\.secret; copy it"):
        find_storage()
    (bare / "storage.secret").write_text(CONNECTION.replace("scans", "file"))
    assert find_storage().account == "file"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", CONNECTION)
    assert find_storage().account == "scans"
