"""The AXI side of what reads, `edgeaccel.memory.port.ReadPort`: with one clock, and between two."""

from collections import deque

__all__ = ["CrossingPort", "ReadPort"]

REQUESTS, ANSWERS, ON_THE_WAY = 8, 16, 3  # places of the queues between two clocks
SYNCHRONISED = 3  # the edge from which on the other clock sees what was written


class ReadPort:
    """With one clock: requests wait in a register, rows come the cycle after their last beat.

    Parameters
    ----------
    memory : Memory

    Members
    -------
    has_room : bool
        After `step`.
    arrivals : deque of (cycle, row, whether it ends its burst)
    """

    def __init__(self, memory):
        self._memory = memory
        self._request = None
        self.arrivals = deque()

    @property
    def has_room(self):
        return self._request is None

    def begin(self, cycle):
        self._memory.begin(cycle)

    def put(self, cycle, request):
        """Take (address, beats, rows); each row is (beat that completes it, item)."""
        self._request = request

    def step(self, cycle):
        if self._request is not None and self._memory.takes_read:
            address, beats, rows = self._request
            delivered = self._memory.read(cycle, address, beats)
            self.arrivals.extend((delivered[beat] + 1, row, beat == beats - 1) for beat, row in rows)
            self._request = None


class CrossingPort:
    """With two clocks: requests and rows go through asynchronous queues.

    What becomes of a request is known when it is taken, since nothing that comes later has a say in it.

    Parameters
    ----------
    memory : Memory
        Its cycles are those of the port's clock. Nothing else reads or writes it.
    periods : (int, int)
        Of the core's clock and the port's, in any unit; both have an edge at the end of their cycles 0.
    """

    def __init__(self, memory, periods):
        self._memory = memory
        self._core, self._port = periods
        self._seen = deque()  # core cycles from which on requests are seen to have left
        self._requests = 0  # that are not seen to have left
        self._address = -1  # cycle of the last one on the address channel
        self._written = deque()  # port cycles in which rows were written
        self._left = deque()  # port cycles from which on rows are counted as read
        self._level = 0
        self._arrival = -1
        self.arrivals = deque()
        self.has_room = True

    def begin(self, cycle):
        while self._seen and self._seen[0] <= cycle:
            self._seen.popleft()
            self._requests -= 1
        self.has_room = self._requests < REQUESTS

    def put(self, cycle, request):
        address, beats, rows = request
        seen = cycle * self._core // self._port + SYNCHRONISED
        self._address = self._memory.first_read(max(seen, self._address + 1))
        self._requests += 1
        self._seen.append(self._address * self._port // self._core + SYNCHRONISED)
        completed = dict(rows)
        for beat, delivered in enumerate(self._memory.beats(self._address, address, beats, self._first_ready)):
            if beat in completed:
                self._write(delivered + 1, completed[beat], beat == beats - 1)

    def step(self, cycle):
        pass

    def _write(self, cycle, row, ends_burst):
        """A row into the queue, in a port cycle; it leaves as soon as the core sees it."""
        self._written.append(cycle)
        seen = cycle * self._port // self._core + SYNCHRONISED
        self._arrival = max(seen, self._arrival + 1)
        self.arrivals.append((self._arrival, row, ends_burst))
        # Through the synchronisers, then a register of the pointer.
        self._left.append(self._arrival * self._core // self._port + SYNCHRONISED + 1)

    def _first_ready(self, cycle):
        """The first port cycle from one on in which the port takes a beat; never asked about an earlier one again."""
        while True:
            # The level is a register too.
            while self._written and self._written[0] < cycle - 1:
                self._written.popleft()
                self._level += 1
            while self._left and self._left[0] <= cycle - 1:
                self._left.popleft()
                self._level -= 1
            if self._level < ANSWERS - ON_THE_WAY:
                return cycle
            cycle += 1
