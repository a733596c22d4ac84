"""Activation feed, cycle by cycle, of operators that come while it works."""

from edgeaccel.golden.feed import Feed
from edgeaccel.golden.timing import Pattern

__all__ = ["LiveFeed"]


class LiveFeed(Feed):
    """A `Feed` as a stream's end.

    Attributes
    ----------
    has_room : bool
        Whether an operator may be `put` in this cycle, before `step`.
    is_done : bool
        In the last `step` an operator has read its inputs.
    """

    def __init__(self, config):
        super().__init__(config, [], Pattern())
        self.source = self  # of operators: it offers what was put
        self.taken = []
        self._is_offered = self.is_done = False
        self.has_room = True

    def offers(self, cycle):
        return self._is_offered

    def begin(self, cycle):
        super().begin(cycle)
        self.has_room = self.held is None

    def put(self, operator):
        self.operators.append(operator)
        self._is_offered = True

    def event(self, cycle):
        """A load with an event in a cycle, before its `step`."""
        self.events.append(cycle)

    def step(self, cycle, has_room):
        n_done = len(self.done)
        beat = super().step(cycle, has_room)
        self.is_done = len(self.done) > n_done
        self._is_offered = False
        return beat
