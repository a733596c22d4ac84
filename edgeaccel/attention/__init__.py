"""Attention over a paged, quantised KV cache, chunk by chunk, by the array that multiplies weights too."""

from edgeaccel.attention.append import KVAppend
from edgeaccel.attention.attention import Attention
from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.attention.route import ResultRouter
from edgeaccel.attention.rows import RowSerialiser
from edgeaccel.attention.scores import ScorePath
from edgeaccel.attention.table import PageFinder, PageTable
from edgeaccel.attention.values import ValueAccumulator
from edgeaccel.attention.walk import UnitWalk
from edgeaccel.attention.writer import CacheWriter

__all__ = [
    "Attention",
    "AttentionEngine",
    "CacheWriter",
    "KVAppend",
    "PageFinder",
    "PageTable",
    "ResultRouter",
    "RowSerialiser",
    "ScorePath",
    "UnitWalk",
    "ValueAccumulator",
]
