"""Cycles of a run, and those of them with each of some events."""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["RunCounters", "any_of"]

_CYCLES_AT_RESET = 0


class RunCounters(wiring.Component):
    """Counts cycles in 64 bits and each event in 32, modulo 2**32. Apart from registers, so that these can be at rest.

    Parameters
    ----------
    n_events : int

    Members
    -------
    clear, count : in
        Begin at 0 again; count this cycle.
    events : in, a bit for each event
        No member of a build without any.
    chosen : in, a bit for each half of the cycles, the lower one first, and for each event
        What `content` shows; none of them gives 0.
    keep : in
        Keep the upper half of the cycles as it is now: that is what `chosen` means by it.
    content : out, 32 bits
    """

    def __init__(self, n_events):
        self._n_events = n_events
        events = {"events": In(n_events)} if n_events else {}
        plain = {"clear": In(1), "count": In(1), "chosen": In(2 + n_events), "keep": In(1), "content": Out(32)}
        super().__init__(plain | events)

    def elaborate(self, platform):
        m = Module()
        cycles, cycles_high = Signal(64, init=_CYCLES_AT_RESET), Signal(32)
        counters = [Signal(32, name=f"counter{n}") for n in range(self._n_events)]
        with m.If(self.clear):
            m.d.sync += [cycles.eq(0), *(counter.eq(0) for counter in counters)]
        with m.If(self.count):
            m.d.sync += cycles.eq(cycles + 1)
            m.d.sync += [counter.eq(counter + self.events[n]) for n, counter in enumerate(counters)]
        with m.If(self.keep):
            m.d.sync += cycles_high.eq(cycles[32:])
        shown = [cycles[:32], cycles_high, *counters]
        m.d.comb += self.content.eq(any_of([Mux(self.chosen[n], each, 0) for n, each in enumerate(shown)]))
        return m


def any_of(values):
    """OR of values, as a balanced tree."""
    while len(values) > 1:
        values = [reduce(or_, values[n : n + 2]) for n in range(0, len(values), 2)]
    return values[0]
