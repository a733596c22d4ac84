"""Group systolic array in NumPy: the beats of an operator, its results, and the cycles of everything that moves.

Results come from the packed tiles read as numbers. Cycles come from a model that knows queues, credits and turns, and
looks at no data but the flags of the beats: each cycle, every part decides by what the cycle began with.
"""

from collections import deque

import numpy as np

from edgeaccel.golden import float as golden_float
from edgeaccel.golden.formats import datapath_words, integer_elements
from edgeaccel.golden.memory import AGAIN, KEPT, WORD
from edgeaccel.golden.pe import group_latency, scaled_accumulator_latency
from edgeaccel.golden.timing import Pattern

__all__ = [
    "array_cycles",
    "group_words",
    "operator_beats",
    "operator_results",
    "result_beats",
    "tile_beats",
    "tile_inputs",
    "word_inputs",
]

FORMAT_CODES = {"int4": 0, "int8": 1, "int16": 2, "mxfp4": 3}
CHANNELS_PER_WORD = {"int4": 2, "int8": 1, "int16": 1, "mxfp4": 4}
INPUTS_OF_LANES = {"int4": 2, "int8": 2, "int16": 4, "mxfp4": 4}  # lanes for each input of a word
HOP_BEATS, STORE_LINES, SCALE_WORDS, TURNS, OWN_TILES, RESULT_BEATS = 2, 32, 4, 32, 2, 4


def tile_inputs(config, format):
    """Inputs of a tile: a block, or MXFP4's two of 32."""
    return 64 if format == "mxfp4" else config.block


def word_inputs(config, format):
    """Inputs of a word, for each of its channels."""
    return config.lanes // INPUTS_OF_LANES[format]


