"""Cycle counts of nets of queues and pipelines, by recurrence over what moves.

A net has *stores*, where items wait, and *moves*, which take an item from each of some stores and put one into each of
others. A store belongs to one move at each end, and readiness is a function of registers alone. So the cycle of a
move's n-th turn depends on no choice: it is the first in which all that it takes is offered, all that it puts has a
place, and it has had its turn before.
"""

import numpy as np

__all__ = ["Move", "Source", "Store", "buffered", "pipe", "queue", "run"]


class Store:
    """Items on their way or waiting.

    Parameters
    ----------
    latency : int
        Cycles from putting an item to its being offered.
    places : int
        Items that it holds.
    refund : int
        Cycles from taking an item to its place being free; 0 if that is seen in the same cycle.
    """

    def __init__(self, latency, places, *, refund=1):
        self.latency, self.places, self.refund = latency, places, refund
        self.puts, self.takes = [], []

    def offered(self):
        """Cycle from which the next item is offered; None if it is not known yet."""
        n = len(self.takes)
        return self.puts[n] + self.latency if n < len(self.puts) else None

    def free(self):
        """Cycle from which there is a place for another item; None if it is not known yet."""
        n = len(self.puts) - self.places
        if n < 0:
            return 0
        return self.takes[n] + self.refund if n < len(self.takes) else None


class Source:
    """A stream from the outside, of whose items each begins to be offered where `pattern` is true."""

    def __init__(self, pattern):
        self.pattern = pattern
        self.takes = []

    def offered(self):
        return self.pattern.first(self.takes[-1] + 1 if self.takes else 0)


def pipe(latency, credits=None):
    """A free-running pipeline: `edgeaccel.pe.pipeline.Pipelined`."""
    return Store(latency, latency + 1 if credits is None else credits)


def queue(depth):
    """A queue that offers an item in the cycle after it was put."""
    return Store(1, depth)


def buffered(depth):
    """A queue in block memory, `amaranth.lib.fifo.SyncFIFOBuffered`: (its end to put, its end to take, its move)."""
    inside, register = Store(1, depth - 1), Store(1, 1, refund=0)
    return inside, register, Move([inside], [register])


class Move:
    """Items that move together.

    Parameters
    ----------
    takes, puts : lists of Store or of (Store, flags)
        With flags, a turn takes or puts only where the flag of its number is set; it waits for an offer or a place in
        any case. What it takes from may be a `Source`.
    choices : list of (Store, flags)
        Taken where the flag is set, and not waited for where it is not.
    turns : int
        How often; as often as there are items by default.
    sink : Pattern
        Of the stream to the outside that it puts to.
    """

    def __init__(self, takes, puts, *, choices=(), turns=None, sink=None):
        self.choices = choices
        self.takes = [end if isinstance(end, tuple) else (end, None) for end in takes]
        self.puts = [end if isinstance(end, tuple) else (end, None) for end in puts]
        self.turns, self.sink = turns, sink
        self.cycles = []

    def step(self):
        """Make the next turn, if the cycle of it is known."""
        n = len(self.cycles)
        if self.turns is not None and n == self.turns:
            return False
        before = self.cycles[-1] + 1 if self.cycles else 0
        chosen = [(store, flags) for store, flags in self.choices if flags[n : n + 1].any()]
        waits = [store.offered() for store, _ in (*self.takes, *chosen)] + [store.free() for store, _ in self.puts]
        if None in waits:
            return False
        cycle = max(before, *waits)
        if self.sink is not None:
            cycle = self.sink.first(cycle)
        self.cycles.append(cycle)
        for ends, attribute in ((self.takes, "takes"), (chosen, "takes"), (self.puts, "puts")):
            for store, flags in ends:
                if flags is None or flags[n]:
                    getattr(store, attribute).append(cycle)
        return True


def run(moves):
    """Make all turns; the cycles of each move as an int64 array.

    Raises
    ------
    ValueError
        If a move with a number of turns cannot make them all: the net is stuck.
    """
    moved = True
    while moved:
        moved = False
        for move in moves:
            while move.step():
                moved = True
    for number, move in enumerate(moves):
        if move.turns is not None and len(move.cycles) < move.turns:
            raise ValueError(f"move {number} is stuck after {len(move.cycles)} of {move.turns} turns")
    return [np.array(move.cycles, np.int64) for move in moves]
