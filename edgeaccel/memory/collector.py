"""Bursts that wait until all their data is there."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.buffer import StreamBuffer
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH

__all__ = ["BurstCollector"]

_BURSTS = 4


class BurstCollector(wiring.Component):
    """Cuts beats into bursts that end at multiples of the largest burst, and offers a burst once its last beat is in.

    So whoever writes a burst never waits for its data, and may stop after each. A beat a cycle; a burst is offered one
    cycle after its last beat was taken, its first beat two cycles after that was. Up to 4 bursts wait. Equals
    `edgeaccel.golden.blocks.BlockPort.bursts`.

    Parameters
    ----------
    widths : BlockWidths
    rows : int
        Beats that find room, at least a burst; one more waits at `o_beats`.

    Members
    -------
    i : stream of BlockWidths.placed_beats
    o_bursts : stream of BlockWidths.bursts
        Refusals too, in order.
    o_beats : stream of BlockWidths.write_beats
        Of the bursts, and of those to come.
    """

    def __init__(self, widths, rows):
        self.widths = widths
        self.rows = rows
        super().__init__(
            {
                "i": In(stream.Signature(widths.placed_beats)),
                "o_bursts": Out(stream.Signature(widths.bursts)),
                "o_beats": Out(stream.Signature(widths.write_beats)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, page_at, address_width = self.widths.lane_width, self.widths.burst_width, self.widths.address
        m.submodules.buffer = buffer = StreamBuffer(self.widths.write_beats, self.rows)
        m.submodules.bursts = bursts = SyncFIFO(width=self.widths.bursts.size, depth=_BURSTS)
        i = self.i.payload
        burst = Signal(self.widths.bursts)

        # Where the beat is: told by the first of a block, counted after that.
        page, next_page = (Signal(address_width - page_at, name=name) for name in ("page", "next_page"))
        index, next_index = (Signal(page_at - lanes, name=name) for name in ("index", "next_index"))
        start, next_start = (Signal(page_at - lanes, name=name) for name in ("start", "next_start"))
        command, next_command = (Signal(COMMAND_NUMBER_WIDTH, name=name) for name in ("command", "next_command"))
        ends = Signal()
        move = Signal()
        m.d.comb += [
            page.eq(Mux(i.first, i.address[page_at:], next_page)),
            index.eq(Mux(i.first, i.address[lanes:page_at], next_index)),
            start.eq(Mux(i.first, i.address[lanes:page_at], next_start)),
            command.eq(Mux(i.first | i.refused, i.command, next_command)),
            ends.eq(i.beat.last | index.all() | i.refused),
            move.eq(self.i.valid & self.i.ready),
        ]
        with m.If(move):
            m.d.sync += [
                next_page.eq(page + index.all()),
                next_index.eq(index + 1),
                next_start.eq(Mux(index.all(), 0, start)),
                next_command.eq(command),
            ]

        m.d.comb += [
            self.i.ready.eq((buffer.i.ready | i.refused) & (bursts.w_rdy | ~ends)),
            buffer.i.valid.eq(move & ~i.refused),
            buffer.i.payload.eq(i.beat),
            buffer.i.payload.last.eq(ends),
            burst.address.eq(Mux(i.refused, i.address, Cat(Const(0, lanes), start, page))),
            burst.length.eq(index - start),
            burst.last.eq(i.beat.last),
            burst.command.eq(command),
            burst.refused.eq(i.refused),
            burst.code.eq(i.code),
            bursts.w_en.eq(move & ends),
            bursts.w_data.eq(burst),
            self.o_bursts.payload.eq(bursts.r_data),
            self.o_bursts.valid.eq(bursts.r_rdy),
            bursts.r_en.eq(self.o_bursts.ready),
        ]
        wiring.connect(m, buffer.o, wiring.flipped(self.o_beats))
        return m
