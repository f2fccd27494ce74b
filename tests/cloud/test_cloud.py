"""The cloud as a whole: it starts by one command, and leaves nothing running."""

import subprocess
import sys

import psutil

START = """
import pathlib, sys
from tests.cloud.cloud import Cloud, Ground
with Ground(pathlib.Path(sys.argv[1]) / "ca") as ground, Cloud(pathlib.Path(sys.argv[1]), ground):
    print(ground.azurite._process.pid, flush=True)
    input()
"""

LOOK = """
import os, requests
from azure.storage.blob import BlobServiceClient
from workbench.ingest.links import parse_links

with BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"]) as c:
    print(c.create_container("datasets").container_name)
links = parse_links(os.environ["FASTMRI_LINKS"])
print(len(links), {requests.get(link.url.reveal()).status_code for link in links})
"""


def test_a_killed_cloud_leaves_no_azurite(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        azurite = psutil.Process(int(process.stdout.readline()))
        process.kill()
    azurite.wait(20)


def test_a_command_finds_storage_and_links_in_a_cloud_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "tests.cloud", sys.executable, "-c", LOOK],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-2:] == ["datasets", "8 {200}"]
