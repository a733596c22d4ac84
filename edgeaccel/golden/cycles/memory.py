"""A memory behind an AXI port: when it takes addresses and data, and when it answers."""

from collections import deque

__all__ = ["Memory"]


class Memory:
    """A port's memory; what asks is always ready for answers to what it writes.

    Parameters
    ----------
    channel : object
        `serve(cycle, address, beats, write)` gives the cycles in which the beats of a burst that is known in `cycle`
        can be delivered: `edgeaccel.sim.memory.Channel`.
    outstanding : int
        Most bursts of a direction that it takes on.

    Members
    -------
    reads, writes : list of (cycle, address, beats)
        When addresses were taken; for writes when the last beat was.
    """

    def __init__(self, channel, outstanding):
        self.channel, self.outstanding = channel, outstanding
        self.reads, self.writes = [], []
        self._last_beat = -1
        self._unread = deque()  # last beats of bursts
        self._accepted = deque()  # (address, beats) of bursts that lack data
        self._received = 0  # beats of the first of them
        self._answers = deque()  # cycles from which bursts can be answered
        self._last_answer = -1
        self._unanswered = deque()  # cycles in which answers are taken, as far as they are known
        self._open_writes = self._open_data = False

    def begin(self, cycle):
        unread, unanswered = self._unread, self._unanswered
        while unread and unread[0] < cycle:
            unread.popleft()
        while unanswered and unanswered[0] < cycle - 1:
            unanswered.popleft()
        self.takes_read = len(unread) < self.outstanding
        self.takes_write = len(unanswered) + len(self._accepted) < self.outstanding
        self.takes_data = bool(self._accepted)

    def read(self, cycle, address, beats):
        """Take an address; the cycles in which the beats are delivered."""
        return list(self.beats(cycle, address, beats, lambda first: first))

    def beats(self, cycle, address, beats, first_ready):
        """Take an address; one after the other, the cycles in which the beats are delivered.

        `first_ready` tells, from a cycle on, the first in which a beat would be taken.
        """
        self.reads.append((cycle, address, beats))
        for ready in self.channel.serve(cycle, address, beats):
            self._last_beat = first_ready(max(ready, self._last_beat + 1))
            yield self._last_beat
        self._unread.append(self._last_beat)

    def first_read(self, cycle):
        """The first cycle from one on in which an address is taken, if none is before."""
        unread = self._unread
        while unread and unread[0] < cycle:
            unread.popleft()
        return cycle if len(unread) < self.outstanding else unread[-self.outstanding] + 1

    def write(self, cycle, address, beats):
        """Take the address of a burst that writes."""
        self._accepted.append((address, beats))

    def data(self, cycle):
        """Take a beat; if it is the last of its burst, the cycle in which that is answered, else None."""
        address, beats = self._accepted[0]
        self._received += 1
        if self._received < beats:
            return None
        self._received = 0
        self._accepted.popleft()
        self.writes.append((cycle, address, beats))
        ready = self.channel.serve(cycle, address, beats, True)[-1]
        self._last_answer = max(ready, self._last_answer + 1)
        self._unanswered.append(self._last_answer)
        return self._last_answer
