"""From commands to bursts."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["BurstIssuer"]


class BurstIssuer(wiring.Component):
    """Cuts the entries of a command into bursts that end at multiples of the largest burst, so never cross 4 KiB.

    One burst a cycle, without a gap between commands; the first is offered one cycle after its command was taken.
    Equals `edgeaccel.golden.memory.bursts`.

    Parameters
    ----------
    widths : Widths

    Members
    -------
    i : stream of Widths.spans
    o : stream of Widths.bursts
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__({"i": In(stream.Signature(widths.spans)), "o": Out(stream.Signature(widths.bursts))})

    def elaborate(self, platform):
        m = Module()
        most = self.widths.entries_per_burst
        offset_width = exact_log2(self.widths.entry_bytes)
        page_at = offset_width + exact_log2(most)

        active = Signal()
        span = Signal(self.widths.spans, reset_less=True)
        room = Signal(range(most + 1))
        is_last = Signal()
        move = Signal()
        m.d.comb += [
            room.eq(most - span.address[offset_width:page_at]),
            is_last.eq(span.entries <= room),
            move.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~active | (move & is_last)),
            self.o.valid.eq(active),
            self.o.payload.address.eq(span.address),
            self.o.payload.entries.eq(Mux(is_last, span.entries, room)),
            self.o.payload.last_word.eq(Mux(is_last, span.last_word, self.widths.words_per_entry - 1)),
            self.o.payload.command.eq(span.command),
        ]
        with m.If(move):
            m.d.sync += [
                span.address[page_at:].eq(span.address[page_at:] + 1),
                span.address[:page_at].eq(0),
                span.entries.eq(span.entries - room),
            ]
        with m.If(self.i.ready):
            m.d.sync += [active.eq(self.i.valid), span.eq(self.i.payload)]
        return m
