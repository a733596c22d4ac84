"""Beats into entries, entries into words."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BeatPacker", "WordUnpacker"]


class BeatPacker(wiring.Component):
    """Puts the beats of an entry together, the first one lowest; never waits.

    An entry is offered the cycle after its last beat.

    Parameters
    ----------
    widths : Widths

    Members
    -------
    i : stream of Widths.beats, always ready
    o : stream of Widths.answers, always ready
        `response` is the first bad one of the beats, or a good one; `last` is that of the last beat.
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__(
            {
                "i": In(stream.Signature(widths.beats, always_ready=True)),
                "o": Out(stream.Signature(widths.answers, always_ready=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        n_beats = self.widths.beats_per_entry
        beat, entry = self.i.payload, self.o.payload
        index = Signal(range(n_beats))
        entry_data = Signal(self.widths.entry, reset_less=True)
        response = Signal.like(entry.response.as_value(), reset_less=True)
        last = Signal(reset_less=True)
        m.d.comb += [entry.data.eq(entry_data), entry.response.eq(response), entry.last.eq(last)]
        m.d.sync += self.o.valid.eq(self.i.valid & (index == n_beats - 1))
        with m.If(self.i.valid):
            m.d.sync += [
                index.eq(Mux(index == n_beats - 1, 0, index + 1)),
                entry_data.eq(Cat(entry_data, beat.data)[self.widths.beat :]),
                response.eq(Mux((index != 0) & response[1], response, beat.response)),
                last.eq(beat.last),
            ]
        return m


class WordUnpacker(wiring.Component):
    """Gives the words of an entry in turn, the lowest first, without latency: one a cycle.

    Parameters
    ----------
    widths : Widths

    Members
    -------
    i : stream of Widths.entries
        Taken with its last word.
    o : stream of widths.word bits
    keep, rewind : in
        The word that is taken from `o` comes again, and so do all since the last one that does not; that is the case
        now. What `i` gives then is the entry of the first of them.
    """

    def __init__(self, widths):
        self.widths = widths
        super().__init__(
            {
                "i": In(stream.Signature(widths.entries)),
                "o": Out(stream.Signature(widths.word)),
                "keep": In(1),
                "rewind": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        entry = self.i.payload
        index = Signal.like(entry.last_word)
        is_last = Signal()
        words = [entry.data.word_select(n, self.widths.word) for n in range(self.widths.words_per_entry)]
        for bit in index:
            words = [Mux(bit, odd, even) for even, odd in zip(words[0::2], words[1::2], strict=True)]
        m.d.comb += [
            self.o.payload.eq(words[0]),
            is_last.eq(index == entry.last_word),
            self.o.valid.eq(self.i.valid),
            self.i.ready.eq(self.o.ready & is_last),
        ]
        following, first = Signal.like(index), Signal.like(index)
        m.d.comb += following.eq(Mux(is_last, 0, index + 1))
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += index.eq(Mux(self.rewind, first, following))
            with m.If(~self.keep):
                m.d.sync += first.eq(following)
        return m
