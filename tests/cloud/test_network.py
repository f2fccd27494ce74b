"""The network lets through what the cloud emulates, and nothing else."""

import os
import subprocess
import sys

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
