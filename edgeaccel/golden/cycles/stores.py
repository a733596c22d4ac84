"""Where items wait or are on their way: queues, pipelines, and the fork of one stream to several."""

from collections import deque

__all__ = ["Buffer", "Fork", "Pipe", "Queue"]


class Queue:
    """`edgeaccel.queue.Queue`: what is put in can be taken out from the next cycle on, a full one takes nothing."""

    __slots__ = ("depth", "has_room", "head", "items")

    def __init__(self, depth):
        self.depth = depth
        self.items = deque()
        self.has_room, self.head = depth > 0, None

    def begin(self, cycle):
        items = self.items
        self.has_room = len(items) < self.depth
        self.head = items[0] if items else None

    def put(self, item):
        self.items.append(item)

    def get(self):
        return self.items.popleft()


class Pipe:
    """`edgeaccel.pe.pipeline.Pipelined`: the result of what is put in is offered `latency` cycles later.

    Parameters
    ----------
    latency : int
    credits : int
        Results that may be on their way or waiting: one more than `latency` by default.
    """

    __slots__ = ("free", "has_room", "head", "items", "latency")

    def __init__(self, latency, credits=None):
        self.latency = latency
        self.free = latency + 1 if credits is None else credits
        self.items = deque()
        self.has_room, self.head = True, None

    def begin(self, cycle):
        self.has_room = self.free > 0
        items = self.items
        self.head = items[0][1] if items and items[0][0] <= cycle else None

    def put(self, cycle, item):
        self.free -= 1
        self.items.append((cycle + self.latency, item))

    def get(self):
        self.free += 1
        return self.items.popleft()[1]


class Buffer:
    """`edgeaccel.memory.buffer.StreamBuffer`: offered two cycles after it was put, from a register of its own."""

    __slots__ = ("has_room", "head", "items", "rows")

    def __init__(self, rows):
        self.rows = rows
        self.items = deque()
        self.has_room, self.head = True, None

    def begin(self, cycle):
        items = self.items
        if self.head is None and items and items[0][0] < cycle - 1:
            self.head = items.popleft()[1]
        self.has_room = len(items) < self.rows

    def put(self, cycle, item):
        self.items.append((cycle, item))

    def get(self):
        """Take what is offered; `head` may not be looked at again in this cycle."""
        item, self.head = self.head, None
        return item

    def rewind(self, items):
        """`edgeaccel.memory.rewind.RewindBuffer`: items that were taken, and then what is offered, come again."""
        if self.head is not None:
            items = [*items, self.get()]
        self.items.extendleft((-2, item) for item in reversed(items))


class Fork:
    """`edgeaccel.fork.Fork`: an offered item goes to all that want it, in whatever order they have room."""

    __slots__ = ("_done",)

    def __init__(self):
        self._done = set()

    def offer(self, *ends):
        """Put an item into those ends (has_room, put, item) that have not had it; whether all have it now."""
        missing = False
        for n, (has_room, put, item) in enumerate(ends):
            if n in self._done:
                continue
            if has_room:
                put(item)
                self._done.add(n)
            else:
                missing = True
        if not missing:
            self._done.clear()
        return not missing
