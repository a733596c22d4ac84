"""Cycles of what goes over a vector twice."""

import numpy as np

from edgeaccel.golden.elastic import Move, Source, Store, buffered, pipe, run

__all__ = ["Stage", "two_pass"]


class Stage:
    """The stores and moves of a two-pass unit, for nets that it is a part of.

    Parameters
    ----------
    beats : int
        Of the longest vector.
    statistic_latency, apply_latency : int
    last : bool array
        Which beats end a vector.
    others : list of Source
        Of further streams that `apply` takes one item of with each beat.

    Members
    -------
    entry : list of (Store, flags or None)
        What a move into the unit puts to.
    exit : Store
        What a move out of it takes from.
    moves : list of Move
        Those inside; the last is that of `apply`.
    """

    def __init__(self, beats, *, statistic_latency, apply_latency, last, others=()):
        waiting = beats + statistic_latency + 2
        inside, register, forward = buffered(waiting)
        statistic = Store(statistic_latency, waiting)
        self.exit = pipe(apply_latency)
        self.entry = [(inside, None), (statistic, last)]
        self.moves = [forward, Move([register, (statistic, last), *others], [self.exit])]


def two_pass(last, beats, source, sink, *, statistic_latency, apply_latency, others=()):
    """Cycles of `edgeaccel.vector.two_pass.TwoPass`.

    Parameters
    ----------
    last : bool array
        Which beats end a vector.
    beats : int
        Of the longest vector.
    source, sink : Pattern
    statistic_latency, apply_latency : int
    others : list of Pattern
        Of further streams that `apply` takes one item of with each beat.

    Returns
    -------
    (take, apply, taken) : int64 arrays, an entry for each beat
        In `apply` the further streams are taken.
    """
    stage = Stage(
        beats,
        statistic_latency=statistic_latency,
        apply_latency=apply_latency,
        last=np.asarray(last),
        others=[Source(other) for other in others],
    )
    take = Move([Source(source)], stage.entry, turns=len(last))
    taken = Move([stage.exit], [], turns=len(last), sink=sink)
    cycles = run([take, *stage.moves, taken])
    return cycles[0], cycles[2], cycles[3]
