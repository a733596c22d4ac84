"""What vectors are combined with: the vector memory, the rotary table, parameters."""

from edgeaccel.golden.cycles.reader import BlockReader
from edgeaccel.golden.cycles.stores import Queue

__all__ = ["OperandReads", "Parameters"]

JOBS, BEATS = 4, 4
PARAMETER_JOBS, PARAMETER_BEATS = 16, 512


class OperandReads:
    """The reading side of `edgeaccel.soc.vectors.VectorMemory`, or of `RotaryTable`.

    Parameters
    ----------
    waits : bool
        For writes that come before, as the vector memory does.

    Members
    -------
    jobs : Queue of (beats of all vectors, kind, writes that come before)
    beats : Queue of kinds
    """

    def __init__(self, *, waits):
        self._waits = waits
        self.jobs, self.beats = Queue(JOBS), Queue(BEATS)
        self._allowed = not waits
        self._beat, self._free = 0, BEATS
        self._read = None  # the kind of what comes out of the memory
        self._written = 0

    def begin(self, cycle):
        self.jobs.begin(cycle)
        self.beats.begin(cycle)
        self._now_free, self._now_written = self._free, self._written

    def write(self, last):
        """A word is written, the `last` of its instruction."""
        self._written += last

    def get(self):
        """A beat is taken."""
        self._free += 1
        return self.beats.get()

    def step(self, cycle):
        if self._read is not None:
            self.beats.put(self._read)
            self._read = None
        ends = False
        job = self.jobs.head
        if job is not None and self._allowed and self._now_free:
            beats, kind, _ = job
            self._read = kind
            self._free -= 1
            self._beat += 1
            if self._beat == beats:
                self._beat, ends = 0, True
                self.jobs.get()
        if self._waits:
            self._allowed = job is not None and not ends and self._now_written == job[2]


class Parameters:
    """`edgeaccel.soc.parameters.ParameterReader`: who takes a beat calls `get`; `step` comes after that.

    Members
    -------
    target : str or None
        Whom a beat is offered to.
    is_idle : bool
        No read for vectors or tables is under way.
    """

    def __init__(self, machine, memory):
        config = machine.config
        self._reader = BlockReader(
            memory,
            data_width=config.port_data_width,
            stream_bytes=4 * config.vector_lanes,
            buffer_beats=PARAMETER_BEATS,
            queue=PARAMETER_JOBS,
        )
        self._targets = Queue(2 * PARAMETER_JOBS)
        self._kept = 0
        self.target, self.is_idle = None, True

    def begin(self, cycle):
        self._reader.begin(cycle)
        self._targets.begin(cycle)
        self.target = self._targets.head if self._reader.head is not None else None
        self.is_idle = not self._kept

    def put(self, command, target):
        """Take a read if there is room for it; whether it is taken."""
        commands = self._reader.commands
        if not (commands.has_room and self._targets.has_room):
            return False
        commands.put(command)
        self._targets.put(target)
        self._kept += target in ("vector", "table")
        return True

    def get(self):
        if self._reader.get() == "last":
            self._kept -= self._targets.get() in ("vector", "table")

    def step(self, cycle):
        self._reader.step(cycle)
