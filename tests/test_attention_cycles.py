"""Cycle model of the whole attention engine against the emitted Verilog: every transfer, cycle for cycle."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden.array import Source
from edgeaccel.golden.attention_cycles import attention_cycles
from edgeaccel.golden.attention_cycles.scores import ScorePath
from edgeaccel.golden.attention_cycles.values import ValueAccumulator
from edgeaccel.golden.scores import scores_cycles
from edgeaccel.golden.timing import Pattern
from edgeaccel.golden.values import value_cycles
from edgeaccel.sim import attention as sim
from edgeaccel.sim.attention import Appended, Asker, Sequence, random_codes, random_vectors
from edgeaccel.sim.bench import random_stalls
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL, Channel

CONFIG = preset("tiny", buffer_inputs=32768)
MEMORY = replace(IDEAL, data_width=CONFIG.port_data_width)
HBM2_PORT, DDR4_PORT = (replace(model, data_width=CONFIG.port_data_width) for model in (HBM2, DDR4_2400))
PORT_BYTES = 1 << 19
FORMATS = ("int4", "int8", "int16")  # by their codes


@pytest.fixture(scope="module")
def engine():
    return AttentionEngine(CONFIG, slots=16, entries=64, port_bytes=PORT_BYTES)


def generator(seed):
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def rows_of(columns):
    """The commands of a stream of the bench, with formats by name."""
    if not columns:
        return []
    first = next(iter(columns.values()))
    n = len(first if not isinstance(first, dict) else next(iter(first.values())))
    return [SimpleNamespace(**{name: _item(name, each, k) for name, each in columns.items()}) for k in range(n)]


def _item(name, values, k):
    if isinstance(values, dict):
        return SimpleNamespace(**{each: _item(each, of, k) for each, of in values.items()})
    return FORMATS[values[k]] if name == "format" else int(values[k])


def compare(monkeypatch, engine, model, steps, **settings):
    """Run steps on the Verilog, and hold the golden cycles of all streams and memories to it."""
    bench = {}

    def recorded(component, **inputs):
        bench.update(inputs)
        return bench["run"](component, **inputs)

    bench["run"] = sim.run
    monkeypatch.setattr(sim, "run", recorded)
    result = sim.simulate(engine, model, steps, **settings)
    monkeypatch.undo()
    streams, config = bench["streams"], engine.config
    names = [*(f"m_axi_{n}" for n in range(config.groups)), "m_axi_scales", "m_axi_cache"]
    timing = attention_cycles(
        config,
        {name: Channel(model) for name in names},
        bursts=model.outstanding,
        pages=list(zip(streams["i_pages"]["index"], streams["i_pages"]["page"], strict=True)),
        loads=list(streams["i_loads"]["event"]),
        appends=rows_of(streams.get("i_appends")),
        vectors=list(streams.get("i_vectors", {"last": ()})["last"]),
        attends=rows_of(streams["i_attends"]),
        stalls=bench["stalls"],
        port_bytes=engine.port_bytes,
    )
    for name, cycles in timing.streams.items():
        np.testing.assert_array_equal(cycles, result.cycles[name], err_msg=name)
    np.testing.assert_array_equal(timing.answers, result.ports["m_axi_cache"].writes.cycles)
    for name in names:
        asked = [
            tuple(int(burst[part]) for part in ("cycle", "address", "beats"))
            for burst in result.ports[name].reads.bursts
        ]
        assert timing.reads[name] == asked, name
    return timing, result


def layout_of(heads, head_dim, format, **changes):
    return CacheLayout(**{"config": CONFIG, "heads": heads, "head_dim": head_dim, "format": format} | changes)


def filled(rng, layout, n_positions):
    n_pages = -(-n_positions // layout.page_positions)
    keys, values = (random_codes(rng, layout, n_positions) for _ in range(2))
    return Sequence(layout=layout, pages=rng.permutation(n_pages).tolist(), keys=keys, values=values)


COUNTS = [1, 31, 32, 33, 127, 128, 129]
SHAPES = [
    # heads, head_dim, queries of each head, format, counts
    (2, 8, 1, "int16", COUNTS),
    (1, 8, 7, "int4", COUNTS[:4]),
    (1, 64, 4, "int8", [33]),
    (1, 80, 2, "int4", [129, 31]),
]


def shape_steps(rng, heads, head_dim, ratio, format, counts, **changes):
    sequence = filled(rng, layout_of(heads, head_dim, format, **changes), max(counts))
    asker = Asker(rng)
    return [asker.ask(sequence, ratio, count) for count in counts]


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "head_dim", "ratio", "format", "counts"), SHAPES)
def test_shapes(monkeypatch, engine, heads, head_dim, ratio, format, counts):
    """Lengths about the edges of chunks and pages, one command behind the other."""
    rng = generator(head_dim + ratio)
    steps = shape_steps(rng, heads, head_dim, ratio, format, counts)
    compare(monkeypatch, engine, MEMORY, steps, n_pages=8, rng=rng)


ALL_SHAPES = [
    (ratio, head_dim, FORMATS[(n + k) % 3])
    for n, head_dim in enumerate([8, 64, 80])
    for k, ratio in enumerate([1, 2, 4, 7])
]


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "head_dim", "format"), [*ALL_SHAPES, (2, 256, "int16")])
def test_all_shapes(monkeypatch, engine, ratio, head_dim, format):
    rng = generator(head_dim + ratio)
    steps = shape_steps(rng, 1 if head_dim > 8 else 3, head_dim, ratio, format, COUNTS)
    compare(monkeypatch, engine, MEMORY, steps, n_pages=8, rng=rng)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["int16", "int4"])
def test_long(monkeypatch, engine, format):
    """Some hundred positions, and windows of them."""
    rng = generator(7)
    sequence = filled(rng, layout_of(2, 8, format, page_bits=2), 400)
    asker = Asker(rng)
    steps = [asker.ask(sequence, 2, count, window=window) for count, window in ((400, 0), (399, 1), (390, 33))]
    steps += [asker.ask(sequence, 2, 300, window=100, rows=2, causal=True)]
    compare(monkeypatch, engine, MEMORY, steps, n_pages=len(sequence.pages), rng=rng)


def tokens(rng, sequence, ratio, n_tokens, until):
    """A prompt, rows of tokens at a time, then single tokens; each token asks."""
    layout = sequence.layout
    heads, head_dim = layout.heads, layout.head_dim
    asker, steps, count = Asker(rng), [], 0
    while count < until:
        rows = min(layout.config.rows, n_tokens - count) if count < n_tokens else 1
        new = random_vectors(rng, 2, heads, rows, head_dim)
        steps.append(Appended(sequence=sequence, keys=new[0], values=new[1]))
        is_prompt = {"rows": rows, "causal": True} if count < n_tokens else {}
        count += rows
        steps.append(asker.ask(sequence, ratio, count - rows + 1 if is_prompt else count, **is_prompt))
    return steps


@pytest.mark.slow
@pytest.mark.parametrize(("format", "head_dim"), [("int16", 8), ("int8", 10), ("int4", 8)])
def test_prompt_and_decode(monkeypatch, engine, format, head_dim):
    """Appends and what waits for them; in int4 keys at odd positions are read before they are written."""
    rng = generator(head_dim)
    sequence = Sequence(layout=layout_of(2, head_dim, format), pages=[3, 1, 4, 0], table=9)
    steps = tokens(rng, sequence, 2, 5, 9)
    timing, _ = compare(monkeypatch, engine, MEMORY, steps, n_pages=5, rng=rng)
    assert len(timing.appended) == len(steps) // 2
    assert bool(timing.reads["m_axi_cache"]) == (format == "int4")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
@pytest.mark.parametrize(("head_dim", "n_tokens"), [(8, 1), (64, 6), (80, 3)])
def test_long_decode(monkeypatch, engine, format, head_dim, n_tokens):
    """Over the end of a chunk."""
    rng = generator(n_tokens)
    sequence = Sequence(layout=layout_of(1, head_dim, format), pages=[3, 1, 4, 0], table=9)
    compare(monkeypatch, engine, MEMORY, tokens(rng, sequence, 2, n_tokens, 40), n_pages=5, rng=rng)


def two_sequences(rng, n_steps):
    """Two sequences on pages among each other's, of one shape, in turns."""
    format = str(rng.choice(["int16", "int8", "int4"]))
    pages = rng.permutation(8).tolist()
    sequences = [
        Sequence(layout=layout_of(2, 8, format), pages=pages[:3], table=40),
        Sequence(layout=layout_of(2, 8, format), pages=pages[3:5], table=2),
    ]
    counts, asker, steps = [0, 0], Asker(rng), []
    for n in range(n_steps):
        which = int(rng.integers(0, 2))
        sequence = sequences[which]
        rows = int(rng.integers(1, CONFIG.rows - counts[which] % CONFIG.rows + 1))
        new = random_vectors(rng, 2, 2, rows, 8)
        steps.append(Appended(sequence=sequence, keys=new[0], values=new[1]))
        counts[which] += rows
        if rng.random() < 0.7 or n + 1 == n_steps:
            is_prompt = {"rows": rows, "causal": True} if rng.random() < 0.5 else {}
            count = counts[which] - (rows - 1 if is_prompt else 0)
            steps.append(asker.ask(sequence, 2, count, window=int(rng.choice([0, 5])), **is_prompt))
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("model", [MEMORY, HBM2_PORT, DDR4_PORT], ids=["ideal", "hbm2", "ddr4"])
@pytest.mark.parametrize("seed", range(8))
def test_two_sequences(monkeypatch, engine, seed, model):
    """Under random stalls of all streams, with memories that open rows and refresh."""
    rng = generator(seed)
    steps = two_sequences(rng, 10)
    stalls = {
        name: pattern
        for name, pattern in random_stalls(rng, engine, 6000).items()
        if name in ("i_attends", "i_appends", "i_vectors", "o")
    }
    compare(monkeypatch, engine, model, steps, n_pages=8, rng=rng, stalls=stalls)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
