"""From results of the array or zeros through the epilogue: `VectorSource`, `StepControl` and `ResultPath`."""

from types import SimpleNamespace

from edgeaccel.golden import function, norm, rotary
from edgeaccel.golden.cycles.stores import Pipe, Queue
from edgeaccel.golden.epilogue import ADDER, MULTIPLIER
from edgeaccel.golden.path import BEATS

__all__ = ["VectorPath", "vector_steps"]

JOBS, STATISTICS = 4, 2


def vector_steps(machine, fields, rows, *, which=0, more=False, dealt=False, skip=0):
    """A `vector` instruction's fields, and of each vector `beats`, and `tile_beats` with padding.

    The others are those of `edgeaccel.soc.command.vector_job`; `which` is its `set`.
    """
    config = machine.config
    lanes, tile = config.vector_lanes, config.tile_channels
    channels = fields["channels"]
    return SimpleNamespace(
        **fields,
        rows=rows,
        which=which,
        more=more,
        dealt=dealt,
        skip=skip,
        beats=-(-channels // lanes),
        tile_beats=-(-channels // tile) * (tile // lanes),
        table_beats=-(-fields["rotated"] // lanes),
        half_beats=fields["rotated"] // (2 * lanes) if fields["half"] else 0,
    )


class VectorPath:
    """The way of the vectors up to the last of the epilogue's steps.

    Parameters
    ----------
    machine : Machine
    operands, table : OperandReads
    parameters : Parameters

    Members
    -------
    sources, steps : Queue of what `vector_steps` gives
        The same instruction goes into both.
    wants_zeros, wants_results : bool
        What can enter in this cycle; then `enter` is to be called.
    dealt_set : int or None
        The set whose results are wanted, if they are dealt.
    head, get
        Beats (steps, whether it ends its vector, number of the beat).
    """

    def __init__(self, machine, operands, table, parameters):
        config = machine.config
        self._operands, self._table, self._parameters = operands, table, parameters
        self.sources, self.steps = Queue(JOBS), Queue(JOBS)
        self._place = self._vector = 0  # beat of the vector, padding included, and the vector
        self._has_taken = self._now_taken = False  # the instruction's statistics
        self._beats = Queue(BEATS)
        self._scaler = Pipe(MULTIPLIER + 1 + ADDER + 1)
        depth = -(-machine.max_rotated // (2 * config.vector_lanes)) + rotary.SLACK
        self._turning, self._lowers, self._uppers = Queue(depth), Queue(depth), Queue(depth)
        self._rotator = Pipe(rotary.LATENCY)
        self._finisher = Pipe(function.latency(machine.functions) + 1 + MULTIPLIER + 1 + ADDER)
        self._statistics = Pipe(norm.statistics_latency(config.vector_lanes, machine.max_channels))
        self._scales = Queue(max(STATISTICS, config.sets))
        self._skipped = 0
        self._stores = (
            self.sources,
            self.steps,
            self._beats,
            self._scaler,
            self._turning,
            self._lowers,
            self._uppers,
            self._rotator,
            self._finisher,
            self._statistics,
            self._scales,
        )

    def begin(self, cycle):
        for store in self._stores:
            store.begin(cycle)
        self._now_taken = self._has_taken
        self.head = self._finisher.head if self._statistics.has_room else None
        job = self.sources.head
        steps = self.steps.head
        can_enter = job is not None and self._beats.has_room
        can_enter = can_enter and steps is not None and (not steps.take or self._now_taken)
        self.wants_zeros = can_enter and bool(job.zeros)
        self.wants_results = can_enter and not job.zeros
        self.dealt_set = job.which if self.wants_results and job.dealt else None

    def enter(self):
        """A beat of results or zeros, as it is wanted."""
        job, place = self.sources.head, self._place
        if place < job.beats:
            self._beats.put((job, place == job.beats - 1, place))
        self._place += 1
        if self._place == job.tile_beats:
            self._place = 0
            self._vector += 1
            if self._vector == job.vectors:
                self._vector = 0
                self.sources.get()
                self.steps.get()
                self._has_taken = False

    def get(self, cycle):
        beat = self._finisher.get()
        job, last, _ = beat
        if job.statistics and last:
            self._statistics.put(cycle, True)
        return beat

    def step(self, cycle):
        if self._statistics.head is not None and self._scales.has_room:
            self._scales.put(self._statistics.get())
        steps = self.steps.head
        if self._scales.head is not None and steps is not None and steps.take and not self._now_taken:
            self._scales.get()
            self._has_taken = self._skipped == steps.skip
            self._skipped = 0 if self._has_taken else self._skipped + 1
        self._finish(cycle)
        self._turn(cycle)
        if self._scaler.head is not None and all(q.has_room for q in (self._turning, self._lowers, self._uppers)):
            beat = self._scaler.get()
            job, _, place = beat
            self._turning.put(beat)
            if place < job.half_beats:
                self._lowers.put(True)
            elif place < 2 * job.half_beats:
                self._uppers.put(True)
        if self._beats.head is not None and self._scaler.has_room:
            has_bias = self._parameters.target == "bias"
            if has_bias or not self._beats.head[0].bias:
                if self._beats.head[0].bias:
                    self._parameters.get()
                self._scaler.put(cycle, self._beats.get())

    def _finish(self, cycle):
        beat = self._rotator.head
        if beat is None or not self._finisher.has_room:
            return
        job = beat[0]
        kind = "factors" if job.factors else "residual" if job.residual else None
        if kind is not None:
            if self._operands.beats.head != kind:
                return
            self._operands.get()
        self._finisher.put(cycle, self._rotator.get())

    def _turn(self, cycle):
        beat = self._turning.head
        if beat is None or not self._rotator.has_room:
            return
        job, _, place = beat
        others = None
        if place < 2 * job.half_beats:
            others = self._uppers if place < job.half_beats else self._lowers
            if others.head is None:
                return
        if place < job.table_beats:
            if self._table.beats.head is None:
                return
            self._table.get()
        if others is not None:
            others.get()
        self._rotator.put(cycle, self._turning.get())
