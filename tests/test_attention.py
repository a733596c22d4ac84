"""Attention engine, emitted as Verilog, against the golden attention: results, every byte of memory, errors."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeaccel.attention.command import AttentionErrorCode
from edgeaccel.attention.engine import AttentionEngine
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden import attention as golden
from edgeaccel.golden.units import Attend
from edgeaccel.sim.attention import (
    Appended,
    Asker,
    Sequence,
    beats,
    columns,
    loads,
    random_codes,
    random_vectors,
    simulate,
    view_of,
)
from edgeaccel.sim.bench import random_stalls
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL
from edgeaccel.sim.system import Memory, run

CONFIG = preset("tiny", buffer_inputs=32768)
MEMORY = replace(IDEAL, data_width=CONFIG.port_data_width)
PORT_BYTES = 1 << 19
AXI = [f"m_axi_{n}_{channel}" for n in range(CONFIG.groups) for channel in ("ar", "r")]
AXI += [f"m_axi_cache_{channel}" for channel in ("ar", "r", "aw", "w", "b")] + ["m_axi_scales_ar", "m_axi_scales_r"]


@pytest.fixture(scope="module")
def engine():
    return AttentionEngine(CONFIG, slots=16, entries=64, port_bytes=PORT_BYTES)


@pytest.fixture(scope="module")
def engine_of_large_ports():
    """Ports larger than the writer knows, which changes nothing of the hardware: only for what is not appended to."""
    engine = AttentionEngine(CONFIG, slots=16, entries=64, port_bytes=PORT_BYTES)
    engine.port_bytes *= 2
    return engine


def generator(seed):
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def layout_of(heads, head_dim, format, **changes):
    return CacheLayout(config=CONFIG, heads=heads, head_dim=head_dim, format=format, **changes)


def filled(rng, layout, n_positions, pages=None, table=0):
    n_pages = -(-n_positions // layout.page_positions)
    return Sequence(
        layout=layout,
        pages=rng.permutation(n_pages).tolist() if pages is None else pages,
        table=table,
        keys=random_codes(rng, layout, n_positions),
        values=random_codes(rng, layout, n_positions),
    )


SHAPES = [
    # heads, head_dim, queries of each head, format
    (4, 8, 1, "int16"),
    (2, 64, 2, "int16"),
    (3, 80, 4, "int8"),
    (1, 128, 8, "int4"),
    (1, 256, 7, "int16"),
    (5, 10, 1, "int4"),
    (2, 256, 3, "int8"),
]
COUNTS = [1, 2, 31, 32, 33, 127, 128, 129]


@pytest.mark.parametrize(("heads", "head_dim", "ratio", "format"), SHAPES)
def test_shapes(engine, heads, head_dim, ratio, format):
    """All lengths about the edges of chunks and pages, one command behind the other."""
    rng = generator(heads * head_dim)
    sequence = filled(rng, layout_of(heads, head_dim, format), max(COUNTS))
    asker = Asker(rng)
    steps = [asker.ask(sequence, ratio, count) for count in COUNTS]
    simulate(engine, MEMORY, steps, n_pages=len(sequence.pages) + 1, rng=rng, base=7)


@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
def test_long(engine, format):
    """A thousand positions, all of them and windows of them."""
    rng = generator(7)
    sequence = filled(rng, layout_of(2, 8, format, page_bits=2), 1000)
    asker = Asker(rng)
    steps = [asker.ask(sequence, 2, 1000, window=window) for window in (0, 1, 33, 500, 999, 1000, 2000)]
    steps += [asker.ask(sequence, 2, 900, window=100, rows=2, causal=True)]
    simulate(engine, MEMORY, steps, n_pages=len(sequence.pages), rng=rng)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
@pytest.mark.parametrize("head_dim", [64, 80, 128, 256])
def test_long_heads(engine_of_large_ports, head_dim, format):
    """A thousand positions of heads as long as models have them: all, a window, and rows of tokens."""
    rng = generator(head_dim)
    sequence = filled(rng, layout_of(1, head_dim, format, page_bits=1), 1000)
    asker = Asker(rng)
    steps = [asker.ask(sequence, 3, 1000), asker.ask(sequence, 1, 1000, window=333)]
    steps += [asker.ask(sequence, 1, 999, rows=2, causal=True)]
    simulate(engine_of_large_ports, MEMORY, steps, n_pages=len(sequence.pages), rng=rng)


@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 6])
def test_prompt_and_decode(engine, format, n_tokens):
    """A prompt of 1 to 3 times the rows, then tokens one by one, in a chunk's midst and over its end."""
    rng = generator(n_tokens)
    ratio, heads, head_dim = 2, 2, 8
    layout = layout_of(heads, head_dim, format)
    sequence = Sequence(layout=layout, pages=[3, 1, 4, 0], table=9)
    asker, steps, count = Asker(rng), [], 0
    for begin in range(0, n_tokens, CONFIG.rows):
        rows = min(CONFIG.rows, n_tokens - begin)
        new = random_vectors(rng, 2, heads, rows, head_dim)
        steps.append(Appended(sequence=sequence, keys=new[0], values=new[1]))
        steps.append(asker.ask(sequence, ratio, count + 1, rows=rows, causal=True))
        count += rows
    while count < 40:
        new = random_vectors(rng, 2, heads, 1, head_dim)
        steps.append(Appended(sequence=sequence, keys=new[0], values=new[1]))
        count += 1
        if count < n_tokens + 4 or count > 30:
            steps.append(asker.ask(sequence, ratio, count))
    simulate(engine, MEMORY, steps, n_pages=5, rng=rng, base=3)


