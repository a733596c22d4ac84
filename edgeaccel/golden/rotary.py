"""Rotary position embedding in NumPy, on FP32 codes: tables, what the unit gives, and after how many cycles."""

import math
from dataclasses import dataclass

import numpy as np

from edgeaccel.golden.elastic import Move, Source, pipe, queue, run
from edgeaccel.golden.float import add, multiply

__all__ = ["Llama3Scaling", "Stage", "beat_roles", "rotary_cycles", "rotate", "table"]

SIGN = np.uint32(1 << 31)
LATENCY = 1 + 5 + 5 + 1  # choosing partners, a product, a sum, queue
SLACK = 4  # places of the queues beside half a vector


@dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Frequencies of Llama 3.1: slow ones are divided by `factor`, fast ones kept, those between interpolated."""

    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192

    def apply(self, frequencies):
        turns = self.original_positions * frequencies / (2 * math.pi)
        smooth = (turns - self.low_frequency_factor) / (self.high_frequency_factor - self.low_frequency_factor)
        smooth = np.clip(smooth, 0, 1)
        return frequencies * (smooth + (1 - smooth) / self.factor)


def table(positions, rotated, *, base=10000.0, linear=1.0, llama3=None, half=False):
    """Cosine and sine of position * base**(-2 i / rotated), for each element of a pair i.

    Parameters
    ----------
    positions : int or array
        The number of positions from 0 on, or the positions.
    rotated : int
        Dimensions that are rotated; even.
    base : float
    linear : float
        What positions are divided by (linear scaling).
    llama3 : Llama3Scaling
    half : bool
        Whether element i goes with i + rotated / 2, or 2 i with 2 i + 1.

    Returns
    -------
    (cosines, sines) : FP32 codes [positions, rotated]

    Raises
    ------
    ValueError
        If `rotated` is odd or below 2.
    """
    if rotated < 2 or rotated % 2:
        raise ValueError(f"rotated must be an even number of dimensions, not {rotated!r}")
    frequencies = base ** (-np.arange(0, rotated, 2) / rotated)
    if llama3 is not None:
        frequencies = llama3.apply(frequencies)
    positions = np.arange(positions) if np.ndim(positions) == 0 else np.asarray(positions)
    angles = positions[:, None] / linear * frequencies
    angles = np.concatenate([angles, angles], axis=1) if half else np.repeat(angles, 2, axis=1)
    return tuple(f(angles).astype(np.float32).view(np.uint32) for f in (np.cos, np.sin))


def rotate(codes, cosines, sines, rotated, *, half):
    """Codes of a vector whose first `rotated` elements are rotated in pairs by as many cosines and sines."""
    codes = np.asarray(codes, np.uint32)
    x = codes[:rotated]
    if half:
        partners = np.concatenate([x[rotated // 2 :] ^ SIGN, x[: rotated // 2]])
    else:
        partners = np.stack([x[1::2] ^ SIGN, x[0::2]], axis=1).ravel()
    turned = add(multiply(x, cosines[:rotated]), multiply(partners, sines[:rotated]))
    return np.append(turned, codes[rotated:]).astype(np.uint32)


def beat_roles(lengths, rotated, half, lanes):
    """What the beats of vectors are to the unit.

    Parameters
    ----------
    lengths, rotated, half : lists, an entry for each vector

    Returns
    -------
    (turned, lower, upper) : bool arrays, an entry for each beat
        Whether elements of it are rotated, and whether, half-split, it is of the lower or of the upper half.
    """
    turned, lower, upper = [], [], []
    for length, n, is_half in zip(lengths, rotated, half, strict=True):
        first = np.arange(0, length, lanes)
        turned.append(first < n)
        lower.append(bool(is_half) & (first < n // 2))
        upper.append(bool(is_half) & (first >= n // 2) & (first < n))
    return tuple(np.concatenate(roles) for roles in (turned, lower, upper))


class Stage:
    """The stores and moves of the unit, for nets that it is a part of.

    A beat waits in a queue, and beside it a copy in that of its half. It goes on with the first of the other half's,
    and with a beat of the table if elements of it are rotated.

    Parameters
    ----------
    roles : what `beat_roles` gives
    table : Source
    lanes, max_rotated : int

    Members
    -------
    entry : list of (Store, flags or None)
        What a move into the unit puts to.
    exit : Store
        What a move out of it takes from.
    moves : list of Move
    """

    def __init__(self, roles, table, *, lanes, max_rotated):
        turned, lower, upper = roles
        depth = -(-max_rotated // (2 * lanes)) + SLACK
        beats, lowers, uppers = queue(depth), queue(depth), queue(depth)
        self.exit = pipe(LATENCY)
        self.entry = [(beats, None), (lowers, lower), (uppers, upper)]
        self.moves = [Move([beats], [self.exit], choices=[(uppers, lower), (lowers, upper), (table, turned)])]


def rotary_cycles(roles, source, table_source, sink, *, lanes, max_rotated):
    """Cycles of `edgeaccel.vector.rotary.Rotary`: (take, table taken, taken), by beats of the streams."""
    table = Source(table_source)
    stage = Stage(roles, table, lanes=lanes, max_rotated=max_rotated)
    turns = len(roles[0])
    take = Move([Source(source)], stage.entry, turns=turns)
    cycles = run([take, *stage.moves, Move([stage.exit], [], turns=turns, sink=sink)])
    return cycles[0], np.array(table.takes, np.int64), cycles[-1]
