"""Service principals log in with azure-identity as they would at Microsoft's."""

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential, DefaultAzureCredential

SCOPE = "https://management.azure.com/.default"


@pytest.fixture(autouse=True)
def inside(cloud, monkeypatch):
    cloud.apply(monkeypatch)


def credential(cloud, *, tenant=None, client=None, secret=None):
    known = cloud.principal
    return ClientSecretCredential(
        tenant or known.tenant, client or known.client, secret or known.secret, retry_total=0
    )


def test_the_service_principal_of_the_environment_logs_in(cloud):
    with DefaultAzureCredential() as login:
        assert login.get_token(SCOPE).token.count(".") == 2


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"secret": "wrong"}, "AADSTS7000215"),
        ({"client": "55555555-5555-4555-8555-555555555555"}, "AADSTS700016"),
        ({"tenant": "66666666-6666-4666-8666-666666666666"}, "check your tenant|AADSTS90002"),
    ],
)
def test_a_wrong_login_is_refused_with_microsofts_code(cloud, wrong, code):
    with (
        credential(cloud, **wrong) as login,
        pytest.raises(ClientAuthenticationError, match=code),
    ):
        login.get_token(SCOPE)


def test_a_login_expires_and_is_renewed(cloud):
    cloud.login.lifetime = 1.0
    with credential(cloud) as login:
        first = login.get_token(SCOPE).token
        assert login.get_token(SCOPE).token != first


def test_an_outage_of_the_login_shows(cloud):
    cloud.fail("POST login.*/token", status=503)
    with credential(cloud) as login, pytest.raises(ClientAuthenticationError):
        login.get_token(SCOPE)
    assert requests.get("https://login.microsoftonline.com/nothing", timeout=5).status_code == 404


def test_answers_are_slow_or_never_come(cloud):
    url = "https://login.microsoftonline.com/common/discovery/instance"
    cloud.fail("GET login", seconds=30, times=1)
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(url, timeout=(5, 0.2))
    cloud.fail("GET login", drop=True, times=1)
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(url, timeout=5)
    assert requests.get(url, timeout=5).ok
