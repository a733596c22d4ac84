"""Passes, cycle by cycle: keys first, and the values when there are enough units, or no more."""

from collections import deque
from typing import NamedTuple

from edgeaccel.golden.attention_cycles.store import queue
from edgeaccel.golden.feed import Operator

__all__ = ["SPARE_PLACES", "PassIssue", "Request"]

SPARE_PLACES = 4  # for weights of values that are not read yet


class Request(NamedTuple):
    """The same words of neighbouring ports: `edgeaccel.systolic.commands.port_request`."""

    address: int
    words: int
    format: str
    skip: int
    take: int


class _Pass(NamedTuple):
    is_values: bool
    inputs: int
    address: int
    channels: int
    tiles: int
    group: int
    n_groups: int
    words: int
    tile_words: int


class _Requests:
    """The requests as a stream's end: of the pass that is offered, until all that it asks of the ports is."""

    def __init__(self):
        self.head, self.is_taken = None, False
        self.tiles = self.offset = 0

    def begin(self, unit, of):
        """Offer the next request of a pass, or nothing for None."""
        self.head, self.is_taken = None, False
        if of is not None:
            left = of.tiles - self.tiles
            self.is_last = left <= of.n_groups
            take = left if self.is_last else of.n_groups
            request = Request(of.words + self.offset, of.tile_words, unit.format, of.group, take)
            self.head = request, of.is_values and unit.ends and self.is_last
            self._of = of

    def get(self):
        self.is_taken = True
        return self.head

    def commit(self):
        """Whether the last request of the pass was taken."""
        if not self.is_taken:
            return False
        self.tiles = 0 if self.is_last else self.tiles + self._of.n_groups
        self.offset = 0 if self.is_last else self.offset + self._of.tile_words
        return self.is_last


class PassIssue:
    """`edgeaccel.attention.passes.PassIssue`.

    A pass goes to all streams that want it, and is given up in the cycle in which the last of them takes it. Requests
    are taken from the outside without a queue, so that is found out after the cycle, by `commit`.

    Parameters
    ----------
    config : Config
    lookahead, ring : int
        As in the hardware.

    Attributes
    ----------
    operators, routes, scores, scales, values : Store
        (Operator, ends), (is_values, tiles), (slot, first, last, beats), (address, words, format), (slot, first, last,
        beats of the vector, tag).
    requests : stream's end
        (Request, ends)
    in_flight : bool
        Units' values are not read yet.
    """

    def __init__(self, config, *, lookahead, ring):
        self.config, self.lookahead, self.ring = config, lookahead, ring
        self.of_set = min(config.block // config.tile_channels, config.groups)
        self.places = lookahead + SPARE_PLACES
        depth = 2 * (lookahead + 4)
        self.requests = _Requests()
        self.operators, self.routes, self.scores, self.scales, self.values = (queue(depth) for _ in range(5))
        self._kept = deque()  # units and their places, of which the values are to come
        self._n_places = self._n_read = self._place = 0
        self._holds = self._is_values = self._is_valid = self.in_flight = False
        self._offered = self._unit = None
        self._wanted = set()  # streams that have not taken the pass yet

    def read(self):
        self._n_read += 1

    def begin(self, cycle, walk):
        self.in_flight = self._n_places != 0
        has_unit, is_full = walk.unit is not None, len(self._kept) == self.lookahead
        if not self._holds:
            self._is_values = bool(self._kept) and (is_full or not (walk.more or has_unit))
            is_keys = has_unit and not is_full and self._n_places != self.places
            self._is_valid = self._is_values or is_keys
            if self._is_valid:
                self._describe(walk.unit)
        wants_request = self._is_valid and "requests" in self._wanted
        self.requests.begin(self._unit, self._offered if wants_request else None)

    def _describe(self, unit):
        """The pass that begins to be offered, and who wants it."""
        config = self.config
        if self._is_values:
            self._unit, place = self._kept[0]
            unit, spread = self._unit, self.of_set >> self._unit.share_bits
            self._offered = _Pass(
                is_values=True,
                inputs=unit.positions,
                address=self._address(place),
                channels=unit.inputs,
                tiles=-(-unit.inputs // config.tile_channels),
                group=unit.group + unit.turn,
                n_groups=spread,
                words=unit.values,
                tile_words=unit.v_words,
            )
            self._wanted = {"operators", "requests", "routes", "values"}
        else:
            self._unit = unit
            self._offered = _Pass(
                is_values=False,
                inputs=unit.inputs,
                address=unit.address,
                channels=unit.positions,
                tiles=unit.tiles,
                group=unit.group,
                n_groups=self.of_set,
                words=unit.keys,
                tile_words=unit.k_words,
            )
            self._wanted = {"operators", "requests", "routes", "scores", "scales"}

    def _address(self, place):
        return self.ring + place * (self.config.block // self.config.vector_lanes)

    def commit(self, cycle):
        """To the next cycle; whether the unit that the walk offered was taken."""
        is_taken = False
        requests_end = self.requests.commit()
        if self._is_valid:
            if requests_end:
                self._wanted.discard("requests")
            for name in self._wanted - {"requests"}:
                store = getattr(self, name)
                if store.free(cycle):
                    store.put_in(cycle, self._item(name))
                    self._wanted.discard(name)
            self._holds = bool(self._wanted)
            if not self._holds:
                is_taken = self._give_up()
        self._n_places -= self._n_read
        self._n_read = 0
        return is_taken

    def _give_up(self):
        """The pass is with all who want it; whether it was one of keys."""
        if self._is_values:
            self._kept.popleft()
            return False
        self._kept.append((self._unit, self._place))
        self._place = (self._place + 1) % self.places
        self._n_places += 1
        return True

    def _item(self, name):
        unit, of, lanes = self._unit, self._offered, self.config.vector_lanes
        beats = of.tiles * self.config.tile_channels // lanes
        if name == "operators":
            operator = Operator(
                format=unit.format,
                inputs=of.inputs,
                channel_tiles=of.tiles,
                address=of.address,
                first_group=of.group,
                n_groups=of.n_groups,
                wait=of.is_values,
                whole=of.is_values,
            )
            return operator, of.is_values and unit.ends
        if name == "routes":
            return of.is_values, beats
        of_slot = unit.slot, unit.first, unit.last
        if name == "scores":
            return *of_slot, beats
        if name == "scales":
            return unit.scales, beats, unit.format
        return *of_slot, -(-of.channels // lanes), unit.ends
