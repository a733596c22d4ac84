"""Events that a command may wait for, counted until it does."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["EVENT_COUNT_WIDTH", "EventCounters"]

EVENT_COUNT_WIDTH = 8


class EventCounters(wiring.Component):
    """One counter for each event line: pulses not yet taken, at most 255.

    A pulse counts from the next cycle on. With one too many a count wraps, and that is told: `overflow`.

    Parameters
    ----------
    n_events : int
        Lines, at least 1.

    Members
    -------
    pulses : n_events bits
        A line that is high for a cycle is one event.
    index : range(n_events)
        The event that is asked for; one that does not exist never is available.
    available : 1 bit
        Its count is not zero.
    take : 1 bit
        Take one of it; only with `available`.
    overflow : 1 bit
        A count wraps in this cycle.
    """

    def __init__(self, n_events):
        self.n_events = n_events
        super().__init__(
            {
                "pulses": In(n_events),
                "index": In(range(n_events) if n_events > 1 else 1),
                "available": Out(1),
                "take": In(1),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(EVENT_COUNT_WIDTH, name=f"count{n}") for n in range(self.n_events)]
        lost = Signal(self.n_events)
        m.d.comb += [
            self.available.eq(Cat((self.index == n) & count.any() for n, count in enumerate(counts)).any()),
            self.overflow.eq(lost.any()),
        ]
        for n, count in enumerate(counts):
            taken = self.take & (self.index == n)
            with m.If(self.pulses[n] & ~taken):
                m.d.comb += lost[n].eq(count.all())
                m.d.sync += count.eq(count + 1)
            with m.Elif(~self.pulses[n] & taken):
                m.d.sync += count.eq(count - 1)
        return m
