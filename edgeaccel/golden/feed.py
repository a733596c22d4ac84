"""Activation feed in NumPy: operators to activation beats, and the cycles of both."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from edgeaccel.golden.array import Source, _Pipe, _Queue, operator_beats, tile_beats, tile_inputs
from edgeaccel.golden.pe import align
from edgeaccel.golden.timing import Pattern

__all__ = ["Operator", "aligned_tiles", "feed_beats", "feed_cycles", "refusal"]

READER_LATENCY, READER_CREDITS, HEADERS, ALIGNER_DEPTH = 3, 4, 8, 3
MAX_EVENTS = 255


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What the feed is told; `edgeaccel.systolic.operator` says what it means. All groups by default."""

    format: str
    inputs: int
    channel_tiles: int
    address: int = 0
    first_group: int = 0
    n_groups: int | None = None
    wait: bool = False
    more_sets: int = 0
    whole: bool = False

    def groups(self, config):
        return config.groups if self.n_groups is None else self.n_groups

    def stored_inputs(self, config):
        """Inputs that the tiles have words for, but for the rest of the last word."""
        width = tile_inputs(config, self.format)
        return -(-self.inputs // width) * width if self.whole else self.inputs


def refusal(config, operator):
    """Why the feed refuses an operator: the name of a `FeedErrorCode`, or None."""
    n_groups = operator.groups(config)
    if operator.inputs == 0 or operator.channel_tiles == 0:
        return "EMPTY"
    last_set = operator.address + operator.more_sets * config.set_words
    if last_set * config.vector_lanes + operator.inputs > config.buffer_inputs:
        return "RANGE"
    if n_groups == 0 or operator.first_group + n_groups > config.groups:
        return "GROUPS"
    return None if operator.format in config.formats else "FORMAT"


def aligned_tiles(config, operator, buffer):
    """(mantissas [sets, rows, tiles, inputs], exponents [sets, rows, tiles], nans) of an operator's inputs.

    `buffer` is float64 [rows, buffer_inputs].
    """
    sets = [_aligned_set(config, operator, buffer, which) for which in range(operator.more_sets + 1)]
    return tuple(np.stack(parts) for parts in zip(*sets, strict=True))


def _aligned_set(config, operator, buffer, which):
    width = tile_inputs(config, operator.format)
    start = (operator.address + which * config.set_words) * config.vector_lanes
    n_tiles = -(-operator.inputs // width)
    inputs = np.zeros((config.rows, n_tiles * width))
    inputs[:, : operator.inputs] = buffer[:, start : start + operator.inputs]
    mantissas = np.zeros((config.rows, n_tiles, width), np.int64)
    exponents, nans = (np.zeros((config.rows, n_tiles), np.int64) for _ in range(2))
    for row, tiles in enumerate(inputs.reshape(config.rows, n_tiles, width)):
        for n, tile in enumerate(tiles):
            mantissas[row, n], exponents[row, n], nans[row, n] = align(tile, config.activations, config.mantissa_bits)
    return mantissas, exponents, nans


def feed_beats(config, operators, buffer):
    """The beats of legal operators in a row, all from the same buffer."""
    parts = [
        operator_beats(
            config,
            operator.format,
            operator.channel_tiles,
            operator.stored_inputs(config),
            *aligned_tiles(config, operator, buffer),
            first_group=operator.first_group,
            n_groups=operator.groups(config),
        )
        for operator in operators
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Feed:
    """The feed cycle by cycle; of the beats it knows only the flags.

    Parameters
    ----------
    config : Config
    operators : list of Operator
        Legal ones.
    source : Pattern
        Stalls of operators.
    events : list of int
        Cycles of loads with an event.
    """

    def __init__(self, config, operators, source, events=()):
        self.config, self.operators = config, operators
        self.source = Source(len(operators), source)
        self.events = deque(sorted(events))
        self.n_events = 0
        self.held, self.reads, self.starts_tile = None, deque(), True
        finder_latency = int(np.ceil(np.log2(config.vector_lanes))) + 2
        waiting = max(tile_inputs(config, name) for name in config.formats) // config.vector_lanes + finder_latency
        self.headers = _Queue(HEADERS)
        self.reader = _Pipe(READER_LATENCY, READER_CREDITS)
        self.read = deque()
        self.beats = _Queue(waiting)
        self.finder = _Pipe(finder_latency, waiting)
        self.shifter = _Pipe(ALIGNER_DEPTH + 1)
        self.shifted = deque()
        self.done = []

    def begin(self, cycle):
        for queue in (self.headers, self.beats):
            queue.begin()
        for pipe in (self.reader, self.finder, self.shifter):
            pipe.begin(cycle)

    def step(self, cycle, has_room):
        """What happens in a cycle; the beat that leaves, if one does, as `Array` takes it: only if there is room."""
        leaves = None
        if self.shifter.has_result and self.headers.head is not None and has_room:
            self.shifter.give()
            leaves = self.shifted.popleft()
            if _is_last(leaves):
                self.headers.get()
        if self.beats.head is not None and self.finder.has_result and self.shifter.has_credit:
            beat = self.beats.get()
            self.shifter.take(cycle, True)
            self.shifted.append(beat)
            if _is_last(beat):
                self.finder.give()
        if self.reader.has_result and self.beats.has_room and self.finder.has_credit:
            self.reader.give()
            beat = self.read.popleft()
            self.beats.put(beat)
            self.finder.take(cycle, _is_last(beat))
        self._walk(cycle)
        return leaves

    def _walk(self, cycle):
        is_taken = self.held is None and self.source.offers(cycle)
        if self.reads and self.reader.has_credit and (self.headers.has_room or not self.starts_tile):
            beat = self.reads.popleft()
            self.reader.take(cycle, True)
            self.read.append(beat)
            if self.starts_tile:
                self.headers.put(True)
            self.starts_tile = _is_last(beat)
            if not self.reads:
                self.done.append(cycle)
        if self.held is not None and not self.reads and (not self.held.wait or self.n_events):
            self.n_events -= self.held.wait
            self.reads = deque(operator_flags(self.config, self.held))
            self.held = None
        if is_taken:
            self.held = self.operators[len(self.source.taken)]
            self.source.taken.append(cycle)
        while self.events and self.events[0] <= cycle:  # counts from the next cycle on
            self.n_events += 1
            self.events.popleft()


def operator_flags(config, operator):
    """The beats of an operator in order, as `Array` takes them."""
    beats = tile_beats(config, operator.format, operator.stored_inputs(config))
    last_set = operator.more_sets
    places = [(tile, which, beat) for tile, n in enumerate(beats) for which in range(last_set + 1) for beat in range(n)]
    n_groups = operator.groups(config)
    for first in range(0, operator.channel_tiles, n_groups):
        take = min(n_groups, operator.channel_tiles - first)
        for tile, which, beat in places:
            begins, ends = tile == 0, tile == len(beats) - 1
            last, pass_start = beat == beats[tile] - 1, begins and beat == 0
            yield (operator.first_group, take, False, last, begins, ends, pass_start, operator.format, which < last_set)


def _is_last(beat):
    """Whether the beat is the last of its tile."""
    return beat[3]


def feed_cycles(config, operators, stalls, *, events=(), max_cycles=10**7):
    """Cycles of the transfers of an `ActivationFeed`: "i_operators", "o", and "done" for its pulses.

    Parameters
    ----------
    config : Config
    operators : list of Operator
    stalls : dict of str to bool array
        Stall patterns of "i_operators" and "o".
    events : list of int
        Cycles of loads with an event.
    """
    feed = Feed(config, operators, Pattern(stalls.get("i_operators", ())), events)
    sink = Pattern(stalls.get("o", ()))
    n_beats = sum(1 for operator in operators for _ in operator_flags(config, operator))
    left = []
    for cycle in range(max_cycles):
        feed.begin(cycle)
        if feed.step(cycle, sink.first(cycle) == cycle) is not None:
            left.append(cycle)
            if len(left) == n_beats:
                break
    cycles = {"i_operators": feed.source.taken, "o": left, "done": feed.done}
    return {name: np.array(values, np.int64) for name, values in cycles.items()}
