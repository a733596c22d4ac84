"""The chain of the ports' commands, cycle by cycle."""

from edgeaccel.golden.attention_cycles.store import queue
from edgeaccel.golden.commands import HOP_REQUESTS
from edgeaccel.golden.memory import Command

__all__ = ["CommandChain"]


class CommandChain:
    """`edgeaccel.systolic.commands.CommandChain`.

    Parameters
    ----------
    config : Config
    ends : list of streams' ends
        One for each group, with `has_room` and `put`: of `golden.memory.Command`.

    Attributes
    ----------
    has_room : bool
        Whether a `Request` may be `put`.
    """

    def __init__(self, config, ends):
        self.config, self.ends = config, ends
        self._hops = [queue(HOP_REQUESTS) for _ in ends]
        self._done = [[False, False] for _ in ends]

    def begin(self, cycle):
        self._hops[0].begin(cycle)
        self.has_room = self._hops[0].has_room

    def put(self, request):
        self._hops[0].put(request)

    def step(self, cycle):
        for n, hop in enumerate(self._hops):
            if hop.offered(cycle):
                self._pass_on(cycle, n, hop)

    def _pass_on(self, cycle, n, hop):
        """The hop's first request, to this group's streamer and to the next group."""
        request, done, end = hop.first(), self._done[n], self.ends[n]
        here = request.skip == 0
        goes_on = (not here or request.take > 1) and n + 1 < len(self._hops)
        if here and not done[0] and end.has_room:
            done[0] = True
            size = self.config.word_bytes
            end.put(Command(address=request.address * size, words=request.words, format=request.format))
        if goes_on and not done[1] and self._hops[n + 1].free(cycle):
            done[1] = True
            on = request._replace(skip=max(request.skip - 1, 0), take=request.take - here)
            self._hops[n + 1].put_in(cycle, on)
        if (done[0] or not here) and (done[1] or not goes_on):
            hop.take(cycle)
            done[:] = False, False
