"""Score path, cycle by cycle: beats of scores to beats of weights, and an item for each unit."""

import numpy as np

from edgeaccel.golden import softmax
from edgeaccel.golden.attention_cycles.store import Store, pipe, register

__all__ = ["ScorePath"]

ADDER, MULTIPLIER = 5, 5  # register stages


class ScorePath:
    """`edgeaccel.attention.scores.ScorePath`; all rows are in step.

    Parameters
    ----------
    config : Config
    steps : Store
        Of (slot, first, last, beats), one for each unit.
    scales : stream's end
        With a `head` and `get`, a word for each beat.

    Attributes
    ----------
    loads : Store
        For each beat of weights, whether it is the last of its unit: the event of its load.
    chunks : Store
        (slot, first, last) of each unit.
    """

    def __init__(self, config, steps, scales):
        lanes = config.vector_lanes
        beats = config.block // lanes
        levels = max(1, int(np.ceil(np.log2(beats))))
        statistic = softmax.maximum_latency(lanes)
        waiting = beats + statistic + 2
        self.steps, self.scales = steps, scales
        self._scaler = pipe(softmax.scaler_latency())
        self._inside, self._read, self._maxima = Store(1, waiting - 1), register(), Store(statistic, waiting)
        self._powers = pipe(softmax.powers_latency())
        self.loads = pipe(MULTIPLIER + 1)
        self.chunks = pipe(1 + ADDER * int(np.log2(lanes)) + (ADDER + 1) * levels + 1)
        self._beat = 0

    def ready(self, cycle):
        """Whether a beat of scores can be taken."""
        return self.steps.offered(cycle) and self._scaler.free(cycle)

    def put(self, cycle):
        *of_slot, beats = self.steps.first()
        self._beat += 1
        ends = self._beat == beats
        self._scaler.put_in(cycle, tuple(of_slot) if ends else None)
        if ends:
            self._beat = 0
            self.steps.take(cycle)

    def begin(self, cycle):
        self.loads.begin(cycle)

    def step(self, cycle):
        """Beats carry their unit's slot if they are its last, else None."""
        powers, maxima, read, inside = self._powers, self._maxima, self._read, self._inside
        if (
            powers.offered(cycle)
            and self.scales.head is not None
            and self.loads.free(cycle)
            and self.chunks.free(cycle)
        ):
            self.scales.get()
            unit = powers.take(cycle)
            self.loads.put_in(cycle, int(unit is not None))
            if unit is not None:
                self.chunks.put_in(cycle, unit)
        if read.offered(cycle) and maxima.offered(cycle) and powers.free(cycle):
            unit = read.take(cycle)
            powers.put_in(cycle, unit)
            if unit is not None:
                maxima.take(cycle)
        if inside.offered(cycle) and read.free(cycle):
            read.put_in(cycle, inside.take(cycle))
        if self._scaler.offered(cycle) and inside.free(cycle) and maxima.free(cycle):
            unit = self._scaler.take(cycle)
            inside.put_in(cycle, unit)
            if unit is not None:
                maxima.put_in(cycle)