@pytest.mark.parametrize("head_dim", [8, 64])
def test_slow_memories(monkeypatch, engine, head_dim, format):
    """Contexts of some hundred positions out of HBM2."""
    rng = generator(head_dim)
    steps = shape_steps(rng, 2, head_dim, 4, format, [1, 129, 300])
    compare(monkeypatch, engine, HBM2_PORT, steps, n_pages=12, rng=rng)


@pytest.mark.slow
def test_sets_and_clocks(monkeypatch):
    """Two sets of groups, which work on different units at the same time; ports of another clock; one row."""
    rng = generator(3)
    sizes = {"groups": 4, "rows": 1, "block": 16, "formats": ("int8",), "buffer_inputs": 8192, "port_mhz": 450}
    config = preset("tiny", **sizes)
    engine = AttentionEngine(config, slots=16, entries=64, port_bytes=PORT_BYTES)
    for model in (MEMORY, HBM2_PORT):
        steps = shape_steps(rng, 3, 8, 2, "int8", COUNTS, config=config)
        compare(monkeypatch, engine, model, steps, n_pages=9, rng=rng, optimise="-O0")
        sequence = Sequence(layout=layout_of(3, 10, "int8", config=config), pages=[3, 1, 4, 0], table=9)
        compare(monkeypatch, engine, model, tokens(rng, sequence, 2, 3, 35), n_pages=5, rng=rng, optimise="-O0")


