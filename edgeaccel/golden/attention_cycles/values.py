"""Value accumulator, cycle by cycle: beats of results into the sums of their slots, and vectors out of them."""

from edgeaccel.golden import function
from edgeaccel.golden.attention_cycles.store import pipe, queue, register
from edgeaccel.golden.values import BEATS, MULTIPLIER, SUM_CYCLES, TURN

__all__ = ["ValueAccumulator"]


class ValueAccumulator:
    """`edgeaccel.attention.values.ValueAccumulator`; all rows are in step.

    Parameters
    ----------
    config : Config
    steps : Store
        Of (slot, first, last, beats, tag), one for each unit.
    chunks : Store
        Of (slot, first, last), what the scores tell of each unit.
    ahead : int
        As in the hardware.

    Attributes
    ----------
    output : Store
        (last of the vector, tag, slot) of each beat.
    n_commands : int
        Whose last vector was put there.
    """

    def __init__(self, config, steps, chunks, *, ahead):
        self.steps, self.chunks = steps, chunks
        self._of_tile = config.tile_channels // config.vector_lanes
        self._beats, self._gate, self._shifts = queue(BEATS), register(), queue(ahead)
        self._inverses = pipe(SUM_CYCLES + function.latency({"reciprocal"}), ahead)
        self.output = pipe(SUM_CYCLES + MULTIPLIER + 2)
        self._beat = self.n_commands = 0
        self._last_chunk = -TURN
        self._given = {}  # (slot, place) to the cycle in which the sum was read

    def ready(self, cycle):
        """Whether a beat of results can be taken."""
        return self.steps.offered(cycle) and self._beats.free(cycle)

    def put(self, cycle):
        slot, first, last, beats, tag = self.steps.first()
        place = self._beat
        if place < beats:  # else it only fills up a tile
            self._beats.put_in(cycle, (slot, place, first, last, place + 1 == beats, tag))
        self._beat += 1
        if self._beat >= beats and self._beat % self._of_tile == 0:
            self._beat = 0
            self.steps.take(cycle)

    def begin(self, cycle):
        self.output.begin(cycle)

    def step(self, cycle):
        gate = self._gate
        if gate.offered(cycle) and self._may_enter(cycle):
            slot, place, _, last, ends, tag = gate.take(cycle)
            self._given[slot, place] = cycle
            if ends:
                self._shifts.take(cycle)
            if last:
                self.output.put_in(cycle, (ends, tag, slot))
                self.n_commands += ends and tag
                if ends:
                    self._inverses.take(cycle)
        if self._beats.offered(cycle) and gate.free(cycle):
            gate.put_in(cycle, self._beats.take(cycle))
        # Any two chunks are as far apart as two of the same slot must be.
        if self.chunks.offered(cycle) and self._shifts.free(cycle) and cycle >= self._last_chunk + TURN:
            _, _, last = self.chunks.take(cycle)
            self._last_chunk = cycle
            self._shifts.put_in(cycle)
            if last:
                self._inverses.put_in(cycle)

    def _may_enter(self, cycle):
        """Whether the beat in the gate has its chunk, the sum that it adds to, and what divides it in the end."""
        slot, place, first, last, _, _ = self._gate.first()
        return (
            self._shifts.offered(cycle)
            and (not last or self._inverses.offered(cycle))
            and (first or self._given.get((slot, place), -TURN) + TURN <= cycle)
            and self.output.free(cycle)
        )
