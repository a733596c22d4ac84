"""Tile streamer: what keeps a group of the array fed from its memory port."""

from amaranth.hdl import Cat, Const, Module, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.memory import axi
from edgeaccel.memory.buffer import StreamBuffer
from edgeaccel.memory.command import ErrorCode, StreamerError, Widths
from edgeaccel.memory.gate import CommandGate
from edgeaccel.memory.issuer import BurstIssuer
from edgeaccel.memory.port import ReadPort
from edgeaccel.memory.reserve import SpaceReserve
from edgeaccel.memory.rewind import RewindBuffer
from edgeaccel.memory.tracker import ReadTracker
from edgeaccel.memory.width import WordUnpacker

__all__ = ["TileStreamer"]


class TileStreamer(wiring.Component):
    """Reads tiles over AXI4, ahead of who uses them.

    The words of the commands, in order. Bursts of later commands are asked for while words of earlier ones still wait
    in the buffer: as long as a burst finds reserved space there, and fewer than `outstanding` are unanswered. So the
    memory never has to wait: with one clock `rready` is constant 1. Equals `edgeaccel.golden.memory`.

    Throughput: a burst each core cycle; a beat each port cycle or a word each core cycle, whichever is less. Beats come
    without a gap, across bursts and commands, where `outstanding` bursts and `buffer_words` both cover the memory's
    latency and the words are taken as they come. If a beat holds several words, they are the limit: a beat every
    `data_width / word_width` core cycles.

    Latency, with one clock: 4 cycles from a command to its first address, 3 from a word's last beat to the word. Two
    clocks add at most 3 port cycles to either, and 3 core cycles to the latter.

    Parameters
    ----------
    data_width : int
        Bits of a beat: 32 to 1024, a power of two.
    word_width : int
        Bits of a word, 4 times the lanes: 64 to 1024, a power of two.
    buffer_words : int
        Words that find room in the buffer, whole beats and at least a burst. From 2048 rows on it is in UltraRAM.
    burst_beats : int
        Most beats of a burst, a power of two from 1 to 256, at least a word; 4 KiB is the limit too. HBM ports (AXI3)
        take 16.
    outstanding : int
        Most bursts that are asked for and not fully answered, at least 1.
    queue : int
        Commands that wait, at least 1, beside the two that are worked on.
    n_events : int
        Events that commands may wait for, at least 1.
    formats : tuple of str
        Formats of the build; a command of another one is refused. The words are not changed by it.
    memory_bytes : int
        End of the memory; a command past it is refused. By default all that an address can tell.
    address_width : int
        12 to 64 bits.
    port_domain : str
        Clock domain of `m_axi`: "sync", or another with a clock of its own. Both must be reset together.
    most_kept : int
        Words that may be kept, to come again; 0 for a build without `keep` and `rewind`. The buffer must hold them, an
        entry and a burst: else it could be full of what is kept, and the rest never come.

    Members
    -------
    m_axi : axi.Signature, read channels
    i_commands : stream of {address, words: 32 bits, format: FormatCode, wait: 1, event: range(n_events)}
        `address` in bytes, a multiple of a word and of a beat. With `wait`, the command takes one count of its event
        before its first burst. When the words do not fill the last beat, the rest of it is dropped.
    o_words : stream of word_width bits
    keep, rewind : 1 bit
        Only with `most_kept`: the word that is taken is kept; with it all that are kept come again, from the first on,
        before any other. What is taken without `keep` is given up. Without `rewind`, no other word is taken behind one
        that is kept.
    events : n_events bits
        A line that is high for a cycle is one event more to be waited for. Up to 255 are counted; one more is an error.
    clear : 1 bit
        A pulse ends everything: no more bursts; what is asked for is awaited and dropped; then all is as after reset,
        command queue, buffer, events and error included. Until then `i_commands` is not ready, and events are lost. An
        offer of `o_words` may be withdrawn by it, nothing on `m_axi` is.
    clearing : 1 bit
        High from the cycle after `clear` until everything has ended.
    error : StreamerError
        Holds the first error until `clear` or reset. No burst starts after an error. All words before the refused
        command, or before the bad entry, are given, and none after them; after a lost event, those asked for already.
    domains : tuple of str
        Clock domains.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(
        self,
        *,
        data_width=256,
        word_width=512,
        buffer_words=512,
        burst_beats=16,
        outstanding=32,
        queue=8,
        n_events=4,
        formats=("int4", "int8", "int16", "mxfp4"),
        memory_bytes=None,
        address_width=64,
        port_domain="sync",
        most_kept=0,
    ):
        if queue < 1:
            raise ValueError(f"queue must be at least 1 command, not {queue!r}")
        self.widths = widths = Widths(
            address=address_width,
            beat=data_width,
            word=word_width,
            beats_per_burst=axi.beats_per_burst(burst_beats, data_width),
            n_events=n_events,
        )
        self.rows, rest = divmod(buffer_words, widths.words_per_entry)
        if rest or self.rows < widths.entries_per_burst:
            raise ValueError(
                f"buffer_words must be a multiple of {widths.words_per_entry} and at least a burst,"
                f" {widths.entries_per_burst * widths.words_per_entry} words, not {buffer_words!r}"
            )
        needed = -(-most_kept // widths.words_per_entry) + 1 + widths.entries_per_burst
        if most_kept and self.rows < needed:
            raise ValueError(
                f"buffer_words must be at least {needed * widths.words_per_entry} to keep {most_kept} words beside an"
                f" entry and a burst, not {buffer_words!r}"
            )
        self.most_kept = most_kept
        self.buffer_words = buffer_words
        self.outstanding = outstanding
        self.queue = queue
        self.domains = tuple(dict.fromkeys(("sync", port_domain)))
        self._port = ReadPort(widths, domain=port_domain)
        self._gate = CommandGate(
            widths,
            formats=formats,
            memory_bytes=1 << address_width if memory_bytes is None else memory_bytes,
        )
        self._tracker = ReadTracker(widths, outstanding)
        buffer = RewindBuffer if most_kept else StreamBuffer
        self._buffer = buffer(widths.entries, self.rows)
        super().__init__(
            {
                "m_axi": self._port.signature.members["m_axi"],
                "i_commands": In(stream.Signature(widths.commands)),
                "o_words": Out(stream.Signature(word_width)),
                **({"keep": In(1), "rewind": In(1)} if most_kept else {}),
                "events": In(n_events),
                "clear": In(1),
                "clearing": Out(1),
                "error": Out(StreamerError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = self._port
        wiring.connect(m, wiring.flipped(self.m_axi), port.m_axi)

        # Nothing is outstanding when the core is flushed, so only the streams of commands and words see that reset.
        clearing = self.clearing
        flush = Signal()
        core = Module()
        m.submodules.core = ResetInserter(flush)(core)
        idle = self._core(core, port, clearing)
        m.d.comb += flush.eq(clearing & idle)
        m.d.sync += clearing.eq((clearing | self.clear) & ~flush)
        return m

    def _core(self, m, port, clearing):
        """Commands to requests, answers to words; returns whether no burst is outstanding."""
        widths = self.widths
        m.submodules.queue = queue = SyncFIFO(width=widths.commands.size, depth=self.queue)
        m.submodules.gate = gate = self._gate
        m.submodules.issuer = issuer = BurstIssuer(widths)
        m.submodules.reserve = reserve = SpaceReserve(self.rows, widths.entries_per_burst)
        m.submodules.tracker = tracker = self._tracker
        m.submodules.buffer = buffer = self._buffer
        m.submodules.unpacker = unpacker = WordUnpacker(widths)

        wiring.connect(m, issuer.i, gate.o)
        wiring.connect(m, port.o, tracker.i)
        wiring.connect(m, buffer.o, unpacker.i)
        wiring.connect(m, unpacker.o, wiring.flipped(self.o_words))
        m.d.comb += [
            queue.w_data.eq(self.i_commands.payload),
            queue.w_en.eq(self.i_commands.valid & ~clearing),
            self.i_commands.ready.eq(queue.w_rdy & ~clearing),
            gate.i.payload.eq(queue.r_data),
            gate.i.valid.eq(queue.r_rdy),
            queue.r_en.eq(gate.i.ready),
            gate.events.eq(self.events),
            # Never full: an entry that arrives has its row reserved.
            buffer.i.payload.eq(tracker.o.payload),
            buffer.i.valid.eq(tracker.o.valid),
        ]
        self._issue(m, issuer.o, port, tracker, reserve, halt=clearing | self.error.valid)
        if self.most_kept:
            m.d.comb += [
                unpacker.keep.eq(self.keep),
                unpacker.rewind.eq(self.rewind),
                buffer.keep.eq(self.keep),
                buffer.rewind.eq(self.o_words.valid & self.o_words.ready & self.rewind),
                reserve.give.eq(buffer.released),
            ]
        else:
            m.d.comb += reserve.give.eq(buffer.o.valid & buffer.o.ready)
        self._hold_error(m, gate, tracker)
        return tracker.idle

    def _issue(self, m, bursts, port, tracker, reserve, halt):
        """A burst goes to the port, the tracker and the reserve at once, when all three have room."""
        burst = bursts.payload
        go = Signal()
        entry_beats = Const(self.widths.beats_per_entry - 1, exact_log2(self.widths.beats_per_entry))
        last_entry = (burst.entries - 1)[: exact_log2(self.widths.entries_per_burst)]
        m.d.comb += [
            reserve.request.eq(burst.entries),
            bursts.ready.eq(port.i.ready & tracker.i_bursts.ready & reserve.fits & ~halt),
            go.eq(bursts.valid & bursts.ready),
            port.i.valid.eq(go),
            port.i.payload.address.eq(burst.address),
            port.i.payload.length.eq(Cat(entry_beats, last_entry)),
            tracker.i_bursts.valid.eq(go),
            tracker.i_bursts.payload.eq(burst),
            reserve.take.eq(go),
        ]

    def _hold_error(self, m, gate, tracker):
        with m.If(~self.error.valid):
            with m.If(tracker.failed):
                m.d.sync += [
                    self.error.valid.eq(1),
                    self.error.code.eq(ErrorCode.RESPONSE),
                    self.error.response.eq(tracker.response),
                    self.error.address.eq(tracker.address),
                    self.error.command.eq(tracker.command),
                ]
            with m.Elif(gate.refused):
                m.d.sync += [
                    self.error.valid.eq(1),
                    self.error.code.eq(gate.code),
                    self.error.response.eq(axi.Response.OKAY),
                    self.error.address.eq(gate.address),
                    self.error.command.eq(gate.command),
                ]
