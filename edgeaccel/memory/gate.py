"""Where commands are refused, or wait for their event."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.formats import FORMATS
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH, ErrorCode
from edgeaccel.memory.event import EventCounters
from edgeaccel.pe.digit import check_formats, is_format

__all__ = ["CommandGate"]


class CommandGate(wiring.Component):
    """Admits one command after the other: checks it, numbers it, takes the event it waits for.

    A command is held in a register between the two streams: one a cycle, one cycle of latency, if none waits. A bad one
    is refused when `o` could take it, so all commands before it are out then; it stays, and nothing follows it until
    reset.

    Parameters
    ----------
    widths : Widths
    formats : tuple of str
        Formats of the build.
    memory_bytes : int
        Commands must end within it, 1 to 2**widths.address.

    Members
    -------
    i : stream of Widths.commands
    events : widths.n_events bits
        Pulses, as `EventCounters` counts them.
    o : stream of Widths.spans
    refused : 1 bit
        A command is refused, or an event was lost; `code`, `address` and `command` are those of `StreamerError`.

    Raises
    ------
    ValueError
        If a format is unknown or `memory_bytes` out of its range.
    """

    def __init__(self, widths, *, formats, memory_bytes):
        if not 1 <= memory_bytes <= 1 << widths.address:
            raise ValueError(
                f"memory_bytes must be 1 to 2**{widths.address}, what an address can tell, not {memory_bytes!r}"
            )
        self.widths = widths
        self.formats = check_formats(formats)
        self.memory_bytes = memory_bytes
        super().__init__(
            {
                "i": In(stream.Signature(widths.commands)),
                "events": In(widths.n_events),
                "o": Out(stream.Signature(widths.spans)),
                "refused": Out(1),
                "code": Out(ErrorCode),
                "address": Out(64),
                "command": Out(COMMAND_NUMBER_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.counters = counters = EventCounters(self.widths.n_events)
        held = Signal()
        command = Signal(self.widths.commands, reset_less=True)
        end = Signal(self.widths.address + 1, reset_less=True)
        number = Signal(COMMAND_NUMBER_WIDTH)
        bad = Signal()
        code = Signal(ErrorCode)
        move = Signal()

        m.d.comb += [
            move.eq(self.o.valid & self.o.ready),
            self.i.ready.eq(~held | move),
            counters.pulses.eq(self.events),
            counters.index.eq(command.event),
            counters.take.eq(move & command.wait),
            self.o.valid.eq(held & ~bad & (counters.available | ~command.wait)),
        ]
        with m.If(self.i.ready):
            # Both are wide: the end is added up on the way in, and compared on the way out.
            m.d.sync += [
                held.eq(self.i.valid),
                command.eq(self.i.payload),
                end.eq(self.i.payload.address + (self.i.payload.words << exact_log2(self.widths.word_bytes))),
            ]
        m.d.sync += number.eq(number + move)

        for wrong, name in self._checks(command, end):
            with m.If(wrong):
                m.d.comb += [bad.eq(1), code.eq(name)]
        m.d.comb += [
            self.refused.eq((held & bad & self.o.ready) | counters.overflow),
            self.code.eq(code),
            self.address.eq(command.address),
            self.command.eq(number),
        ]
        with m.If(counters.overflow):
            m.d.comb += [self.code.eq(ErrorCode.EVENT_OVERFLOW), self.address.eq(0)]
        m.d.comb += self._span(command, number)
        return m

    def _checks(self, command, end):
        """What may be wrong with a command; the last of several is told."""
        has_format = Value.cast(is_format(command.format, self.formats, FORMATS))
        return [
            (command.wait & (command.event >= self.widths.n_events), ErrorCode.NO_EVENT),
            (end > self.memory_bytes, ErrorCode.RANGE),
            (~has_format, ErrorCode.FORMAT),
            (command.address[: exact_log2(self.widths.entry_bytes)] != 0, ErrorCode.MISALIGNED),
            (command.words == 0, ErrorCode.EMPTY),
        ]

    def _span(self, command, number):
        words_log2 = exact_log2(self.widths.words_per_entry)
        before = command.words - 1
        o = self.o.payload
        return [
            o.address.eq(command.address),
            o.entries.eq((before >> words_log2) + 1),
            o.last_word.eq(before[:words_log2]),
            o.command.eq(number),
        ]
