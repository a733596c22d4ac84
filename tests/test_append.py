"""The KV-cache writer against its golden model, and that against the cache as it is read: content, errors, cycles."""

import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from edgeaccel.attention.append import KVAppend
from edgeaccel.attention.append_command import AppendError, AppendErrorCode, AppendKind
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.append import Append, append, append_cycles, refusal
from edgeaccel.golden.quantise import quantise
from edgeaccel.golden.scatter import apply
from edgeaccel.golden.timing import Pattern
from edgeaccel.sim import system
from edgeaccel.sim.bench import BUILD, ROOT
from edgeaccel.sim.memory import HBM2, IDEAL
from edgeaccel.sim.vectors import codes, generator
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit

PORT_BYTES = 1 << 18
CONFIGS = {
    "tiny": preset("tiny"),
    "larger": preset("vcu128", groups=8),
}
NAMES = ("int4", "int8", "int16")
DIMS = (8, 10, 64, 80, 128, 256)


class Bench(wiring.Component):
    """A KV-cache writer whose pulses of `done` are counted, and given as a stream, and each first error as another."""

    def __init__(self, config, **parameters):
        self.config = config
        self.unit = KVAppend(config, **parameters)
        members = self.unit.signature.members
        super().__init__(
            {
                **{name: members[name] for name in ("i", "i_commands", "m_axi", "clear", "error")},
                "o_done": Out(stream.Signature(16)),
                "o_error": Out(stream.Signature(AppendError)),
                "n_done": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        for name in ("i", "i_commands", "m_axi"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(unit, name))
        m.d.comb += [unit.clear.eq(self.clear), self.error.eq(unit.error)]
        m.d.comb += [self.o_done.valid.eq(unit.done), self.o_done.p.eq(self.n_done)]
        m.d.sync += self.n_done.eq(self.n_done + unit.done)
        is_told = Signal()
        m.d.comb += [self.o_error.valid.eq(unit.error.valid & ~is_told), self.o_error.p.eq(unit.error)]
        m.d.sync += is_told.eq(unit.error.valid)
        return m


@pytest.fixture(scope="module", params=list(CONFIGS))
def bench(request):
    return Bench(CONFIGS[request.param], port_bytes=PORT_BYTES, outstanding=32)


class Cache:
    """A layer's cache as the design notes say where everything is; written from them, not from the golden model.

    Parameters
    ----------
    config : Config
    format : str
    heads, inputs, chunks : int
        KV heads, head dimension, chunks of a page.
    """

    def __init__(self, config, format, heads, inputs, chunks):
        self.config, self.format, self.heads, self.inputs = config, format, heads, inputs
        spec = FORMATS[format]
        lanes, block = config.lanes, config.block
        self.per_word, self.together = spec.inputs_per_word(lanes), spec.channels_per_word
        self.channels = lanes // 4
        self.in_set = min(block // self.channels, config.groups)
        self.sets = config.groups // self.in_set
        n_v_tiles = -(-inputs // self.channels)
        spread = 1
        while spread < n_v_tiles and spread < self.in_set:
            spread *= 2
        self.spread, self.share = spread, self.in_set // spread
        groups = self.channels // self.together
        self.k_words = 0
        for start in range(0, inputs, block):
            self.k_words += 1 + groups * -(-min(block, inputs - start) // self.per_word)
        self.v_words = 1 + groups * (block // self.per_word)
        self.k_stride = self.k_words * -(-(block // self.channels) // self.in_set)
        self.v_stride = self.v_words * -(-n_v_tiles // spread)
        locals_ = -(-heads * chunks // self.sets)
        self.v_region = locals_ * self.k_stride
        self.page_words = self.v_region + -(-locals_ // self.share) * self.v_stride

    def fields(self):
        return {
            "format": self.format,
            "heads": self.heads,
            "inputs": self.inputs,
            "k_words": self.k_words,
            "k_stride": self.k_stride,
            "v_region": self.v_region,
            "v_words": self.v_words,
            "v_stride": self.v_stride,
            "share_bits": self.share.bit_length() - 1,
        }

    def word(self, memory, group, number):
        """Codes of a word: lane pairs in their order."""
        size = self.config.lanes // 2
        start = group * PORT_BYTES + number * size
        return memory[start : start + size]

    def elements(self, word):
        """[channels, inputs] of a word."""
        pairs = word.reshape(-1, 2).T.ravel().astype(int)  # byte 2k + h is pair h * P / 2 + k
        half = len(pairs) // 2
        match self.format:
            case "int16":
                values = pairs[:half] | pairs[half:] << 8
                return (values ^ 0x8000)[None] - 0x8000
            case "int8":
                return (pairs ^ 0x80)[None] - 0x80
            case "int4":
                return (np.array([pairs & 15, pairs >> 4]) ^ 8) - 8

    def tile(self, memory, group, number, inputs):
        """(scales [channels], elements [channels, inputs], words) of a tile's first block."""
        scales = self.word(memory, group, number).view(np.uint16)
        words = -(-inputs // self.per_word)
        rows = []
        for n in range(self.channels // self.together):
            parts = [self.elements(self.word(memory, group, number + 1 + n * words + w)) for w in range(words)]
            rows.append(np.concatenate(parts, axis=1)[:, :inputs])
        return scales, np.concatenate(rows), 1 + len(rows) * words

    def keys(self, memory, page, unit):
        """(codes [positions, dims], scales [positions, input tiles]) of a unit."""
        which, local = unit % self.sets, unit // self.sets
        all_codes, all_scales = [], []
        for t in range(self.config.block // self.channels):
            number = page + local * self.k_stride + t // self.in_set * self.k_words
            parts = []
            for start in range(0, self.inputs, self.config.block):
                n = min(self.config.block, self.inputs - start)
                scales, elements, words = self.tile(memory, which * self.in_set + t % self.in_set, number, n)
                parts.append((scales, elements))
                number += words
            all_codes.append(np.concatenate([elements for _, elements in parts], axis=1))
            all_scales.append(np.stack([scales for scales, _ in parts], axis=1))
        return np.concatenate(all_codes), np.concatenate(all_scales)

    def values(self, memory, page, unit, scales_at):
        """(codes [positions, dims], scales [positions], scale words' scales) of a unit."""
        which, local = unit % self.sets, unit // self.sets
        parts, ones = [], []
        for t in range(-(-self.inputs // self.channels)):
            group = which * self.in_set + local % self.share * self.spread + t % self.spread
            number = page + self.v_region + local // self.share * self.v_stride + t // self.spread * self.v_words
            scales, elements, _ = self.tile(memory, group, number, self.config.block)
            ones.append(scales)
            parts.append(elements)
        block = self.config.block
        table = memory[scales_at + unit * block * 2 :][: 2 * block].view(np.uint16)
        return np.concatenate(parts)[: self.inputs].T, table, np.concatenate(ones)


def random_vectors(rng, *shape):
    vectors = rng.standard_normal(shape).astype(np.float32)
    vectors *= np.float32(2.0) ** rng.integers(-6, 6, (*shape[:-1], 1))
    vectors[rng.random(shape) < 0.02] = 0
    # Vectors that cannot be held, or of zeros alone.
    vectors[rng.random(shape[:-1]) < 0.03, -1] = rng.choice([np.nan, np.inf])
    vectors[rng.random(shape[:-1]) < 0.03] = 0
    return codes(vectors)


def memory_of(config, rng):
    """Bytes of all ports, and the scales behind them."""
    return rng.integers(0, 256, (config.groups + 1) * PORT_BYTES, dtype=np.uint8)


def batches(rng, config, chunks):
    """All positions of some chunks, cut at random; no batch leaves its aligned group."""
    most = 1 << (config.rows - 1).bit_length()
    batches = []
    for chunk in range(chunks):
        place = 0
        while place < config.block:
            rows = int(rng.integers(1, min(config.rows, most - place % most) + 1))
            batches.append((chunk, place, rows))
            place += rows
    return batches


def vector_beats(config, vectors):
    """Beats of a list of [heads, rows, inputs]."""
    rows = [row for of_command in vectors for head in of_command for row in head]
    return golden_vector.beats(rows, config.vector_lanes, 256, filler=0x7FC00001)


def command_items(commands):
    """Commands as the stream takes them."""
    values = {
        "kind": [AppendKind[command.kind.upper()].value for command in commands],
        "format": [FORMATS[command.format].code for command in commands],
    }
    values |= {
        name: [getattr(command, name) for command in commands] for name in vars(commands[0]) if name not in values
    }
    return {name: np.array(value) for name, value in values.items()}


def simulate(bench, commands, vectors, content, **options):
    model = options.pop("model", IDEAL.with_latency(12))
    model = replace(model, data_width=bench.config.port_data_width)
    memory = system.Memory(model=model, content=content, errors=options.pop("errors", []))
    options = {"n_results": {"o_done": len(commands)}} | options
    beats = options.pop("beats", None) or vector_beats(bench.config, vectors)
    streams = {"i_commands": command_items(commands), "i": beats}
    return system.run(bench, streams=streams, memories={"m_axi": memory}, **options)


def random_patterns(rng, n_cycles=6000):
    names = ("i", "i_commands", *(f"m_axi_{name}" for name in ("ar", "r", "aw", "w", "b")))
    return {name: rng.random(n_cycles) < rng.choice([0.2, 0.5, 0.9, 1]) for name in names}


def appends(rng, config, cache, places, *, page=None):
    """K and V commands with their vectors, for (chunk, place, rows)."""
    page = int(rng.integers(64)) if page is None else page
    scales = config.groups * PORT_BYTES + int(rng.integers(8)) * config.word_bytes
    commands, vectors = [], []
    for chunk, place, rows in places:
        for kind in "kv":
            commands.append(
                Append(
                    kind=kind,
                    rows=rows,
                    unit=chunk * cache.heads,
                    place=place,
                    page=page,
                    scales=scales,
                    **cache.fields(),
                )
            )
            vectors.append(random_vectors(rng, cache.heads, rows, cache.inputs))
    return commands, vectors


def check_cache(config, cache, commands, vectors, memory):
    """What is in memory, read by the rules, is what the quantiser makes of the vectors."""
    expected = {}
    for command, of_command in zip(commands, vectors, strict=True):
        for head, rows in enumerate(of_command):
            for row, vector in enumerate(rows):
                expected[command.kind, command.unit + head, command.place + row] = quantise(vector, cache.format)
    first = commands[0]
    units = sorted({(kind, unit) for kind, unit, _ in expected})
    opened = {(kind, unit) for kind, unit, place in expected if place == 0}
    for kind, unit in units:
        if kind == "k":
            found, scales = cache.keys(memory, first.page, unit)
        else:
            found, scales, ones = cache.values(memory, first.page, unit, first.scales)
            if (kind, unit) in opened:
                np.testing.assert_array_equal(ones, 0x3C00)
        for place in range(config.block):
            if (kind, unit, place) in expected:
                of_vector, scale = expected[kind, unit, place]
                np.testing.assert_array_equal(found[place], of_vector)
                assert (scales[place] == scale).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_golden_is_the_layout(config, name):
    """Whole chunks, appended in batches, read as the notes say; nothing else is touched."""
    rng = generator(500)
    for inputs, heads in zip(DIMS, (3, 2, 1, 2, 3, 2), strict=True):
        cache = Cache(config, name, heads, inputs, 2)
        places = batches(rng, config, 2)
        if inputs > 10:
            later = sorted(rng.choice(np.arange(3, len(places)), 4, replace=False))
            places = [*places[:3], *(places[n] for n in later)]
        commands, vectors = appends(rng, config, cache, places)
        memory = memory_of(config, rng)
        before = memory.copy()
        touched = np.zeros(len(memory), bool)
        for command, of_command in zip(commands, vectors, strict=True):
            items = append(config, PORT_BYTES, command, of_command)
            apply(items, memory)
            for item in items:
                touched[item.address : item.address + len(item.data)] |= [
                    bool(item.nibbles >> 2 * n & 3) for n in range(len(item.data))
                ]
        check_cache(config, cache, commands, vectors, memory)
        np.testing.assert_array_equal(memory[~touched], before[~touched])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_golden_is_the_cache_layout(config, name):
    """A chunk appended to empty memory is what `CacheLayout` packs."""
    rng = generator(505)
    layout = CacheLayout(config=config, heads=3, head_dim=64, format=name)
    ports, scales = np.zeros((config.groups, PORT_BYTES), np.uint8), np.zeros(PORT_BYTES, np.uint8)
    memory = np.zeros((config.groups + 1) * PORT_BYTES, np.uint8)
    vectors = codes(rng.standard_normal((2, config.block, 3, 64)))
    quantised = [[quantise(vector, name) for position in of_kind for vector in position] for of_kind in vectors]
    pairs = [
        (
            np.array([numbers for numbers, _ in of_kind]).reshape(config.block, 3, 64),
            np.array([scale for _, scale in of_kind], np.uint16).view(np.float16).reshape(config.block, 3),
        )
        for of_kind in quantised
    ]
    layout.fill(ports, scales, [0], *pairs)
    view = layout.view(pages=1, n_pages=1)
    names = ("format", "heads", "inputs", "k_words", "k_stride", "v_region", "v_words", "v_stride", "share_bits")
    fields = {field: view[field] for field in names}
    for kind, of_kind in zip("kv", vectors, strict=True):
        for place in range(0, config.block, config.rows):
            where = {"unit": 0, "place": place, "page": 0, "scales": config.groups * PORT_BYTES}
            command = Append(kind=kind, rows=config.rows, **where, **fields)
            batch = of_kind[place : place + config.rows].swapaxes(0, 1)
            apply(append(config, PORT_BYTES, command, batch), memory)
    np.testing.assert_array_equal(memory[: ports.size], ports.ravel())
    np.testing.assert_array_equal(memory[ports.size :], scales)


def check(bench, commands, vectors, rng, *, stalls=None, latency=12):
    """Writes, memory and, where there are no half bytes, cycles are those of the golden model."""
    content = memory_of(bench.config, rng)
    expected = content.copy()
    items = [
        item
        for command, of_command in zip(commands, vectors, strict=True)
        for item in append(bench.config, PORT_BYTES, command, of_command)
    ]
    apply(items, expected)
    stalls = stalls or {}
    result = simulate(bench, commands, vectors, content, model=IDEAL.with_latency(latency), stalls=stalls)
    port = result.ports["m_axi"]
    np.testing.assert_array_equal(port.writes.bursts["address"], [item.address for item in items])
    np.testing.assert_array_equal(port.reads.bursts["address"], [item.address for item in items if item.is_partial])
    np.testing.assert_array_equal(content, expected)
    assert not result.outputs["error"]["valid"]
    if any(item.is_partial for item in items):
        return result, items
    patterns = {name.removeprefix("m_axi_"): Pattern(pattern) for name, pattern in stalls.items()}
    patterns = {name: pattern for name, pattern in patterns.items() if name not in ("ar", "r")}
    build = {"outstanding": bench.unit.writer.outstanding, "max_head_dim": bench.unit.sizes.max_head_dim}
    cycles = append_cycles(bench.config, commands, latency=latency, stalls=patterns, **build)
    for name in ("i", "i_commands"):
        np.testing.assert_array_equal(result.cycles[name], cycles[name])
    np.testing.assert_array_equal(port.writes.bursts["cycle"], cycles["w"])
    np.testing.assert_array_equal(port.writes.cycles, cycles["b"])
    return result, items


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stalled", [False, True])
def test_verilog(bench, name, stalled):
    """Random batches of random heads: what is written, and when."""
    rng = generator(510 + stalled)
    for inputs in rng.permutation(DIMS):
        config = bench.config
        cache = Cache(config, name, int(rng.integers(1, 4)), int(inputs), 2)
        places = batches(rng, config, 2)
        first = int(rng.integers(len(places) - 4))
        places = [*places[:2], *places[first : first + 3]]
        commands, vectors = appends(rng, config, cache, places)
        chosen = rng.permutation(len(commands))[:6]
        commands, vectors = [commands[n] for n in chosen], [vectors[n] for n in chosen]
        check(bench, commands, vectors, rng, stalls=random_patterns(rng) if stalled else None)


def test_a_position_after_the_other(bench):
    """A chunk of a head, from its first position to its last; in int4 each odd one keeps what is there."""
    rng = generator(520)
    config = bench.config
    for name in NAMES:
        cache = Cache(config, name, 1, 10, 1)
        places = [(0, place, 1) for place in range(config.block)]
        commands, vectors = appends(rng, config, cache, places)
        memory = memory_of(config, rng)
        content = memory.copy()
        result = simulate(bench, commands, vectors, content, n_results={"o_done": len(commands)})
        check_cache(config, cache, commands, vectors, content)
        assert result.outputs["n_done"] == len(commands)
        n_words = config.block // config.tile_channels * cache.k_words + cache.v_words * -(-10 // config.tile_channels)
        assert (content != memory).sum() <= n_words * config.word_bytes + 2 * config.block


@pytest.mark.parametrize("seed", range(530, 534))
def test_hbm(bench, seed):
    """Another order of answers and any stalls change nothing in memory."""
    rng = generator(seed)
    config = bench.config
    cache = Cache(config, NAMES[seed % 3], 2, int(rng.choice(DIMS)), 1)
    commands, vectors = appends(rng, config, cache, batches(rng, config, 1)[:3])
    content = memory_of(config, rng)
    expected = content.copy()
    for command, of_command in zip(commands, vectors, strict=True):
        apply(append(config, PORT_BYTES, command, of_command), expected)
    simulate(bench, commands, vectors, content, model=HBM2, stalls=random_patterns(rng))
    np.testing.assert_array_equal(content, expected)


@pytest.mark.parametrize("name", NAMES)
def test_rate(bench, name):
    """Values: a write in each cycle, through heads; keys: `vector_lanes` codes in each, if they come so fast."""
    rng = generator(540)
    config = bench.config
    cache = Cache(config, name, 12, 128, 1)
    together = FORMATS[name].channels_per_word
    (keys, values), vectors = appends(rng, config, cache, [(0, config.rows, config.rows)], page=0)
    result, _ = check(bench, [values], vectors[1:], rng)
    beats = config.rows * 128 // config.vector_lanes
    a_head = max(beats, 128 // together + 1)
    cycles = result.ports["m_axi"].writes.bursts["cycle"]
    assert len(cycles) == 12 * (128 // together + 1)
    assert cycles[-1] - cycles[0] < 12 * a_head
    # As documented; the data comes a cycle after the address.
    latency = 39 + int(np.log2(config.vector_lanes)) + 128 // config.vector_lanes
    assert cycles[0] - 1 == result.cycles["i"][beats - 1] + latency
    result, _ = check(bench, [keys], vectors[:1], rng)
    cycles = result.ports["m_axi"].writes.bursts["cycle"]
    of_padding = 1 if config.block > 32 else 4
    assert cycles[-1] - cycles[0] < 12 * (beats + of_padding)


def one_command(rng, config, **changes):
    cache = Cache(config, "int8", 2, 64, 1)
    commands, vectors = appends(rng, config, cache, [(0, 0, config.rows)], page=3)
    return replace(commands[0], **changes), vectors[0]


REFUSALS = [
    ({"rows": 0}, "ROWS"),
    ({"heads": 0}, "HEADS"),
    ({"inputs": 0}, "INPUTS"),
    ({"inputs": 63}, "INPUTS"),
    ({"inputs": 63, "heads": 0}, "HEADS"),
    ({"format": "mxfp4"}, "FORMAT"),
    ({"place": 1}, "GROUP"),
    ({"scales": 8}, "ALIGNMENT"),
    ({"share_bits": 3}, "SHARE"),
]


def test_refused_commands(bench):
    """All before is done, the error tells which and why, and after `clear` all is as at first."""
    rng = generator(550)
    config = bench.config
    good, vectors = one_command(rng, config)
    for changes, code in [*REFUSALS, ({"rows": config.rows + 1}, "ROWS"), ({"place": config.block - 1}, "PLACE")]:
        bad, _ = one_command(rng, config, **changes)
        assert refusal(config, bad) == code
        content = memory_of(config, rng)
        expected = content.copy()
        apply(append(config, PORT_BYTES, good, vectors), expected)
        result = simulate(
            bench,
            [good, good, bad, good],
            [vectors] * 3,
            content,
            inputs={"clear": {0: 0, 2500: 1, 2501: 0}},
            n_results={"o_done": 3, "o_error": 1},
        )
        assert first_error(result) == (code, {"valid": 1, "command": 2, "response": 0, "address": 0})
        assert result.cycles["o_done"][1] < result.cycles["o_error"][0] < 2500 < result.cycles["o_done"][2]
        np.testing.assert_array_equal(content, expected)
    assert refusal(config, good) is None


def first_error(result):
    error = {name: values[0] for name, values in result.results["o_error"].items()}
    return AppendErrorCode(error.pop("code")).name, error


def elsewhere(rng, config):
    """A command for memory that no other has, and its vectors."""
    cache = Cache(config, "int16", 1, 8, 1)
    (keys, _), (vectors, _) = appends(rng, config, cache, [(0, 4, 1)], page=(PORT_BYTES >> 1) // config.word_bytes)
    return keys, vectors


@pytest.mark.parametrize("change", [-1, 1])
def test_vectors_of_another_length(bench, change):
    """A beat that ends its vector too early, or not: commands before are done, and `clear` drops the command."""
    rng = generator(560)
    config = bench.config
    lanes = config.vector_lanes
    good, vectors = one_command(rng, config)
    other, of_other = elsewhere(rng, config)
    beats = vector_beats(config, [vectors, vectors])
    place = len(beats["last"]) // 2 + 64 // lanes - (2 if change < 0 else 1)  # in the second command's first vector
    beats = {name: values[: place + 1] for name, values in beats.items()}
    beats["last"][place] ^= 1
    # The beat is not taken, and so it is the first one for the command after `clear`.
    n_beats = 1 if change < 0 else 2
    other = replace(other, inputs=n_beats * lanes)
    after = vector_beats(config, [of_other[:, :, :lanes]])
    if change > 0:
        beats = {name: np.concatenate([values, after[name]]) for name, values in beats.items()}
    result = simulate(
        bench,
        [good, good, good, other],  # the third one is at the gate
        [],
        memory_of(config, rng),
        beats=beats,
        inputs={"clear": {0: 0, 2500: 1, 2501: 0}},
        n_results={"o_done": 2, "o_error": 1},
    )
    code, error = first_error(result)
    assert (code, error["command"]) == ("LENGTH", 1)
    assert result.cycles["o_done"][0] < result.cycles["o_error"][0] < 2500 < result.cycles["o_done"][1]


@pytest.mark.parametrize("seed", range(570, 576))
def test_bad_responses(bench, seed):
    """The error tells where; what is written then is the first so many items, but for those answered so."""
    rng = generator(seed)
    config = bench.config
    cache = Cache(config, NAMES[seed % 3], 1, 64, 1)
    commands, vectors = appends(rng, config, cache, [(0, 2, 1), (0, 3, 1)])
    items = [append(config, PORT_BYTES, *pair) for pair in zip(commands, vectors, strict=True)]
    of_one = items[rng.integers(4)]
    bad = of_one[rng.integers(len(of_one))].address
    which = next(n for n, of_command in enumerate(items) if bad in [item.address for item in of_command])
    response = str(rng.choice(["SLVERR", "DECERR"]))
    content = memory_of(config, rng)
    before = content.copy()
    result = simulate(
        bench,
        commands,
        vectors,
        content,
        errors=[(bad, bad + 1, response)],
        n_results={"o_done": which, "o_error": 1},
        stalls={name: pattern for name, pattern in random_patterns(rng).items() if "m_axi" in name},
    )
    code, error = first_error(result)
    expected = {"valid": 1, "response": {"SLVERR": 2, "DECERR": 3}[response], "address": bad, "command": which}
    assert (code, error) == ("RESPONSE", expected)
    flat = [item for of_command in items for item in of_command]
    fits = []
    for n_written in range(len(flat) + 1):
        expected = before.copy()
        apply([item for item in flat[:n_written] if item.address != bad], expected)
        fits.append((expected == content).all())
    assert any(fits)


def test_clear_after_bad_response(bench):
    rng = generator(576)
    config = bench.config
    cache = Cache(config, "int8", 1, 64, 1)
    commands, vectors = appends(rng, config, cache, [(0, 2, 1)])
    other, of_other = elsewhere(rng, config)
    bad = append(config, PORT_BYTES, commands[0], vectors[0])[0].address
    content = memory_of(config, rng)
    expected = content.copy()
    apply(append(config, PORT_BYTES, other, of_other), expected)
    where = slice(expected.size // 2, expected.size // 2 + PORT_BYTES // 2)
    result = simulate(
        bench,
        [commands[0], other],
        [vectors[0], of_other],
        content,
        errors=[(bad, bad + 1, "DECERR")],
        stalls={"i_commands": np.r_[np.ones(1, bool), np.zeros(2600, bool)]},
        inputs={"clear": {0: 0, 2500: 1, 2501: 0}},
        n_results={"o_done": 1, "o_error": 1},
    )
    assert first_error(result)[0] == "RESPONSE"
    assert not result.outputs["error"]["valid"]
    np.testing.assert_array_equal(content[where], expected[where])


@pytest.mark.parametrize("seed", range(580, 586))
def test_clear(bench, seed):
    """`clear` at any cycle: of what was taken before it the first so many writes are made; what follows is whole."""
    rng = generator(seed)
    config = bench.config
    cache = Cache(config, NAMES[seed % 3], 2, 64, 1)
    place = int(rng.integers(config.block // config.rows)) * config.rows
    commands, vectors = appends(rng, config, cache, [(0, place, config.rows)] * 2)
    other, of_other = elsewhere(rng, config)
    content = memory_of(config, rng)
    before = content.copy()
    # As it goes without: what was taken by then is dropped.
    result = simulate(bench, [*commands, other], [*vectors, of_other], content.copy())
    cycle = int(rng.integers(20, result.cycles["i_commands"][-1]))
    n_beats, n_commands, n_done = ((result.cycles[name] <= cycle).sum() for name in ("i", "i_commands", "o_done"))
    beats = {name: values[:n_beats] for name, values in vector_beats(config, vectors).items()}
    after = vector_beats(config, [of_other])
    result = simulate(
        bench,
        [*commands[:n_commands], other],
        [],
        content,
        beats={name: np.concatenate([values, after[name]]) for name, values in beats.items()},
        inputs={"clear": {0: 0, cycle: 1, cycle + 1: 0}},
        n_results={"o_done": n_done + 1},
    )
    flat = [item for pair in zip(commands, vectors, strict=True) for item in append(config, PORT_BYTES, *pair)]
    of_other = append(config, PORT_BYTES, other, of_other)
    n_written = len(result.ports["m_axi"].writes.bursts) - len(of_other)
    assert 0 <= n_written < len(flat)
    apply([*flat[:n_written], *of_other], before)
    np.testing.assert_array_equal(content, before)


@pytest.mark.slow
def test_cocotb():
    """The public AXI memory instead of ours: `edgeaccel.sim.cocotb_append`."""
    seed = 590
    print(f"seed {seed}")
    (BUILD / "cocotb").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD / "cocotb", prefix="append-") as folder:
        with open(f"{folder}/dut.v", "w") as file:
            file.write(emit(KVAppend(CONFIGS["tiny"], port_bytes=1 << 14), "dut"))
        command = [
            sys.executable,
            "-m",
            "edgeaccel.sim.cocotb_runner",
            folder,
            "edgeaccel.sim.cocotb_append",
            "+config=tiny",
            f"+seed={seed}",
        ]
        bench = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not bench.returncode, f"{bench.stdout[-6000:]}{bench.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"port_data_width": 256},  # a beat is two words
        {"rows": 1},
        {"rows": 3, "lanes": 64, "formats": ("int8",), "vector_lanes": 2},
        {"formats": ("int16", "mxfp4"), "block": 64},
    ],
    ids=str,
)
def test_other_builds(changes):
    rng = generator(600)
    config = preset("tiny", **changes)
    bench = Bench(config, port_bytes=PORT_BYTES, outstanding=8, max_head_dim=80)
    for name in config.formats:
        if name == "mxfp4":
            continue
        for inputs in (8, 10, 80):
            cache = Cache(config, name, 2, inputs, 1)
            commands, vectors = appends(rng, config, cache, batches(rng, config, 1))
            check(bench, commands, vectors, rng, stalls=random_patterns(rng))


BIG = [pytest.param(name, marks=pytest.mark.slow) for name in ("vcu128", "vu9p")]


@pytest.mark.parametrize("name", ["tiny", *BIG])
def test_lint(name, tmp_path):
    path = tmp_path / "dut.v"
    path.write_text(emit(KVAppend(preset(name), port_bytes=1 << 28), "dut"))
    assert lint(path, "dut") == ""


@pytest.mark.parametrize(
    ("changes", "parameters", "message"),
    [
        ({}, {"port_bytes": 1000}, "port_bytes must be a power of two of at least two words, not 1000"),
        (
            {},
            {"max_head_dim": 260},
            "max_head_dim must be a multiple of the 4 elements .* 256, not 260",
        ),
        ({}, {"max_head_dim": 10}, "max_head_dim must be a multiple of the 4 elements .* 256, not 10"),
        ({}, {"outstanding": 3}, "outstanding must be a power of two of at least 2 items, not 3"),
        (
            {"block": 96, "buffer_inputs": 3072},
            {},
            "block must be a power of two of at least 8, the channels of a tile, not 96",
        ),
        ({"vector_lanes": 1}, {}, "vector_lanes must be at least 2, not 1"),
        ({"rows": 9}, {}, "rows must be at most 8, the 16-bit elements of a write, not 16"),
    ],
)
def test_bad_parameters(changes, parameters, message):
    with pytest.raises(ValueError, match=message):
        KVAppend(preset("tiny", **changes), **{"port_bytes": PORT_BYTES} | parameters)
