"""The golden machine: whole models against the golden model, instructions one by one, and what is refused."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_reference import LLAMA, random_checkpoint

from edgeaccel import isa
from edgeaccel.cache import CacheLayout
from edgeaccel.checkpoint import Rope, example
from edgeaccel.compiler import compile_model
from edgeaccel.golden import attention, batch, epilogue, float, norm, rotary
from edgeaccel.golden.machine import Fault, GoldenMachine, MachineError, Memory
from edgeaccel.golden.model import Model
from edgeaccel.golden.quantise import quantise
from edgeaccel.image import Image
from edgeaccel.machine import machine
from edgeaccel.quantise import quantise as quantise_weights
from edgeaccel.tiles import pack

TINY = machine("tiny", changes={"buffer_inputs": 2048}, vector_inputs=1024, max_channels=256, port_bytes=1 << 20)
WIDE = replace(TINY, config=replace(TINY.config, groups=8, rows=4), slots=4)
CUT = replace(TINY, max_channels=64)
LARGER = machine("vcu128", port_bytes=1 << 20)
MX = replace(TINY, config=replace(TINY.config, formats=("int8", "int16", "mxfp4")))
L, R = TINY.config.vector_lanes, TINY.config.rows

ODD = replace(
    LLAMA,
    dim=48,
    hidden_dim=100,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    vocab_size=300,
    max_positions=64,
    rope=Rope(rotated=8),
)
SHAPES = {
    "llama": ODD,
    "qwen2": replace(ODD, qkv_bias=True, norm_epsilon=1e-6, rope=Rope(rotated=8, half=True, base=1e6)),
    "mistral": replace(ODD, window=5, rope=Rope(rotated=8, half=True, linear=4.0)),
    "chatglm2": replace(ODD, qkv_bias=True, rope=Rope(rotated=4), n_layers=1),
    "one head": replace(ODD, n_heads=1, n_kv_heads=1, head_dim=40, rope=Rope(rotated=40)),
}


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def random_codes(rng, *shape):
    return float.encode(rng.standard_normal(shape) * 2.0 ** rng.integers(-3, 3, shape)).astype(np.uint32)


def test_loads_no_hardware():
    program = "import sys, edgeaccel.golden.machine, edgeaccel.runtime; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("amaranth", "edgeaccel.compiler", "edgeaccel.vector"))]


# Whole models.


def started(image):
    golden = GoldenMachine(image.machine)
    golden.load(image)
    return golden


def logits_of(golden, image, tokens, position=0):
    """Codes of the logits after the tokens, of which those from `position` on are worked on."""
    golden.state.tokens[: len(tokens)] = tokens
    assert golden.run(position, len(tokens), len(tokens)) in ("limit", "end_of_text")
    assert golden.state.position == len(tokens)
    data = golden.memory.read(image.manifest["logits"], 4 * image.manifest["vocab_size"])
    return data.view("<u4")


@pytest.mark.parametrize(("weights", "cache", "n_tokens"), [("int8", "int16", 20), ("int4", "int8", 8)])
def test_real_model(weights, cache, n_tokens):
    """The logits of every token, greedy, are those of the golden model, bit for bit."""
    try:
        checkpoint, _ = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    size = machine("tiny")
    image = compile_model(checkpoint, size, weights=weights, cache=cache)
    golden = started(image)
    model = Model(checkpoint, size.config, weights=weights, cache=cache, folded=False)
    tokens, position = [1, 403, 407], 0
    for _ in range(n_tokens):
        expected = model.forward(tokens[position:])[-1]
        np.testing.assert_array_equal(logits_of(golden, image, tokens, position), expected.view(np.uint32))
        position = len(tokens)
        tokens.append(int(np.argmax(expected)))
        assert golden.state.tokens[position] == tokens[-1]
    # The same at once, without a host between tokens.
    again = started(image)
    again.state.tokens[:3] = tokens[:3]
    batches = []
    assert again.run(0, 3, n_tokens + 2, on_batch=batches.append) == "limit"
    assert again.state.tokens[: n_tokens + 3].tolist() == tokens
    assert [(batch.position, batch.rows, batch.token) for batch in batches[:3]] == [
        (0, 2, None),
        (2, 1, tokens[3]),
        (3, 1, tokens[4]),
    ]


def greedy(image, tokens, more=3):
    """(batches, tokens and those behind them, logits) of a prompt."""
    golden, batches = started(image), []
    golden.state.tokens[: len(tokens)] = tokens
    assert golden.run(0, len(tokens), len(tokens) + more, on_batch=batches.append) == "limit"
    logits = golden.memory.read(image.manifest["logits"], 4 * image.manifest["vocab_size"]).view("<u4")
    return [batch.rows for batch in batches], golden.state.tokens[: len(tokens) + more].tolist(), logits


@pytest.mark.parametrize(
    ("name", "sets", "n_given"),
    [("llama", 2, 4), ("llama", 2, 7), ("qwen2", 2, 5), ("qwen2", 3, 13), ("mistral", 2, 11), ("one head", 2, 3)],
)
def test_sets(name, sets, n_given, rng):
    """Tokens of a batch come in other sets of rows, and nothing else is different; vectors are cut for it."""
    one = replace(TINY, config=replace(TINY.config, buffer_inputs=6144), vector_inputs=1536, max_channels=48)
    one = replace(one, max_rotated=48)
    several = replace(one, config=replace(one.config, sets=sets))
    checkpoint = random_checkpoint(
        replace(SHAPES[name], eos=(), bos=None), rng
    )  # texts of random weights may end at once
    tokens = rng.integers(0, 300, n_given).tolist()
    of_one = greedy(compile_model(checkpoint, one, weights="int8"), tokens)
    of_several = greedy(compile_model(checkpoint, several, weights="int8"), tokens)
    assert of_one[1] == of_several[1]
    np.testing.assert_array_equal(of_one[2], of_several[2])
    assert of_several[0][0] == min(n_given, 2 * sets)
    assert len(of_several[0]) < len(of_one[0])


@pytest.mark.parametrize(
    ("name", "size", "weights", "cache", "n_tokens"),
    [
        ("llama", TINY, "int16", "int16", 9),
        ("qwen2", TINY, "int8", "int4", 9),
        ("mistral", TINY, "int4", "int8", 43),
        ("chatglm2", TINY, "int16", "int4", 9),
        ("one head", TINY, "int8", "int8", 9),
        ("llama", WIDE, "int4", "int4", 43),
        ("qwen2", CUT, "int8", "int16", 6),
        ("mistral", LARGER, "int4", "int8", 7),
        ("llama", MX, "mxfp4", "int16", 9),
        ("one head", MX, "mxfp4", "int8", 6),
    ],
)
def test_odd_models(name, size, weights, cache, n_tokens, rng):
    """Logits in batches of rows, and one by one, are those of the golden model."""
    checkpoint = random_checkpoint(SHAPES[name], rng)
    image = compile_model(checkpoint, size, weights=weights, cache=cache)
    tokens = rng.integers(3, 300, n_tokens)
    model = Model(checkpoint, size.config, weights=weights, cache=cache, folded=False)
    expected = model.forward(tokens).view(np.uint32)
    golden, first = started(image), n_tokens - 3
    np.testing.assert_array_equal(logits_of(golden, image, tokens[:first]), expected[first - 1])
    for n in range(first, n_tokens):
        np.testing.assert_array_equal(logits_of(golden, image, tokens[: n + 1], n), expected[n])
    if n_tokens < 10:
        alone = started(image)
        for n in range(n_tokens):
            np.testing.assert_array_equal(logits_of(alone, image, tokens[: n + 1], n), expected[n])
        for address, n_bytes in (region for key, region in image.manifest["regions"].items() if ".cache" in key):
            for port in range(size.config.groups if address < size.port_bytes else 1):
                place = address + port * size.port_bytes
                np.testing.assert_array_equal(alone.memory.read(place, n_bytes), golden.memory.read(place, n_bytes))


def test_end_of_text(rng):
    """Of the tokens that the machine gives, one ends the text; and the program runs again after it."""
    checkpoint = random_checkpoint(replace(ODD, eos=()), rng)
    image = compile_model(checkpoint, TINY)
    golden = started(image)
    golden.state.tokens[:2] = [7, 8]
    assert golden.run(0, 2, 6) == "limit"
    tokens = golden.state.tokens[:7].tolist()
    assert golden.state.position == 6
    checkpoint = replace(checkpoint, shape=replace(ODD, eos=(299, tokens[4])))
    image = compile_model(checkpoint, TINY)
    golden = started(image)
    golden.state.tokens[:2] = [7, 8]
    assert golden.run(0, 2, 6) == "end_of_text"
    first = tokens[2:5].index(tokens[4]) + 2
    assert golden.state.position == first
    assert golden.state.tokens[: first + 1].tolist() == tokens[: first + 1]


# Single instructions.

NEXT = ("next", {"target": 0})
DATA = TINY.data_base


def image_of(*lines, segments=(), names=(), size=TINY):
    program = isa.assemble([*lines, ("end", {})])
    return Image(
        machine=size,
        program=program,
        program_address=size.data_base,
        segments=list(segments),
        manifest={"names": list(names)},
    )


def ran(*lines, position=0, prompt=1, state=None, **image):
    """The machine after a program of a few instructions."""
    golden = started(image_of(*lines, **image))
    for name, value in (state or {}).items():
        getattr(golden.state, name)[:] = value
    assert golden.run(position, prompt, prompt) == "end"
    return golden


def data(codes):
    return np.ascontiguousarray(codes, "<u4").view(np.uint8).reshape(-1)


def tiles_of(weights, format, word=0, size=TINY):
    """Segments of a matrix from a word of each port on; and fields of its fetch."""
    packed = pack(quantise_weights(weights, format, block=size.config.block), lanes=size.config.lanes)
    groups, word_bytes = size.config.groups, size.config.word_bytes
    segments = [
        (port * size.port_bytes + word * word_bytes, np.ascontiguousarray(packed[port::groups]).reshape(-1))
        for port in range(min(groups, len(packed)))
    ]
    n_words, long = packed.shape[1], len(packed) % groups
    fetch = {
        "address": word,
        "words": len(packed) // groups * n_words,
        "long_words": -(-len(packed) // groups) * n_words,
        "long": long,
        "format": format,
    }
    return segments, fetch, len(packed)


ALL = {"vectors": 1, "channels": 24, "stride": 24 // L}


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize("product", ["factors", "residual"])
def test_vector_steps(half, product, rng):
    """Every step, on two vectors of a product that fill neither tiles nor words, as the golden epilogue of each row."""
    inputs, channels, rotated = 40, 21, 8
    weights = rng.standard_normal((2, 24, inputs))
    segments, fetch, n_tiles = tiles_of(weights.reshape(48, inputs), "int8")
    buffer, operands = random_codes(rng, R, 2048), random_codes(rng, R, 1024)
    bias, gain = random_codes(rng, 2, 2, 24)
    cosines, sines = (table.reshape(3, 2, -1) for table in rotary.table(6, rotated, half=bool(half)))
    table = np.stack([each.reshape(6, -1, L) for each in (cosines, sines)], axis=2)
    segments += [(DATA + 4096, data(bias)), (DATA + 8192, data(gain)), (DATA + 12288, data(table))]
    epsilon, inverse = (int(code) for code in float.encode([1e-5, 1 / channels]))
    golden = ran(
        ("read", {"address": DATA + 12288, "stride": 64, "index": "position", "bytes": 64, "target": "table"}),
        ("read", {"address": DATA + 4096, "bytes": 192, "target": "bias"}),
        ("read", {"address": DATA + 8192, "bytes": 192, "target": "gain"}),
        ("fetch", fetch),
        ("multiply", {"address": 5, "inputs": inputs, "channel_tiles": n_tiles, "format": "int8"}),
        ("vector", {"zeros": 1, "residual": 1, "operand": 3, **ALL, "statistics": 1, "inverse_length": inverse}),
        (
            "vector",
            {"vectors": 2, "channels": channels, "stride": 7, "take": 1, "scale": 1, "bias": 1, "rotated": rotated}
            | {"half": half, "activate": 1, "function": "silu", product: 1, "operand": 20, "statistics": 1}
            | {"inverse_length": inverse, "epsilon": epsilon, "to_vector": 1, "vector": 40}
            | {"to_buffer": 1, "gain": 1, "address": 60},
        ),
        ("vector", {"zeros": 1, **ALL, "take": 1}),
        ("vector", {"zeros": 1, **ALL, "take": 1, "residual": 1, "operand": 3, "scale": 1, "to_vector": 1}),
        position=2,
        prompt=4,
        segments=segments,
        state={"buffer": buffer, "vector_memory": operands},
    )
    quantised = quantise_weights(weights.reshape(48, inputs), "int8", block=32)
    codes, scales = quantised.codes.T.astype(np.float64), quantised.scales.T.view(np.uint16)
    results = batch.product(TINY.config, buffer[:, 20 : 20 + inputs], codes, scales).reshape(R, 2, 24)
    for row, n in np.ndindex(R, 2):
        source = operands[row, 12:36]
        steps = epilogue.Steps(
            factor=norm.statistics(source, inverse, 0)[1],
            bias=bias[n, :channels],
            rotated=rotated,
            half=bool(half),
            cosines=cosines.reshape(6, -1)[2 + row],
            sines=sines.reshape(6, -1)[2 + row],
            activation="silu",
            **{product: operands[row, 80 + 28 * n :][:channels]},
        )
        expected = epilogue.epilogue(results[row, n, :channels], steps)
        written = golden.state.vector_memory[row, 160 + 28 * n :][:28]
        np.testing.assert_array_equal(written[:24], [*expected, 0, 0, 0])
        np.testing.assert_array_equal(written[24:], operands[row, 184 + 28 * n :][:4])
        loaded = golden.state.buffer[row, 240 + 28 * n :][:24]
        np.testing.assert_array_equal(loaded, float.multiply(written[:24], gain[n]))
        if n:
            factor = norm.statistics(expected, inverse, epsilon)[1]
            expected = float.add(float.multiply(np.zeros(24, np.uint32), factor), source)
            np.testing.assert_array_equal(golden.state.vector_memory[row, :24], expected)


def test_logits_that_fill_no_words(rng):
    """Vectors of 6 channels at 4 lanes follow each other in memory; what lies behind them stays."""
    operands = random_codes(rng, R, 1024)
    fields = {"vectors": 3, "channels": 6, "stride": 2, "zeros": 1, "residual": 1, "operand": 5, "to_logits": 1}
    marks = (DATA + 4096, np.full(256, 0xA5, np.uint8))
    golden = ran(
        ("vector", fields | {"starts": 1, "ends": 1, "logits": DATA + 4100}),
        segments=[marks],
        state={"vector_memory": operands},
    )
    written = golden.memory.read(DATA + 4096, 256)
    expected = operands[0, 20:44].reshape(3, 8)[:, :6].reshape(-1)
    np.testing.assert_array_equal(written[4:76], data(expected))
    assert (np.delete(written, slice(4, 76)) == 0xA5).all()
    assert golden.state.token == int(np.argmax(expected.view(np.float32)))


def test_spread(rng):
    """Row 0 of six query heads, three to a head of keys: places of two rows."""
    operands, buffer = random_codes(rng, R, 1024), random_codes(rng, R, 2048)
    fields = {"vectors": 6, "channels": 6, "stride": 2, "zeros": 1, "residual": 1, "operand": 1, "to_buffer": 1}
    golden = ran(
        ("vector", fields | {"address": 9, "spread": 1, "ratio": 3}),
        state={"buffer": buffer, "vector_memory": operands},
    )
    expected = buffer.copy()
    for n, (place, row) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0)]):
        begin = (9 + 2 * place) * L
        expected[row, begin : begin + 8] = [*operands[0, 4 + 8 * n :][:6], 0, 0]
    np.testing.assert_array_equal(golden.state.buffer, expected)


def test_reads(rng):
    """By layer, token and position, for rows that are in use."""
    rows = random_codes(rng, 8, 8)
    tokens = np.zeros(TINY.positions)
    tokens[4:6] = 5, 2
    before = random_codes(rng, R, 1024)
    at = {"address": DATA + 4096, "stride": 32, "bytes": 32, "target": "vector"}
    golden = ran(
        ("read", at | {"index": "token", "vector": 0}),
        ("read", at | {"index": "position", "vector": 2}),
        ("loop", {"layers": 3}),
        ("read", at | {"index": "layer", "vector": 4}),
        ("again", {"target": 3}),
        ("read", at | {"index": "none", "vector": 6}),
        ("sync", {}),
        position=4,
        prompt=5,
        segments=[(DATA + 4096, data(rows))],
        state={"tokens": tokens, "vector_memory": before},
    )
    np.testing.assert_array_equal(golden.state.vector_memory[0, :32], rows[[5, 4, 2, 0]].reshape(-1))
    np.testing.assert_array_equal(golden.state.vector_memory[1, :16], before[1, :16])
    np.testing.assert_array_equal(golden.state.vector_memory[1, 16:32], rows[[2, 0]].reshape(-1))


@pytest.mark.parametrize(
    ("numbers", "token"),
    [
        ([1, 3, 2, 3, -7, 3], 1),
        ([-np.inf, -2, -np.inf, -1, -2, -2], 3),
        ([-0.0, 0.0, -1, 0.0, -0.0, 0.0], 0),
        ([1, np.inf, np.nan, 3, np.nan, np.inf], 2),
        ([-np.inf] * 6, 0),
    ],
)
@pytest.mark.parametrize("parts", [[6], [3, 3], [2, 4], [1, 1, 1, 1, 1, 1]])
def test_chosen_token(numbers, token, parts):
    """The first of the largest, however the vocabulary is cut; the batch's last row counts."""
    codes = np.zeros((R, 1024), np.uint32)
    lines, begin = [], 0
    for n, count in enumerate(parts):
        codes[1, 4 * begin : 4 * begin + count] = float.encode(np.array(numbers[begin : begin + count]))
        fields = {"starts": n == 0, "ends": n == len(parts) - 1, "logits": DATA + 4096 + 64 * n, "operand": begin}
        shape = {"vectors": 1, "channels": count, "zeros": 1, "residual": 1, "to_logits": 1}
        lines.append(("vector", fields | shape))
        begin += count
    golden = started(image_of(*lines, ("next", {"target": 0})))
    golden.state.vector_memory[:] = codes
    assert golden.run(2, 4, 4) == "limit"
    assert golden.state.tokens[4] == token
    written = np.concatenate(
        [golden.memory.read(DATA + 4096 + 64 * n, 4 * count).view("<f4") for n, count in enumerate(parts)]
    )
    np.testing.assert_array_equal(written, np.float32(np.array(numbers) + 0.0))


