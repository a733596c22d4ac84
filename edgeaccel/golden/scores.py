"""Scores of a unit to weights of its values in NumPy, on FP32 codes: what the path gives, and after how many cycles.

A unit is up to a block of consecutive positions of a slot: one beat or several. A slot has its own running maximum.
"""

from typing import NamedTuple

import numpy as np

from edgeaccel.golden import softmax, vector
from edgeaccel.golden.elastic import Move, Source, pipe, run
from edgeaccel.golden.float import decode, encode, multiply
from edgeaccel.golden.two_pass import Stage

__all__ = ["Unit", "scores_cycles", "weights"]

MINUS_INFINITY = 0xFF800000
ADDER, MULTIPLIER = 5, 5  # register stages


class Unit(NamedTuple):
    """Of a row: codes of the weights, of the slot's maximum from this unit on, and of the powers' sum; the shift."""

    weights: np.ndarray
    maximum: int
    shift: int
    sum: int


def weights(scores, scales, lo, hi, factor, running, first):
    """The `Unit` of a row.

    Parameters
    ----------
    scores : FP32 codes
        As the array gives them. Positions that are not there count as masked, so whether a last beat is filled up
        changes nothing.
    scales : FP16 codes
        Of the values at the same positions.
    lo, hi : int
        Position `k` counts if lo <= k < hi.
    factor : FP32 code
    running : FP32 code
        The slot's maximum before this unit; any if `first`.
    first : bool
        Whether the slot begins with this unit.
    """
    place = np.arange(len(scores))
    is_valid = (lo <= place) & (place < hi)
    scaled = np.where(is_valid, multiply(scores, factor), MINUS_INFINITY).astype(np.uint32)
    largest = decode(softmax.maxima(scaled, len(scaled))[0][0])
    before = largest if first else decode(running)
    maximum = int(encode(np.maximum(largest, before) + 0.0))
    shift = 0 if first else int(softmax.shift(running, maximum))
    powers = np.where(is_valid, softmax.powers(scaled, maximum), 0).astype(np.uint32)
    weighted = np.where(is_valid, multiply(powers, scales, b_format="fp16"), 0).astype(np.uint32)
    return Unit(weighted, maximum, shift, vector.total(powers))


def scores_cycles(beats, patterns, config):
    """Cycles of `edgeaccel.attention.scores.ScorePath`.

    Parameters
    ----------
    beats : int array
        Of each unit.
    patterns : dict of Pattern
        Of the streams by name.

    Returns
    -------
    dict of int64 arrays, by the names of the streams
    """
    lanes = config.vector_lanes
    turns, units = int(np.sum(beats)), len(beats)
    last = np.zeros(turns, bool)
    last[np.cumsum(beats) - 1] = True
    streams = {name: Source(patterns[name]) for name in ("i", "i_steps", "i_scales")}

    scaler, weighted = pipe(softmax.scaler_latency()), pipe(MULTIPLIER + 1)
    powers = Stage(
        config.block // lanes,
        statistic_latency=softmax.maximum_latency(lanes),
        apply_latency=softmax.powers_latency(),
        last=last,
    )
    levels = max(1, int(np.ceil(np.log2(config.block // lanes))))
    sums = pipe(1 + ADDER * int(np.log2(lanes)) + (ADDER + 1) * levels + 1)
    moves = [
        Move([streams["i"], (streams["i_steps"], last)], [scaler], turns=turns),
        Move([scaler], powers.entry),
        *powers.moves,
        Move([powers.exit, streams["i_scales"]], [weighted, (sums, last)], turns=turns),
        Move([weighted], [], turns=turns, sink=patterns["o"]),
        Move([sums], [], turns=units, sink=patterns["o_chunks"]),
    ]
    *_, taken, chunks_taken = run(moves)
    cycles = {name: np.array(source.takes, np.int64) for name, source in streams.items()}
    return cycles | {"o": taken, "o_chunks": chunks_taken}
