"""The old name of ``workbench.stores.streams``, until all imports have moved."""

from workbench.stores.streams import CHUNK, ChunkReader, Readable, as_file, chunks_of

__all__ = ["CHUNK", "ChunkReader", "Readable", "as_file", "chunks_of"]
