"""Cycle model of a batch of tokens: from a program's first instruction to its `next`, from shapes alone.

Each unit is a time at which it is free, each event a time at which it comes; instructions are worked through in order.
"""

from dataclasses import dataclass, field
from functools import cache
from math import ceil

from edgeaccel.cache import CacheLayout
from edgeaccel.golden import append as golden_append
from edgeaccel.golden import function, norm, rotary
from edgeaccel.golden.feed import Operator
from edgeaccel.golden.memory import Streamer
from edgeaccel.golden.quantise import applier_latency, scale_latency
from edgeaccel.golden.units import Attend
from edgeaccel.perf import attention, matrix
from edgeaccel.perf.matrix import PortMemory

__all__ = ["Span", "TokenPrediction", "predict", "walk"]

# Cycles of the sequencer, `edgeaccel.soc.sequencer.Sequencer`.
INSTRUCTION_CYCLES, SKIPPED_CYCLES, JUMP_CYCLES = 3, 2, 1
PRODUCT_CYCLES = {"read": 3, "fetch": 3, "append": 4, "attend": 4}  # more, for an address that depends on the layer
ROW_CYCLES, ROWS_CYCLES = 6, 2  # of a read for each row
NEXT_CYCLES, BATCH_CYCLES = 4, 3
NEXT_SET_CYCLES = 2  # from a set's to the next one's, beside what depends on the layer
SYNC_CYCLES = 3
VECTORS_AHEAD = 4  # that wait for their results
BUFFER_WORDS = Streamer().buffer_words

# Cycles of the ways between units.
REQUEST_CYCLES = 8  # from a fetch to its first address
OPERATOR_CYCLES = 4  # from a multiply to the feed
ENTRY_CYCLES = 1  # from results of the array to the epilogue
EXIT_CYCLES = 1  # from the epilogue to its places
GAIN_CYCLES = 7  # into the activation buffer
STEP_CYCLES = 2  # from statistics to the vector that takes them
READ_CYCLES = 12  # from a read to its address, and from its answer to the target
CACHE_CYCLES = 24  # from vectors of the epilogue to the cache writer, and through it
OUTPUT_CYCLES = 0  # from attention's vectors into the activation buffer
LOGITS_CYCLES = 16  # from the last logits to the token


@dataclass(frozen=True, kw_only=True)
class Span:
    """What the array does for an instruction; each begins where the one before ends.

    Attributes
    ----------
    number : int
        Of the instruction, a multiply or an attend.
    layer : int
    begin, first, end : float
        Cycles: when the array was done with what came before, when it takes the first word of this, and when it is
        done with it. Until `first` it waits.
    words : int
        Of all ports together.
    """

    number: int
    layer: int
    begin: float
    first: float
    end: float
    words: int


@dataclass(frozen=True, kw_only=True)
class TokenPrediction:
    """Core cycles of a batch.

    Attributes
    ----------
    cycles : int
        From its first instruction to that of the next one.
    beats : int
        Of tiles, all ports together.
    beat_share : float
        Of what all ports could give in those cycles, at the rate of their memory.
    spans : tuple of Span
        What the array does, in order. From the end of the last on, the batch's vectors and its token are waited for.
    """

    cycles: int
    beats: int
    beat_share: float
    spans: tuple = field(default=(), repr=False)


def walk(program, *, rows, last):
    """The instructions that a batch executes: (name, fields, layer, skipped ones before it, number), the last `next`.

    Parameters
    ----------
    program : list of (name, when, fields)
        As `edgeaccel.isa.decode` gives them.
    rows : int
    last : bool
        Whether the batch is the last one of the tokens given.
    """
    number, layer, layers, skipped = _first_of_batch(program), 0, 0, 0
    while True:
        name, when, fields = program[number]
        followed = layer + 1 < layers or last
        runs = {"single": rows == 1, "several": rows > 1, "last": last, "followed": followed}
        at, number = number, number + 1
        if not (runs | {"always": True, "unfollowed": not followed})[when]:
            skipped += 1
            continue
        yield name, fields, layer, skipped, at
        skipped = 0
        if name in ("next", "end"):
            return
        if name == "loop":
            layer, layers = 0, fields["layers"]
        elif name == "again" and layer + 1 < layers:
            layer, number = layer + 1, fields["target"]
        elif name == "again":
            layer = layers = 0


