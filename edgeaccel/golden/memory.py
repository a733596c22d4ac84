"""Memory ports in plain Python: which bursts, which words, and in which cycles."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.golden.timing import Pattern

__all__ = ["AGAIN", "KEPT", "WORD", "Command", "Error", "Streamer", "StreamerTiming", "bursts", "ideal_memory"]

# How a word is taken: for good; kept, to come again; the last of those, so that they come again now.
WORD, KEPT, AGAIN = 1, 2, 3
BOUNDARY_BYTES = 4096


def bursts(address, n_bytes, burst_bytes):
    """INCR bursts that read or write `n_bytes` from `address` on.

    They end at multiples of `burst_bytes`, a power of two up to 4096, so none is longer, and none crosses 4 KiB.

    Returns
    -------
    list of (address, bytes)
    """
    pieces = []
    while n_bytes:
        piece = min(n_bytes, burst_bytes - address % burst_bytes)
        pieces.append((address, piece))
        address += piece
        n_bytes -= piece
    return pieces


@dataclass(frozen=True, kw_only=True)
class Command:
    """`words` words from `address` on, after one event `event` if `wait`."""

    address: int
    words: int
    format: str = "int4"
    wait: bool = False
    event: int = 0


@dataclass(frozen=True, kw_only=True)
class Error:
    """Why a streamer stopped: `code` is the name of the RTL's, `response` that of RRESP."""

    code: str
    response: str = "OKAY"
    address: int = 0
    command: int


