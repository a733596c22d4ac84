"""Blocks from beats of one size to beats of another."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory.block import block_beats

__all__ = ["BeatResizer"]


class BeatResizer(wiring.Component):
    """Puts beats of a block together, or takes them apart; no beat holds bytes of two blocks.

    With equal sizes and to smaller beats it has no latency, and gives a beat a cycle. To larger ones it takes a beat a
    cycle, and offers the larger one the cycle after its last part. Bytes past the end of a block are 0 if those of the
    input are.

    Parameters
    ----------
    i_bytes, o_bytes : int
        Bytes of a beat, powers of two.

    Members
    -------
    i : stream of block_beats(i_bytes)
    o : stream of block_beats(o_bytes)
    """

    def __init__(self, i_bytes, o_bytes):
        self.i_bytes = i_bytes
        self.o_bytes = o_bytes
        super().__init__(
            {"i": In(stream.Signature(block_beats(i_bytes))), "o": Out(stream.Signature(block_beats(o_bytes)))}
        )

    def elaborate(self, platform):
        m = Module()
        if self.o_bytes > self.i_bytes:
            self._widen(m)
        elif self.o_bytes < self.i_bytes:
            self._narrow(m)
        else:
            wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
        return m

    def _widen(self, m):
        i, o = self.i.payload, self.o.payload
        part_width = 8 * self.i_bytes
        n_parts = self.o_bytes // self.i_bytes
        index = Signal(range(n_parts))
        beat = Signal(o.shape(), reset_less=True)
        m.d.comb += [self.i.ready.eq(~self.o.valid | self.o.ready), o.eq(beat)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & (i.last | (index == n_parts - 1)))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                index.eq(Mux(i.last, 0, index + 1)),
                beat.last.eq(i.last),
                beat.last_byte.eq(Cat(i.last_byte, index)),
            ]
            for n in range(n_parts):
                part = beat.data.as_value().word_select(n, part_width)
                with m.If(index == n):
                    m.d.sync += part.eq(i.data)
                with m.Elif(index == 0):
                    m.d.sync += part.eq(0)

    def _narrow(self, m):
        i, o = self.i.payload, self.o.payload
        part_width = 8 * self.o_bytes
        n_parts = self.i_bytes // self.o_bytes
        index = Signal(range(n_parts))
        is_final = Signal()
        lane_width = exact_log2(self.o_bytes)
        parts = [i.data.as_value().word_select(n, part_width) for n in range(n_parts)]
        for bit in index:
            parts = [Mux(bit, odd, even) for even, odd in zip(parts[0::2], parts[1::2], strict=True)]
        m.d.comb += [
            is_final.eq(index == Mux(i.last, i.last_byte[lane_width:], n_parts - 1)),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & is_final),
            o.data.eq(parts[0]),
            o.last.eq(i.last & is_final),
            o.last_byte.eq(Mux(o.last, i.last_byte[:lane_width], Const(self.o_bytes - 1))),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += index.eq(Mux(is_final, 0, index + 1))
