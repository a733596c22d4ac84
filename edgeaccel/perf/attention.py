"""Cycle model of attention: when a command is through, from its shape and the memory."""

from collections import deque
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, log2

from edgeaccel.golden.function import latency as function_latency
from edgeaccel.golden.memory import Streamer
from edgeaccel.golden.pe import group_latency, scaled_accumulator_latency
from edgeaccel.golden.units import units
from edgeaccel.perf import matrix

__all__ = ["AttentionPrediction", "predict"]

FIRST_READ = 33  # from a command to its first address: checks, the page, the unit, queues
FIND_CYCLES = 12  # more of them for the page of another chunk
UNIT_CYCLES = 7  # more of them for another head
WORD_CYCLES = 3  # from a word's last beat to the word
CROSSING_CYCLES = 5  # more of them from the other clock
BUFFER_WORDS = Streamer().buffer_words
SCORE_CYCLES = 28  # from the last result of a chunk's keys to its weights, but for maximum, function and their beats
SUM_CYCLES = 16  # from a result of values to the vector


@dataclass(frozen=True, kw_only=True)
class AttentionPrediction:
    """Core cycles of a command, from the cycle in which it is taken.

    Attributes
    ----------
    first_word, last_word : int
        When the first group takes its first word, and when the last one is given by its port.
    last_result : int
    port_cycles : float
        In which the busiest port gives words, at the rate of its memory or of its group.
    chain_cycles : int
        In which activations go along the chain, or results come back, whichever is more.
    beats : int
        Of all ports together.
    """

    first_word: int
    last_word: int
    last_result: int
    port_cycles: float
    chain_cycles: int
    beats: int


