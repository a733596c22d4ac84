"""The array with all that feeds it, shared between weights and attention."""

from collections import deque
from dataclasses import replace

from edgeaccel.golden.array import Array
from edgeaccel.golden.attention_cycles.chain import CommandChain
from edgeaccel.golden.attention_cycles.feed import LiveFeed
from edgeaccel.golden.attention_cycles.passes import Request
from edgeaccel.golden.cycles.fetcher import TileStreamer
from edgeaccel.golden.cycles.stores import Buffer, Queue
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
    routes : Queue of (whether it is attention's, tiles, more sets)
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
        self.routes.put((is_attention, operator.channel_tiles, operator.more_sets))
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
    """Feed, array, ports, `ResultShare` and `ResultDeal`.

    Parameters
    ----------
    machine : Machine
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

    def __init__(self, machine, memories, periods, attention, path):
        config = machine.config
        self._attention, self._path = attention, path
        streamer = Streamer(data_width=config.port_data_width, word_width=config.word_bits, formats=config.formats)
        self._streamers = [TileStreamer(streamer, memory, periods) for memory in memories]
        self._array = Array(config)
        self.operators = OperatorShare(config, attention)
        self.requests = RequestShare(config, attention, self._streamers)
        self._order = deque()  # sets of the operator's next beats
        self._pass_tiles, self._beats_of_tile = config.groups, config.tile_channels // config.vector_lanes
        self._deal = [Buffer(_room(machine, which)) for which in range(config.sets if config.sets > 1 else 0)]
        self.words = [[] for _ in memories]

    def begin(self, cycle):
        self._array.begin(cycle)
        self.operators.begin(cycle)
        self.requests.begin(cycle)
        for part in (*self._streamers, *self._deal):
            part.begin(cycle)

    def step(self, cycle):
        array, path, streamers = self._array, self._path, self._streamers
        route = self.operators.routes.head
        is_offered = route is not None and array.groups[-1].results.head is not None
        sink_ready = False
        if path.wants_zeros:
            path.enter()
        if path.dealt_set is not None and self._deal[path.dealt_set].head is not None:
            self._deal[path.dealt_set].get()
            path.enter()
        if is_offered:
            is_attention, tiles, more_sets = route
            if not self._order:
                self._order.extend(self._order_of(tiles, more_sets))
            if is_attention:
                sink_ready = self._attention.results_ready
                if sink_ready:
                    self._attention.put_result()
            elif more_sets:
                deal = self._deal[self._order[0]]
                sink_ready = deal.has_room
                if sink_ready:
                    deal.put(cycle, True)
            else:
                sink_ready = path.wants_results and path.dealt_set is None
                if sink_ready:
                    path.enter()
            if sink_ready:
                self._order.popleft()
                if not self._order:
                    self.operators.routes.get()
        taken, _ = array.step(cycle, [streamer.head is not None for streamer in streamers], sink_ready)
        for n, how in enumerate(taken):
            if how:
                streamers[n].get(how)
                self.words[n].append(cycle)
        self.operators.step(cycle, array.groups[0].hop)
        self.requests.step(cycle)
        for streamer in streamers:
            streamer.step(cycle)

    def _order_of(self, tiles, more_sets):
        """The set of each of an operator's beats of results."""
        if not more_sets:
            return [0] * (tiles * self._beats_of_tile)
        passes = [min(self._pass_tiles, tiles - first) for first in range(0, tiles, self._pass_tiles)]
        return [
            which for of_pass in passes for which in range(more_sets + 1) for _ in range(of_pass * self._beats_of_tile)
        ]


def _room(machine, which):
    """As `edgeaccel.soc.deal.room`."""
    config = machine.config
    of_pass = config.groups * config.tile_channels // config.vector_lanes
    of_instruction = machine.max_channels // config.vector_lanes
    if which == 0:
        return of_pass
    return of_instruction if which == config.sets - 1 else max(of_pass, of_instruction)
