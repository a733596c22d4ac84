"""Logits to memory, and the largest of them: `edgeaccel.soc.logits.Logits`."""

from math import log2

from edgeaccel.golden.blocks import Command
from edgeaccel.golden.cycles.stores import Pipe, Queue
from edgeaccel.golden.cycles.writer import BlockWriter

__all__ = ["Logits"]

BLOCKS, BUFFER_BEATS, SPANS = 8, 64, 64


class Logits:
    """Writes logits, and has a token when the last of them is through.

    Parameters
    ----------
    machine : Machine
    beats : Queue
        As `ResultSplit.logits`.
    memory : Memory

    Members
    -------
    has_token, is_idle : bool
    """

    def __init__(self, machine, beats, memory):
        config = machine.config
        self._lanes, self._beats = config.vector_lanes, beats
        self._writer = BlockWriter(
            memory,
            data_width=config.port_data_width,
            stream_bytes=4 * config.vector_lanes,
            buffer_beats=BUFFER_BEATS,
            queue=BLOCKS,
        )
        self._maximum = Pipe(int(log2(config.vector_lanes)) + 3)
        self._spans = Queue(SPANS)
        self._is_asked = self._now_asked = False
        self._is_first, self._address, self._under_way = True, 0, 0
        self._holds = self.has_token = False
        self.is_idle = True

    def begin(self, cycle):
        self._writer.begin(cycle)
        self._maximum.begin(cycle)
        self._spans.begin(cycle)
        self._now_asked, self.has_token = self._is_asked, self._holds
        self.is_idle = not self._under_way

    def take_token(self):
        """Whether there was one."""
        if self.has_token:
            self._holds = False
        return self.has_token

    def step(self, cycle):
        if self._maximum.head is not None and self._spans.head is not None and not self.has_token:
            self._maximum.get()
            self._holds = self._spans.get()
        self._under_way -= self._writer.done
        if self._beats.head is not None:
            self._write(cycle, *self._beats.head)
        self._writer.step(cycle)

    def _write(self, cycle, job, last, place, vector):
        size = 4 * job.channels
        begin = self._address if vector else job.logits
        if not self._now_asked:
            if self._writer.commands.has_room:
                self._writer.commands.put(Command(address=begin, bytes=size))
                self._is_asked = True
            return
        if not self._maximum.has_room:
            return
        n_bytes = min(4 * self._lanes, size - 4 * self._lanes * place)
        if not self._writer.offer(last, n_bytes):
            return
        self._beats.get()
        if last:
            self._maximum.put(cycle, True)
            self._spans.put(bool(job.ends and vector + 1 == job.vectors))
            self._is_asked = False
        if self._is_first:
            self._under_way += 1
            self._address = begin + size
        self._is_first = last