def predict(config, layout, command, memory, *, queries=0, port=0):
    """Cycles of one `Attend` on an `AttentionEngine`, its page table and queries in place.

    Passes are worked through in their order, each a pass of keys or of values of a unit. A pass is read from the
    activation buffer when the one before is, or when its weights have come; its groups take its words when they are
    through with the pass before, when activations are there, and when their memory gives the words; its results leave
    behind those of the pass before. Weights of a unit come behind the last result of its keys.

    Parameters
    ----------
    config : Config
    layout : CacheLayout
    command : edgeaccel.golden.units.Attend
    memory : edgeaccel.perf.matrix.PortMemory
        Of each port.
    queries, port : float
        Cycles from the command until its queries are in the buffer, and until the ports have given the words that were
        asked for before.
    """
    tile = config.tile_channels
    n_pages = -(-(command.count + config.rows) // layout.page_positions)
    # Chunks are the same for every head and batch of queries.
    chunks = list(units(config, layout, replace(command, n_heads=1, batches=1), range(n_pages)))
    timeline = _Passes(config, layout, memory, queries, port)
    every, asked = [], FIRST_READ
    for chunk in chunks:
        asked += FIND_CYCLES if chunk is not chunks[0] else 0
        for head in range(command.first_head, command.first_head + command.n_heads):
            asked += UNIT_CYCLES if every else 0
            for _ in range(command.batches):
                every.append((asked, head, chunk.page_chunk, -(-chunk.positions // tile)))
                asked += 1
    lookahead = max(6, 3 * layout.sets)  # as `edgeaccel.attention.attention.Attention`
    for n, unit in enumerate(every):
        timeline.keys(*unit)
        if n + 1 >= lookahead:
            timeline.values(*every[n + 1 - lookahead])
    for unit in every[max(0, len(every) - lookahead + 1) :]:
        timeline.values(*unit)
    words = timeline.words
    return AttentionPrediction(
        first_word=ceil(timeline.first_word),
        last_word=ceil(timeline.last_word),
        last_result=ceil(timeline.left + SUM_CYCLES),
        port_cycles=max(words) / timeline.rate,
        chain_cycles=max(timeline.n_read, timeline.n_results),
        beats=sum(words) * config.word_bits // config.port_data_width,
    )


class _Passes:
    """Times of feed, groups, ports and results while passes are worked through.

    Attributes
    ----------
    words : list of int
        Of each group.
    rate : float
        Words a core cycle: of the memory, at most one.
    n_read, n_results : int
        Beats of activations, and of results.
    left : float
        When the last beat of results leaves the chain.
    """

    def __init__(self, config, layout, memory, queries, port):
        self.config, self.layout = config, layout
        bits = config.word_bits * config.core_mhz
        self.rate = min(1.0, config.port_data_width * config.port_mhz * memory.share / bits)
        self.words = [0] * config.groups
        self.n_read = self.n_results = 0
        self.queries = self.read = queries
        self.left, self.first_word = 0.0, None
        self._free = [0.0] * config.groups  # when each group has taken its words
        self._port = [port] * config.groups  # when the memory has given them
        self._weights = deque()  # when those of the units come whose values are still to do
        lanes = config.vector_lanes
        self._result_beats = config.tile_channels // lanes
        way = memory.latency * config.core_mhz / config.port_mhz + WORD_CYCLES
        self._way = way + (CROSSING_CYCLES if config.port_mhz != config.core_mhz else 0)
        group = (
            group_latency(config.lanes, config.formats, mantissa_bits=config.mantissa_bits)
            + scaled_accumulator_latency()
        )
        self._through = group + matrix.PACK_CYCLES + config.groups
        self._score = SCORE_CYCLES + log2(lanes) + function_latency({"exp2"})

    @property
    def last_word(self):
        """When the ports have given all words."""
        return max(self._port)

    def keys(self, asked, head, chunk, tiles):
        """The pass of a unit's keys."""
        layout = self.layout
        beats = -(-layout.head_dim // self.config.vector_lanes)
        places = _groups(layout, False, head, chunk, tiles)
        self._pass(asked, places, layout.k_words, beats, self.read)
        came = self.left + self._score + tiles * self._result_beats
        self._weights.append(came)

    def values(self, asked, head, chunk, tiles):
        """The pass of a unit's values, when its weights have come."""
        layout = self.layout
        beats = self.config.block // self.config.vector_lanes
        places = _groups(layout, True, head, chunk, layout.value_tiles)
        self._pass(asked, places, layout.v_words, beats, max(self.read, self._weights.popleft()))

    def _pass(self, asked, groups, words, beats, begin):
        """`groups` are those of the tiles, of which so many words each are multiplied by so many beats of inputs."""
        lanes, lead = self.config.vector_lanes, groups[0]
        per_tile = min(beats, self.config.block // lanes)
        # As a matrix's first tile: `edgeaccel.perf.matrix.predict`.
        there = begin + matrix.READ_CYCLES + matrix.SHIFT_CYCLES + matrix.STORE_CYCLES + 2 * (per_tile - 1)
        there += ceil(log2(lanes)) + 2
        rounds = -(-len(groups) // len(set(groups)))
        self.read = begin + rounds * beats
        self.n_read += rounds * beats
        self.n_results += len(groups) * self._result_beats
        left = self.left
        for place, group in enumerate(groups):
            self.words[group] += words
            given = max(self._port[group], asked + self._way + lead) + words / self.rate
            # Until there are queries, ports run ahead by what their buffers hold.
            self._port[group] = max(given, self.queries + (self.words[group] - BUFFER_WORDS) / self.rate)
            # A later round's inputs come behind those of the round before.
            first = max(self._free[group], there + group + place // len(set(groups)) * beats)
            self._free[group] = max(first + words, self._port[group])
            if self.first_word is None:
                self.first_word = self._free[group] - words
            left = max(left + self._result_beats, self._free[group] - 1 + self._through - lead)
        self.left = left


@cache
def _groups(layout, is_values, head, chunk, tiles):
    """Of each tile of a pass its group."""
    place = layout.value_tile if is_values else layout.key_tile
    return tuple(place(head, chunk, n)[0] for n in range(tiles))
