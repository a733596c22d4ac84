"""Codes of the heads that are being written, two heads at a time: one is filled while the other one is read."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from edgeaccel.attention.append_command import MOST_HEADS
from edgeaccel.memory.buffer import memory_attributes
from edgeaccel.pe.float import FP16
from edgeaccel.vector.quantise import CODE_WIDTH, quantised_beat

__all__ = ["CodeBanks", "head_count"]


def head_count(sizes):
    """Of a command: how many vectors come, `rows` of each head, and in which slot the first one of each is."""
    return data.StructLayout(
        {
            "heads": range(MOST_HEADS + 1),
            "rows": range(sizes.config.rows + 1),
            "first_slot": sizes.row_bits,
        }
    )


class CodeBanks(wiring.Component):
    """Takes the vectors of a head, one after the other; then all of them can be read, a beat of each at once.

    Slots are those of a window, so positions stand where they are written. Lanes without an element have the code 0.

    Parameters
    ----------
    sizes : AppendSizes

    Members
    -------
    i_heads : stream of `head_count`
        Taken with the last beat of its last vector.
    i : stream of quantised beats
    is_full : out
        A head can be read from this cycle on.
    free : in
        It is read for the last time.
    address : in
        Beat of the vectors that is read.
    codes : out
        A cycle later: of each slot `vector_lanes` codes.
    scales : out
        A cycle later too: of each slot the FP16 code.
    """

    def __init__(self, sizes):
        self.sizes = sizes
        lanes = sizes.config.vector_lanes
        self.beats = sizes.max_head_dim // lanes
        super().__init__(
            {
                "i_heads": In(stream.Signature(head_count(sizes))),
                "i": In(stream.Signature(quantised_beat(lanes))),
                "is_full": Out(1),
                "free": In(1),
                "address": In(range(self.beats)),
                "codes": Out(data.ArrayLayout(data.ArrayLayout(CODE_WIDTH, lanes), sizes.rows)),
                "scales": Out(data.ArrayLayout(FP16.width, sizes.rows)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        sizes, i, heads = self.sizes, self.i, self.i_heads
        filled, read = Signal(), Signal()  # banks
        are_full = Signal(2)
        beat = Signal(range(self.beats))
        row = Signal(range(sizes.config.rows))
        head = Signal(range(MOST_HEADS))
        slot = Signal(sizes.row_bits)
        takes, ends_head, ends_heads = Signal(), Signal(), Signal()
        m.d.comb += [
            self.is_full.eq(Mux(read, are_full[1], are_full[0])),
            i.ready.eq(heads.valid & ~Mux(filled, are_full[1], are_full[0])),
            takes.eq(i.valid & i.ready),
            slot.eq(heads.p.first_slot + row),
            ends_head.eq(i.p.last & (row == heads.p.rows - 1)),
            ends_heads.eq(ends_head & (head == heads.p.heads - 1)),
            heads.ready.eq(takes & ends_heads),
        ]
        with m.If(takes):
            m.d.sync += beat.eq(Mux(i.p.last, 0, beat + 1))
            m.d.sync += row.eq(Mux(ends_head, 0, row + i.p.last))
            m.d.sync += head.eq(Mux(ends_heads, 0, head + ends_head))
        m.d.sync += [filled.eq(filled ^ (takes & ends_head)), read.eq(read ^ self.free)]
        for bank in range(2):
            with m.If(takes & ends_head & (filled == bank)):
                m.d.sync += are_full[bank].eq(1)
            with m.If(self.free & (read == bank)):
                m.d.sync += are_full[bank].eq(0)

        depth = 2 << ceil_log2(self.beats)
        kept = [Mux(keep, code, 0) for keep, code in zip(i.p.keep, i.p.codes, strict=True)]
        for n in range(sizes.rows):
            codes = self.codes[n]
            memory = Memory(shape=codes.shape(), depth=depth, init=[], attrs=memory_attributes(depth))
            m.submodules[f"codes{n}"] = memory
            write, output = memory.write_port(), memory.read_port()
            banks = [Signal(FP16.width, name=f"scale{n}_{bank}", reset_less=True) for bank in range(2)]
            m.d.comb += [
                write.addr.eq(Cat(beat, filled)),
                write.data.eq(Cat(kept)),
                write.en.eq(takes & (slot == n)),
                output.addr.eq(Cat(self.address, read)),
                codes.eq(output.data),
            ]
            for bank, scale in enumerate(banks):
                with m.If(write.en & (filled == bank)):
                    m.d.sync += scale.eq(i.p.scale)
            m.d.sync += self.scales[n].eq(Mux(read, banks[1], banks[0]))
        return m
