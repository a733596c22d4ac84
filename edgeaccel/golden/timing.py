"""Cycle counts of credit pipelines, by recurrence over items.

The cycles are counted from the first one after reset. A stall pattern is a boolean array over cycles, true past its
end: of a source, the cycles in which it may begin to offer its next item (it then offers until the item is taken); of a
sink, the cycles in which it is ready.
"""

import numpy as np

__all__ = ["Pattern", "pipeline_cycles"]


class Pattern:
    """A stall pattern with its question: the first true cycle at or after a given one."""

    def __init__(self, cycles=()):
        pattern = np.asarray(cycles, dtype=bool)
        places = np.where(pattern, np.arange(len(pattern)), len(pattern))
        self._next = np.minimum.accumulate(places[::-1])[::-1].tolist()

    def first(self, cycle):
        return self._next[cycle] if cycle < len(self._next) else cycle


def pipeline_cycles(n_items, sources, sink, *, latency, credits, emits=None):
    """Cycles in which a credit pipeline takes its items and in which its results are taken.

    take[k]  = max(first(source, take[k-1] + 1) over the sources, taken[r - credits] + 1)
    taken[r] = first(sink, max(take[k] + latency, taken[r-1] + 1))

    where `r` counts the items before `k` that leave a result.

    Parameters
    ----------
    n_items : int
    sources : list of Pattern
        One for each input stream; an item is taken when all offer their part.
    sink : Pattern
    latency, credits : int
    emits : sequence of bool
        Whether an item leaves a result; all of them by default.

    Returns
    -------
    (take, taken) : arrays of int64
        Of length `n_items` and of the number of results.
    """
    take, taken = [], []
    cycle = -1
    for k in range(n_items):
        cycle = max(source.first(cycle + 1) for source in sources)
        if len(taken) >= credits:
            cycle = max(cycle, taken[len(taken) - credits] + 1)
        take.append(cycle)
        if emits is None or emits[k]:
            offered = cycle + latency
            if taken:
                offered = max(offered, taken[-1] + 1)
            taken.append(sink.first(offered))
    return np.array(take, dtype=np.int64), np.array(taken, dtype=np.int64)
