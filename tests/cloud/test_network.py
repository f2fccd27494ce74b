"""The network lets through what the cloud emulates, and nothing else."""

import os
import subprocess
import sys
import time

import pytest
import requests


def test_unknown_hosts_are_refused_and_recorded(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    for url in ("https://example.com/x", "http://169.254.169.254/metadata", "https://pypi.org"):
        with pytest.raises((requests.exceptions.ProxyError, requests.exceptions.HTTPError)):
            requests.get(url, timeout=5).raise_for_status()
    refused = [line.split()[:2] for line in cloud.network.refused]
    assert refused == [
        ["CONNECT", "example.com:443"],
        ["GET", "http://169.254.169.254/metadata"],
        ["CONNECT", "pypi.org:443"],
    ]
    assert cloud.network.connected == []


def test_emulated_hosts_answer_under_their_own_names_over_tls(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    answer = requests.get(f"{cloud.storage.url}/datasets?restype=container", timeout=5)
    assert answer.headers["Server"].startswith("Azurite")
    answer = requests.get("https://login.microsoftonline.com/common/discovery/instance", timeout=5)
    assert answer.ok
    assert cloud.network.refused == []


def test_certificates_are_only_trusted_by_those_who_were_given_the_authority(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    monkeypatch.delenv("CURL_CA_BUNDLE")
    with pytest.raises(requests.exceptions.SSLError):
        requests.get("https://login.microsoftonline.com/", timeout=5)


def test_another_account_cannot_be_reached(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://elsewhere.blob.core.windows.net/", timeout=5)
    assert len(cloud.network.refused) == 1


def test_a_host_can_be_lost_and_come_back(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    url = "https://login.microsoftonline.com/common/discovery/instance"
    with requests.Session() as session:
        assert session.get(url, timeout=5).ok
        with (
            cloud.network.offline("login.*"),
            pytest.raises(requests.exceptions.ConnectionError),
        ):
            session.get(url, timeout=5)
        assert session.get(url, timeout=5).ok
    assert cloud.network.refused == []


def test_a_connection_breaks_after_so_many_bytes(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    cloud.storage.container().upload_blob("big", bytes(2_000_000))
    url = cloud.storage.signed("datasets", "big")
    cloud.network.cut(cloud.storage.host, after=500_000)
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(url, timeout=5)
    assert len(requests.get(url, timeout=5).content) == 2_000_000


def test_round_trips_take_the_latency_that_is_set(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    url = "https://login.microsoftonline.com/common/discovery/instance"
    with requests.Session() as session:
        session.get(url, timeout=5)
        cloud.network.latency("login.microsoftonline.com", 0.3)
        started = time.monotonic()
        session.get(url, timeout=5)
        assert time.monotonic() - started >= 0.3


def test_the_bucket_is_served_under_its_real_name(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    (cloud.bucket.folder / "knee_multicoil_val.tar.xz").write_bytes(b"xz")
    for version in (2, 4):
        link = cloud.bucket.link("/v2.0/knee_multicoil_val.tar.xz", version=version)
        assert link.startswith("https://fastmri-dataset.s3.amazonaws.com/v2.0/")
        assert requests.get(link, timeout=5).content == b"xz"
    assert requests.get(link[:-4], timeout=5).status_code == 403


def test_a_process_is_led_into_the_cloud_by_its_environment(cloud):
    code = (
        "from azure.identity import DefaultAzureCredential as D; from pathlib import Path;"
        "print(D().get_token('https://management.azure.com/.default').token, Path.home())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | cloud.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    token, home = done.stdout.split()
    assert token.count(".") == 2
    assert home == str(cloud.home)
    assert cloud.network.refused == []
