"""Block writer, cycle by cycle."""

from collections import deque

from edgeaccel.golden.blocks import Writer
from edgeaccel.golden.cycles.stores import Buffer, Queue

__all__ = ["BlockWriter"]

BURSTS = 4  # that wait for their turn


class BlockWriter:
    """`edgeaccel.memory.BlockWriter` of the parameters of a `Writer`; `step` comes after that of who offers its beats.

    Members
    -------
    commands : Queue of edgeaccel.golden.blocks.Command
    done : bool
        A block is written.
    """

    def __init__(self, memory, **sizes):
        self._writer, self._memory = Writer(**sizes), memory
        self.commands = Queue(self._writer.queue)
        self._buffer, self._bursts = Buffer(self._writer.buffer_beats), Queue(BURSTS)
        self._held = None  # command in the gate
        self._block = None  # packed beats that the placer still wants
        self._ends = deque()  # of the block's beats of the memory, the burst that each ends or None
        self._ahead = self._spill = None  # in the placer: (ends, whether another beat follows)
        self._packed = None  # a beat of the memory put together from smaller ones
        self._part = 0
        self._filled = self._completes = False  # whether a smaller one came, and was the last of its beat
        self._request, self._to_send, self._unanswered = None, 0, 0
        self._sent = deque()  # of bursts that are not answered: whether they end a block
        self._answers = deque()  # (cycle, whether it ends a block)
        self.done = False

    def begin(self, cycle):
        self.commands.begin(cycle)
        self._buffer.begin(cycle)
        self._bursts.begin(cycle)
        self._has_outstanding = self._unanswered < self._writer.outstanding
        self._can_send = self._to_send > 0
        self.done = False
        if self._answers and self._answers[0][0] == cycle:
            self.done = self._answers.popleft()[1]
            self._unanswered -= 1
        offered = self._spill or self._ahead
        self._moves = offered is not None and self._buffer.has_room and (offered[0] is None or self._bursts.has_room)
        self._has_place = self._ahead is None or (self._moves and self._spill is None)
        self._wants = self._block is not None and self._has_place
        self._is_given = self._wants and self._packed is not None

    def offer(self, last, n_bytes):
        """A beat of the stream, at most one a cycle: whether it is taken."""
        size, streamed = self._writer.beat_bytes, self._writer.stream_bytes
        if streamed < size:
            if self._packed is not None and not self._wants:
                return False
            self._part += 1
            self._completes = last or self._part * streamed == size
            self._filled = True
            return True
        if not self._wants:
            return False
        self._is_given = True
        self._part += 1
        if self._part * size < n_bytes:
            return False
        self._part = 0
        return True

    def step(self, cycle):
        self._send(cycle)
        self._place(cycle)
        if self._writer.stream_bytes < self._writer.beat_bytes:
            if self._is_given:
                self._packed = None
            if self._filled and self._completes:
                self._packed, self._part = True, 0
            self._filled = False
        if self._block is None and self._held is not None:
            self._start(self._held)
            self._held = None
        if self._held is None and self.commands.head is not None:
            self._held = self.commands.get()

    def _start(self, command):
        self._block = -(-command.bytes // self._writer.beat_bytes)
        bursts = self._writer.bursts(command)
        for n, (address, beats) in enumerate(bursts):
            self._ends.extend([None] * (beats - 1))
            self._ends.append((address, beats, n == len(bursts) - 1))

    def _place(self, cycle):
        if self._moves:
            ends, spills = self._spill or self._ahead
            self._buffer.put(cycle, ends is not None)
            if ends is not None:
                self._bursts.put(ends)
            if self._spill is not None:
                self._spill = None
            elif spills:
                self._spill = (spills, None)
        if self._has_place:
            self._ahead = None
            if self._is_given:
                self._block -= 1
                ends = self._ends.popleft()
                spills = None
                if not self._block:
                    spills = self._ends.popleft() if self._ends else None
                    self._block = None
                self._ahead = (ends, spills)

    def _send(self, cycle):
        memory = self._memory
        if self._request is not None and memory.takes_write:
            memory.write(cycle, *self._request)
            self._request = None
        if self._can_send and self._buffer.head is not None and memory.takes_data:
            if self._buffer.get():
                self._to_send -= 1
            answer = memory.data(cycle)
            if answer is not None:
                self._answers.append((answer + 1, self._sent.popleft()))
        if self._bursts.head is not None and self._request is None and self._has_outstanding:
            address, beats, ends_block = self._bursts.get()
            self._request = address, beats
            self._sent.append(ends_block)
            self._to_send += 1
            self._unanswered += 1
