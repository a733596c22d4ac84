"""What the tile streamer and the block reader have in common: from commands to rows of a buffer."""

from collections import deque

from edgeaccel.golden.cycles.port import CrossingPort, ReadPort
from edgeaccel.golden.cycles.stores import Buffer, Queue
from edgeaccel.golden.memory import AGAIN, WORD

__all__ = ["Fetcher", "TileStreamer"]


class Fetcher:
    """Command queue, gate, burst issuer, AXI port, and the buffer that its rows are reserved in.

    Parameters
    ----------
    port : ReadPort or CrossingPort
    queue : int
        Commands that wait.
    rows : int
        Of the buffer.
    outstanding : int
        Most bursts that are not fully answered.
    cut : callable
        From a command to its bursts (address, beats, rows); each row is (beat of the burst that completes it, item of
        the buffer).

    Members
    -------
    commands : Queue
    buffer : Buffer
        After taking from it, `give()` is to be called.
    """

    def __init__(self, port, *, queue, rows, outstanding, cut):
        self.port, self.outstanding, self._cut = port, outstanding, cut
        self.commands, self.buffer = Queue(queue), Buffer(rows)
        self._held = None
        self._bursts = deque()  # of the command in the issuer
        self._free, self._unanswered = rows, 0

    def begin(self, cycle):
        self.commands.begin(cycle)
        self.buffer.begin(cycle)
        self.port.begin(cycle)
        self._now_free, self._has_outstanding = self._free, self._unanswered < self.outstanding

    def give(self):
        """A row of the buffer is empty."""
        self._free += 1

    def step(self, cycle):
        port = self.port
        arrivals = port.arrivals
        while arrivals and arrivals[0][0] == cycle:
            _, row, ends_burst = arrivals.popleft()
            self.buffer.put(cycle, row)
            self._unanswered -= ends_burst
        port.step(cycle)
        if self._bursts and port.has_room and self._has_outstanding:
            n_rows = len(self._bursts[0][2])
            if n_rows <= self._now_free:
                port.put(cycle, self._bursts.popleft())
                self._free -= n_rows
                self._unanswered += 1
        if self._held is not None and not self._bursts:
            self._bursts.extend(self._cut(self._held))
            self._held = None
        if self._held is None and self.commands.head is not None:
            self._held = self.commands.get()


class TileStreamer:
    """`edgeaccel.memory.TileStreamer`, of commands without events.

    Parameters
    ----------
    streamer : edgeaccel.golden.memory.Streamer
        Its parameters.
    memory : Memory
    periods : (int, int)
        Of the core's clock and the port's, as `CrossingPort` takes them.

    Members
    -------
    commands : Queue of edgeaccel.golden.memory.Command
    head, get
        Words; taken as `golden.memory` says.
    """

    def __init__(self, streamer, memory, periods=(1, 1)):
        self._streamer = streamer
        self._per_entry = streamer.entry_bytes // streamer.word_bytes
        self._fetcher = Fetcher(
            ReadPort(memory) if periods[0] == periods[1] else CrossingPort(memory, periods),
            queue=streamer.queue,
            rows=streamer.buffer_words // self._per_entry,
            outstanding=streamer.outstanding,
            cut=self._cut,
        )
        self.commands = self._fetcher.commands
        self._word = self._first = 0  # of the entry; of the entry in which those begin that are kept
        self._kept = []
        self.head = None

    def _cut(self, command):
        """Rows are entries, known by their words."""
        streamer = self._streamer
        per_entry = streamer.entry_bytes // streamer.beat_bytes
        left = command.words
        for address, beats in streamer.bursts(command):
            rows = []
            for entry in range(beats // per_entry):
                words = min(left, self._per_entry)
                left -= words
                rows.append(((entry + 1) * per_entry - 1, words))
            yield address, beats, rows

    def begin(self, cycle):
        self._fetcher.begin(cycle)
        self.head = self._fetcher.buffer.head

    def get(self, how=WORD):
        buffer = self._fetcher.buffer
        self._word += 1
        if self._word == self.head:
            self._word = 0
            if how == WORD:
                buffer.get()
                self._fetcher.give()
            else:
                self._kept.append(buffer.get())
        if how == WORD:
            self._first = self._word
        elif how == AGAIN:
            buffer.rewind(self._kept)
            self._kept, self._word = [], self._first

    def step(self, cycle):
        self._fetcher.step(cycle)
