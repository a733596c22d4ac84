"""Space that is promised to data before the data is asked for."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

__all__ = ["SpaceReserve"]


class SpaceReserve(wiring.Component):
    """Counts the rows of a buffer that no burst on its way has been promised.

    What is given back in a cycle can be taken from the next one on.

    Parameters
    ----------
    rows : int
        Of the buffer.
    most : int
        Most rows that are asked for at a time, 1 to `rows`.

    Members
    -------
    request : range(most + 1)
        Rows asked for.
    fits : 1 bit
        There are as many.
    take : 1 bit
        Promise them; only with `fits`.
    give : 1 bit
        A row is empty again.

    Raises
    ------
    ValueError
        If the buffer is smaller than what may be asked for.
    """

    def __init__(self, rows, most):
        if not 1 <= most <= rows:
            raise ValueError(f"a buffer must hold at least a burst, {most} rows, not {rows!r}")
        self.rows = rows
        super().__init__({"request": In(range(most + 1)), "fits": Out(1), "take": In(1), "give": In(1)})

    def elaborate(self, platform):
        m = Module()
        free = Signal(range(self.rows + 1), init=self.rows)
        taken = Signal.like(self.request)
        m.d.comb += self.fits.eq(self.request <= free)
        with m.If(self.take):
            m.d.comb += taken.eq(self.request)
        m.d.sync += free.eq(free - taken + self.give)
        return m
