"""Attention engine: array, ports, cache and all between them, without the rest of a machine."""

from amaranth.hdl import Module, Mux, ResetInserter
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.attention import Attention
from edgeaccel.attention.command import AttentionError
from edgeaccel.attention.table import PageTable
from edgeaccel.attention.writer import CacheWriter
from edgeaccel.memory.command import StreamerError
from edgeaccel.queue import Queue
from edgeaccel.systolic.commands import CommandChain
from edgeaccel.systolic.engine import MatrixEngine
from edgeaccel.systolic.feed import activation_load
from edgeaccel.systolic.operator import FeedError

__all__ = ["AttentionEngine"]

OPERATORS = 8  # that the feed may have at a time


class AttentionEngine(wiring.Component):
    """Keys and values into the cache; queries in, what they get from it out.

    Parameters
    ----------
    config : Config
    port_bytes : int
        From one port's memory to the next in the addresses of `m_axi_cache` and `m_axi_scales`: a power of two.
    slots, entries, lookahead
        As in `Attention`.

    Members
    -------
    m_axi : array of axi.Signature, read channels, one for each group
        Keys and values. Every port has its own memory, from address 0 on.
    m_axi_scales : axi.Signature, read channels
        Scales of the values.
    m_axi_cache : axi.Signature
        For appends, in the first of the clock domains: all ports' memories and that of the scales.
    i_pages : stream of {index, page, valid}
        Entries of the page table.
    i_loads : stream of `activation_load`
        Queries. Those of a command must have been taken before it is.
    i_appends : stream of `append`
    i_vectors : stream of vector beats {elements: FP32 codes x lanes, keep, last}
        What is appended: of head 0 all rows, then of head 1, and so on.
    i_attends : stream of `attend`
    o : stream of {elements: FP32 codes x lanes x rows, keep: a bit a lane, last: 1, slot}
    clear : 1 bit
        A pulse ends everything and makes all as after reset but the buffer's and the page table's contents.
    error : AttentionError
    errors : array of StreamerError
        Of the ports.
    feed_error : FeedError
    domains : tuple of str
        Clock domains.
    """

    def __init__(self, config, *, port_bytes=1 << 28, slots=32, entries=1024, lookahead=None):
        self.config, self.port_bytes = config, port_bytes
        self.engine = MatrixEngine(config)
        self.attention = Attention(config, slots=slots, entries=entries, lookahead=lookahead)
        self.writer = CacheWriter(config, port_bytes=port_bytes, entries=entries)
        self.table = PageTable(entries=entries, readers=2)
        self.domains = self.engine.domains
        attention, writer = self.attention.signature.members, self.writer.signature.members
        super().__init__(
            {
                "m_axi": self.engine.signature.members["m_axi"],
                "m_axi_scales": attention["m_axi"],
                "m_axi_cache": writer["m_axi"],
                "i_pages": self.table.signature.members["i"],
                "i_loads": In(stream.Signature(activation_load(config))),
                "i_appends": writer["i_appends"],
                "i_vectors": writer["i_vectors"],
                "i_attends": attention["i_attends"],
                "o": attention["o"],
                "clear": In(1),
                "error": Out(AttentionError),
                "errors": Out(StreamerError).array(config.groups),
                "feed_error": Out(FeedError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, engine, attention = self.config, self.engine, self.attention
        m.submodules.engine = engine
        m.submodules.attention = attention
        m.submodules.writer = writer = self.writer
        m.submodules.table = table = self.table
        m.submodules.commands = commands = CommandChain(config, engine.i_commands[0].p.shape())
        tags = Queue(1, OPERATORS)
        m.submodules.tags = ResetInserter(self.clear)(tags)
        for n, port in enumerate(engine.m_axi):
            wiring.connect(m, port, wiring.flipped(self.m_axi[n]))
            wiring.connect(m, commands.o[n], engine.i_commands[n])
            m.d.comb += self.errors[n].eq(engine.errors[n])
        wiring.connect(m, attention.m_axi, wiring.flipped(self.m_axi_scales))
        wiring.connect(m, wiring.flipped(self.i_pages), table.i)
        wiring.connect(m, attention.lookup, table.lookups[0])
        wiring.connect(m, writer.lookup, table.lookups[1])
        wiring.connect(m, writer.m_axi, wiring.flipped(self.m_axi_cache))
        for name in ("i_appends", "i_vectors"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(writer, name))
        wiring.connect(m, wiring.flipped(self.i_attends), attention.i_attends)
        wiring.connect(m, attention.o_requests, commands.i)
        wiring.connect(m, engine.o, attention.i_results)
        wiring.connect(m, attention.o, wiring.flipped(self.o))

        operators, weights, loads = attention.o_operators, attention.o_loads, self.i_loads
        m.d.comb += [
            engine.i_operators.p.eq(operators.p),
            engine.i_operators.valid.eq(operators.valid & tags.i.ready),
            operators.ready.eq(engine.i_operators.ready & tags.i.ready),
            tags.i.p.eq(operators.p.wait),
            tags.i.valid.eq(operators.valid & engine.i_operators.ready),
            tags.o.ready.eq(engine.done),
            attention.read.eq(engine.done & tags.o.p),
            # The feed takes a load in every cycle.
            engine.i_loads.p.eq(Mux(weights.valid, weights.p, loads.p)),
            engine.i_loads.valid.eq(weights.valid | loads.valid),
            weights.ready.eq(1),
            loads.ready.eq(~weights.valid),
            engine.clear.eq(self.clear),
            attention.clear.eq(self.clear),
            commands.clear.eq(self.clear),
            attention.appended.eq(writer.appended),
            writer.clear.eq(self.clear),
            self.feed_error.eq(engine.feed_error),
        ]
        for part in (attention, writer):
            with m.If(part.failed):
                m.d.comb += [
                    self.error.valid.eq(1),
                    self.error.code.eq(part.code),
                    self.error.append.eq(part is writer),
                    self.error.command.eq(part.command),
                ]
        return m