def _first_of_batch(program):
    """Number of the instruction that `next` goes to: what stands before is done once."""
    return next((fields["target"] for name, _, fields in program if name == "next"), 0)


def predict(machine, program, memory, *, position, rows=1, last=True, cache_memory=None, value_share=1.0):
    """Cycles of a batch.

    Parameters
    ----------
    machine : Machine
    program : list of (name, when, fields)
    memory : PortMemory
        Of each port, and of what lies behind the ports.
    position, rows : int
        Of the batch.
    last : bool
        Whether a token comes behind it.
    cache_memory : PortMemory, optional
        Of each port while it reads keys and values, whose tiles lie further apart than those of a matrix; `memory` by
        default.
    value_share : float
        Share of its beats that memory takes while a position's values are written, one in each channel's words.

    Returns
    -------
    TokenPrediction
    """
    view = next((fields for name, _, fields in program if name == "cache"), None)
    timeline = _Timeline(machine, view, memory, cache_memory or memory, value_share, position, rows)
    for name, fields, layer, skipped, number in walk(program, rows=rows, last=last):
        timeline.issue(name, skipped)
        if name == "sync" and timeline.lead is None:
            timeline.lead = timeline.now
        timeline.place = number, layer
        getattr(timeline, f"do_{name}", timeline.do_nothing)(fields, layer)
    cycles = ceil(timeline.now)
    beats = timeline.words * machine.config.word_bits // machine.config.port_data_width
    port_cycles = cycles * machine.config.port_mhz / machine.config.core_mhz
    share = beats / (port_cycles * machine.config.groups * memory.share)
    return TokenPrediction(cycles=cycles, beats=beats, beat_share=share, spans=tuple(timeline.spans))


