"""Values summed over the chunks of a slot in NumPy, on FP32 codes: results, and the cycles of all that moves.

What was summed before is multiplied by two to minus the shift of the chunk that comes, which is exact but that numbers
below 2**-126 become zeros; the end is multiplied by one over the sum of the weights.
"""

import numpy as np

from edgeaccel.golden import function
from edgeaccel.golden.elastic import Move, Source, Store, pipe, queue, run
from edgeaccel.golden.float import add, multiply

__all__ = ["accumulate", "accumulate_sum", "finish", "inverse", "shifted", "value_cycles"]

NEGATIVE_ZERO = np.uint32(1 << 31)
INFINITY = 0x7F800000
BEATS = 2  # that wait in front of the rows
SUM_CYCLES = 7  # register stages: read, shift, add
MULTIPLIER = 5
TURN = SUM_CYCLES + 1  # from reading a sum until it can be read again


def shifted(codes, shift):
    """Codes of x * 2**-shift: zeros of its sign where x or that is below 2**-126, infinities and NaNs as they are."""
    codes = np.asarray(codes, np.uint32)
    sign, magnitude = codes & NEGATIVE_ZERO, codes & ~NEGATIVE_ZERO
    exponent = (magnitude >> 23).astype(np.int64)
    moved = magnitude - (np.asarray(shift, np.uint32) << np.uint32(23))
    return sign | np.where(exponent == 255, magnitude, np.where(exponent > shift, moved, 0)).astype(np.uint32)


def accumulate(before, results, shift, first):
    """Codes of a slot's sums with the results of another chunk: all arrays, of shapes that broadcast."""
    before = np.where(first, NEGATIVE_ZERO, shifted(before, shift))
    return add(before, results).astype(np.uint32)


def accumulate_sum(before, total, shift, first):
    """Codes of a slot's sums of weights with those of another chunk, as in `accumulate`."""
    return accumulate(before, total, shift, first)


def inverse(totals):
    """Codes of 1/total, and 0 where that is infinite."""
    codes = function.evaluate("reciprocal", np.ravel(totals)).reshape(np.shape(totals))
    return np.where(codes & ~NEGATIVE_ZERO == INFINITY, 0, codes).astype(np.uint32)


def finish(codes, totals):
    """Codes of the sums of a slot times one over its sum of weights, of shapes that broadcast."""
    return multiply(codes, inverse(totals)).astype(np.uint32)


class _Turns:
    """What is read again only `TURN` cycles after it was read before: an address for each turn, and which ones read."""

    def __init__(self, addresses, reads):
        before, self.earlier = {}, []
        for n, (address, does_read) in enumerate(zip(addresses, reads, strict=True)):
            self.earlier.append(before.get(address) if does_read else None)
            before[address] = n
        self.takes = []

    def offered(self):
        earlier = self.earlier[len(self.takes)] if len(self.takes) < len(self.earlier) else None
        return 0 if earlier is None else self.takes[earlier] + TURN


class _Kept:
    """Items of a store that are there for several turns: a turn that `needs` one waits, one that `ends` takes it."""

    def __init__(self, store, needs, ends):
        self.store, self.needs, self.ends = store, needs, ends
        self.takes, self.turn = self, 0

    def offered(self):
        return self.store.offered() if self.needs[self.turn : self.turn + 1].any() else 0

    def append(self, cycle):
        if self.needs[self.turn] and self.ends[self.turn]:
            self.store.takes.append(cycle)
        self.turn += 1


def value_cycles(units, patterns, config, *, ahead):
    """Cycles of `edgeaccel.attention.values.ValueAccumulator`.

    Parameters
    ----------
    units : dict of arrays
        slot, first, last and channels of each unit.
    patterns : dict of Pattern
        Of the streams by name.
    config : Config
    ahead : int

    Returns
    -------
    dict of int64 arrays, by the names of the streams
    """
    of_tile = config.tile_channels // config.vector_lanes
    n_beats = -(-np.asarray(units["channels"]) // config.vector_lanes)
    n_given = -(-n_beats // of_tile) * of_tile
    kept = np.concatenate([np.arange(n) < m for n, m in zip(n_given, n_beats, strict=True)])
    ends_given = np.concatenate([np.arange(n) == n - 1 for n in n_given])
    place = np.concatenate([np.arange(n) for n in n_beats])
    unit = np.repeat(np.arange(len(n_beats)), n_beats)
    ends = np.append(np.diff(unit) != 0, True)
    slot, is_first, is_last = (np.asarray(units[name]) for name in ("slot", "first", "last"))

    streams = {name: Source(patterns[name]) for name in ("i", "i_steps", "i_chunks")}
    beats, shifts, gate = queue(BEATS), queue(ahead), Store(1, 1, refund=0)
    inverses = pipe(SUM_CYCLES + function.latency({"reciprocal"}), ahead)
    values = pipe(SUM_CYCLES + MULTIPLIER + 2)
    chunk_turns = _Turns(np.zeros(len(slot)), np.ones(len(slot), bool))  # of whatever slot
    beat_turns = _Turns(zip(slot[unit], place, strict=True), is_first[unit] == 0)
    emits = is_last[unit] != 0
    moves = [
        Move([streams["i"], (streams["i_steps"], ends_given)], [(beats, kept)], turns=len(kept)),
        Move([streams["i_chunks"], chunk_turns], [shifts, (inverses, is_last != 0)], turns=len(slot)),
        Move([beats], [gate]),
        Move([gate, (shifts, ends), _Kept(inverses, emits, ends), beat_turns], [(values, emits)], turns=len(unit)),
        Move([values], [], turns=int(emits.sum()), sink=patterns["o"]),
    ]
    *_, taken = run(moves)
    return {name: np.array(source.takes, np.int64) for name, source in streams.items()} | {"o": taken}
