"""Scatter writer, cycle by cycle: single beats to a memory, of which some are read first."""

from collections import deque

from edgeaccel.golden.attention_cycles.store import queue, register
from edgeaccel.golden.scatter import ARRIVALS, DATA_BEATS

__all__ = ["ScatterWriter"]

TAG_BEATS = 1 << 12  # beats with the same number modulo this wait for each other


class ScatterWriter:
    """`edgeaccel.memory.scatter.ScatterWriter` with its memory, without errors.

    Items are pairs (writes, n): `writes[n]` is the item's (number of its beat, whether it needs a read), which is only
    looked at where it matters.

    Parameters
    ----------
    memory : edgeaccel.golden.cycles.memory.Memory
    beat_bytes : int
    outstanding, reads : int
        As of the writer.

    Attributes
    ----------
    i : Store
        Of (writes, n, last): whether the item is the last of its command.
    done : bool
        In this cycle an answer comes to the last item of a command.
    answers : list of int
        Cycles of all answers.
    """

    def __init__(self, memory, *, beat_bytes, outstanding, reads=8):
        self.memory, self.beat_bytes = memory, beat_bytes
        self.i = queue(ARRIVALS)
        self._in_flight, self._places = deque(), outstanding
        self._waiting, self._reads = queue(reads), queue(reads)
        self._read_address, self._address, self._beats = register(), register(), queue(DATA_BEATS)
        self._arrivals = deque()  # cycles of what was read
        self._started = deque()  # whether items are the last of their commands
        self._answers = deque()  # cycles, as far as they are known
        self.answers = []
        self.done = False

    def begin(self, cycle):
        self.memory.begin(cycle)
        self._is_answered = bool(self._answers) and self._answers[0] == cycle
        self.done = self._is_answered and self._started[0]

    def step(self, cycle):
        self._send(cycle)
        if self._waiting.offered(cycle):
            self._start(cycle)
        if self.i.offered(cycle):
            self._enter(cycle)
        if self._arrivals and self._arrivals[0] == cycle:
            self._arrivals.popleft()
            self._reads.put_in(cycle)
        if self._is_answered:
            self._answers.popleft()
            self._started.popleft()
            self._in_flight.popleft()
            self.answers.append(cycle)

    def _send(self, cycle):
        """Addresses and data to the memory, a read before a write."""
        memory = self.memory
        if self._read_address.offered(cycle) and memory.takes_read:
            self._arrivals += memory.read(cycle, self._read_address.take(cycle), 1)
        if self._address.offered(cycle) and memory.takes_write:
            memory.write(cycle, self._address.take(cycle), 1)
        if self._beats.offered(cycle) and memory.takes_data:
            self._beats.take(cycle)
            self._answers.append(memory.data(cycle))

    def _start(self, cycle):
        """The first item that waits to the bus, once what it needs was read."""
        writes, n, last = self._waiting.first()
        beat, is_partial = writes[n]
        if (not is_partial or self._reads.offered(cycle)) and self._beats.free(cycle) and self._address.free(cycle):
            self._waiting.take(cycle)
            if is_partial:
                self._reads.take(cycle)
            self._address.put_in(cycle, beat * self.beat_bytes)
            self._beats.put_in(cycle)
            self._started.append(last)

    def _enter(self, cycle):
        """The item that arrived to those that wait, and its read to the bus."""
        if len(self._in_flight) == self._places or not self._waiting.free(cycle):
            return
        writes, n, _ = self.i.first()
        beat, is_partial = writes[n]
        if is_partial:
            tag = beat % TAG_BEATS
            if not self._read_address.free(cycle) or any(tag == each % TAG_BEATS for each in self._in_flight):
                return
            self._read_address.put_in(cycle, beat * self.beat_bytes)
        self._in_flight.append(beat)
        self._waiting.put_in(cycle, self.i.take(cycle))
