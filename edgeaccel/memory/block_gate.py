"""Where the commands of block movers are checked and numbered."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory.block import BYTES_WIDTH, BlockErrorCode
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH

__all__ = ["BlockGate"]


class BlockGate(wiring.Component):
    """Numbers commands, and marks the bad ones: they go on as a refusal, in order.

    One command a cycle, one cycle of latency.

    Parameters
    ----------
    widths : BlockWidths
    memory_bytes : int
        Blocks must end within it, 1 to 2**widths.address.

    Members
    -------
    i : stream of BlockWidths.commands
    o : stream of BlockWidths.spans

    Raises
    ------
    ValueError
        If `memory_bytes` is out of its range.
    """

    def __init__(self, widths, *, memory_bytes):
        if not 1 <= memory_bytes <= 1 << widths.address:
            raise ValueError(
                f"memory_bytes must be 1 to 2**{widths.address}, what an address can tell, not {memory_bytes!r}"
            )
        self.widths = widths
        self.memory_bytes = memory_bytes
        super().__init__({"i": In(stream.Signature(widths.commands)), "o": Out(stream.Signature(widths.spans))})

    def elaborate(self, platform):
        m = Module()
        command = Signal(self.widths.commands, reset_less=True)
        end = Signal(max(self.widths.address, BYTES_WIDTH) + 1, reset_less=True)
        number = Signal(COMMAND_NUMBER_WIDTH)
        span = self.o.payload
        m.d.comb += [
            self.i.ready.eq(~self.o.valid | self.o.ready),
            span.address.eq(command.address),
            span.bytes.eq(command.bytes),
            span.command.eq(number),
        ]
        with m.If(command.bytes == 0):
            m.d.comb += [span.refused.eq(1), span.code.eq(BlockErrorCode.EMPTY)]
        with m.Elif(end > self.memory_bytes):
            m.d.comb += [span.refused.eq(1), span.code.eq(BlockErrorCode.RANGE)]
        with m.If(self.i.ready):
            # Both are wide: the end is added up on the way in, and compared on the way out.
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                command.eq(self.i.payload),
                end.eq(self.i.payload.address + self.i.payload.bytes),
            ]
        m.d.sync += number.eq(number + (self.o.valid & self.o.ready))
        return m