@pytest.mark.parametrize("seed", range(4))
def test_two_sequences(engine, seed):
    """Two sequences on pages among each other's, of different shapes, under random stalls of everything."""
    rng = generator(seed)
    models = (MEMORY, replace(HBM2, data_width=128), replace(DDR4_2400, data_width=128), replace(IDEAL, data_width=128))
    formats = rng.permutation(["int16", "int8", "int4"])
    pages = rng.permutation(8).tolist()
    layouts = [layout_of(2, 8, formats[0]), layout_of(2, 8, formats[0], page_bits=0)]
    sequences = [
        filled(rng, layouts[0], 30, pages[:3], table=40),
        Sequence(layout=layouts[0], pages=pages[3:5], table=2),
    ]
    counts = [30, 0]
    asker, steps = Asker(rng), []
    for _ in range(14):
        which = int(rng.integers(0, 2))
        sequence = sequences[which]
        aligned = CONFIG.rows - counts[which] % CONFIG.rows
        rows = int(rng.integers(1, aligned + 1))
        new = random_vectors(rng, 2, 2, rows, 8)
        steps.append(Appended(sequence=sequence, keys=new[0], values=new[1]))
        counts[which] += rows
        if rng.random() < 0.7:
            tokens = {"rows": rows, "causal": True} if rng.random() < 0.5 else {}
            count = counts[which] - (rows - 1 if tokens else 0)
            steps.append(asker.ask(sequence, 2, count, window=int(rng.choice([0, 5])), **tokens))
    steps.append(asker.ask(sequences[1], 1, counts[1]) if counts[1] else asker.ask(sequences[0], 1, counts[0]))
    stalls = random_stalls(rng, engine, 6000)
    channels = random_stalls(rng, engine, 6000)
    stalls |= {name: rng.permutation(list(channels.values())[n % len(channels)]) for n, name in enumerate(AXI)}
    simulate(engine, models[seed], steps, n_pages=8, rng=rng, stalls=stalls)


@pytest.mark.parametrize("latency", [1, 20, 200])
def test_nothing_is_read_before_it_is_written(engine, latency):
    """The ports are asked for a position only after the memory's last response to its writing."""
    rng = generator(latency)
    sequence = Sequence(layout=layout_of(2, 8, "int16"), pages=[0])
    asker, steps = Asker(rng), []
    for count in range(1, 5):
        new = random_vectors(rng, 2, 2, 1, 8)
        steps += [Appended(sequence=sequence, keys=new[0], values=new[1]), asker.ask(sequence, 1, count)]
    result = simulate(engine, MEMORY.with_latency(latency), steps, n_pages=1, rng=rng)
    answers = result.ports["m_axi_cache"].writes.cycles
    reads = [result.ports[name].reads.bursts["cycle"] for name in ("m_axi_0", "m_axi_1", "m_axi_scales")]
    # Of each append as many answers, but two more of the first, which writes the scales that are 1; of each command as
    # many reads.
    of_append = (len(answers) - 2) // 4
    for of_reads in reads:
        assert len(of_reads) % 4 == 0
        for n, after in enumerate(of_reads.reshape(4, -1)):
            written = answers[: 2 + (n + 1) * of_append]
            assert len(written) > 0
            assert written.max() < after.min()


def fails(engine, code, *, append=False, errors=None, pages=((0, 3),), until=None, inputs=None, **streams):
    """Run commands until one is reported as wrong; gives the memory before and after."""
    rng = np.random.default_rng(0)
    content = rng.integers(0, 256, CONFIG.groups * PORT_BYTES + (1 << 16), np.uint8)
    before = content.copy()
    memories = {
        f"m_axi_{n}": Memory(model=MEMORY, content=content[n * PORT_BYTES : (n + 1) * PORT_BYTES])
        for n in range(CONFIG.groups)
    } | {name: Memory(model=MEMORY, content=content) for name in ("m_axi_scales", "m_axi_cache")}
    for name, ranges in (errors or {}).items():
        memories[name].errors = ranges
    index, page = np.array(pages).T
    streams["i_pages"] = {"index": index, "page": page, "valid": np.ones(len(page), int)} | streams.pop("i_pages", {})
    late = {name: np.arange(2000) > 1000 for name in ("i_attends", "i_appends") if name in streams}
    run(
        engine,
        streams=streams,
        memories=memories,
        stalls=late,
        inputs=inputs,
        until=until or ("error", {"valid": 1, "code": code.value, "append": append, "command": 0}),
    )
    return before, content