class _Timeline:
    """Times of all units while the instructions of a batch are worked through."""

    def __init__(self, machine, view, memory, cache_memory, value_share, position, rows):
        config = machine.config
        self.machine, self.config, self.cache_memory, self.value_share = machine, config, cache_memory, value_share
        self.position, self.rows = position, rows
        self.sets = -(-rows // config.rows)
        self.ahead_words = BUFFER_WORDS - (config.most_kept if self.sets > 1 else 0)
        self.layout = None
        if view is not None:
            names = {"heads": "heads", "head_dim": "inputs", "format": "format", "page_bits": "page_bits"}
            self.layout = CacheLayout(config=config, **{name: view[of] for name, of in names.items()})
        self.latency = memory.latency * config.core_mhz / config.port_mhz
        rate = config.port_data_width * config.port_mhz * memory.share / (config.word_bits * config.core_mhz)
        self.rate = min(1.0, rate)  # words of a port a cycle
        self.now = 0.0  # of the sequencer
        self.fetches = []  # when the last word of each matrix that was asked for may come
        self.port_free = self.array_free = self.vector_free = self.reader_free = self.writer_free = 0.0
        # Of each set and operator: when its last tile leaves the array, time between tiles, tiles left.
        self.results = [[] for _ in range(self.sets)]
        self.vector_ends = []
        self.loads, self.appends, self.statistics = [], [], []
        self.reads, self.gains, self.heads, self.appending = [], [0.0], [], []
        self.factors = self.token = 0.0
        self.lead = None  # when the first `sync` is come to
        self.words = 0
        self.place, self.spans = (0, 0), []
        stages = 12 + rotary.LATENCY + function.latency(machine.functions) + 12  # `golden.epilogue.steps_net`
        self.path_cycles = ENTRY_CYCLES + stages + EXIT_CYCLES

    def issue(self, name, skipped):
        self.now += SKIPPED_CYCLES * skipped + INSTRUCTION_CYCLES + PRODUCT_CYCLES.get(name, 0)

    def do_nothing(self, f, layer):
        pass

    def do_again(self, f, layer):
        self.now += JUMP_CYCLES

    def do_read(self, f, layer):
        by_row = f["index"] in ("token", "position")
        count, first = self.sets, self.now
        if by_row:
            count = self.rows
            own = ROWS_CYCLES + ROW_CYCLES * count
            self.now += own - INSTRUCTION_CYCLES - PRODUCT_CYCLES["read"]
            first = self.now - ROW_CYCLES * (count - 1)  # when the first row's is given
        else:
            self.now += (count - 1) * (PRODUCT_CYCLES["read"] + NEXT_SET_CYCLES)
        beats = count * max(f["bytes"] / (self.config.port_data_width / 8), f["bytes"] / (4 * self.config.vector_lanes))
        self.reader_free = max(first, self.reader_free) + beats
        done = self.reader_free + READ_CYCLES + self.latency
        if f["target"] in ("vector", "table"):
            self.reads.append(done)
        elif f["target"] == "gain":
            self.gains += [done] * count

    def do_sync(self, f, layer):
        self.now = max([self.now, *self.reads, *self.vector_ends]) + SYNC_CYCLES
        self.reads = []

    def take(self, first, end, words):
        """The array takes words of an instruction."""
        number, layer = self.place
        begin = self.spans[-1].end if self.spans else 0.0
        first = max(begin, first)
        self.spans.append(Span(number=number, layer=layer, begin=begin, first=first, end=max(first, end), words=words))
        self.words += words

    def take_results(self, n_tiles, which):
        """When the first and the last of the next tiles of a set's results leave the array."""
        results, first = self.results[which], None
        while n_tiles:
            end, step, left = results.pop(0)
            if first is None:
                first = end - (left - 1) * step
            n_taken = min(n_tiles, left)
            last = end - (left - n_taken) * step
            if n_taken < left:
                results.insert(0, (end, step, left - n_taken))
            n_tiles -= n_taken
        return first, last

    def do_fetch(self, f, layer):
        words = max(f["words"], f["long_words"] if f["long"] else 0)
        of_all = f["long"] * f["long_words"] + (self.config.groups - f["long"]) * f["words"]
        self.fetches.append((self.now + REQUEST_CYCLES + self.latency, words, of_all))

    def do_multiply(self, f, layer):
        start = self.now + OPERATOR_CYCLES
        if f["wait"]:
            start = max(start, self.loads.pop(0))
        ready, taken, through = _shape(self.config, f["format"], f["inputs"], f["channel_tiles"])
        asked, words, of_all = self.fetches.pop(0)
        sets = range(self.sets - 1 if f["last"] else 0, self.sets)
        taken *= len(sets)
        first = max(start + ready, self.array_free)
        # Until the array begins, ports run ahead of it by what their buffers hold.
        fetched = max(max(asked, self.port_free) + words / self.rate, first + (words - self.ahead_words) / self.rate)
        self.port_free = fetched
        last = max(first + taken - 1, fetched)
        self.array_free = last + 1
        self.take(first, self.array_free, of_all)
        n_tiles = f["channel_tiles"]
        for which in sets:
            self.results[which].append((last + through, (last - first) / n_tiles, n_tiles))

    def do_vector(self, f, layer):
        first = self.sets - 1 if f["to_logits"] else 0
        if f["take"]:
            del self.statistics[:first]
        for which in range(first, self.sets):
            self.now += NEXT_SET_CYCLES * (which > first)
            self._vector(f, which)

    def _vector(self, f, which):
        config = self.config
        if len(self.vector_ends) >= VECTORS_AHEAD:
            self.now = max(self.now, self.vector_ends[-VECTORS_AHEAD])
        beats = f["vectors"] * -(-f["channels"] // config.vector_lanes)
        begin = max(self.now, self.vector_free)
        end = begin + beats
        if not f["zeros"]:
            n_tiles = f["vectors"] * -(-f["channels"] // config.tile_channels)
            begin, end = (max(*times) for times in zip((begin, end), self.take_results(n_tiles, which), strict=True))
        if f["take"]:
            self.factors = self.statistics.pop(0) + STEP_CYCLES
            end = max(end, self.factors + beats)
        self.vector_free = end
        end += self.path_cycles
        self.vector_ends.append(end)
        if f["statistics"]:
            self.statistics += [end + norm.statistics_latency(config.vector_lanes, self.machine.max_channels)]
        is_last = which == self.sets - 1
        gained = self.gains.pop() if f["to_buffer"] and f["gain"] and len(self.gains) > 1 else 0.0
        if f["to_buffer"] and f["event"] and is_last:
            self.loads.append(max(end, gained) + GAIN_CYCLES)
        if f["to_cache"] and is_last:
            self.heads += [(begin + self.path_cycles, end)] * f["vectors"]
            self._append()
        if f["to_logits"] and f["ends"]:
            self.token = end + LOGITS_CYCLES

    def do_append(self, f, layer):
        self.appending.append(f)
        self._append()

    def _append(self):
        """The oldest append, once it has got its vectors."""
        layout, config = self.layout, self.config
        if not self.appending or len(self.heads) < layout.heads:
            return
        f = self.appending.pop(0)
        steps = _steps(config, layout, bool(f["values"]), self.position % config.block, self.rows)
        steps /= self.value_share if f["values"] else 1.0
        # It writes head by head as they come.
        way = CACHE_CYCLES + scale_latency(config.vector_lanes) + applier_latency()
        first, last = self.heads[0][0] + way, self.heads[-1][1] + way
        self.heads = []
        self.writer_free = max(max(first, self.writer_free) + steps, last + steps / layout.heads)
        if f["event"]:
            self.appends.append(self.writer_free + self.latency)

    def do_attend(self, f, layer):
        for which in range(self.sets):
            self.now += (PRODUCT_CYCLES["attend"] + NEXT_SET_CYCLES) * (which > 0)
            self._attend(f, which)

    def _attend(self, f, which):
        # Tiles are asked for as soon as they are written; queries and the array are waited for where the tiles are.
        is_first = which == 0
        start = max(self.now, self.appends.pop(0)) if f["wait"] and is_first else self.now
        loaded = max(start, self.array_free)
        if f["load"] and is_first:
            loaded = max(loaded, self.loads.pop(0))
        config, ratio = self.config, f["ratio"]
        command = Attend(
            n_heads=f["n_heads"],
            first_head=f["first_head"],
            batches=-(-ratio // config.rows) if f["spread"] else ratio,
            count=self.position + which * config.rows + 1,
            factor=0,
            causal=not f["spread"],
            rows=min(config.rows, ratio if f["spread"] else self.rows - which * config.rows),
            window=f["window"],
        )
        ahead = {"queries": ceil(loaded - start), "port": ceil(max(0, self.port_free - start))}
        cycles = _attend(config, self.layout, command, self.cache_memory, **ahead)
        end = start + cycles.last_result
        self.port_free = max(self.port_free, start + cycles.last_word)
        self.array_free = end
        self.take(start + cycles.first_word, end, cycles.beats * config.port_data_width // config.word_bits)
        if f["event"] and which == self.sets - 1:
            self.loads.append(end + OUTPUT_CYCLES)

    def do_next(self, f, layer):
        if self.token:
            self.now = max(self.now, self.token) + NEXT_CYCLES
        else:  # the next batch begins before, and waits for the vectors at its first `sync`
            self.now = max(self.now + NEXT_CYCLES + BATCH_CYCLES, *(end - self.lead for end in self.vector_ends))


@cache
def _shape(config, format, inputs, channel_tiles):
    """Of an operator whose words are there: cycles until the first group takes one, takes all, the results are out.

    Groups behind the first are later by a cycle each, with this operator and with the next.
    """
    operator = Operator(format=format, inputs=inputs, channel_tiles=channel_tiles)
    shape = matrix.predict(config, [operator], PortMemory(latency=0, share=1e9))
    taken = matrix.array_cycles(config, operator)[0]
    return shape.first_word, taken, shape.last_result - (shape.first_word + taken - 1)


def _attend(config, layout, command, memory, **ahead):
    return _attend_of(config, layout, tuple(sorted(vars(command).items())), memory, **ahead)


@cache
def _attend_of(config, layout, command, memory, **ahead):
    return attention.predict(config, layout, Attend(**dict(command)), memory, **ahead)


@cache
def _steps(config, layout, is_values, place, rows):
    """Cycles of the cache writer for a layer's keys, or values."""
    config = config.of_batch
    command = golden_append.Append(
        kind="v" if is_values else "k",
        format=layout.format,
        rows=rows,
        heads=layout.heads,
        inputs=layout.head_dim,
        unit=0,
        place=place,
        page=0,
        scales=0,
    )
    return layout.heads * len(golden_append.head_steps(config, command))
