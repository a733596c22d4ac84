"""The array with all that feeds it, shared between weights and attention."""

from collections import deque

from edgeaccel.golden.array import Array
from edgeaccel.golden.cycles.fetcher import TileStreamer
from edgeaccel.golden.cycles.stores import Queue
from edgeaccel.golden.feed import Feed, Operator
from edgeaccel.golden.memory import Command, Streamer
from edgeaccel.golden.timing import Pattern

__all__ = ["Engine", "OperatorShare", "RequestShare"]

JOBS, OPERATORS, HOP_REQUESTS = 8, 16, 2


class _Offers:
    """Operators as `Feed` takes them: one at a time, when it is there."""

    def __init__(self):
        self.is_there = False
        self.taken = []

    def offers(self, cycle):
        return self.is_there


class OperatorShare:
    """`edgeaccel.soc.share.OperatorShare`, and the feed behind it.

    Members
    -------
    turns : Queue
        Of an `Operator` of weights, or of whether the first operator of an attend waits for an event of loads.
    routes : Queue of (whether it is attention's, tiles)
    """

    def __init__(self, config, attention):
        self._config, self._attention = config, attention
        self.turns, self.routes = Queue(JOBS), Queue(OPERATORS)
        self._tags = Queue(OPERATORS)
        self.feed = Feed(config, [], Pattern())
        self.feed.source = self._offers = _Offers()
        self._is_first = True

    def begin(self, cycle):
        self.turns.begin(cycle)
        self.routes.begin(cycle)
        self._tags.begin(cycle)
        self.feed.begin(cycle)
        self._feed_is_free = self.feed.held is None

    def load(self, cycle, event):
        """A word is loaded into the activation buffer; to come before `step`."""
        if event:
            self.feed.events.append(cycle)

    def step(self, cycle, hop):
        """Operators to the feed, its beats into the first hop."""
        self._offers.is_there = False
        turn = self.turns.head
        if turn is not None and self.routes.has_room and self._tags.has_room and self._feed_is_free:
            if isinstance(turn, Operator):
                self._give(turn, False, False)
                self.turns.get()
            elif self._attention.operators.head is not None:
                operator, ends = self._attention.operators.get()
                is_values = operator.wait
                if self._is_first and turn[0]:
                    operator = Operator(**{**vars(operator), "wait": True})
                self._give(operator, True, is_values)
                self._is_first = ends
                if ends:
                    self.turns.get()
        before = len(self.feed.done)
        beat = self.feed.step(cycle, hop.has_room)
        if beat is not None:
            hop.put(beat)
        if len(self.feed.done) > before and self._tags.get():
            self._attention.read()

    def _give(self, operator, is_attention, is_values):
        self._offers.is_there = True
        self.feed.operators.append(operator)
        self.routes.put((is_attention, operator.channel_tiles))
        self._tags.put(is_values)


class RequestShare:
    """`edgeaccel.soc.share.RequestShare`, and the chain of the ports' commands behind it.

    Members
    -------
    turns : Queue
        Of a `fetch`'s fields with the `address` that it begins with, or None for those of an attend.
    """

    def __init__(self, config, attention, streamers):
        self._config, self._attention = config, attention
        self._streamers = streamers
        self.turns = Queue(JOBS)
        self._is_second = False
        self._hops = [Queue(HOP_REQUESTS) for _ in streamers]
        self._done = [[False, False] for _ in streamers]

    def begin(self, cycle):
        self.turns.begin(cycle)
        for hop in self._hops:
            hop.begin(cycle)

    def step(self, cycle):
        self._pass_on()
        turn, hop = self.turns.head, self._hops[0]
        if turn is None:
            return
        if turn == "attend":
            if self._attention.requests.head is not None and hop.has_room:
                request, ends = self._attention.requests.get()
                hop.put((request.skip, request.take, request.address, request.words, request.format))
                if ends:
                    self.turns.get()
            return
        address, f = turn
        groups = self._config.groups
        has_long = f["long"] != 0 and not self._is_second
        has_short = f["words"] != 0 and f["long"] != groups
        if has_long or has_short:
            if not hop.has_room:
                return
            if has_long:
                hop.put((0, f["long"], address, f["long_words"], f["format"]))
            else:
                hop.put((f["long"], groups - f["long"], address, f["words"], f["format"]))
        self._is_second = has_long and has_short
        if not self._is_second:
            self.turns.get()

    def _pass_on(self):
        size = self._config.word_bytes
        for n, hop in enumerate(self._hops):
            if hop.head is None:
                continue
            skip, take, address, words, format = hop.head
            done = self._done[n]
            here, goes_on = skip == 0, skip > 0 or take > 1
            commands = self._streamers[n].commands
            if here and not done[0] and commands.has_room:
                commands.put(Command(address=address * size, words=words, format=format))
                done[0] = True
            if goes_on and not done[1]:
                behind = self._hops[n + 1] if n + 1 < len(self._hops) else None
                if behind is None or behind.has_room:
                    done[1] = True
                    if behind is not None:
                        behind.put((max(skip - 1, 0), take - here, address, words, format))
            if (done[0] or not here) and (done[1] or not goes_on):
                hop.get()
                self._done[n] = [False, False]


class Engine:
    """Feed, array, ports, and `ResultShare`.

    Parameters
    ----------
    config : Config
    memories : list of Memory
        Of the ports.
    attention : Attention or None
    path : VectorPath

    Members
    -------
    operators : OperatorShare
    requests : RequestShare
    words : list of deque
        Cycles in which each group took a word.
    """

    def __init__(self, config, memories, attention, path):
        self._attention, self._path = attention, path
        streamer = Streamer(data_width=config.port_data_width, word_width=config.word_bits, formats=config.formats)
        self._streamers = [TileStreamer(streamer, memory) for memory in memories]
        self._array = Array(config)
        self.operators = OperatorShare(config, attention)
        self.requests = RequestShare(config, attention, self._streamers)
        self._beat = 0
        self._beats_of_tile = config.tile_channels // config.vector_lanes
        self.words = [deque() for _ in memories]

    def begin(self, cycle):
        self._array.begin(cycle)
        self.operators.begin(cycle)
        self.requests.begin(cycle)
        for streamer in self._streamers:
            streamer.begin(cycle)

    def step(self, cycle):
        array, path, streamers = self._array, self._path, self._streamers
        route = self.operators.routes.head
        is_offered = route is not None and array.groups[-1].results.head is not None
        sink_ready = False
        if path.wants_zeros:
            path.enter()
        if is_offered:
            is_attention, tiles = route
            if is_attention:
                sink_ready = self._attention.results_ready
                if sink_ready:
                    self._attention.put_result()
            else:
                sink_ready = path.wants_results
                if sink_ready:
                    path.enter()
            if sink_ready:
                self._beat += 1
                if self._beat == tiles * self._beats_of_tile:
                    self._beat = 0
                    self.operators.routes.get()
        taken, _ = array.step(cycle, [streamer.head is not None for streamer in streamers], sink_ready)
        for n, is_taken in enumerate(taken):
            if is_taken:
                streamers[n].get()
                self.words[n].append(cycle)
        self.operators.step(cycle, array.groups[0].hop)
        self.requests.step(cycle)
        for streamer in streamers:
            streamer.step(cycle)
