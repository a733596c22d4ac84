"""What the tile streamer and the block reader have in common: from commands to rows of a buffer."""

from collections import deque

from edgeaccel.golden.cycles.stores import Buffer, Queue

__all__ = ["Fetcher", "TileStreamer"]


class Fetcher:
    """Command queue, gate, burst issuer, AXI port, and the buffer that its rows are reserved in.

    Parameters
    ----------
    memory : Memory
    queue : int
        Commands that wait.
    rows : int
        Of the buffer.
    outstanding : int
        Most bursts that are not fully answered.
    cut : callable
        From a command to its bursts (address, beats, rows): the rows are items (beat of the burst that completes it,
        item of the buffer).

    Members
    -------
    commands : Queue
    buffer : Buffer
        After taking from it, `give()` is to be called.
    """

    def __init__(self, memory, *, queue, rows, outstanding, cut):
        self.memory, self.outstanding, self._cut = memory, outstanding, cut
        self.commands, self.buffer = Queue(queue), Buffer(rows)
        self._held = None
        self._bursts = deque()  # of the command in the issuer
        self._request = None  # on the address channel
        self._free, self._unanswered = rows, 0
        self._arrivals = deque()  # (cycle, row, whether it ends a burst)

    def begin(self, cycle):
        self.commands.begin(cycle)
        self.buffer.begin(cycle)
        self.memory.begin(cycle)
        self._now_free, self._has_outstanding = self._free, self._unanswered < self.outstanding

    def give(self):
        """A row of the buffer is empty."""
        self._free += 1

    def step(self, cycle):
        arrivals = self._arrivals
        while arrivals and arrivals[0][0] == cycle:
            _, row, ends_burst = arrivals.popleft()
            self.buffer.put(cycle, row)
            self._unanswered -= ends_burst
        if self._request is not None and self.memory.takes_read:
            address, beats, rows = self._request
            delivered = self.memory.read(cycle, address, beats)
            for beat, row in rows:
                arrivals.append((delivered[beat] + 1, row, beat == beats - 1))
            self._request = None
        if self._bursts and self._request is None and self._has_outstanding:
            n_rows = len(self._bursts[0][2])
            if n_rows <= self._now_free:
                self._request = self._bursts.popleft()
                self._free -= n_rows
                self._unanswered += 1
        if self._held is not None and not self._bursts:
            self._bursts.extend(self._cut(self._held))
            self._held = None
        if self._held is None and self.commands.head is not None:
            self._held = self.commands.get()


class TileStreamer:
    """`edgeaccel.memory.TileStreamer` with one clock, of commands without events.

    Parameters
    ----------
    streamer : edgeaccel.golden.memory.Streamer
        Its parameters.
    memory : Memory

    Members
    -------
    commands : Queue of edgeaccel.golden.memory.Command
    head, get
        Words.
    """

    def __init__(self, streamer, memory):
        self._streamer = streamer
        self._per_entry = streamer.entry_bytes // streamer.word_bytes
        self._fetcher = Fetcher(
            memory,
            queue=streamer.queue,
            rows=streamer.buffer_words // self._per_entry,
            outstanding=streamer.outstanding,
            cut=self._cut,
        )
        self.commands = self._fetcher.commands
        self._word = 0
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

    def get(self):
        self._word += 1
        if self._word == self.head:
            self._word = 0
            self._fetcher.buffer.get()
            self._fetcher.give()

    def step(self, cycle):
        self._fetcher.step(cycle)
