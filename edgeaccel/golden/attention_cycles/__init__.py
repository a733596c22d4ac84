"""Cycles of the attention engine in plain Python: of everything that moves, when it moves; numbers are left out."""

from edgeaccel.golden.attention_cycles.attention import Attention
from edgeaccel.golden.attention_cycles.engine import AttentionEngine, AttentionTiming, attention_cycles, scale_streamer
from edgeaccel.golden.attention_cycles.table import PageTable
from edgeaccel.golden.attention_cycles.writer import CacheWriter

__all__ = [
    "Attention",
    "AttentionEngine",
    "AttentionTiming",
    "CacheWriter",
    "PageTable",
    "attention_cycles",
    "scale_streamer",
]