def an_append(rng, layout, *, position=0, rows=1, **changes):
    """Streams of an append of keys with an event."""
    sequence = Sequence(layout=layout, pages=[3])
    view = view_of(sequence, n_pages=4, scales=CONFIG.groups * PORT_BYTES)
    command = {"cache": view | changes, "position": position, "rows": rows, "values": 0, "event": 1}
    new = random_vectors(rng, layout.heads * rows, layout.head_dim)
    return {"i_appends": columns([command]), "i_vectors": beats(new, CONFIG.vector_lanes)}


def an_attend(layout, **changes):
    """Streams of a command over two chunks."""
    sequence = Sequence(layout=layout, pages=[3])
    view = view_of(sequence, n_pages=4, scales=CONFIG.groups * PORT_BYTES)
    command = vars(Attend(n_heads=layout.heads, count=64, factor=0x3F000000, stride=2, rows=1))
    fields = {name: value for name, value in changes.items() if name in command}
    changes = {name: value for name, value in changes.items() if name not in command}
    return {"i_attends": columns([command | fields | {"cache": view | changes}])}


LAYOUT = {"heads": 2, "head_dim": 8, "format": "int16", "page_bits": 1}
BAD_APPENDS = [
    ("POSITION", {"position": 64}, {}),
    ("PAGE", {"n_pages": 3}, {}),
    ("PAGE", {}, {"pages": ((1, 3),)}),
    ("SHAPE", {"position": 1, "rows": 2}, {}),
    ("SHAPE", {"inputs": 7}, {}),
    ("SHAPE", {"heads": 0}, {}),
    ("SHAPE", {"format": 3}, {}),
]


@pytest.mark.parametrize(("code", "changes", "settings"), BAD_APPENDS)
def test_bad_appends(engine, code, changes, settings):
    """Refused with the command's number, and nothing is written."""
    rng = generator(0)
    streams = an_append(rng, layout_of(**LAYOUT), **changes)
    if code != "SHAPE" or "inputs" not in changes:
        streams["i_vectors"] = {name: values[:1] for name, values in streams["i_vectors"].items()}
    streams.pop("i_vectors")
    before, after = fails(engine, AttentionErrorCode[code], append=True, **settings, **streams)
    np.testing.assert_array_equal(after, before)


BAD_ATTENDS = [
    ("POSITION", {"count": 65}, {}),
    ("PAGE", {"n_pages": 3}, {}),
    ("PAGE", {}, {"pages": ((1, 3),)}),
    ("SHAPE", {"inputs": 260}, {}),
    ("SHAPE", {"batches": 9}, {}),
    ("SHAPE", {"address": 8190}, {}),
]


@pytest.mark.parametrize(("code", "changes", "settings"), BAD_ATTENDS)
def test_bad_attends(engine, code, changes, settings):
    fails(engine, AttentionErrorCode[code], **settings, **an_attend(layout_of(**LAYOUT), **changes))


@pytest.mark.parametrize("code", ["WRITE", "SCALES"])
def test_bad_responses(engine, code):
    rng, everything = generator(1), [(0, 1 << 24, "SLVERR")]
    if code == "WRITE":
        streams, port = an_append(rng, layout_of(**LAYOUT)), "m_axi_cache"
    else:
        streams, port = an_attend(layout_of(**LAYOUT)), "m_axi_scales"
    fails(engine, AttentionErrorCode[code], append=code == "WRITE", errors={port: everything}, **streams)


def test_bad_port(engine):
    """A group's port is reported as by the matrix engine."""
    ranges = [(0, PORT_BYTES, "DECERR")]
    address = 3 * layout_of(**LAYOUT).page_words * CONFIG.word_bytes
    error = {"valid": 1, "code": 6, "response": 3, "address": address, "command": 0}
    streams = an_attend(layout_of(**LAYOUT))
    fails(engine, None, errors={"m_axi_1": ranges}, until=("errors__1", error), **streams)


