"""Memory ports: AXI4 and the engines behind it."""

from edgeaccel.memory.streamer import TileStreamer

__all__ = ["TileStreamer"]
