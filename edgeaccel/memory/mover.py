"""What the block reader and the block writer have in common."""

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockError, BlockWidths
from edgeaccel.memory.block_gate import BlockGate

__all__ = ["BlockMover"]


class BlockMover(wiring.Component):
    """Command queue, gate, error register and `clear`; parameters and members as `BlockReader` has them.

    Subclasses make a `port` with a member `m_axi`, and describe the rest in `core`.
    """

    def __init__(
        self,
        port_type,
        members,
        *,
        data_width,
        stream_bytes,
        buffer_beats,
        burst_beats,
        outstanding,
        queue,
        memory_bytes,
        address_width,
    ):
        for name, value, unit in (("queue", queue, "command"), ("outstanding", outstanding, "burst")):
            if value < 1:
                raise ValueError(f"{name} must be at least 1 {unit}, not {value!r}")
        self.widths = BlockWidths(
            address=address_width,
            beat=data_width,
            stream_bytes=stream_bytes,
            beats_per_burst=axi.beats_per_burst(burst_beats, data_width),
        )
        if buffer_beats < self.widths.beats_per_burst:
            raise ValueError(
                f"buffer_beats must be at least a burst, {self.widths.beats_per_burst} beats, not {buffer_beats!r}"
            )
        self.buffer_beats = buffer_beats
        self.outstanding = outstanding
        self.queue = queue
        self._gate = BlockGate(self.widths, memory_bytes=1 << address_width if memory_bytes is None else memory_bytes)
        self._port = port_type(self.widths)
        super().__init__(
            members
            | {
                "m_axi": self._port.signature.members["m_axi"],
                "i_commands": In(stream.Signature(self.widths.commands)),
                "clear": In(1),
                "error": Out(BlockError),
            }
        )

    def core(self, m, spans, port, clearing):
        """Describe what happens to the commands that the gate gives; return whether no burst is outstanding."""
        raise NotImplementedError

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = self._port
        wiring.connect(m, wiring.flipped(self.m_axi), port.m_axi)

        # Nothing is outstanding when the core is flushed, so only the streams of commands and blocks see that reset.
        clearing = Signal()
        flush = Signal()
        core = Module()
        m.submodules.core = ResetInserter(flush)(core)
        core.submodules.queue = queue = SyncFIFO(width=self.widths.commands.size, depth=self.queue)
        core.submodules.gate = gate = self._gate
        core.d.comb += [
            queue.w_data.eq(self.i_commands.payload),
            queue.w_en.eq(self.i_commands.valid & ~clearing),
            self.i_commands.ready.eq(queue.w_rdy & ~clearing),
            gate.i.payload.eq(queue.r_data),
            gate.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(gate.i.ready),
        ]
        idle = self.core(core, gate.o, port, clearing)
        m.d.comb += flush.eq(clearing & idle)
        m.d.sync += clearing.eq((clearing | self.clear) & ~flush)
        return m

    def hold_error(self, m, failure, refused, burst):
        """Keep the first error: a bad response, or the `refused` command in the place of `burst`."""
        with m.If(~self.error.valid):
            with m.If(failure.valid):
                m.d.sync += self.error.eq(failure)
            with m.Elif(refused):
                m.d.sync += [
                    self.error.valid.eq(1),
                    self.error.code.eq(burst.code),
                    self.error.response.eq(axi.Response.OKAY),
                    self.error.address.eq(burst.address),
                    self.error.command.eq(burst.command),
                ]
