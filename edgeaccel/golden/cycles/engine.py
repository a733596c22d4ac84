"""The array with all that feeds it, shared between weights and attention."""

from dataclasses import replace

from edgeaccel.golden.array import Array
from edgeaccel.golden.attention_cycles.chain import CommandChain
from edgeaccel.golden.attention_cycles.feed import LiveFeed
from edgeaccel.golden.attention_cycles.passes import Request
from edgeaccel.golden.cycles.fetcher import TileStreamer
from edgeaccel.golden.cycles.stores import Queue
from edgeaccel.golden.feed import Operator
from edgeaccel.golden.memory import Streamer

__all__ = ["Engine", "OperatorShare", "RequestShare"]

JOBS, OPERATORS = 8, 64


class OperatorShare:
    """`edgeaccel.soc.share.OperatorShare`, and the feed behind it.

    Members
    -------
    turns : Queue
        Of an `Operator` of weights, or of whether the first operator of an attend waits for an event of loads.
    routes : Queue of (whether it is attention's, tiles)
    """

    def __init__(self, config, attention):
        self._attention = attention
        self.turns, self.routes = Queue(JOBS), Queue(OPERATORS)
        self._tags = Queue(OPERATORS)
        self._feed = LiveFeed(config)
        self._is_first = True

    def begin(self, cycle):
        self.turns.begin(cycle)
        self.routes.begin(cycle)
        self._tags.begin(cycle)
        self._feed.begin(cycle)

    def load(self, cycle, event):
        """A word is loaded into the activation buffer; to come before `step`."""
        if event:
            self._feed.event(cycle)

    def step(self, cycle, hop):
        """Operators to the feed, its beats into the first hop."""
        turn = self.turns.head
        if turn is not None and self.routes.has_room and self._tags.has_room and self._feed.has_room:
            if isinstance(turn, Operator):
                self._give(turn, False, False)
                self.turns.get()
            elif self._attention.operators.head is not None:
                operator, ends = self._attention.operators.get()
                is_values = operator.wait
                if self._is_first and turn[0]:
                    operator = replace(operator, wait=True)
                self._give(operator, True, is_values)
                self._is_first = ends
                if ends:
                    self.turns.get()
        beat = self._feed.step(cycle, hop.has_room)
        if beat is not None:
            hop.put(beat)
        if self._feed.is_done and self._tags.get():
            self._attention.read()

    def _give(self, operator, is_attention, is_values):
        self._feed.put(operator)
        self.routes.put((is_attention, operator.channel_tiles))
        self._tags.put(is_values)


class RequestShare:
    """`edgeaccel.soc.share.RequestShare`, and the chain of the ports' commands behind it.

    Members
    -------
    turns : Queue
        Of (address in words, fields of a `fetch`), or "attend" for the requests of one.
    """

    def __init__(self, config, attention, streamers):
        self._groups, self._attention = config.groups, attention
        self._chain = CommandChain(config, [streamer.commands for streamer in streamers])
        self.turns = Queue(JOBS)
        self._is_second = False

    def begin(self, cycle):
        self.turns.begin(cycle)
        self._chain.begin(cycle)

    def step(self, cycle):
        turn, chain = self.turns.head, self._chain
        if turn == "attend":
            if self._attention.requests.head is not None and chain.has_room:
                request, ends = self._attention.requests.get()
                chain.put(request)
                if ends:
                    self.turns.get()
        elif turn is not None:
            self._fetch(*turn)
        chain.step(cycle)

    def _fetch(self, address, f):
        """One request for the ports that have a tile more, one for the others."""
        groups, chain = self._groups, self._chain
        has_long = f["long"] != 0 and not self._is_second
        has_short = f["words"] != 0 and f["long"] != groups
        if has_long or has_short:
            if not chain.has_room:
                return
            skip, take, words = (
                (0, f["long"], f["long_words"]) if has_long else (f["long"], groups - f["long"], f["words"])
            )
            chain.put(Request(address=address, words=words, format=f["format"], skip=skip, take=take))
        self._is_second = has_long and has_short
        if not self._is_second:
            self.turns.get()


class Engine:
    """Feed, array, ports, and `ResultShare`.

    Parameters
    ----------
    config : Config
    memories : list of Memory
        Of the ports.
    periods : (int, int)
        As of `TileStreamer`.
    attention : Attention or None
    path : VectorPath

    Members
    -------
    operators : OperatorShare
    requests : RequestShare
    words : list of lists
        Cycles in which each group took a word.
    """

    def __init__(self, config, memories, periods, attention, path):
        self._attention, self._path = attention, path
        streamer = Streamer(data_width=config.port_data_width, word_width=config.word_bits, formats=config.formats)
        self._streamers = [TileStreamer(streamer, memory, periods) for memory in memories]
        self._array = Array(config)
        self.operators = OperatorShare(config, attention)
        self.requests = RequestShare(config, attention, self._streamers)
        self._beat = 0
        self._beats_of_tile = config.tile_channels // config.vector_lanes
        self.words = [[] for _ in memories]

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
