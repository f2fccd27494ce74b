"""Programs of the system that tests need, and waiting for what another process does."""

import shutil
import time
from collections.abc import Callable


def find_program(package: str, *names: str) -> str:
    """Return the path of the first of some programs that is installed.

    Raises:
        FileNotFoundError: none is; the message is the command that installs one.
    """
    for name in names:
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(
        f"{' or '.join(names)} is not installed, and a test needs it: "
        f"sudo apt-get install -y {package}"
    )


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition holds; raise AssertionError where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
