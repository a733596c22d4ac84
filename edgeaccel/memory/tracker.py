"""Bursts that the memory has not finished yet."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory import axi
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH

__all__ = ["ReadTracker"]


class ReadTracker(wiring.Component):
    """Remembers each burst until its last entry, and so limits how many there are; lets nothing pass after an error.

    From the first bad entry on all that arrives is taken and dropped, until reset. Entries pass without latency.

    Parameters
    ----------
    widths : Widths
    outstanding : int
        Most bursts, at least 1.

    Members
    -------
    i_bursts : stream of Widths.bursts
        Ready while there are less than `outstanding`.
    i : stream of Widths.answers, always ready
    o : stream of Widths.entries, always ready
    failed : 1 bit
        The entry has a bad `response`; `address` and `command` are where it belongs.
    idle : 1 bit
        There is no burst.

    Raises
    ------
    ValueError
        If `outstanding` is not positive.
    """

    def __init__(self, widths, outstanding):
        if outstanding < 1:
            raise ValueError(f"outstanding must be at least 1 burst, not {outstanding!r}")
        self.widths = widths
        self.outstanding = outstanding
        super().__init__(
            {
                "i_bursts": In(stream.Signature(widths.bursts)),
                "i": In(stream.Signature(widths.answers, always_ready=True)),
                "o": Out(stream.Signature(widths.entries, always_ready=True)),
                "failed": Out(1),
                "response": Out(axi.Response),
                "address": Out(64),
                "command": Out(COMMAND_NUMBER_WIDTH),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = self.widths.bursts
        m.submodules.bursts = bursts = SyncFIFO(width=layout.size, depth=self.outstanding)
        burst = Signal(layout)
        entry = self.i.payload
        offset = Signal(range(self.widths.entries_per_burst))
        dropping = Signal()
        m.d.comb += [
            bursts.w_data.eq(self.i_bursts.payload),
            bursts.w_en.eq(self.i_bursts.valid),
            self.i_bursts.ready.eq(bursts.w_rdy),
            self.idle.eq(~bursts.r_rdy),
            burst.eq(bursts.r_data),
            bursts.r_en.eq(self.i.valid & entry.last),
            self.failed.eq(self.i.valid & entry.response.as_value()[1]),
            self.o.valid.eq(self.i.valid & ~self.failed & ~dropping),
            self.o.payload.data.eq(entry.data),
            self.o.payload.last_word.eq(self.widths.words_per_entry - 1),
            self.response.eq(entry.response),
            self.address.eq(self._address(burst, offset)),
            self.command.eq(burst.command),
        ]
        with m.If(entry.last):
            m.d.comb += self.o.payload.last_word.eq(burst.last_word)
        with m.If(self.i.valid):
            m.d.sync += [offset.eq(offset + 1), dropping.eq(dropping | self.failed)]
            with m.If(entry.last):
                m.d.sync += offset.eq(0)
        return m

    def _address(self, burst, offset):
        low = exact_log2(self.widths.entry_bytes)
        high = exact_log2(axi.BOUNDARY_BYTES)
        return Cat(burst.address[:low], (burst.address[low:high] + offset)[: high - low], burst.address[high:])
