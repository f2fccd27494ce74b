"""The manifest of a dataset in a container: the blob ``NAME/ingest.json``, in the file's own form.

Notebook and cluster may write it at the same time: every change is made to what is there now.
"""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from workbench.ingest.manifest import FILE, ArchiveRecord, read_records

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_VERSION = 1


class BlobManifest:
    """The archives of one dataset by stem; every change is stored before ``update`` returns."""

    def __init__(self, container: "ContainerClient", dataset: str) -> None:
        self.name = f"{dataset}/{FILE}"
        self._blob = container.get_blob_client(self.name)
        self._records, self._etag = self._read()

    def _read(self) -> tuple[dict[str, ArchiveRecord], str | None]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            stream = self._blob.download_blob()
            records = read_records(stream.readall())
        except ResourceNotFoundError:
            return {}, None
        except ValueError as error:
            raise ValueError(
                f"the blob {self.name} is damaged ({error}): delete or rename it and run again; "
                "members that are there whole will not be written anew"
            ) from None
        return records, stream.properties.etag

    def get(self, stem: str) -> ArchiveRecord | None:
        """Return the record of an archive as it was last seen, or None."""
        return self._records.get(stem)

    def update(self, stem: str, record: ArchiveRecord | None = None, **changes: Any) -> None:
        """Set an archive's record, or change fields of the one that is there."""
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError

        while True:
            base = self._records[stem] if record is None else record
            records = self._records | {stem: replace(base, **changes)}
            try:
                self._write(records)
            except (ResourceModifiedError, ResourceExistsError):
                self.reload()  # Somebody else was faster: our change goes on top of theirs.
                continue
            return

    def reload(self) -> None:
        """Read anew what another process may have written."""
        self._records, self._etag = self._read()

    def _write(self, records: dict[str, ArchiveRecord]) -> None:
        from azure.core import MatchConditions

        archives = {stem: asdict(record) for stem, record in sorted(records.items())}
        text = json.dumps({"version": _VERSION, "archives": archives}, indent=1)
        condition: dict[str, Any] = {"overwrite": False}
        if self._etag is not None:
            condition = {
                "overwrite": True,
                "etag": self._etag,
                "match_condition": MatchConditions.IfNotModified,
            }
        answer = self._blob.upload_blob(text.encode(), **condition)
        self._records, self._etag = records, answer["etag"]
