"""The old name of ``workbench.stores.disk``, until all imports have moved."""

from workbench.stores.disk import (
    CannotWriteError,
    disk_is_full,
    naming,
    only_one,
    replacing,
    write_text,
)

__all__ = ["CannotWriteError", "disk_is_full", "naming", "only_one", "replacing", "write_text"]
