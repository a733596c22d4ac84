"""From blocks to bursts that read them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.block import BYTES_WIDTH

__all__ = ["BlockIssuer"]


class BlockIssuer(wiring.Component):
    """Cuts the beats of a block into bursts that end at multiples of the largest burst, so never cross 4 KiB.

    One burst a cycle, without a gap between blocks; the first is offered one cycle after its command was taken. Equals
    `edgeaccel.golden.blocks.BlockPort.bursts`.

    Parameters
    ----------
    widths : BlockWidths

    Members
    -------
    i : stream of BlockWidths.spans
    o : stream of BlockWidths.read_bursts
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__({"i": In(stream.Signature(widths.spans)), "o": Out(stream.Signature(widths.read_bursts))})

    def elaborate(self, platform):
        m = Module()
        lanes, page_at = self.widths.lane_width, self.widths.burst_width
        span = self.i.payload
        address = Signal(self.widths.address, reset_less=True)
        offset = Signal(lanes, reset_less=True)
        rest = Signal(lanes, reset_less=True)
        beats_left = Signal(BYTES_WIDTH, reset_less=True)  # less one
        command = Signal.like(span.command, reset_less=True)
        refused = Signal(reset_less=True)
        code = Signal.like(span.code, reset_less=True)
        room = Signal(range(self.widths.beats_per_burst))  # less one
        is_last = Signal()
        move = Signal()
        o, burst = self.o.payload, self.o.payload.burst
        m.d.comb += [
            room.eq(~address[lanes:page_at]),
            is_last.eq(beats_left <= room),
            move.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~self.o.valid | (move & is_last)),
            burst.address.eq(address),
            burst.length.eq(Mux(is_last, beats_left, room)),
            burst.last.eq(is_last),
            burst.command.eq(command),
            burst.refused.eq(refused),
            burst.code.eq(code),
            o.offset.eq(offset),
            o.rest.eq(rest),
        ]
        with m.If(move):
            m.d.sync += [
                address[page_at:].eq(address[page_at:] + 1),
                address[lanes:page_at].eq(0),
                beats_left.eq(beats_left - room - 1),
            ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                address.eq(Cat(Mux(span.refused, span.address[:lanes], 0), span.address[lanes:])),
                offset.eq(span.address[:lanes]),
                rest.eq(span.bytes - 1),
                beats_left.eq((span.address[:lanes] + span.bytes - 1) >> lanes),
                command.eq(span.command),
                refused.eq(span.refused),
                code.eq(span.code),
            ]
        return m
