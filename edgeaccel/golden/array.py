"""Group systolic array in NumPy: the beats of an operator, its results, and the cycles of everything that moves.

Results come from the packed tiles read as numbers. Cycles come from a model that knows queues, credits and turns, and
looks at no data but the flags of the beats: each cycle, every part decides by what the cycle began with.
"""

from collections import deque

import numpy as np

from edgeaccel.golden import float as golden_float
from edgeaccel.golden.formats import integer_elements
from edgeaccel.golden.pe import group_latency, pair_mantissas, scaled_accumulator_latency
from edgeaccel.golden.timing import Pattern

__all__ = ["array_cycles", "group_words", "operator_beats", "operator_results"]

FORMAT_CODES = {"int4": 0, "int8": 1, "int16": 2, "mxfp4": 3}
CHANNELS_PER_WORD = {"int4": 2, "int8": 1, "int16": 1, "mxfp4": 4}
HOP_BEATS, SCALE_WORDS, PASSES, RESULT_BEATS = 16, 4, 4, 4


def operator_beats(config, tiles, format, mantissas, exponents, nans):
    """Activation beats of one operator, as the feed gives them to the first group.

    Parameters
    ----------
    config : Config
    tiles : uint8 [channel tiles, input tiles, words of a tile, lanes / 2]
    format : str
    mantissas : int64 [rows, blocks, inputs of a block]
        As many blocks as the tiles have, with zeros past the inputs.
    exponents, nans : arrays [rows, blocks]

    Returns
    -------
    dict of arrays by field of a beat, as `edgeaccel.systolic.beat.activation_beat` lists them
    """
    n_tiles, n_input_tiles, n_words, _ = tiles.shape
    rows, n_blocks, block = mantissas.shape
    inputs = _inputs_per_word(config.lanes, format)
    n_groups = config.tile_channels // CHANNELS_PER_WORD[format]
    words = mantissas.reshape(rows, n_blocks, block // inputs, inputs)
    words = np.moveaxis(pair_mantissas(words, format), 0, 2)  # [block, word, row, pair]

    codes = np.broadcast_to(words[:, None], (n_blocks, n_groups, *words.shape[1:])).reshape(
        n_input_tiles, n_words - 1, rows, -1
    )
    of_block = np.repeat(np.arange(n_blocks), (n_words - 1) * n_input_tiles // n_blocks).reshape(n_input_tiles, -1)
    last = np.arange(n_words - 1) % (block // inputs) == block // inputs - 1

    def with_scales(values, scale_value=0):
        """One pass: a beat for the scales before those of each tile's codes."""
        return np.insert(values, 0, scale_value, axis=1).reshape(-1, *values.shape[2:])

    one_pass = {
        "mantissas": with_scales(codes),
        "exponents": with_scales(np.moveaxis(exponents, 0, 1)[of_block]),
        "nans": with_scales((nans << np.arange(rows)[:, None]).sum(axis=0)[of_block]),
        "scales": with_scales(np.zeros_like(of_block), 1),
        "last": with_scales(np.broadcast_to(last, of_block.shape)),
        "first_block": with_scales(of_block == 0),
        "last_block": with_scales(of_block == n_blocks - 1),
    }
    n_passes = -(-n_tiles // config.groups)
    beats = {name: np.concatenate([values] * n_passes) for name, values in one_pass.items()}
    n_beats = len(one_pass["last"])
    active = np.minimum(config.groups, n_tiles - config.groups * np.arange(n_passes))
    return beats | {
        "format": np.full(n_beats * n_passes, FORMAT_CODES[format]),
        "pass_start": np.arange(n_beats * n_passes) % n_beats == 0,
        "active": np.repeat(active, n_beats),
    }


def group_words(config, tiles):
    """Words of each group in order: channel tile `t` belongs to group `t mod groups`."""
    return [tiles[n :: config.groups].reshape(-1, tiles.shape[-1]) for n in range(config.groups)]


def operator_results(config, tiles, format, mantissas, exponents, nans):
    """FP32 codes [channels of all tiles, rows], blocks added in ascending order; arguments as of `operator_beats`."""
    n_tiles, _, _, n_bytes = tiles.shape
    rows, n_blocks, block = mantissas.shape
    channels = config.tile_channels
    words = tiles[:, :, 1:].reshape(n_tiles, n_blocks, channels // CHANNELS_PER_WORD[format], -1, n_bytes)
    elements = integer_elements(words, format)  # [tile, block, channel group, word, channel, input]
    elements = np.moveaxis(elements, 3, 4).reshape(n_tiles, n_blocks, channels, block)
    sums = np.einsum("tbci,rbi->btcr", elements, mantissas)
    is_e8m0 = format == "mxfp4"
    scales = np.ascontiguousarray(tiles[:, :, 0]).view(np.uint8 if is_e8m0 else "<u2")
    scales = scales.reshape(n_tiles, n_blocks, channels)
    total = None
    for n in range(n_blocks):
        term = golden_float.scale(
            sums[n], scales[:, n, :, None], exponents[:, n], nan=nans[:, n].astype(bool), e8m0=is_e8m0
        )
        total = term if total is None else golden_float.add(total, term)
    return total.reshape(-1, rows)


def _inputs_per_word(lanes, format):
    return lanes // {"int4": 2, "int8": 2, "int16": 4, "mxfp4": 4}[format]


class _Queue:
    """What is put in during a cycle can be taken out from the next on; full or not is decided when a cycle begins."""

    def __init__(self, depth):
        self.depth = depth
        self.items = deque()
        self.begin()

    def begin(self):
        self.has_room = len(self.items) < self.depth
        self.head = self.items[0] if self.items else None

    def put(self, item):
        self.items.append(item)

    def get(self):
        return self.items.popleft()


class _Pipe:
    """A credit pipeline: results can be seen `latency` cycles after their items were taken."""

    def __init__(self, latency, credits=None):
        self.latency = latency
        self.free = latency + 1 if credits is None else credits
        self.results = deque()

    def begin(self, cycle):
        self.has_credit = self.free > 0
        self.has_result = bool(self.results) and self.results[0] <= cycle

    def take(self, cycle, emits):
        if emits:
            self.free -= 1
            self.results.append(cycle + self.latency)

    def give(self):
        self.results.popleft()
        self.free += 1


class _Group:
    """One group; a beat is a tuple (active, scales, last, last_block, pass_start, format)."""

    def __init__(self, config, is_first):
        self.is_first = is_first
        self.channels, self.scalers = config.tile_channels, config.scalers
        latency = group_latency(config.lanes, config.formats)
        self.datapath = _Pipe(latency)
        self.accumulators = [
            _Pipe(scaled_accumulator_latency(), self.channels // self.scalers + scaled_accumulator_latency() + 1)
            for _ in range(config.scalers)
        ]
        self.hop, self.tags = _Queue(HOP_BEATS), _Queue(latency + 2)
        self.scales, self.passes, self.results = _Queue(SCALE_WORDS), _Queue(PASSES), _Queue(RESULT_BEATS)
        self.own_done = self.next_done = self.second_block = self.is_own = False
        self.channel = self.own_channel = 0

    def begin(self, cycle):
        for queue in (self.hop, self.tags, self.scales, self.passes, self.results):
            queue.begin()
        for pipe in (self.datapath, *self.accumulators):
            pipe.begin(cycle)

    def fork(self, cycle, has_word, next_hop):
        """The hop queue's first beat, to this group and the next; whether a word was taken."""
        if self.hop.head is None:
            return False
        active, scales, last, last_block, pass_start, format = self.hop.head
        may_start = self.passes.has_room or not pass_start
        word = False
        if not self.own_done:
            if not active:
                self.own_done = may_start
            elif scales:
                self.own_done = word = has_word and self.scales.has_room and may_start
                if word:
                    self.scales.put(True)
            else:
                has_room = self.tags.has_room or not last
                self.own_done = word = has_word and has_room and self.datapath.has_credit
                if word:
                    self.datapath.take(cycle, last)
                    if last:
                        self.tags.put((format, last_block))
            if self.own_done and pass_start:
                self.passes.put(bool(active))
        if not self.next_done:
            if next_hop is None:
                self.next_done = True
            elif next_hop.has_room:
                next_hop.put((max(active - 1, 0), scales, last, last_block, pass_start, format))
                self.next_done = True
        if self.own_done and self.next_done:
            self.hop.get()
            self.own_done = self.next_done = False
        return word

    def serialise(self, cycle):
        """One step: as many channels of a block's sums as there are scalers."""
        offered = self.datapath.has_result and self.tags.head is not None and self.scales.head is not None
        if not offered or not all(pipe.has_credit for pipe in self.accumulators):
            return
        format, last_block = self.tags.head
        shared = CHANNELS_PER_WORD[format]
        taken = min(shared, self.scalers)
        for channel in range(self.channel, self.channel + taken):
            self.accumulators[channel % self.scalers].take(cycle, last_block)
        self.channel += taken
        if self.channel % shared == 0:
            self.datapath.give()
            self.tags.get()
        if self.channel == self.channels:
            self.channel = 0
            if format == "mxfp4" and not self.second_block:
                self.second_block = True
            else:
                self.second_block = False
                self.scales.get()

    def merge(self, before):
        """A result, of the groups before or of this one, into the queue to the next group."""
        if self.passes.head is None or not self.results.has_room:
            return
        takes_part = self.passes.head
        if takes_part and (self.is_own or self.is_first):
            pipe = self.accumulators[self.own_channel % self.scalers]
            if pipe.has_result:
                pipe.give()
                self.own_channel += 1
                last = self.own_channel == self.channels
                self.results.put(last)
                if last:
                    self.own_channel, self.is_own = 0, False
                    self.passes.get()
        elif before is not None and before.head is not None:
            last = before.get()
            self.results.put(last and not takes_part)
            if last:
                if takes_part:
                    self.is_own = True
                else:
                    self.passes.get()


def array_cycles(config, beats, n_words, stalls, *, max_cycles=10**7):
    """Cycles of every transfer on the streams of a `GroupArray`.

    Parameters
    ----------
    config : Config
    beats : dict
        From `operator_beats`, of one operator or several in a row.
    n_words : list of int
        Words of each group.
    stalls : dict of str to bool array
        Stall patterns of "i_beats", "i_words__0" and so on, and "o".

    Returns
    -------
    dict of str to int64 array, by stream
    """
    flags = ("active", "scales", "last", "last_block", "pass_start")
    names = list(FORMAT_CODES)
    queue = [
        (int(beat[0]), *map(bool, beat[1:5]), names[beat[5]])
        for beat in zip(*(beats[name] for name in (*flags, "format")), strict=True)
    ]
    groups = [_Group(config, n == 0) for n in range(config.groups)]
    ports = [_Source(stalls.get(f"i_words__{n}", ()), n_words[n]) for n in range(config.groups)]
    feed = _Source(stalls.get("i_beats", ()), len(queue))
    sink = Pattern(stalls.get("o", ()))
    n_results = config.tile_channels * int(beats["active"][beats["pass_start"]].sum())
    results = []
    for cycle in range(max_cycles):
        for group in groups:
            group.begin(cycle)
        for n, group in enumerate(groups):
            next_hop = groups[n + 1].hop if n + 1 < len(groups) else None
            if group.fork(cycle, ports[n].offers(cycle), next_hop):
                ports[n].taken.append(cycle)
            group.serialise(cycle)
            group.merge(groups[n - 1].results if n else None)
        if feed.offers(cycle) and groups[0].hop.has_room:
            groups[0].hop.put(queue[len(feed.taken)])
            feed.taken.append(cycle)
        if groups[-1].results.head is not None and sink.first(cycle) == cycle:
            groups[-1].results.get()
            results.append(cycle)
            if len(results) == n_results:
                break
    streams = {"i_beats": feed.taken, "o": results} | {f"i_words__{n}": port.taken for n, port in enumerate(ports)}
    return {name: np.array(cycles, np.int64) for name, cycles in streams.items()}


class _Source:
    """A stall pattern at work: when the next item is offered."""

    def __init__(self, pattern, n_items):
        self.pattern, self.n_items = Pattern(pattern), n_items
        self.taken = []

    def offers(self, cycle):
        begins = self.taken[-1] + 1 if self.taken else 0
        return len(self.taken) < self.n_items and self.pattern.first(begins) <= cycle