def tile_beats(config, format, n_inputs):
    """Beats of each input tile of a matrix: a last one of a single block ends with the last word that is needed."""
    whole = tile_inputs(config, format)
    n_whole, rest = divmod(n_inputs, whole)
    per_word = word_inputs(config, format)
    last = whole if format == "mxfp4" else -(-rest // per_word) * per_word
    return [n // config.vector_lanes for n in [whole] * n_whole + [last] * (rest > 0)]


def operator_beats(config, format, n_tiles, n_inputs, mantissas, exponents, nans, *, first_group=0, n_groups=None):
    """Activation beats of one operator, as the feed gives them to the first group.

    Parameters
    ----------
    config : Config
    format : str
    n_tiles : int
        Tiles of output channels.
    n_inputs : int
    mantissas : int64 [sets, rows, input tiles, inputs of a tile]
        With zeros past the inputs.
    exponents, nans : arrays [sets, rows, input tiles]
    first_group, n_groups : int
        The groups that the channel tiles go round; all by default.

    Returns
    -------
    dict of arrays by field of a beat, as `edgeaccel.systolic.beat.activation_beat` lists them
    """
    n_groups = config.groups if n_groups is None else n_groups
    n_sets, rows, n_input_tiles, _ = mantissas.shape
    per_tile = tile_beats(config, format, n_inputs)
    n_passes = -(-n_tiles // n_groups)
    # Each tile's beats of the first set, then those of the next.
    order = [(tile, which, beat) for tile, n in enumerate(per_tile) for which in range(n_sets) for beat in range(n)]
    of_tile, of_set, of_beat = np.array(order).T
    beats = mantissas.reshape(n_sets, rows, n_input_tiles, -1, config.vector_lanes)
    one_pass = {
        "mantissas": beats[of_set, :, of_tile, of_beat],
        "exponents": exponents[of_set, :, of_tile],
        "nans": (nans << np.arange(rows)[:, None]).sum(axis=1)[of_set, of_tile],
        "last": of_beat == np.array(per_tile)[of_tile] - 1,
        "first_tile": of_tile == 0,
        "last_tile": of_tile == n_input_tiles - 1,
        "pass_start": (of_tile == 0) & (of_beat == 0),
        "set": of_set,
        "again": of_set < n_sets - 1,
    }
    take = np.minimum(n_groups, n_tiles - n_groups * np.arange(n_passes))
    constant = {"format": FORMAT_CODES[format], "skip": first_group, "follows": 0}
    return (
        {name: np.concatenate([values] * n_passes) for name, values in one_pass.items()}
        | {name: np.full(len(of_tile) * n_passes, value) for name, value in constant.items()}
        | {"take": np.repeat(take, len(of_tile))}
    )


def group_words(config, tiles, *, first_group=0, n_groups=None):
    """Words of each group in order: channel tile `t` belongs to group `first_group + t mod n_groups`."""
    n_groups = config.groups if n_groups is None else n_groups
    words = [np.zeros((0, tiles.shape[-1]), tiles.dtype)] * config.groups
    for n in range(n_groups):
        words[first_group + n] = tiles[n::n_groups].reshape(-1, tiles.shape[-1])
    return words


def operator_results(config, tiles, format, mantissas, exponents, nans):
    """FP32 codes [channels of all tiles, rows] of each set, blocks added in ascending order.

    `tiles` is uint8 [channel tiles, words of a channel tile, lanes / 2]; the rest as of `operator_beats`.
    """
    sets = zip(mantissas, exponents, nans, strict=True)
    return np.stack([_set_results(config, tiles, format, *of_set) for of_set in sets])


def _set_results(config, tiles, format, mantissas, exponents, nans):
    n_tiles, _, n_bytes = tiles.shape
    rows, n_input_tiles, width = mantissas.shape
    channels, is_e8m0 = config.tile_channels, format == "mxfp4"
    block = 32 if is_e8m0 else config.block
    whole = 1 + width // word_inputs(config, format) * channels // CHANNELS_PER_WORD[format]
    total = None
    for n in range(n_input_tiles):
        of_tile = tiles[:, n * whole : (n + 1) * whole]  # the last may be shorter
        scales = np.ascontiguousarray(of_tile[:, 0]).view(np.uint8 if is_e8m0 else "<u2").reshape(n_tiles, -1, channels)
        words = of_tile[:, 1:].reshape(n_tiles, width // block, channels // CHANNELS_PER_WORD[format], -1, n_bytes)
        elements = integer_elements(datapath_words(words), format)  # [tile, block, group, word, channel, input]
        elements = np.moveaxis(elements, 3, 4).reshape(n_tiles, width // block, channels, -1)
        for k in range(width // block):
            of_block = mantissas[:, n, k * block : (k + 1) * block][:, : elements.shape[-1]]
            sums = np.einsum("tci,ri->tcr", elements[:, k], of_block)
            is_nan = nans[:, n].astype(bool)
            term = golden_float.scale(sums, scales[:, k, :, None], exponents[:, n], nan=is_nan, e8m0=is_e8m0)
            total = term if total is None else golden_float.add(total, term)
    return total.reshape(-1, rows)


def result_beats(config, results, *, n_groups=None):
    """Results [channels, rows], or of several sets, as the array gives them: [beats, rows, vector_lanes].

    Of each pass, in which each of `n_groups` groups has a tile of channels, those of the first set, then of the next.
    """
    results = results.reshape(-1, *results.shape[-2:])
    per_pass = (config.groups if n_groups is None else n_groups) * config.tile_channels
    passes = [results[:, first : first + per_pass] for first in range(0, results.shape[1], per_pass)]
    in_order = np.concatenate([each.reshape(-1, config.rows) for each in passes])
    return np.moveaxis(in_order.reshape(-1, config.vector_lanes, config.rows), 1, 2)


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
    """One group; a beat is a tuple (skip, take, follows, last, first_tile, last_tile, pass_start, format, again)."""

    def __init__(self, config):
        self.channels, self.scalers, self.lanes = config.tile_channels, config.scalers, config.vector_lanes
        self.groups = {name: config.tile_channels // CHANNELS_PER_WORD[name] for name in config.formats}
        self.word_beats = {name: word_inputs(config, name) // config.vector_lanes for name in config.formats}
        latency = group_latency(config.lanes, config.formats, mantissa_bits=config.mantissa_bits)
        lines = max(tile_inputs(config, name) // word_inputs(config, name) for name in config.formats)
        slots = max(2, STORE_LINES // 2 ** int(np.ceil(np.log2(lines))))
        self.datapath = _Pipe(latency)
        self.accumulators = [_Pipe(scaled_accumulator_latency()) for _ in range(config.scalers)]
        self.hop, self.turns, self.tiles = _Queue(HOP_BEATS), _Queue(TURNS), _Queue(slots)
        self.own = _Queue(OWN_TILES * config.sets * self.channels // self.lanes)
        self.blocks, self.scales, self.results = _Queue(latency + 2), _Queue(SCALE_WORDS), _Queue(RESULT_BEATS)
        self.own_done = self.next_done = self.is_codes = self.second_block = self.before_done = False
        self.word = self.channel = self.own_channel = self.n_beats = 0

    def begin(self, cycle):
        for queue in (self.hop, self.turns, self.tiles, self.blocks, self.scales, self.own, self.results):
            queue.begin()
        for pipe in (self.datapath, *self.accumulators):
            pipe.begin(cycle)

    def pass_on(self, next_hop):
        """The hop's first beat, to this group and the next."""
        if self.hop.head is None:
            return
        skip, take, follows, last, _first_tile, last_tile, pass_start, format, again = self.hop.head
        takes_part = skip == 0 and take > 0
        has_turn = pass_start and (takes_part or follows)
        if not self.own_done and (self.tiles.has_room or not takes_part) and (self.turns.has_room or not has_turn):
            self.own_done = True
            if has_turn:
                self.turns.put((takes_part, follows))
            self.n_beats += takes_part
            if takes_part and last:
                self.tiles.put((format, last_tile, self.n_beats // self.word_beats[format], again))
                self.n_beats = 0
        if not self.next_done:
            if next_hop is None:
                self.next_done = True
            elif next_hop.has_room:
                next_hop.put((max(skip - 1, 0), take - takes_part, follows or takes_part, *self.hop.head[3:]))
                self.next_done = True
        if self.own_done and self.next_done:
            self.hop.get()
            self.own_done = self.next_done = False

    def walk(self, cycle, has_word):
        """One word of the tile: how it was taken (`WORD`, `KEPT`, `AGAIN`), or False."""
        if self.tiles.head is None or not has_word:
            return False
        format, last_tile, lines, again = self.tiles.head
        if not self.is_codes:
            if self.scales.has_room:
                self.scales.put(True)
                self.is_codes = True
                return KEPT if again else WORD
            return False
        blocks = 2 if format == "mxfp4" else 1
        ends_block = (self.word + 1) % (lines // blocks) == 0
        if not self.datapath.has_credit or (ends_block and not self.blocks.has_room):
            return False
        self.datapath.take(cycle, ends_block)
        self.word += 1
        if ends_block:
            self.blocks.put((format, last_tile and self.word > self.groups[format] * (lines - lines // blocks)))
        if self.word == self.groups[format] * lines:
            self.word, self.is_codes = 0, False
            self.tiles.get()
            if again:
                return AGAIN
        return KEPT if again else WORD

    def serialise(self, cycle):
        """One step: as many channels of a block's sums as there are scalers."""
        offered = self.datapath.has_result and self.blocks.head is not None and self.scales.head is not None
        if not offered or not all(pipe.has_credit for pipe in self.accumulators):
            return
        format, last_block = self.blocks.head
        shared = CHANNELS_PER_WORD[format]
        taken = min(shared, self.scalers)
        for channel in range(self.channel, self.channel + taken):
            self.accumulators[channel % self.scalers].take(cycle, last_block)
        self.channel += taken
        if self.channel % shared == 0:
            self.datapath.give()
            self.blocks.get()
        if self.channel == self.channels:
            self.channel = 0
            if format == "mxfp4" and not self.second_block:
                self.second_block = True
            else:
                self.second_block = False
                self.scales.get()

    def pack(self):
        """The next channel's result, which completes a beat if it is the last of one."""
        pipe = self.accumulators[self.own_channel % self.scalers]
        completes = (self.own_channel + 1) % self.lanes == 0
        if pipe.has_result and (self.own.has_room or not completes):
            pipe.give()
            self.own_channel = (self.own_channel + 1) % self.channels
            if completes:
                self.own.put(self.own_channel == 0)

    def merge(self, before):
        """A beat of results, of the groups before or of this one, into the queue to the next group."""
        if self.turns.head is None or not self.results.has_room:
            return
        own, follows = self.turns.head
        is_own = self.before_done or not follows
        source = self.own if is_own else before
        if source.head is None:
            return
        last = source.get()
        self.results.put(last and (is_own or not own))
        if last:
            self.before_done = own and not is_own
            if not self.before_done:
                self.turns.get()


class Array:
    """The groups in a chain, cycle by cycle."""

    def __init__(self, config):
        self.groups = [_Group(config) for _ in range(config.groups)]

    def begin(self, cycle):
        for group in self.groups:
            group.begin(cycle)

    def step(self, cycle, has_words, sink_ready):
        """What happens in a cycle: (of each group what `walk` tells, whether a result was taken)."""
        taken = []
        for n, group in enumerate(self.groups):
            group.pass_on(self.groups[n + 1].hop if n + 1 < len(self.groups) else None)
            taken.append(group.walk(cycle, has_words[n]))
            group.serialise(cycle)
            group.pack()
            group.merge(self.groups[n - 1].results if n else None)
        results = self.groups[-1].results
        given = results.head is not None and sink_ready
        if given:
            results.get()
        return taken, given


def beat_flags(beats):
    """The fields of beats that decide when something happens, a tuple each, as `Array` takes them."""
    flags = ("follows", "last", "first_tile", "last_tile", "pass_start")
    names = list(FORMAT_CODES)
    columns = (beats["skip"], beats["take"], *(beats[name] for name in flags), beats["format"], beats["again"])
    return [
        (int(beat[0]), int(beat[1]), *map(bool, beat[2:7]), names[beat[7]], bool(beat[8]))
        for beat in zip(*columns, strict=True)
    ]


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
    queue = beat_flags(beats)
    array = Array(config)
    ports = [Source(n_words[n], Pattern(stalls.get(f"i_words__{n}", ()))) for n in range(config.groups)]
    feed = Source(len(queue), Pattern(stalls.get("i_beats", ())))
    sink = Pattern(stalls.get("o", ()))
    # A pass starts once for each of its sets.
    n_channels = config.tile_channels * int(beats["take"][beats["pass_start"]].sum())
    n_results = n_channels // config.vector_lanes
    results = []
    for cycle in range(max_cycles):
        array.begin(cycle)
        first_hop = array.groups[0].hop
        has_beat = feed.offers(cycle) and first_hop.has_room
        taken, given = array.step(cycle, [port.offers(cycle) for port in ports], sink.first(cycle) == cycle)
        for port, is_taken in zip(ports, taken, strict=True):
            if is_taken:
                port.taken.append(cycle)
        if has_beat:
            first_hop.put(queue[len(feed.taken)])
            feed.taken.append(cycle)
        if given:
            results.append(cycle)
            if len(results) == n_results:
                break
    streams = {"i_beats": feed.taken, "o": results} | {f"i_words__{n}": port.taken for n, port in enumerate(ports)}
    return {name: np.array(cycles, np.int64) for name, cycles in streams.items()}


class Source:
    """A stall pattern at work: when the next item is offered."""

    def __init__(self, n_items, pattern):
        self.n_items, self.pattern = n_items, pattern
        self.taken = []

    def offers(self, cycle):
        begins = self.taken[-1] + 1 if self.taken else 0
        return len(self.taken) < self.n_items and self.pattern.first(begins) <= cycle
