"""One stream to several."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Fork"]


class Fork(wiring.Component):
    """Hands each item to all outputs that want it, in whatever order they are ready.

    An item is given up in the cycle in which the last of them takes it: no register, one item a cycle.

    Parameters
    ----------
    shape : shape
        Of an item.
    outputs : int

    Members
    -------
    i : stream
    wanted : in, a bit for each output
        Which of them the offered item is for; stays as it is while the item does.
    o : array of streams
    """

    def __init__(self, shape, outputs):
        self._outputs = outputs
        items = stream.Signature(shape)
        super().__init__({"i": In(items), "wanted": In(outputs), "o": Out(items).array(outputs)})

    def elaborate(self, platform):
        m = Module()
        done, now = Signal(self._outputs), Signal(self._outputs)
        for n, o in enumerate(self.o):
            m.d.comb += [
                o.p.eq(self.i.p),
                o.valid.eq(self.i.valid & self.wanted[n] & ~done[n]),
                now[n].eq(done[n] | ~self.wanted[n] | o.ready),
            ]
        m.d.comb += self.i.ready.eq(self.i.valid & now.all())
        with m.If(self.i.valid):
            for n in range(self._outputs):
                m.d.sync += done[n].eq(now[n] & ~now.all() & self.wanted[n])
        return m
