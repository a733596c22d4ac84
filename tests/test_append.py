"""The KV-cache writer against its golden model, and that against the cache as it is read: content, errors, cycles."""

import json
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.attention.append import KVAppend
from edgeaccel.attention.append_command import AppendError, AppendErrorCode, AppendKind
from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.append import Append, append, append_cycles, head_steps, refusal
from edgeaccel.golden.quantise import quantise
from edgeaccel.golden.scatter import apply
from edgeaccel.golden.timing import Pattern
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit
from sim import system
from sim.bench import BUILD, ROOT
from sim.memory import IDEAL, MemoryModel
from sim.vectors import codes, generator

PORT_BYTES = 1 << 18
CONFIGS = {
    "tiny": preset("tiny"),
    "larger": preset("vcu128", groups=8),
}
NAMES = ("int4", "int8", "int16")
DIMS = (8, 10, 64, 80, 128, 256)


class Bench(wiring.Component):
    """A KV-cache writer whose pulses of `done` are counted, and given as a stream."""

    def __init__(self, config, **parameters):
        self.config = config
        self.unit = KVAppend(config, **parameters)
        members = self.unit.signature.members
        super().__init__(
            {
                **{name: members[name] for name in ("i", "i_commands", "m_axi", "clear", "error")},
                "o_done": Out(stream.Signature(16)),
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
    return codes(np.where(rng.random(shape) < 0.02, 0, vectors).astype(np.float32))


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
    names = "rows heads inputs unit place page scales k_words k_stride v_region v_words v_stride share_bits".split()
    values |= {name: [getattr(command, name) for command in commands] for name in names}
    return {name: np.array(value) for name, value in values.items()}


def simulate(bench, commands, vectors, content, **options):
    model = options.pop("model", IDEAL.with_latency(12))
    model = MemoryModel(**{**vars(model), "data_width": bench.config.port_data_width})
    memory = system.Memory(model=model, content=content, errors=options.pop("errors", []))
    options = {"optimise": "-O0", "n_results": {"o_done": len(commands)}, "until": ("n_done", len(commands))} | options
    streams = {"i_commands": command_items(commands), "i": vector_beats(bench.config, vectors)}
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
    for inputs, heads in zip(DIMS, (1, 2, 3, 2, 1, 2), strict=True):
        cache = Cache(config, name, heads, inputs, 2)
        places = batches(rng, config, 2)
        if inputs > 64 and config.block > 32:
            places = places[:6] + [(1, 0, 1)]
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


def check(bench, commands, vectors, rng, *, stalls=None, latency=12, outstanding=32):
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
    cycles = append_cycles(bench.config, commands, latency=latency, outstanding=outstanding, stalls=patterns)
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
