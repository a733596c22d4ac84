"""Block reader: activations and tables from memory, at any byte address."""

from amaranth.hdl import Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Out, connect, flipped

from edgeaccel.memory.block import block_beats
from edgeaccel.memory.block_issuer import BlockIssuer
from edgeaccel.memory.block_tracker import BlockReadTracker
from edgeaccel.memory.buffer import StreamBuffer
from edgeaccel.memory.mover import BlockMover
from edgeaccel.memory.port import ReadPort
from edgeaccel.memory.realign import BlockPacker
from edgeaccel.memory.reserve import SpaceReserve
from edgeaccel.memory.resize import BeatResizer

__all__ = ["BlockReader"]


class BlockReader(BlockMover):
    """Reads blocks of any length from any byte address over AXI4, packed into beats of a stream.

    The blocks of the commands, in order; byte `n` of a block is in lane `n % stream_bytes` of its beat
    `n // stream_bytes`, and lanes past its end are 0. Only beats of the memory that hold bytes of the block are read.
    Bursts of later commands are asked for while data of earlier ones still waits: as long as a burst finds reserved
    space, and fewer than `outstanding` are unanswered. So the memory never has to wait: `rready` is constant 1. Equals
    `edgeaccel.golden.blocks.Reader`.

    Throughput, in cycles: a burst is asked for each cycle, across commands; a beat of the memory is taken each cycle,
    and as much of the stream is given as it holds, whatever the address. If a beat of the memory is larger than one of
    the stream, the stream is the limit: a beat a cycle.

    Latency: 4 cycles from a command to its first address, 5 from a block's last beat of the memory to its last beat of
    the stream if that lies in one beat of the memory, else 4; one more if a beat of the stream is larger.

    Parameters
    ----------
    data_width : int
        Bits of a beat of the memory: 32 to 1024, a power of two.
    stream_bytes : int
        Bytes of a beat of the stream: 4 to 128, a power of two.
    buffer_beats : int
        Beats of the memory that find room, at least a burst. From 2048 on they are in UltraRAM.
    burst_beats : int
        Most beats of a burst, a power of two from 1 to 256; 4 KiB is the limit too. HBM ports (AXI3) take 16.
    outstanding : int
        Most bursts that are asked for and not fully answered, at least 1.
    queue : int
        Commands that wait, at least 1, beside the two that are worked on.
    memory_bytes : int
        End of the memory; a command past it is refused. By default all that an address can tell.
    address_width : int
        12 to 64 bits.

    Members
    -------
    m_axi : axi.Signature, read channels
    i_commands : stream of {address, bytes: 32 bits}
    o : stream of block_beats(stream_bytes): {data: stream_bytes x 8 bits, last_byte: range(stream_bytes), last: 1}
        `last` ends a block; `last_byte` is the lane of its last byte there, and `stream_bytes - 1` in other beats.
    clear : 1 bit
        A pulse ends everything: no more bursts; what is asked for is awaited and dropped; then all is as after reset,
        command queue, buffer and error included. Until then `i_commands` is not ready. An offer of `o` may be withdrawn
        by it, nothing on `m_axi` is.
    error : BlockError
        Holds the first error until `clear` or reset. No burst starts after an error. All blocks before the refused
        command are given, and none after them. Before a bad response, all beats of the stream are given that need
        nothing of the bad beat or later ones, in beats of the memory if those are larger; none after them.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        data_width=256,
        stream_bytes=64,
        buffer_beats=256,
        burst_beats=16,
        outstanding=16,
        queue=8,
        memory_bytes=None,
        address_width=64,
    ):
        super().__init__(
            ReadPort,
            {"o": Out(stream.Signature(block_beats(stream_bytes)))},
            data_width=data_width,
            stream_bytes=stream_bytes,
            buffer_beats=buffer_beats,
            burst_beats=burst_beats,
            outstanding=outstanding,
            queue=queue,
            memory_bytes=memory_bytes,
            address_width=address_width,
        )
        self._tracker = BlockReadTracker(self.widths, outstanding)
        self._buffer = StreamBuffer(self.widths.read_beats, buffer_beats)

    def core(self, m, spans, port, clearing):
        widths = self.widths
        m.submodules.issuer = issuer = BlockIssuer(widths)
        m.submodules.reserve = reserve = SpaceReserve(self.buffer_beats, widths.beats_per_burst)
        m.submodules.tracker = tracker = self._tracker
        m.submodules.buffer = buffer = self._buffer
        m.submodules.packer = packer = BlockPacker(widths)
        m.submodules.resizer = resizer = BeatResizer(widths.beat_bytes, widths.stream_bytes)
        connect(m, spans, issuer.i)
        connect(m, port.o, tracker.i)
        connect(m, buffer.o, packer.i)
        connect(m, packer.o, resizer.i)
        connect(m, resizer.o, flipped(self.o))
        m.d.comb += [
            # Never full: a beat that arrives has its row reserved.
            buffer.i.payload.eq(tracker.o.payload),
            buffer.i.valid.eq(tracker.o.valid),
            reserve.give.eq(buffer.o.valid & buffer.o.ready),
        ]

        # A burst goes to the port, the tracker and the reserve at once, when all three have room.
        burst = issuer.o.payload.burst
        halt = clearing | self.error.valid
        go = Signal()
        m.d.comb += [
            reserve.request.eq(burst.length + 1),
            issuer.o.ready.eq(port.i.ready & tracker.i_bursts.ready & reserve.fits & ~burst.refused & ~halt),
            go.eq(issuer.o.valid & issuer.o.ready),
            port.i.valid.eq(go),
            port.i.payload.address.eq(burst.address),
            port.i.payload.length.eq(burst.length),
            tracker.i_bursts.valid.eq(go),
            tracker.i_bursts.payload.eq(issuer.o.payload),
            reserve.take.eq(go),
        ]
        self.hold_error(m, tracker.failure, issuer.o.valid & burst.refused & ~clearing, burst)
        return tracker.idle
