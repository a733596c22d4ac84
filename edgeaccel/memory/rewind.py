"""A deep buffer whose last items can be had again."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.buffer import memory_attributes

__all__ = ["RewindBuffer"]


class RewindBuffer(wiring.Component):
    """A `StreamBuffer` that keeps items which have been taken, until they have been taken again for good.

    What is written in cycle `t` is offered from `t + 2` on; one item a cycle, also where it begins again. A row is free
    once its item has been taken without `keep`. Whoever keeps more than `rows` items waits forever.

    Parameters
    ----------
    shape : shape
        Of an item.
    rows : int
        Of the memory, at least 1.

    Members
    -------
    i, o : streams of shape
    keep : in
        The item that is taken from `o` is kept. Once one is, only such are taken until `rewind`.
    rewind : in
        Only while an item is offered: whether it is taken or not, the next one is the first that was kept, or this one.
    released : out
        An item is taken for good.
    """

    def __init__(self, shape, rows):
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows!r}")
        self.shape = shape
        self.rows = rows
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "keep": In(1),
                "rewind": In(1),
                "released": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        attributes = memory_attributes(self.rows)
        m.submodules.storage = storage = Memory(shape=self.shape, depth=self.rows, init=[], attrs=attributes)
        write_port = storage.write_port()
        read_port = storage.read_port()
        following = Signal(range(self.rows))  # what is read next
        oldest = Signal(range(self.rows))  # of those that are not given up
        level = Signal(range(self.rows + 1))  # not read yet, or to be read again
        kept = Signal(range(self.rows + 1))  # taken and to be had again
        used = Signal(range(self.rows + 1))
        pops = Signal()

        def after(address):
            return Mux(address == self.rows - 1, 0, address + 1)

        m.d.comb += [
            self.i.ready.eq(used != self.rows),
            write_port.en.eq(self.i.valid & self.i.ready),
            write_port.data.eq(self.i.payload),
            read_port.addr.eq(Mux(self.rewind, oldest, following)),
            read_port.en.eq(self.rewind | ((level != 0) & (~self.o.valid | self.o.ready))),
            self.o.payload.eq(read_port.data),
            pops.eq(self.o.valid & self.o.ready),
            self.released.eq(pops & ~self.keep),
        ]
        with m.If(write_port.en):
            m.d.sync += write_port.addr.eq(after(write_port.addr))
        with m.If(read_port.en):
            m.d.sync += following.eq(after(read_port.addr))
        with m.If(self.released):
            m.d.sync += oldest.eq(after(oldest))
        m.d.sync += used.eq(used + write_port.en - self.released)
        with m.If(self.rewind):
            # The one that is offered is not read any more, and the first of them is now.
            m.d.sync += [level.eq(level + write_port.en + kept), kept.eq(0)]
        with m.Else():
            m.d.sync += [level.eq(level + write_port.en - read_port.en), kept.eq(kept + (pops & self.keep))]
        with m.If(~self.o.valid | self.o.ready | self.rewind):
            m.d.sync += self.o.valid.eq((level != 0) | self.rewind)
        return m