@pytest.mark.parametrize("spread", [0, 1])
@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("size", [TINY, WIDE], ids=["two groups", "eight groups"])
def test_attend(spread, window, size, rng):
    """Over a cache that `CacheLayout` has written, in the second of two layers: as the golden attention."""
    config = size.config
    heads, ratio, head_dim, position = 2, 3, 10, 72
    layout = CacheLayout(config=config, heads=heads, head_dim=head_dim, format="int8")
    pages = [7, 3, 5][: -(-(position + config.rows) // layout.page_positions)]
    cache = []
    for kind in random_codes(rng, 2, position + config.rows, heads, head_dim):
        pairs = [[quantise(head, "int8") for head in place] for place in kind]
        cache.append(tuple(np.array([[pair[n] for pair in row] for row in pairs]) for n in range(2)))
    ports, scales = np.zeros((config.groups, size.port_bytes), np.uint8), np.zeros(1 << 14, np.uint8)
    filled = [(codes, scale.astype(np.uint16).view(np.float16)) for codes, scale in cache]
    layout.fill(ports, scales, [8 + page for page in pages], *filled)  # a layer has 8 pages
    scales_at, factor = size.data_base + 4096, int(float.encode(0.25))
    view = layout.view(table=3, pages=len(pages), n_pages=8, scales=scales_at)
    layers = {"layer_words": 8 * layout.page_words, "layer_scales": 8 * layout.page_scale_bytes}
    queries = random_codes(rng, config.rows, config.buffer_inputs)
    n = len(pages)
    golden = ran(
        *(("pages", {"first": 3 + n, "count": 1, "page": page}) for n, page in enumerate(pages)),
        ("cache", view | layers),
        ("loop", {"layers": 2}),
        ("again", {"target": n + 3}),
        (
            "attend",
            {"first_head": 1, "n_heads": 1, "ratio": ratio, "spread": spread, "address": 2, "stride": 4}
            | {"window": window, "factor": factor, "out_address": 99, "out_stride": 5},
        ),
        ("again", {"target": 0}),
        position=position,
        prompt=position + (1 if spread else config.rows),
        segments=[*((n * size.port_bytes, content) for n, content in enumerate(ports)), (scales_at, scales)],
        size=size,
        state={"buffer": queries},
    )
    expected = queries.copy()
    for query in range(ratio):
        place, row = divmod(query, config.rows) if spread else (query, slice(None))
        asked = queries[row, (2 + 4 * place) * L :][..., :head_dim].reshape(-1, head_dim)
        results = attention.attend(
            config,
            asked,
            *((codes[:, 1], scale[:, 1]) for codes, scale in cache),
            counts=position + 1 + np.arange(len(asked)),
            window=window,
            factor=factor,
        )
        begin = (99 + 5 * query) * L
        expected[: len(asked), begin : begin + 12] = np.pad(results, ((0, 0), (0, 2)))
    np.testing.assert_array_equal(golden.state.buffer, expected)


def test_kept_matrices_follow_memory(rng):
    """Matrices are unpacked once, but never used if their tiles have changed."""
    first, second = (rng.standard_normal((16, 32)) for _ in range(2))
    segments, fetch, n_tiles = tiles_of(first, "int4")
    lines = [
        ("fetch", fetch),
        ("multiply", {"inputs": 32, "channel_tiles": n_tiles, "format": "int4"}),
        ("vector", {"vectors": 1, "channels": 16, "to_vector": 1}),
    ]
    golden = started(image_of(*lines, segments=segments))
    golden.state.buffer[:] = random_codes(rng, R, 2048)
    given = []
    for weights in (first, first, second):
        for address, content in tiles_of(weights, "int4")[0]:
            golden.memory.write(address, content)
        golden.run(0, 1, 1)
        given.append(golden.state.vector_memory[:, :16].copy())
    np.testing.assert_array_equal(given[0], given[1])
    quantised = quantise_weights(second, "int4", block=32)
    expected = batch.product(
        TINY.config,
        golden.state.buffer[:, :32],
        quantised.codes.T.astype(np.float64),
        quantised.scales.T.view(np.uint16),
    )
    np.testing.assert_array_equal(given[2], expected)


# What is refused.

MULTIPLY = ("multiply", {"inputs": 32, "channel_tiles": 2, "format": "int8"})
FETCH = ("fetch", {"words": 17, "format": "int8"})
VIEW = CacheLayout(config=TINY.config, heads=2, head_dim=8, format="int8").view(pages=2, n_pages=2, scales=DATA)
CACHE = ("cache", VIEW)
PAGES = ("pages", {"count": 2})
ATTEND = ("attend", {"n_heads": 2, "ratio": 1, "spread": 1})


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ([MULTIPLY], "fetch", "17 more words are wanted of port 0"),
        ([("fetch", {"words": 16, "format": "int8"}), MULTIPLY], "fetch", "1 more words are wanted of port 0"),
        ([("fetch", {"words": 17, "format": "int4"}), MULTIPLY], "fetch", "tiles in int4 were asked for, not int8"),
        ([("fetch", {"address": 1 << 16, "words": 1})], "address", "past the memory of port 0"),
        ([("fetch", {"address": 1 << 39, "words": 1})], "address", "past the memory of port 0"),
        ([("fetch", {"words": 1, "long": 3, "long_words": 1})], "shape", "there are 2"),
        ([("fetch", {"words": 1, "format": "mxfp4"})], "shape", "the build has no mxfp4"),
        ([FETCH, ("multiply", MULTIPLY[1] | {"wait": 1})], "event", "event of a load"),
        ([FETCH, ("multiply", MULTIPLY[1] | {"address": 505})], "buffer", "outside of the activation buffer"),
        ([FETCH, ("multiply", MULTIPLY[1] | {"inputs": 0})], "shape", "nothing to multiply"),
        ([FETCH], "queue", "34 words of tiles left"),
        ([FETCH, MULTIPLY], "queue", "16 results of the array left"),
        ([("vector", {"vectors": 1, "channels": 8})], "queue", "8 elements of results are wanted"),
        ([("vector", {"vectors": 1, "channels": 257, "zeros": 1})], "shape", "a vector has 1 to 256"),
        ([("vector", {"vectors": 0, "channels": 8, "zeros": 1})], "shape", "0 vectors of 8"),
        ([("vector", {**ALL, "zeros": 1, "take": 1})], "queue", "none were given"),
        ([("vector", {**ALL, "zeros": 1, "scale": 1})], "queue", "before any statistics"),
        ([("vector", {**ALL, "zeros": 1, "statistics": 1})], "queue", "1 statistics left"),
        ([("vector", {**ALL, "zeros": 1, "bias": 1})], "queue", "24 elements of bias are wanted"),
        ([("vector", {**ALL, "zeros": 1, "rotated": 7})], "shape", "must be even"),
        ([("vector", {**ALL, "zeros": 1, "rotated": 12, "half": 1})], "shape", "not whole beats"),
        ([("vector", {**ALL, "zeros": 1, "factors": 1, "residual": 1})], "shape", "the same operand"),
        ([("vector", {**ALL, "zeros": 1, "activate": 1, "function": "gelu"})], "shape", "the build has no gelu"),
        ([("vector", {**ALL, "zeros": 1, "to_vector": 1, "vector": 251})], "buffer", "words 251 to 256"),
        ([("vector", {**ALL, "zeros": 1, "to_buffer": 1, "event": 1})], "queue", "1 events of loads left"),
        ([("vector", {**ALL, "zeros": 1, "to_buffer": 1, "spread": 1})], "shape", "0 query heads"),
        ([("vector", {**ALL, "zeros": 1, "to_cache": 1})], "queue", "1 vectors for appends left"),
        ([("vector", {**ALL, "zeros": 1, "to_logits": 1})], "queue", "that have not begun"),
        ([("vector", {**ALL, "zeros": 1, "to_logits": 1, "starts": 1, "logits": 1 << 60})], "address", "no memory"),
        ([("read", {"address": DATA, "bytes": 12})], "shape", "no whole beats of 16"),
        ([("read", {"address": 1 << 60, "bytes": 16})], "address", "there is no memory at 0x1000000000000000"),
        ([("read", {"address": DATA, "bytes": 4096, "target": "table"})], "shape", "longer than"),
        ([("append", {})], "cache", "no cache was told"),
        ([CACHE, ("append", {})], "page", "was never written"),
        ([CACHE, PAGES, ("append", {})], "queue", "1 appends without vectors left"),
        (
            [CACHE, PAGES, ("append", {}), ("vector", {"vectors": 2, "channels": 4, "zeros": 1, "to_cache": 1})],
            "shape",
            "1 vectors of 4 are given to an append of 1 of 8",
        ),
        ([ATTEND], "cache", "no cache was told"),
        ([CACHE, ATTEND], "page", "entry 0 of the page table was never written"),
        ([CACHE, ("pages", {"count": 2, "page": 2}), ATTEND], "page", "says 2, of 2 pages"),
        ([CACHE, ("attend", ATTEND[1] | {"n_heads": 3})], "shape", "of 2"),
        ([CACHE, ("attend", ATTEND[1] | {"ratio": 64})], "shape", "slots"),
        ([CACHE, ("attend", ATTEND[1] | {"wait": 1})], "event", "event of an append"),
        ([CACHE, ("attend", ATTEND[1] | {"load": 1})], "event", "event of a load"),
        ([("cache", VIEW | {"k_words": 8}), ATTEND], "cache", "have 9 and 17 words"),
        ([("cache", VIEW | {"share_bits": 2}), ATTEND], "cache", "4 units cannot share the 2 groups"),
        ([("cache", VIEW | {"base": 1 << 16}), PAGES, ATTEND], "address", "past the memory of port"),
        ([("pages", {"first": 60, "count": 5})], "page", "64 entries"),
        ([("loop", {})], "shape", "at least a layer"),
        ([("loop", {"layers": 2}), ("again", {"target": 0})], "program", "a loop in a loop"),
        ([NEXT], "program", "no logits"),
    ],
)
def test_refusals(lines, code, message):
    """Each names its instruction, and what that is for; and the machine runs again."""
    names = [f"name {n}" for n in range(len(lines))]
    golden = started(image_of(*lines, names=names))
    with pytest.raises(MachineError) as raised:
        golden.run(0, 1, 1)
    error = raised.value
    assert message in str(error)
    assert error.code == code
    assert str(error).startswith(f"instruction {error.instruction} ")
    if error.instruction < len(names):
        assert f"(name {error.instruction})" in str(error)
    golden.load(image_of())
    assert golden.run(0, 1, 1) == "end"


