"""Bursts of blocks that the memory has not finished yet."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockError, BlockErrorCode
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH

__all__ = ["BlockReadTracker", "BlockWriteTracker"]


class BlockReadTracker(wiring.Component):
    """Remembers each burst until its last beat, and so limits how many there are; lets nothing pass after an error.

    From the first bad beat on all that arrives is taken and dropped, until reset. Beats pass without latency.

    Parameters
    ----------
    widths : BlockWidths
    outstanding : int
        Most bursts, at least 1.

    Members
    -------
    i_bursts : stream of BlockWidths.read_bursts
        Ready while there are less than `outstanding`.
    i : stream of BlockWidths.answers, always ready
    o : stream of BlockWidths.read_beats, always ready
    failure : BlockError
        Valid in the cycle of a beat with a bad response.
    idle : 1 bit
        There is no burst.
    """

    def __init__(self, widths, outstanding):
        self.widths = widths
        self.outstanding = outstanding
        super().__init__(
            {
                "i_bursts": In(stream.Signature(widths.read_bursts)),
                "i": In(stream.Signature(widths.answers, always_ready=True)),
                "o": Out(stream.Signature(widths.read_beats, always_ready=True)),
                "failure": Out(BlockError),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = self.widths.read_bursts
        m.submodules.bursts = bursts = SyncFIFO(width=layout.size, depth=self.outstanding)
        head = Signal(layout)
        answer, beat = self.i.payload, self.o.payload
        index = Signal(range(self.widths.beats_per_burst))
        dropping = Signal()
        m.d.comb += [
            bursts.w_data.eq(self.i_bursts.payload),
            bursts.w_en.eq(self.i_bursts.valid),
            self.i_bursts.ready.eq(bursts.w_rdy),
            self.idle.eq(~bursts.r_rdy),
            head.eq(bursts.r_data),
            bursts.r_en.eq(self.i.valid & answer.last),
            self.o.valid.eq(self.i.valid & ~self.failure.valid & ~dropping),
            beat.data.eq(answer.data),
            beat.offset.eq(head.offset),
            beat.rest.eq(head.rest),
            beat.last.eq(head.burst.last & answer.last),
            self.failure.valid.eq(self.i.valid & answer.response.as_value()[1]),
            self.failure.code.eq(BlockErrorCode.RESPONSE),
            self.failure.response.eq(answer.response),
            self.failure.address.eq(self._address(head.burst.address, index)),
            self.failure.command.eq(head.burst.command),
        ]
        with m.If(self.i.valid):
            m.d.sync += [index.eq(index + 1), dropping.eq(dropping | self.failure.valid)]
            with m.If(answer.last):
                m.d.sync += index.eq(0)
        return m

    def _address(self, start, index):
        low, high = self.widths.lane_width, self.widths.burst_width
        return Cat(start[:low], (start[low:high] + index)[: high - low], start[high:])


class BlockWriteTracker(wiring.Component):
    """Remembers each burst until its response, and so limits how many there are; tells when a block is written.

    After a bad response no block is told as written, until reset.

    Parameters
    ----------
    widths : BlockWidths
    outstanding : int
        Most bursts, at least 1.

    Members
    -------
    i_bursts : stream of BlockWidths.bursts
        Ready while there are less than `outstanding`.
    i : stream of axi.Response, always ready
    done : 1 bit
        The response is the last of a block, and all were good.
    done_command : 16 bits
        The block's number, with `done`.
    failure : BlockError
        Valid in the cycle of a bad response.
    idle : 1 bit
        There is no burst.
    """

    def __init__(self, widths, outstanding):
        self.widths = widths
        self.outstanding = outstanding
        super().__init__(
            {
                "i_bursts": In(stream.Signature(widths.bursts)),
                "i": In(stream.Signature(axi.Response, always_ready=True)),
                "done": Out(1),
                "done_command": Out(COMMAND_NUMBER_WIDTH),
                "failure": Out(BlockError),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        layout = self.widths.bursts
        m.submodules.bursts = bursts = SyncFIFO(width=layout.size, depth=self.outstanding)
        head = Signal(layout)
        dropping = Signal()
        m.d.comb += [
            bursts.w_data.eq(self.i_bursts.payload),
            bursts.w_en.eq(self.i_bursts.valid),
            self.i_bursts.ready.eq(bursts.w_rdy),
            self.idle.eq(~bursts.r_rdy),
            head.eq(bursts.r_data),
            bursts.r_en.eq(self.i.valid),
            self.done.eq(self.i.valid & head.last & ~self.failure.valid & ~dropping),
            self.done_command.eq(head.command),
            self.failure.valid.eq(self.i.valid & self.i.payload.as_value()[1]),
            self.failure.code.eq(BlockErrorCode.RESPONSE),
            self.failure.response.eq(self.i.payload),
            self.failure.address.eq(head.address),
            self.failure.command.eq(head.command),
        ]
        m.d.sync += dropping.eq(dropping | self.failure.valid)
        return m