@pytest.mark.parametrize("is_append", [False, True])
def test_freed_in_use(engine, is_append):
    """The page table is written while a command uses the entry."""
    rng = generator(2)
    layout = layout_of(2, 256, "int16", page_bits=1)
    streams = an_append(rng, layout) if is_append else an_attend(layout, count=64)
    if is_append:
        streams["i_vectors"] = {name: values[:5] for name, values in streams["i_vectors"].items()}
    index = {"index": np.array([0, 0]), "page": np.array([3, 3]), "valid": np.array([1, 0])}
    stalls = np.arange(4000) % 1040 == 1030
    result = AttentionErrorCode.FREED
    content = np.zeros(CONFIG.groups * PORT_BYTES + (1 << 18), np.uint8)
    memories = {
        f"m_axi_{n}": Memory(model=MEMORY, content=content[n * PORT_BYTES : (n + 1) * PORT_BYTES])
        for n in range(CONFIG.groups)
    } | {name: Memory(model=MEMORY, content=content) for name in ("m_axi_scales", "m_axi_cache")}
    late = {name: np.arange(2000) > 1900 for name in ("i_attends", "i_appends") if name in streams}
    run(
        engine,
        streams=streams | {"i_pages": index},
        memories=memories,
        stalls=late | {"i_pages": stalls},
        n_results=0 if is_append else 2 * 256 // CONFIG.vector_lanes,  # of what was begun
        until=("error", {"valid": 1, "code": result.value, "append": is_append, "command": 0}),
    )


CLEARED = [(65, 300), *((64, cycle) for cycle in range(140, 380, 30))]


@pytest.mark.parametrize(("count", "cycle"), CLEARED)
def test_clear(engine, count, cycle):
    """After `clear`, upon an error or in the midst of a command, the next is done as if nothing had been."""
    rng = generator(3)
    layout = layout_of(**LAYOUT)
    bad, good = (an_attend(layout, count=positions)["i_attends"] for positions in (count, 64))
    both = columns([{name: _first(each) for name, each in side.items()} for side in (bad, good)])
    content = rng.integers(0, 256, CONFIG.groups * PORT_BYTES + (1 << 16), np.uint8)
    sequence = filled(rng, layout, 64, pages=[3])
    own = [(codes, scales.view(np.float16)) for codes, scales in (sequence.keys, sequence.values)]
    begin = CONFIG.groups * PORT_BYTES
    layout.fill(content[:begin].reshape(CONFIG.groups, -1), content[begin:], [3], *own)
    command = Attend(n_heads=2, count=64, factor=0x3F000000, stride=2, rows=1)
    queries = random_vectors(rng, 2, 1, 8)
    memories = {
        f"m_axi_{n}": Memory(model=MEMORY, content=content[n * PORT_BYTES : (n + 1) * PORT_BYTES])
        for n in range(CONFIG.groups)
    } | {name: Memory(model=MEMORY, content=content) for name in ("m_axi_scales", "m_axi_cache")}
    result = run(
        engine,
        streams={
            "i_attends": both,
            "i_loads": loads(CONFIG, queries, command),
            "i_pages": {"index": [0], "page": [3], "valid": [1]},
        },
        n_results=4,
        memories=memories,
        inputs={"clear": {0: 0, cycle: 1, cycle + 1: 0}},
        stalls={"i_attends": np.isin(np.arange(1000), [100, 600])},
    )
    assert not result.outputs["error"]["valid"]
    given = result.results["o"]["elements"][:, 0].reshape(2, 8)
    for head in range(2):
        parts = [(codes[:, head], scales[:, head]) for codes, scales in (sequence.keys, sequence.values)]
        wanted = golden.attend(CONFIG, queries[head], *parts, counts=[64], factor=command.factor)
        np.testing.assert_array_equal(given[head], wanted[0])


def _first(values):
    return {name: _first(each) for name, each in values.items()} if isinstance(values, dict) else values[0]


def test_example(engine):
    """examples/attention.py, a few tokens: attention as in float64, as near as the cache's format allows."""
    path = Path(__file__).parent.parent / "examples/attention.py"
    spec = importlib.util.spec_from_file_location("attention_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for format, limit in (("int16", 1e-4), ("int8", 0.02)):
        error, cycles = example.decode_tokens(engine, format, 5)
        assert error < limit
        assert 0 < cycles < 5000


def test_bad_parameters():
    with pytest.raises(ValueError, match="activations must be 'fp32' for attention, not 'fp16'"):
        AttentionEngine(preset("tiny", activations="fp16"))
    with pytest.raises(ValueError, match="vector_lanes must be 4 to 64 for attention, not 2"):
        AttentionEngine(preset("tiny", vector_lanes=2))
    with pytest.raises(ValueError, match="buffer_inputs must be more than 320 for the weights of 10 blocks of 32"):
        AttentionEngine(preset("tiny", buffer_inputs=320))
    with pytest.raises(ValueError, match="port_data_width must be at most 128, the bits of a word"):
        AttentionEngine(preset("tiny", port_data_width=256))
    with pytest.raises(ValueError, match="formats must have one of int16, int8, int4"):
        AttentionEngine(preset("tiny", formats=("mxfp4",)))