@dataclass(frozen=True)
class StreamerTiming:
    """Cycles, counted from the first after reset: commands and addresses accepted, beats and words taken."""

    commands: np.ndarray
    addresses: np.ndarray
    beats: np.ndarray
    words: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Streamer:
    """`edgeaccel.memory.TileStreamer` of the same parameters, for legal ones."""

    data_width: int = 256
    word_width: int = 512
    buffer_words: int = 512
    burst_beats: int = 16
    outstanding: int = 32
    queue: int = 8
    n_events: int = 4
    formats: tuple = ("int4", "int8", "int16", "mxfp4")
    memory_bytes: int | None = None
    address_width: int = 64

    @property
    def beat_bytes(self):
        return self.data_width // 8

    @property
    def word_bytes(self):
        return self.word_width // 8

    @property
    def entry_bytes(self):
        """Bytes of a buffer row: a word, or a beat if that is wider."""
        return max(self.beat_bytes, self.word_bytes)

    def bursts(self, command):
        """The bursts of a command: list of (address, beats)."""
        size = -(-command.words * self.word_bytes // self.beat_bytes) * self.beat_bytes
        pieces = bursts(command.address, size, min(self.burst_beats * self.beat_bytes, BOUNDARY_BYTES))
        return [(address, n_bytes // self.beat_bytes) for address, n_bytes in pieces]

    def refusal(self, command):
        """Name of the error that a command is refused with, or None."""
        memory_bytes = 1 << self.address_width if self.memory_bytes is None else self.memory_bytes
        if command.words == 0:
            return "EMPTY"
        if command.address % self.entry_bytes:
            return "MISALIGNED"
        if command.format not in self.formats:
            return "FORMAT"
        if command.address + command.words * self.word_bytes > memory_bytes:
            return "RANGE"
        if command.wait and command.event >= self.n_events:
            return "NO_EVENT"
        return None

    def read(self, commands, memory, responses=None):
        """What commands give, if the events they wait for come.

        Parameters
        ----------
        commands : list of Command
        memory : uint8 array
            From address 0 on; repeats itself past its end.
        responses : dict of int to str
            Beats' addresses that the memory answers with 'SLVERR' or 'DECERR'.

        Returns
        -------
        (words, bursts, error)
            The words `[n, word_bytes]`; the (address, beats) of all commands, of which the streamer asks for the first
            ones only if there is a response that stops it; the `Error` or None.
        """
        words, asked = [], []
        error = None
        for number, command in enumerate(commands):
            if refusal := self.refusal(command):
                error = error or Error(code=refusal, address=command.address, command=number)
                break
            asked += self.bursts(command)
            for n in range(command.words):
                address = command.address + n * self.word_bytes
                entry = address - address % self.entry_bytes
                answers = [
                    (responses or {}).get(beat, "OKAY")
                    for beat in range(entry, entry + self.entry_bytes, self.beat_bytes)
                ]
                bad = [answer for answer in answers if answer in ("SLVERR", "DECERR")]
                if bad and error is None:
                    error = Error(code="RESPONSE", response=bad[0], address=entry, command=number)
                if error is None:
                    words.append(memory[(address % len(memory) + np.arange(self.word_bytes)) % len(memory)])
        return np.array(words, np.uint8).reshape(-1, self.word_bytes), asked, error

    def timing(self, commands, *, latency=None, memory=None, source=None, sink=None, events=None, periods=(1, 1)):
        """Cycles for commands without errors, `words` taken as `sink` lets them: see `word_offers`."""
        timing = StreamerTiming(*([] for _ in range(4)))
        memory = memory or ideal_memory(latency)
        sink = sink or Pattern()
        offers = self.word_offers(commands, memory, timing, source=source, events=events, periods=periods)
        offer = next(offers, None)
        while offer is not None:
            offer = following(offers, (sink.first(offer), WORD))
        return StreamerTiming(*(np.array(cycles, np.int64) for cycles in vars(timing).values()))

    def word_offers(self, commands, memory, timing, *, source=None, events=None, periods=(1, 1)):
        """When each word is offered, given when those before were taken: a generator, to be sent (cycle, how).

        `how` is `WORD`, `KEPT` or `AGAIN`. Behind the latter the first of the words that were kept is offered next.

        With `k` a burst and `j` its command, all in cycles of the core:

            accept[j] = max(first(source, accept[j-1] + 1), hold[j - queue] + 1)
            hold[j]   = max(accept[j] + 1, start[j-1])
            start[j]  = max(hold[j] + 1, the last issue of j - 1, the event + 1)
            issue[k]  = max(start[j] + 1, issue[k-1] + 1, done[k - outstanding] + 1, give[the row it needs last] + 1)
            entry     = max(the cycle after its last beat, the entry before + 1);  done[k] = its last entry
            offer     = max(entry + 2, the word before taken + 1);  give = taken for good, of an entry's last word

        The address goes to the memory in the cycle after `issue`. With two clocks of the given periods, both with an
        edge at the end of their cycles 0, the address and the entry are seen from the third edge on after they were
        written, which is the case at the end of `issue` and of the cycle after the last beat.

        Parameters
        ----------
        commands : list of Command
        memory : callable
            From the port cycle in which an address is accepted, the address and the number of beats to the port cycles
            of the beats.
        timing : StreamerTiming
            Of lists, to which all cycles are appended; those of beats and addresses are the port's.
        source : Pattern
            Stalls of commands.
        events : dict of int to list of int
            Cycles of each event's pulses, ascending.
        periods : (int, int)
            Of the core's clock and the port's, in any unit.
        """
        source = source or Pattern()
        core, port = periods
        events = {event: iter(cycles) for event, cycles in (events or {}).items()}
        beats_per_entry = self.entry_bytes // self.beat_bytes
        words_per_entry = self.entry_bytes // self.word_bytes
        rows = self.buffer_words // words_per_entry
        accept, addresses, beats, taken = timing.commands, timing.addresses, timing.beats, timing.words
        hold, start, issue, done, give = ([] for _ in range(5))
        reserved, entry = 0, -1
        kept = []  # (when it can be offered, whether it is an entry's last) of words
        for j, command in enumerate(commands):
            cycle = source.first(accept[-1] + 1 if accept else 0)
            if j >= self.queue:
                cycle = max(cycle, hold[j - self.queue] + 1)
            accept.append(cycle)
            hold.append(max(accept[j] + 1, start[-1] if start else 0))
            cycle = max(hold[j] + 1, issue[-1] if issue else 0)
            if command.wait:
                cycle = max(cycle, next(events[command.event]) + 1)
            start.append(cycle)
            words_left = command.words
            for address, n_beats in self.bursts(command):
                reserved += n_beats // beats_per_entry
                cycle = max(start[-1], issue[-1] if issue else 0) + 1
                if len(issue) >= self.outstanding:
                    cycle = max(cycle, done[len(issue) - self.outstanding] + 1)
                if reserved > rows:
                    cycle = max(cycle, give[reserved - rows - 1] + 1)
                issue.append(cycle)
                arrival = cycle + 1 if core == port else _crossed(cycle, core, port)
                addresses.append(max(arrival, addresses[-1] + 1 if addresses else 0))
                for beat, delivered in enumerate(memory(addresses[-1], address, n_beats)):
                    beats.append(delivered)
                    if beat % beats_per_entry == beats_per_entry - 1:
                        arrival = delivered + 1 if core == port else _crossed(delivered + 1, port, core)
                        entry = max(arrival, entry + 1)
                        n_words = min(words_left, words_per_entry)
                        words_left -= n_words
                        for n in range(n_words):
                            waiting = [(entry + 2, n == n_words - 1)]
                            while waiting:
                                ready, ends = waiting.pop(0)
                                cycle, how = yield max(ready, taken[-1] + 1 if taken else 0)
                                taken.append(cycle)
                                if how == WORD:
                                    give += [cycle] * ends
                                    continue
                                kept.append((ready, ends))
                                if how == AGAIN:
                                    waiting, kept = kept, []
                done.append(entry)


def ideal_memory(latency):
    """A memory that accepts an address in each cycle, and then gives a beat in each, `latency` cycles later."""
    last = -1

    def serve(cycle, address, n_beats):
        nonlocal last
        first = max(cycle + latency, last + 1)
        last = first + n_beats - 1
        return range(first, last + 1)

    return serve


def _crossed(cycle, written, read):
    """Cycle of the clock `read` in which is seen what was written with the edge of a cycle of the clock `written`."""
    return cycle * written // read + 3


def following(generator, value, default=None):
    """What a generator gives for a value sent to it, or the default at its end."""
    try:
        return generator.send(value)
    except StopIteration:
        return default
