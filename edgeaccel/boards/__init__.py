"""Boards that a machine can be put on, and what Vivado needs for that: `python -m edgeaccel.boards`."""

from edgeaccel.boards.board import VU9P, VU37P, Board, Memory, Part
from edgeaccel.boards.fit import array_dsps, check_fit
from edgeaccel.boards.memory_map import MemoryMap, Region
from edgeaccel.boards.vcu118 import VCU118, VCU118Platform
from edgeaccel.boards.vcu128 import VCU128, VCU128Platform
from edgeaccel.boards.vcu1525 import VCU1525, VCU1525Platform

__all__ = [
    "BOARDS",
    "VCU118",
    "VCU128",
    "VCU1525",
    "VU9P",
    "VU37P",
    "Board",
    "Memory",
    "MemoryMap",
    "Part",
    "Region",
    "VCU118Platform",
    "VCU128Platform",
    "VCU1525Platform",
    "array_dsps",
    "check_fit",
]

BOARDS = {board.name: board for board in (VCU128, VCU118, VCU1525)}
