"""Logits: to memory, and the largest of them."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.isa import TOKEN_WIDTH
from edgeaccel.memory.block import BlockError
from edgeaccel.memory.writer import BlockWriter
from edgeaccel.pe.float import FP32
from edgeaccel.queue import Queue
from edgeaccel.soc.parameters import codes
from edgeaccel.vector.reduce import VectorMaximum, order_key

__all__ = ["Logits", "logits_beat"]

BLOCKS = 8  # that are not written yet
BUFFER_BEATS = 64
SPANS = 64  # vectors on their way through the maximum


def logits_beat(machine):
    """A beat of logits, and where they go.

    address
        Byte address of the instruction's first.
    channels
        Of the vector.
    first
        The vector is the instruction's first.
    starts, ends
        The vector is the first of all logits, or the last.
    """
    return data.StructLayout(
        {
            "elements": codes(machine.config),
            "keep": machine.config.vector_lanes,
            "last": 1,
            "address": 64,
            "channels": 16,
            "first": 1,
            "starts": 1,
            "ends": 1,
        }
    )


class Logits(wiring.Component):
    """Writes logits to memory and finds the first of the largest: `edgeaccel.golden.vector.maximum` of all.

    A beat a cycle, as long as the memory takes them, and a cycle more for each vector, whose command it is.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    m_axi : axi.Signature, write channels
    i : stream of `logits_beat`
    o : stream of {token}
    idle : out
        All that came is in memory, and nothing is offered.
    clear : in
        As that of `BlockWriter`.
    error : BlockError
    """

    def __init__(self, machine):
        self.machine, config = machine, machine.config
        self.writer = BlockWriter(
            data_width=config.port_data_width,
            stream_bytes=4 * config.vector_lanes,
            buffer_beats=BUFFER_BEATS,
            queue=BLOCKS,
        )
        self.maximum = VectorMaximum(lanes=config.vector_lanes, max_length=machine.max_channels)
        super().__init__(
            {
                "m_axi": self.writer.signature.members["m_axi"],
                "i": In(stream.Signature(logits_beat(machine))),
                "o": Out(stream.Signature(data.StructLayout({"token": TOKEN_WIDTH}))),
                "idle": Out(1),
                "clear": In(1),
                "error": Out(BlockError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        writer, maximum = self.writer, self.maximum
        m.submodules.writer = writer
        wiring.connect(m, writer.m_axi, wiring.flipped(self.m_axi))
        m.d.comb += [writer.clear.eq(self.clear), self.error.eq(writer.error)]
        core = Module()
        m.submodules.core = ResetInserter(self.clear)(core)
        core.submodules.maximum = maximum
        self._write(core, writer, maximum)
        return m

    def _write(self, m, writer, maximum):
        i = self.i

        # A vector's first beat gives the command, which the writer must have before it takes data.
        is_first, is_asked = Signal(init=1), Signal()
        address, begin = Signal(64), Signal(64)
        m.d.comb += [
            begin.eq(Mux(i.p.first, i.p.address, address)),
            writer.i_commands.p.address.eq(begin),
            writer.i_commands.p.bytes.eq(i.p.channels << 2),
            writer.i.p.data.eq(i.p.elements),
            writer.i.p.last.eq(i.p.last),
            maximum.i.p.elements.eq(i.p.elements),
            maximum.i.p.keep.eq(i.p.keep),
            maximum.i.p.last.eq(i.p.last),
        ]
        n_kept = Signal(range(self.machine.config.vector_lanes + 1))
        m.d.comb += [n_kept.eq(sum(i.p.keep)), writer.i.p.last_byte.eq((n_kept << 2) - 1)]
        goes = Signal()
        m.d.comb += [
            writer.i_commands.valid.eq(i.valid & ~is_asked),
            i.ready.eq(writer.i.ready & maximum.i.ready & is_asked),
            goes.eq(i.valid & i.ready),
            writer.i.valid.eq(i.valid & maximum.i.ready & is_asked),
            maximum.i.valid.eq(i.valid & writer.i.ready & is_asked),
        ]
        with m.If(writer.i_commands.valid & writer.i_commands.ready):
            m.d.sync += is_asked.eq(1)
        n_under_way = Signal(range(1024))
        starts = Signal()
        # What is offered may be all of a vector, whose instruction counts as done with it.
        m.d.comb += [starts.eq(goes & is_first), self.idle.eq((n_under_way == 0) & ~i.valid)]
        m.d.sync += n_under_way.eq(n_under_way + starts - writer.done)
        with m.If(goes):
            m.d.sync += is_first.eq(i.p.last)
            with m.If(i.p.last):
                m.d.sync += is_asked.eq(0)
            with m.If(is_first):
                m.d.sync += address.eq(begin + (i.p.channels << 2))
        self._find(m, goes & i.p.last)

    def _find(self, m, ends_vector):
        """The largest of the vectors' largest."""
        i, found = self.i.p, self.maximum.o
        span = data.StructLayout({"starts": 1, "ends": 1, "channels": 16})
        m.submodules.spans = spans = Queue(span, SPANS)
        best, token, base = Signal(FP32.width), Signal(TOKEN_WIDTH), Signal(TOKEN_WIDTH)
        is_better, is_held = Signal(), Signal()
        first = Signal(TOKEN_WIDTH)
        key, best_key = order_key(found.p.value), order_key(best)
        m.d.comb += [
            spans.i.valid.eq(ends_vector),
            spans.i.p.starts.eq(i.starts),
            spans.i.p.ends.eq(i.ends),
            spans.i.p.channels.eq(i.channels),
            found.ready.eq(spans.o.valid & ~is_held),
            spans.o.ready.eq(found.valid & found.ready),
            first.eq(Mux(spans.o.p.starts, 0, base)),
            is_better.eq(spans.o.p.starts | (key > best_key)),
            self.o.valid.eq(is_held),
            self.o.p.token.eq(token),
        ]
        with m.If(spans.o.ready):
            m.d.sync += [base.eq(first + spans.o.p.channels), is_held.eq(spans.o.p.ends)]
            with m.If(is_better):
                m.d.sync += [best.eq(found.p.value), token.eq(first + found.p.index)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += is_held.eq(0)
