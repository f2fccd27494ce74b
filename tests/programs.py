"""Programs of the system that tests need, and which no Python package brings."""

import shutil


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
