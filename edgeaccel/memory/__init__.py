"""Memory ports: AXI4 and the engines behind it."""

from edgeaccel.memory.reader import BlockReader
from edgeaccel.memory.scatter import ScatterWriter
from edgeaccel.memory.streamer import TileStreamer
from edgeaccel.memory.writer import BlockWriter

__all__ = ["BlockReader", "BlockWriter", "ScatterWriter", "TileStreamer"]