def test_tokens_past_the_machine(rng):
    """The last token that there is room for is worked on, and ends the run only if that is the limit."""
    small = replace(TINY, positions=8)
    image = compile_model(random_checkpoint(replace(ODD, n_layers=1, eos=()), rng), small, positions=8)
    golden = started(image)
    assert golden.run(6, 7, 8) == "limit"
    assert golden.state.position == 8
    with pytest.raises(MachineError, match="token 8 is past the 8 of the machine"):
        golden.run(6, 7, 9)


def test_positions_past_the_pages(rng):
    image = compile_model(random_checkpoint(ODD, rng), TINY, positions=32)
    golden = started(image)
    golden.state.tokens[:] = 5
    with pytest.raises(MachineError, match="position 32 is past the 1 pages of the sequence") as raised:
        golden.run(30, 33, 33)
    assert (raised.value.code, raised.value.position) == ("position", 32)
    assert golden.run(0, 2, 3) == "limit"


@pytest.mark.parametrize(("position", "prompt"), [(0, 0), (3, 3), (-1, 3), (0, 4096)])
def test_runs_without_tokens(position, prompt):
    with pytest.raises(ValueError, match="must be one or more"):
        started(image_of()).run(position, prompt, prompt)


def test_images_of_others():
    with pytest.raises(ValueError, match="for another machine"):
        GoldenMachine(WIDE).load(image_of())
    with pytest.raises(ValueError, match="1 to 128 instructions, not 131"):
        started(image_of(*[("sync", {})] * 130))
    with pytest.raises(ValueError, match="no instruction has the code"):
        started(replace_program(image_of(), b"\xff" * 64))


def replace_program(image, program):
    return Image(**vars(image) | {"program": program})


def test_memory(rng):
    memory = Memory(TINY, data_bytes=1 << 20)
    content = rng.integers(0, 256, 300, np.uint8)
    for address in (5, TINY.port_bytes - 100, DATA - 150, DATA + (1 << 20) - 700):
        memory.write(address, content)
        np.testing.assert_array_equal(memory.read(address - 2, 304)[2:302], content)
    assert not memory.read(1 << 17, 1000).any()
    assert len(memory.read(77, 0)) == 0
    np.testing.assert_array_equal(memory.words(0, 1, 2), memory.read(16, 32).reshape(2, 16))
    runs = memory.runs(np.array([0, 1, 0]), np.array([2, 65530, 0]), 3)
    np.testing.assert_array_equal(runs[1].reshape(-1), memory.read(TINY.port_bytes + 65530 * 16, 48))
    np.testing.assert_array_equal(runs[2].reshape(-1), memory.read(0, 48))
    for address, size in ((-1, 2), (DATA + (1 << 20) - 1, 2)):
        with pytest.raises(Fault, match="there is no memory"):
            memory.read(address, size)
