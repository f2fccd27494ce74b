"""Files as from far away: every read is a request that is counted."""

import threading
from collections import Counter

from workbench.data.cache import DatasetCache
from workbench.stores import DiskStore


class Far:
    """A source in memory that notes what it is asked for."""

    def __init__(self, content):
        self.content, self.size = content, len(content)
        self.asked, self._lock = [], threading.Lock()

    def __str__(self):
        return "far.h5"

    def read(self, offset, count):
        with self._lock:
            self.asked.append((offset, count))
        return self.content[offset : offset + count]

    def close(self):
        pass


class FarStore(DiskStore):
    """A folder whose files are read as from far away.

    Attributes:
        requests: path -> number of reads.
    """

    def __init__(self, root):
        super().__init__(root)
        self.requests, self._sources = Counter(), []

    def source(self, path, size=None):
        source = Far(self.read(path))
        real = source.read

        def read(offset, count):
            self.requests[path] += 1
            return real(offset, count)

        source.read = read
        return source


def far(cache):
    """Return a cache whose files are read as from far away."""
    return DatasetCache(FarStore(cache.store.root), cache.volumes)
