"""Where items wait, cycle by cycle: queues, registers and pipelines that differ in three numbers only."""

from collections import deque

__all__ = ["Store", "pipe", "queue", "register"]


class Store:
    """Items on their way or waiting, of which one can be put and one taken in a cycle.

    What is asked of it in a cycle does not depend on what was put in that cycle, and on what was taken only without a
    refund. So those who put and take need no order, but for a store without a refund: there the taker goes first.

    Parameters
    ----------
    latency : int
        Cycles from putting an item to its being offered, at least 1.
    places : int
        Items that it holds.
    refund : int
        Cycles from taking an item to its place being free: 1, or 0 if that is seen in the same cycle.

    Attributes
    ----------
    head : item or None
        What is offered to the outside, as of the last `begin`.
    has_room : bool
        Whether an item can be put from the outside, as of the last `begin`.
    """

    __slots__ = ("_cycle", "has_room", "head", "items", "latency", "places", "refund", "taken")

    def __init__(self, latency, places, *, refund=1):
        self.latency, self.places, self.refund = latency, places, refund
        self.items = deque()
        self.taken = -1  # last cycle of a take
        self.begin(0)

    def offered(self, cycle):
        """Whether an item is offered in a cycle."""
        return bool(self.items) and self.items[0][0] <= cycle

    def free(self, cycle):
        """Whether there is a place for an item in a cycle."""
        return len(self.items) + (self.taken == cycle and self.refund) < self.places

    def first(self):
        """The item that is offered."""
        return self.items[0][1]

    def put_in(self, cycle, item=True):
        self.items.append((cycle + self.latency, item))

    def take(self, cycle):
        self.taken = cycle
        return self.items.popleft()[1]

    def begin(self, cycle):
        """What the outside sees in a cycle; `put` and `get` are then of that cycle."""
        self._cycle = cycle
        self.head = self.items[0][1] if self.offered(cycle) else None
        self.has_room = self.free(cycle)

    def put(self, item=True):
        self.put_in(self._cycle, item)

    def get(self):
        return self.take(self._cycle)


def queue(depth):
    """`edgeaccel.queue.Queue`: room is decided by what is there when the cycle begins."""
    return Store(1, depth)


def register():
    """One item, given and taken in the same cycle."""
    return Store(1, 1, refund=0)


def pipe(latency, credits=None):
    """`edgeaccel.pe.pipeline.Pipelined`."""
    return Store(latency, latency + 1 if credits is None else credits)
