"""The deep buffer in front of the array."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

__all__ = ["StreamBuffer", "memory_attributes"]

# From this depth on a row costs less in UltraRAM (4096 rows of 72 bits, and no initial content) than in block RAM.
_ULTRA_ROWS = 2048
# Up to this depth a memory is left to look like any other: it becomes LUT RAM, and its Verilog is short.
_PLAIN_ROWS = 32


def memory_attributes(rows):
    """Attributes of a memory of so many rows, whose content does not count before it is written."""
    attributes = {"no_init": 1} if rows > _PLAIN_ROWS else {}
    return attributes | ({"ram_style": "ultra"} if rows >= _ULTRA_ROWS else {})


class StreamBuffer(wiring.Component):
    """A queue in one memory with a synchronous read port and one clock, as block RAM and UltraRAM have it.

    What is written in cycle `t` is offered from `t + 2` on; one item a cycle. The row that `o` shows is out of the
    memory already, so `rows + 1` items find room.

    Memories of more than 32 rows have no initial content; from 2048 on they have the attribute `ram_style = "ultra"`.

    Parameters
    ----------
    shape : shape
        Of an item.
    rows : int
        Of the memory, at least 1.

    Members
    -------
    i : stream of shape
    o : stream of shape
    """

    def __init__(self, shape, rows):
        if rows < 1:
            raise ValueError(f"rows must be at least 1, not {rows!r}")
        self.shape = shape
        self.rows = rows
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        attributes = memory_attributes(self.rows)
        m.submodules.storage = storage = Memory(shape=self.shape, depth=self.rows, init=[], attrs=attributes)
        write_port = storage.write_port()
        read_port = storage.read_port()
        level = Signal(range(self.rows + 1))
        m.d.comb += [
            self.i.ready.eq(level != self.rows),
            write_port.en.eq(self.i.valid & self.i.ready),
            write_port.data.eq(self.i.payload),
            read_port.en.eq((level != 0) & (~self.o.valid | self.o.ready)),
            self.o.payload.eq(read_port.data),
        ]
        for port in (write_port, read_port):
            with m.If(port.en):
                m.d.sync += port.addr.eq(Mux(port.addr == self.rows - 1, 0, port.addr + 1))
        m.d.sync += level.eq(level + write_port.en - read_port.en)
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += self.o.valid.eq(level != 0)
        return m
