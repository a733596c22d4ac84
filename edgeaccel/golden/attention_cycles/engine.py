"""Attention engine, cycle by cycle: array, ports, cache, and all between them."""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from edgeaccel.golden.array import Array, Source
from edgeaccel.golden.attention_cycles.attention import Attention
from edgeaccel.golden.attention_cycles.chain import CommandChain
from edgeaccel.golden.attention_cycles.feed import LiveFeed
from edgeaccel.golden.attention_cycles.store import queue
from edgeaccel.golden.attention_cycles.table import PageTable
from edgeaccel.golden.attention_cycles.writer import CacheWriter
from edgeaccel.golden.cycles.fetcher import TileStreamer
from edgeaccel.golden.cycles.memory import Memory
from edgeaccel.golden.memory import Streamer
from edgeaccel.golden.timing import Pattern

__all__ = ["AttentionEngine", "AttentionTiming", "attention_cycles", "scale_streamer"]

OPERATORS = 8  # that the feed may have at a time
SCALE_WORDS, SCALE_BURSTS = 128, 8


def scale_streamer(config):
    """The streamer of the values' scales: `golden.memory.Streamer`."""
    width = 16 * config.vector_lanes
    return Streamer(
        data_width=config.port_data_width,
        word_width=width,
        buffer_words=max(SCALE_WORDS, 16 * config.port_data_width // width),
        outstanding=SCALE_BURSTS,
        n_events=1,
        formats=config.formats,
    )


class AttentionEngine:
    """`edgeaccel.attention.AttentionEngine` with its memories, for legal commands.

    With two clocks, the ports' memories and that of the scales count cycles of theirs, the cache's those of the core.

    Parameters
    ----------
    config : Config
    channels : dict of str to object
        Of "m_axi_0" and so on, "m_axi_scales" and "m_axi_cache": what serves the bursts, as
        `edgeaccel.golden.cycles.memory.Memory` takes it.
    bursts : int
        Most that a memory takes on of each direction.
    port_bytes, lookahead
        As in the hardware.

    Attributes
    ----------
    attends, appends : streams' ends
        `accepts(command)` and `put(command)`, as of `Attention` and `CacheWriter`.
    vectors : stream's end
        `has_room` and `put(last)`.
    output : stream's end
        `head` and `get()`, as of `Attention`.
    loads_ready : bool
        A load of queries is taken.
    table : PageTable
    memories : dict of str to Memory
    """

    def __init__(self, config, channels, *, bursts, port_bytes=1 << 28, lookahead=None):
        self.memories = {name: Memory(channel, bursts) for name, channel in channels.items()}
        self.table = PageTable()
        port = Streamer(data_width=config.port_data_width, word_width=config.word_bits)
        periods = (Fraction(config.port_mhz) / Fraction(config.core_mhz)).as_integer_ratio()
        self.ports = [TileStreamer(port, self.memories[f"m_axi_{n}"], periods) for n in range(config.groups)]
        scales = TileStreamer(scale_streamer(config), self.memories["m_axi_scales"], periods)
        self.attention = attention = Attention(config, table=self.table, scales=scales, lookahead=lookahead)
        self.writer = CacheWriter(
            config,
            port_bytes=port_bytes,
            table=self.table,
            memory=self.memories["m_axi_cache"],
            on_appended=attention.appended,
        )
        self.chain = CommandChain(config, [port.commands for port in self.ports])
        self.array, self.feed, self._tags = Array(config), LiveFeed(config), queue(OPERATORS)
        self.attends, self.output = attention.attends, attention.output
        self.appends, self.vectors = self.writer.appends, self.writer.vectors
        self._event = False

    def begin(self, cycle):
        for part in (self.attention, self.writer, self.chain, self.array, self.feed, self._tags, *self.ports):
            part.begin(cycle)
        self.loads_ready = self.attention.loads.head is None

    def put_load(self, event):
        """A load of queries, if `loads_ready`."""
        self._event = bool(event)

    def step(self, cycle):
        attention, feed, array = self.attention, self.feed, self.array
        if attention.loads.head is not None:
            self._event = bool(attention.loads.get())
        if self._event:
            feed.event(cycle)
        self._event = False
        if attention.requests.head is not None and self.chain.has_room:
            self.chain.put(attention.requests.get()[0])
        if attention.operators.head is not None and self._tags.has_room and feed.has_room:
            operator, _ = attention.operators.get()
            feed.put(operator)
            self._tags.put(operator.wait)
        taken, given = array.step(cycle, [port.head is not None for port in self.ports], attention.results_ready)
        if given:
            attention.put_result()
        hop = array.groups[0].hop
        if (beat := feed.step(cycle, hop.has_room)) is not None:
            hop.put(beat)
        if feed.is_done and self._tags.get():
            attention.read()
        for port, is_taken in zip(self.ports, taken, strict=True):
            if is_taken:
                port.get()
        for part in (attention, self.writer, self.chain, *self.ports):
            part.step(cycle)


@dataclass(frozen=True)
class AttentionTiming:
    """Cycles, counted from the first after reset; those of reads are the ports'.

    Attributes
    ----------
    streams : dict of str to int64 array
        Of each transfer on "i_loads", "i_attends", "i_appends", "i_vectors" and "o".
    appended : int64 array
        Of the events of appends.
    answers : int64 array
        In which the cache's memory has answered writes.
    reads : dict of str to list of (cycle, address, beats)
        By the port: what was asked for.
    """

    streams: dict
    appended: np.ndarray
    answers: np.ndarray
    reads: dict


def attention_cycles(
    config,
    channels,
    *,
    pages,
    loads=(),
    appends=(),
    vectors=(),
    attends=(),
    stalls=None,
    bursts=1 << 16,
    port_bytes=1 << 28,
    lookahead=None,
    max_cycles=10**7,
):
    """The `AttentionTiming` of an `AttentionEngine`.

    Parameters
    ----------
    config, channels, bursts, port_bytes, lookahead
        As of `AttentionEngine`.
    pages : list of (index, page)
        Entries of the page table, written one a cycle from the first on.
    loads : list of bool
        Events of the loads of queries.
    appends, attends : lists
        Commands, as the engine takes them.
    vectors : list of bool
        Of beats, whether they are the last of their vectors.
    stalls : dict of str to bool array
        Of "i_loads", "i_appends", "i_vectors", "i_attends" and "o".
    """
    engine = AttentionEngine(config, channels, bursts=bursts, port_bytes=port_bytes, lookahead=lookahead)
    given = {"i_loads": loads, "i_appends": appends, "i_vectors": vectors, "i_attends": attends}
    patterns = {name: Pattern((stalls or {}).get(name, ())) for name in (*given, "o")}
    sources = {name: Source(len(items), patterns[name]) for name, items in given.items()}
    pages, results, appended = deque(pages), [], []
    n_done, is_idle = 0, False
    for cycle in range(max_cycles):
        engine.begin(cycle)
        for name, source in sources.items():
            if source.offers(cycle) and _take(engine, name, given[name][len(source.taken)]):
                source.taken.append(cycle)
        if pages:
            engine.table.write(*pages.popleft())
        if engine.output.head is not None and patterns["o"].first(cycle) == cycle:
            last, tag, _ = engine.output.get()
            results.append(cycle)
            n_done += last and tag
        if engine.writer.appended:
            appended.append(cycle)
        is_idle = engine.writer.idle
        engine.step(cycle)
        if (
            n_done == len(attends)
            and is_idle
            and all(len(source.taken) == source.n_items for source in sources.values())
        ):
            break
    else:
        raise ValueError(f"not done after {max_cycles} cycles: {n_done} of {len(attends)} commands")
    streams = {name: source.taken for name, source in sources.items()} | {"o": results}
    return AttentionTiming(
        streams={name: np.array(cycles, np.int64) for name, cycles in streams.items()},
        appended=np.array(appended, np.int64),
        answers=np.array(engine.writer.answers, np.int64),
        reads={name: memory.reads for name, memory in engine.memories.items()},
    )


def _take(engine, name, item):
    """Give an item to a stream, if it is taken."""
    if name == "i_loads":
        takes, put = engine.loads_ready, engine.put_load
    elif name == "i_vectors":
        takes, put = engine.vectors.has_room, engine.vectors.put
    else:
        end = engine.attends if name == "i_attends" else engine.appends
        takes, put = end.accepts(item), end.put
    if takes:
        put(item)
    return takes
