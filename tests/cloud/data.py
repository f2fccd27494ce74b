"""How blobs come to a node and go back: downloaded, or in a folder that stands for a mount."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from azure.core.exceptions import ResourceNotFoundError

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


def fetch(container: "ContainerClient", prefix: str, folder: Path) -> int:
    """Download the blobs under a prefix into a folder; return how many there were.

    One that another node deletes meanwhile is passed over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = prefix.strip("/") + "/" if prefix.strip("/") else ""
    count = 0
    for blob in container.list_blobs(name_starts_with=start or None):
        path = folder / blob.name.removeprefix(start)
        with suppress(ResourceNotFoundError):
            content = container.download_blob(blob.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                content.readinto(file)
            count += 1
    return count


class Mirror:
    """A folder whose changes go to blobs under a prefix.

    Args:
        folder: the folder; it may not exist yet.
        container: where to.
        prefix: put before the files' paths.
    """

    def __init__(self, folder: Path, container: "ContainerClient", prefix: str) -> None:
        self._folder, self._container = folder, container
        self._prefix = prefix.strip("/")
        self._known = self._look()

    def push(self) -> None:
        """Upload what is new or changed since the last time, and delete what is gone."""
        found = self._look()
        for path, state in found.items():
            if self._known.get(path) != state:
                try:
                    content = path.read_bytes()  # whole: it may become another one meanwhile
                except FileNotFoundError:
                    continue
                self._container.upload_blob(self._name(path), content, overwrite=True)
        for path in self._known.keys() - found.keys():
            with suppress(ResourceNotFoundError):
                self._container.delete_blob(self._name(path))
        self._known = found

    def _name(self, path: Path) -> str:
        relative = path.relative_to(self._folder).as_posix()
        return f"{self._prefix}/{relative}" if self._prefix else relative

    def _look(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in sorted(self._folder.rglob("*")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if path.is_file():
                found[path] = (stat.st_mtime_ns, stat.st_size)
        return found
