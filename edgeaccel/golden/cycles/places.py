"""Where vectors go behind the epilogue: `ResultSplit`, and the loads into the activation buffer."""

from edgeaccel.golden.cycles.stores import Pipe, Queue
from edgeaccel.golden.epilogue import MULTIPLIER

__all__ = ["GainLoader", "ResultSplit"]

JOBS, BEATS = 4, 4


class ResultSplit:
    """`edgeaccel.soc.results.ResultSplit`.

    Parameters
    ----------
    path : VectorPath
    operands : OperandReads
        That of the vector memory.

    Members
    -------
    jobs : Queue of what `vector_steps` gives
    loads : Queue of (whether a gain is wanted, whether it is an event)
    cache : Queue of (whether the beat ends its vector, its set, whether another set follows)
    logits : Queue of (steps, whether the beat ends its vector, its number, whether it is of the last vector)
    writes : bool
        A word of the vector memory was written by this cycle's `step`.
    done : int
        Instructions that are through.
    """

    def __init__(self, path, operands):
        self._path, self._operands = path, operands
        self.jobs = Queue(JOBS)
        self.loads, self.cache, self.logits = Queue(BEATS), Queue(BEATS), Queue(BEATS)
        self._vector = 0
        self.writes, self.done = False, 0

    def begin(self, cycle):
        for queue in (self.jobs, self.loads, self.cache, self.logits):
            queue.begin(cycle)

    def step(self, cycle):
        self.writes = False
        job = self.jobs.head
        if self._path.head is None or job is None:
            return
        wanted = ((job.to_buffer, self.loads), (job.to_cache, self.cache), (job.to_logits, self.logits))
        if any(is_wanted and not queue.has_room for is_wanted, queue in wanted):
            return
        _, last, place = self._path.get(cycle)
        ends = last and self._vector + 1 == job.vectors
        if job.to_buffer:
            self.loads.put((job.gain, bool(job.event and ends)))
        if job.to_cache:
            self.cache.put((last, job.which, job.more))
        if job.to_logits:
            self.logits.put((job, last, place, self._vector))
        if job.to_vector:
            self.writes = True
            self._operands.write(ends)
        if last:
            self._vector += 1
        if ends:
            self._vector = 0
            self.jobs.get()
            self.done += 1


class GainLoader:
    """`edgeaccel.soc.loads.GainLoader`.

    Members
    -------
    head, get
        Loads: whether they are events, as 0 or 1.
    """

    def __init__(self, loads, parameters):
        self._loads, self._parameters = loads, parameters
        self._multiplier = Pipe(MULTIPLIER + 1)
        self.get = self._multiplier.get

    @property
    def head(self):
        return self._multiplier.head

    def begin(self, cycle):
        self._multiplier.begin(cycle)

    def step(self, cycle):
        load = self._loads.head
        if load is None or not self._multiplier.has_room:
            return
        wants_gain, event = load
        if wants_gain:
            if self._parameters.target != "gain":
                return
            self._parameters.get()
        self._loads.get()
        self._multiplier.put(cycle, int(event))
