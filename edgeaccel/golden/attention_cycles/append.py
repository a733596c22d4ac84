"""KV-cache writer, cycle by cycle: vectors, quantised, into the tiles that the array streams."""

import numpy as np

from edgeaccel.golden import append as golden_append
from edgeaccel.golden.attention_cycles.scatter import ScatterWriter
from edgeaccel.golden.attention_cycles.store import Store, pipe, queue, register
from edgeaccel.golden.quantise import applier_latency, scale_latency

__all__ = ["KVAppend"]

MAX_HEAD_DIM = 256
COMMANDS = 2  # whose vectors are in the quantiser


class _Command:
    """What a `golden.append.Append` is made of: beats of its vectors, steps of its walk, and its writes."""

    def __init__(self, config, port_bytes, command):
        self.heads = command.heads
        self.vector_beats = -(-command.inputs // config.vector_lanes)
        self.head_beats = command.rows * self.vector_beats
        self.beats = command.heads * self.head_beats
        self.steps = golden_append.head_steps(config, command).tolist()  # of a head: which ones write
        beat_bytes = config.port_data_width // 8
        vectors = np.zeros((command.heads, command.rows, command.inputs), np.uint32)
        items = golden_append.append(config, port_bytes, command, vectors)
        self.writes = [(item.address // beat_bytes, item.is_partial) for item in items]


class KVAppend:
    """`edgeaccel.attention.append.KVAppend` of legal commands, with its memory.

    Parameters
    ----------
    config : Config
    port_bytes : int
    memory : edgeaccel.golden.cycles.memory.Memory
    outstanding : int

    Attributes
    ----------
    commands : Store
        Of `golden.append.Append`.
    vectors : stream's end
        `has_room`, and `put(last)` of each beat.
    done : bool
        A command is written.
    answers : list of int
        Cycles of all answers of the memory.
    """

    def __init__(self, config, *, port_bytes, memory, outstanding):
        self.config, self.port_bytes = config, port_bytes
        self.writer = ScatterWriter(memory, beat_bytes=config.port_data_width // 8, outstanding=outstanding)
        lanes = config.vector_lanes
        waiting = MAX_HEAD_DIM // lanes + scale_latency(lanes) + 2
        self.commands = Store(1, 1)
        self._feeding, self._left = None, 0  # command whose vectors come, and how many of their beats
        self._filling, self._plans = queue(COMMANDS), Store(golden_append.PLANNER_LATENCY, golden_append.PLANS)
        self._inside, self._read, self._scales = Store(1, waiting - 1), register(), Store(scale_latency(lanes), waiting)
        self._codes, self._banks = pipe(applier_latency()), Store(1, 2)
        self._walking, self._formed = Store(1, 1), pipe(golden_append.FORMER_LATENCY)
        self._head = self._step = self._write = 0
        self.answers = self.writer.answers
        self.vectors = self
        self.has_room = self.done = False

    def begin(self, cycle):
        if cycle:
            self._admit(cycle - 1)
        self._cycle = cycle
        self.writer.begin(cycle)
        self.commands.begin(cycle)
        self.done = self.writer.done
        self.has_room = self._left > 0 and self._inside.free(cycle) and self._scales.free(cycle)

    def put(self, last):
        """A beat of the vectors.

        Raises
        ------
        ValueError
            If the vector is not as long as its command says: an error, of which the cycle model tells nothing.
        """
        command = self._feeding
        self._left -= 1
        is_last = self._left % command.vector_beats == 0
        if bool(last) != is_last:
            raise ValueError(f"vectors must have {command.vector_beats} beats, as their append says")
        self._inside.put_in(self._cycle, (is_last, self._left % command.head_beats == 0, self._left == 0))
        if is_last:
            self._scales.put_in(self._cycle)

    def _admit(self, cycle):
        """A command to all who need it, at the end of a cycle: also of that in which the last beat before it came."""
        ends = (self.commands, self._filling, self._plans)
        if not self._left and self.commands.offered(cycle) and all(end.free(cycle) for end in ends[1:]):
            command = self.commands.take(cycle)
            self._feeding = _Command(self.config, self.port_bytes, command)
            self._left = self._feeding.beats
            for end in ends[1:]:
                end.put_in(cycle, self._feeding)

    def step(self, cycle):
        self.writer.step(cycle)
        if self._formed.offered(cycle) and self.writer.i.free(cycle):
            self.writer.i.put_in(cycle, self._formed.take(cycle))
        if self._walking.offered(cycle) and self._banks.offered(cycle) and self._formed.free(cycle):
            self._walk(cycle)
        if self._plans.offered(cycle) and self._walking.free(cycle):
            self._walking.put_in(cycle, self._plans.take(cycle))
        self._quantise(cycle)

    def _walk(self, cycle):
        """A step over a head's codes."""
        command = self._walking.first()
        emits = command.steps[self._step]
        self._step += 1
        ends_head = self._step == len(command.steps)
        ends = ends_head and self._head + 1 == command.heads
        if emits:
            self._formed.put_in(cycle, (command.writes, self._write, ends))
            self._write += 1
        if ends_head:
            self._step, self._head = 0, self._head + 1
            self._banks.take(cycle)
        if ends:
            self._head = self._write = 0
            self._walking.take(cycle)

    def _quantise(self, cycle):
        """Beats carry whether they are the last of their vector, of their head and of their command."""
        if self._codes.offered(cycle) and self._filling.offered(cycle) and self._banks.free(cycle):
            _, ends_head, ends = self._codes.take(cycle)
            if ends_head:
                self._banks.put_in(cycle)
            if ends:
                self._filling.take(cycle)
        if self._read.offered(cycle) and self._scales.offered(cycle) and self._codes.free(cycle):
            beat = self._read.take(cycle)
            self._codes.put_in(cycle, beat)
            if beat[0]:
                self._scales.take(cycle)
        if self._inside.offered(cycle) and self._read.free(cycle):
            self._read.put_in(cycle, self._inside.take(cycle))