def test_illegal_commands():
    """The model is of legal commands; others it refuses instead of going on."""
    layout = layout_of(1, 8, "int16")
    view = sim.view_of(Sequence(layout=layout, pages=[0]), n_pages=1, scales=1 << 20)
    cache = SimpleNamespace(**view | {"format": "int16"})
    append = SimpleNamespace(cache=cache, values=0, position=0, rows=1, event=1)
    names = [*(f"m_axi_{n}" for n in range(CONFIG.groups)), "m_axi_scales", "m_axi_cache"]
    channels = {name: Channel(MEMORY) for name in names}
    with pytest.raises(ValueError, match="entry 0 of the page table of 1024 holds no page"):
        attention_cycles(CONFIG, channels, pages=[], appends=[append], vectors=[0, 1])
    with pytest.raises(ValueError, match="vectors must have 2 beats, as their append says"):
        attention_cycles(CONFIG, channels, pages=[(0, 0)], appends=[append], vectors=[1, 1])
    append.position = layout.page_positions
    with pytest.raises(ValueError, match="page 1 is past the 1 pages of the sequence"):
        attention_cycles(CONFIG, channels, pages=[(0, 0)], appends=[append], vectors=[0, 1])
    with pytest.raises(ValueError, match="not done after 1000 cycles"):
        attention_cycles(CONFIG, channels, pages=[], vectors=[1], max_cycles=1000)


