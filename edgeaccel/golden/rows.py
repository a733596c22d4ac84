"""Vectors of all rows made into vectors of one row after the other, in NumPy: order and cycles."""

import numpy as np

from edgeaccel.golden.elastic import Move, Source, Store, run

__all__ = ["row_cycles", "serialise"]

HALVES = 2


def serialise(vectors, rows):
    """Of each vector [rows, length] the first `rows`, given for each: a list of (number of the vector, row, codes)."""
    return [
        (number, row, vector[row])
        for number, (vector, count) in enumerate(zip(vectors, rows, strict=True))
        for row in range(count)
    ]


def row_cycles(n_beats, rows, patterns):
    """Cycles of `edgeaccel.attention.rows.RowSerialiser`.

    Parameters
    ----------
    n_beats, rows : int arrays
        Of each vector: beats of a row, and how many rows are given.
    patterns : dict of Pattern
        Of the streams by name.

    Returns
    -------
    dict of int64 arrays, by the names of the streams
    """
    n_beats, rows = np.asarray(n_beats), np.asarray(rows)
    turns = np.maximum(n_beats * rows, 1)  # one without a row is dropped in a turn
    gives = np.repeat(rows != 0, turns)
    streams = {name: Source(patterns[name]) for name in ("i", "i_steps")}
    halves, register = Store(1, HALVES), Store(1, 1, refund=0)
    moves = [
        Move([streams["i"]], [(halves, _last_of(n_beats))], turns=int(n_beats.sum())),
        Move([(halves, _last_of(turns)), (streams["i_steps"], _last_of(turns))], [(register, gives)], turns=len(gives)),
        Move([register], [], turns=int(gives.sum()), sink=patterns["o"]),
    ]
    *_, taken = run(moves)
    return {name: np.array(source.takes, np.int64) for name, source in streams.items()} | {"o": taken}


def _last_of(counts):
    """Flags of so many items each, true for the last of them."""
    flags = np.zeros(np.sum(counts), bool)
    flags[np.cumsum(counts) - 1] = True
    return flags
