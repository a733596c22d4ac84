"""Block writer: results to memory, at any byte address."""

from functools import partial

from amaranth.hdl import Signal
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out, connect

from edgeaccel.memory.block import block_beats
from edgeaccel.memory.block_tracker import BlockWriteTracker
from edgeaccel.memory.collector import BurstCollector
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH
from edgeaccel.memory.mover import BlockMover
from edgeaccel.memory.realign import BlockPlacer
from edgeaccel.memory.resize import BeatResizer
from edgeaccel.memory.write_port import WritePort

__all__ = ["BlockWriter"]


class BlockWriter(BlockMover):
    """Writes blocks of any length to any byte address over AXI4, from beats of a stream; touches no other byte.

    A burst starts when all its data is there, so a memory never waits for a slow source, and a burst that has started
    always ends. Equals `edgeaccel.golden.blocks.Writer`.

    Throughput, in cycles: a beat of the memory is sent each cycle, across commands, and as much of the stream is taken
    as it holds, whatever the address, if `outstanding` bursts cover the latency of the memory and the buffer holds two
    bursts. If a beat of the memory is larger than one of the stream, the stream is the limit: a beat a cycle.

    Latency: 3 cycles from the last beat of a burst to its address and, if no data waits, its data; one more if a beat
    of the memory is larger than one of the stream. 1 cycle from the last response of a block to `done`.

    Parameters
    ----------
    data_width : int
        Bits of a beat of the memory: 32 to 1024, a power of two.
    stream_bytes : int
        Bytes of a beat of the stream: 4 to 128, a power of two.
    buffer_beats : int
        Beats of the memory that find room, at least a burst; two bursts for full throughput.
    burst_beats : int
        Most beats of a burst, a power of two from 1 to 256; 4 KiB is the limit too. HBM ports (AXI3) take 16.
    outstanding : int
        Most bursts that have started and are not answered, at least 1.
    queue : int
        Commands that wait, at least 1, beside the two that are worked on.
    memory_bytes : int
        End of the memory; a command past it is refused. By default all that an address can tell.
    address_width : int
        12 to 64 bits.

    Members
    -------
    m_axi : axi.Signature, write channels
    i_commands : stream of {address, bytes: 32 bits}
    i : stream of block_beats(stream_bytes): {data: stream_bytes x 8 bits, last_byte: range(stream_bytes), last: 1}
        As `BlockReader.o`. `last_byte` counts only with `last`. Beats may come before their command.
    done : 1 bit
        1 for a cycle when the last response of a block has come: all its bytes are written. In order.
    done_command : 16 bits
        With `done`: number of the command since reset or `clear`, from 0, modulo 2**16.
    clear : 1 bit
        A pulse ends everything: no more bursts; those that have started end and are awaited; then all is as after
        reset, command queue, buffer and error included. Until then `i_commands` and `i` are not ready. What was to come
        of a block that was not done must not come any more: the next beat begins the next command's block.
    error : BlockError
        Holds the first error until `clear` or reset. No burst starts after an error. All blocks before a refused
        command are written, and none after them. `LENGTH`: `last` came too early or too late. Packed into beats of the
        memory, the first that is not as the command says is dropped; of those before it whole bursts are written. After
        a bad response no block is `done`; bursts that had started may be written.

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
        buffer_beats=64,
        burst_beats=16,
        outstanding=16,
        queue=8,
        memory_bytes=None,
        address_width=64,
    ):
        super().__init__(
            partial(WritePort, outstanding=outstanding),
            {
                "i": In(stream.Signature(block_beats(stream_bytes))),
                "done": Out(1),
                "done_command": Out(COMMAND_NUMBER_WIDTH),
            },
            data_width=data_width,
            stream_bytes=stream_bytes,
            buffer_beats=buffer_beats,
            burst_beats=burst_beats,
            outstanding=outstanding,
            queue=queue,
            memory_bytes=memory_bytes,
            address_width=address_width,
        )

    def core(self, m, spans, port, clearing):
        widths = self.widths
        m.submodules.resizer = resizer = BeatResizer(widths.stream_bytes, widths.beat_bytes)
        m.submodules.placer = placer = BlockPlacer(widths)
        m.submodules.collector = collector = BurstCollector(widths, self.buffer_beats)
        m.submodules.tracker = tracker = BlockWriteTracker(widths, self.outstanding)
        connect(m, spans, placer.i_spans)
        connect(m, resizer.o, placer.i)
        connect(m, placer.o, collector.i)
        connect(m, collector.o_beats, port.i_beats)
        connect(m, port.o, tracker.i)
        m.d.comb += [
            resizer.i.payload.eq(self.i.payload),
            resizer.i.valid.eq(self.i.valid & ~clearing),
            self.i.ready.eq(resizer.i.ready & ~clearing),
            self.done.eq(tracker.done),
            self.done_command.eq(tracker.done_command),
        ]

        # A burst goes to the port and the tracker at once, when both have room.
        burst = collector.o_bursts.payload
        halt = clearing | self.error.valid
        go = Signal()
        m.d.comb += [
            collector.o_bursts.ready.eq(port.i.ready & tracker.i_bursts.ready & ~burst.refused & ~halt),
            go.eq(collector.o_bursts.valid & collector.o_bursts.ready),
            port.i.valid.eq(go),
            port.i.payload.address.eq(burst.address),
            port.i.payload.length.eq(burst.length),
            tracker.i_bursts.valid.eq(go),
            tracker.i_bursts.payload.eq(burst),
        ]
        self.hold_error(m, tracker.failure, collector.o_bursts.valid & burst.refused & ~clearing, burst)
        return tracker.idle