class Offered:
    """Items of a stream under stalls, as the units take them from each other."""

    def __init__(self, items, pattern):
        self.items, self.source = items, Source(len(items), pattern)

    def begin(self, cycle):
        self.cycle = cycle
        self.head = self.first() if self.offered(cycle) else None

    def offered(self, cycle):
        return self.source.offers(cycle)

    def first(self):
        return self.items[len(self.source.taken)]

    def take(self, cycle):
        item = self.first()
        self.source.taken.append(cycle)
        return item

    def get(self):
        return self.take(self.cycle)


def patterns_of(rng, *names):
    return {name: Pattern(np.repeat(rng.random(400) < rng.choice([0.2, 0.6, 1]), 3)) for name in names}


@pytest.mark.parametrize("seed", range(20))
def test_scores_alone(seed):
    """Cycle by cycle as by recurrence, which tests hold to the hardware."""
    rng = generator(seed)
    beats = rng.integers(1, CONFIG.block // CONFIG.vector_lanes + 1, 30)
    patterns = patterns_of(rng, "i", "i_steps", "i_scales", "o", "o_chunks")
    steps = Offered([(0, n == 0, n == 29, each) for n, each in enumerate(beats)], patterns["i_steps"])
    beats_in, scales = (Offered([True] * sum(beats), patterns[name]) for name in ("i", "i_scales"))
    path = ScorePath(CONFIG, steps, scales)
    given = {"o": [], "o_chunks": []}
    for cycle in range(3000):
        scales.begin(cycle)
        path.begin(cycle)
        if beats_in.offered(cycle) and path.ready(cycle):
            beats_in.take(cycle)
            path.put(cycle)
        if path.loads.head is not None and patterns["o"].first(cycle) == cycle:
            path.loads.get()
            given["o"].append(cycle)
        if path.chunks.offered(cycle) and patterns["o_chunks"].first(cycle) == cycle:
            path.chunks.take(cycle)
            given["o_chunks"].append(cycle)
        path.step(cycle)
    given |= {"i": beats_in.source.taken, "i_steps": steps.source.taken, "i_scales": scales.source.taken}
    for name, cycles in scores_cycles(beats, patterns, CONFIG).items():
        np.testing.assert_array_equal(given[name], cycles, err_msg=name)


@pytest.mark.parametrize("seed", range(20))
def test_values_alone(seed):
    """Short vectors of few slots, which wait for their own sums."""
    rng = generator(seed)
    slots, chunks, channels = rng.integers(1, 4), 12, int(rng.choice([8, 10, 24]))
    units = {
        "slot": np.tile(np.arange(slots), chunks),
        "first": np.repeat(np.arange(chunks) % 6 == 0, slots),
        "last": np.repeat(np.arange(chunks) % 6 == 5, slots),
        "channels": np.full(slots * chunks, channels),
    }
    patterns = patterns_of(rng, "i", "i_steps", "i_chunks", "o")
    of_slot = list(zip(*(units[name].tolist() for name in ("slot", "first", "last")), strict=True))
    n_beats = -(-channels // CONFIG.vector_lanes)
    steps = Offered([(*each, n_beats, False) for each in of_slot], patterns["i_steps"])
    of_chunks = Offered(of_slot, patterns["i_chunks"])
    of_unit = -(-channels // CONFIG.tile_channels) * CONFIG.tile_channels // CONFIG.vector_lanes
    beats_in = Offered([True] * (of_unit * slots * chunks), patterns["i"])
    values = ValueAccumulator(CONFIG, steps, of_chunks, ahead=10)
    given = []
    for cycle in range(3000):
        values.begin(cycle)
        if beats_in.offered(cycle) and values.ready(cycle):
            beats_in.take(cycle)
            values.put(cycle)
        if values.output.head is not None and patterns["o"].first(cycle) == cycle:
            values.output.get()
            given.append(cycle)
        values.step(cycle)
    taken = {"i": beats_in, "i_steps": steps, "i_chunks": of_chunks}
    taken = {name: each.source.taken for name, each in taken.items()} | {"o": given}
    for name, cycles in value_cycles(units, patterns, CONFIG, ahead=10).items():
        np.testing.assert_array_equal(taken[name], cycles, err_msg=name)
