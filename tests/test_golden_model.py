"""Golden arithmetic in batches against that of one vector, and whole models against the float reference."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_reference import LLAMA, SHAPES, random_checkpoint

from edgeaccel.bench.cache import CALIBRATION
from edgeaccel.checkpoint import CheckpointError, example
from edgeaccel.config import preset
from edgeaccel.golden import array, attention, batch, float, norm, pe, quantise, rotary, vector
from edgeaccel.golden import scores as golden_scores
from edgeaccel.golden.model import Matrix, Model, key_offsets
from edgeaccel.golden.reference import Reference, agreement, greedy, perplexity
from edgeaccel.quantise import quantise as quantise_weights
from edgeaccel.tiles import pack

CONFIG = preset("tiny")
ODD = np.array([0, 1 << 31, 1, 0x807FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF], np.uint32)


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def random_codes(rng, shape, *, odd=0.0, exponents=(-4, 4)):
    codes = float.encode(rng.standard_normal(shape) * 2.0 ** rng.integers(*exponents, shape))
    return np.where(rng.random(shape) < odd, rng.choice(ODD, shape), codes).astype(np.uint32)


def test_loads_no_hardware():
    program = "import sys, edgeaccel.golden.model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in loaded if name.startswith(("amaranth", "edgeaccel.vector", "edgeaccel.pe"))]


@pytest.mark.parametrize("length", [1, 2, 5, 32, 43])
def test_one_by_one(length, rng):
    vectors = random_codes(rng, (12, length), odd=0.05, exponents=(-60, 60))
    vectors[0], vectors[1] = 0, 1 << 31
    np.testing.assert_array_equal(batch.total(vectors), [vector.total(one) for one in vectors])
    inverse, epsilon = float.encode(np.array([1 / length, 1e-5]))
    expected = [norm.statistics(one, inverse, epsilon)[1] for one in vectors]
    np.testing.assert_array_equal(batch.rsqrt_mean_square(vectors, inverse, epsilon), expected)
    mantissas, exponents, nans = batch.align(vectors, 16)
    for n, one in enumerate(vectors):
        expected = pe.align(float.decode(one), "fp32", 16)
        np.testing.assert_array_equal(mantissas[n], expected[0])
        assert (exponents[n], nans[n]) == expected[1:]


@pytest.mark.parametrize("half", [False, True])
def test_rotate(half, rng):
    vectors = random_codes(rng, (3, 2, 10))
    tables = rotary.table(np.array([0, 5, 1000]), 6, half=half)
    turned = batch.rotate(vectors, *(table[:, None] for table in tables), 6, half=half)
    for n, head in np.ndindex(3, 2):
        expected = rotary.rotate(vectors[n, head], tables[0][n], tables[1][n], 6, half=half)
        np.testing.assert_array_equal(turned[n, head], expected)


@pytest.mark.parametrize(
    ("format", "inputs"), [("int16", 75), ("int8", 75), ("int4", 75), ("mxfp4", 75), ("mxfp4", 100), ("mxfp4", 9)]
)
def test_matrix_is_the_array(format, inputs, rng):
    """With inputs and channels that fill neither blocks nor tiles; a tile of MXFP4 is two blocks, always whole."""
    weights = rng.standard_normal((21, inputs)) * 2.0 ** rng.integers(-6, 3, (21, 1))
    rows = random_codes(rng, (5, inputs))
    rows[1, 3], rows[2, inputs // 2], rows[3] = 0x7FC00000, 0xFF800000, 0
    tile = 64 if format == "mxfp4" else 32
    padded = np.pad(rows, ((0, 0), (0, -inputs % tile))).reshape(5, -1, tile)
    aligned = [[pe.align(block, "fp32", 16) for block in row] for row in float.decode(padded)]
    mantissas, exponents, nans = (np.array([[block[n] for block in row] for row in aligned]) for n in range(3))
    tiles = pack(quantise_weights(weights, format, block=32), lanes=CONFIG.lanes)
    assert mantissas.shape[1:] == (-(-inputs // tile), tile)
    of_set = (mantissas[None], exponents[None], nans[None])
    expected = array.operator_results(CONFIG, tiles, format, *of_set)[0][:21].T
    np.testing.assert_array_equal(Matrix(CONFIG, weights, format)(rows), expected)


@pytest.mark.parametrize("first", [False, True])
def test_weights(first, rng):
    shape = (6, 3, 2, 32)
    scores = random_codes(rng, shape, odd=0.01, exponents=(-3, 6))
    scales = rng.integers(0, 0x7C01, (6, 3, 1, 32)).astype(np.uint16)
    lo = rng.integers(0, 8, 6)
    hi = np.maximum(lo + 1, rng.integers(0, 33, 6))
    lo[0] = hi[0]  # nothing is seen
    running, factor = random_codes(rng, shape[:-1], odd=0.1), 0x3F000000
    running = float.encode(np.ceil(float.decode(running))).astype(np.uint32)
    seen = (lo[:, None] <= np.arange(32)) & (np.arange(32) < hi[:, None])
    results = batch.weights(scores, scales, seen[:, None, None], factor, running, first)
    for place in np.ndindex(shape[:-1]):
        token, head, _ = place
        one = golden_scores.weights(
            scores[place], scales[token, head, 0], lo[token], hi[token], factor, running[place], first
        )
        np.testing.assert_array_equal(results[0][place], one.weights)
        assert tuple(result[place] for result in results[1:]) == one[1:]


@pytest.mark.parametrize("format", ["int16", "int8", "int4"])
@pytest.mark.parametrize(("head_dim", "window"), [(8, 0), (40, 0), (8, 50)])
def test_attend(format, head_dim, window, rng):
    n_positions, heads, shared = 110, 2, 3
    vectors = random_codes(rng, (2, n_positions, heads, head_dim), exponents=(-1, 2))
    queries = random_codes(rng, (4, heads, shared, head_dim), exponents=(-1, 2))
    vectors[0, 70, 1, 3] = 0x7F800000  # the last tokens' scores are NaN in one head
    caches = []
    for kind in vectors:
        pairs = [[quantise.quantise(head, format) for head in position] for position in kind]
        caches.append(tuple(np.array([[pair[n] for pair in row] for row in pairs]) for n in range(2)))
    counts = np.array([1, 33, 64, 105])
    results = batch.attend(CONFIG, queries, *caches, counts=counts, window=window, factor=0x3F000000)
    for token, head in np.ndindex(4, heads):
        expected = attention.attend(
            CONFIG,
            queries[token, head],
            *((codes[:, head], scales[:, head]) for codes, scales in caches),
            counts=np.full(shared, counts[token]),
            window=window,
            factor=0x3F000000,
        )
        np.testing.assert_array_equal(results[token, head], expected)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("folded", [True, False])
def test_near_the_reference(name, folded, rng):
    """With 16-bit weights and cache; and the same whether tokens come at once or one by one."""
    checkpoint = random_checkpoint(SHAPES[name], rng)
    tokens = rng.integers(3, 17, 9)
    expected = Reference(checkpoint).forward(tokens)
    model = Model(checkpoint, CONFIG, weights="int16", cache="int16", folded=folded)
    logits = model.forward(tokens)
    assert np.abs(logits - expected).mean() < 5e-3 * np.abs(expected).mean()
    model = Model(checkpoint, CONFIG, weights="int16", cache="int16", folded=folded)
    parts = [model.forward(tokens[:4]), *(model.forward([token]) for token in tokens[4:])]
    assert model.length == 9
    np.testing.assert_array_equal(np.concatenate(parts), logits)
    cached = Model(checkpoint, CONFIG, weights="int16", cache="float", folded=folded).forward(tokens)
    assert np.abs(cached - expected).mean() < 5e-3 * np.abs(expected).mean()


def test_key_offsets_change_little(rng):
    """With a fine cache nothing, whatever the offsets."""
    checkpoint = random_checkpoint(SHAPES["qwen2"], rng)
    tokens = rng.integers(3, 17, 9)
    offsets = key_offsets(checkpoint, tokens)
    reference = Reference(checkpoint)
    expected = reference.forward(tokens)
    centred = reference.keys[1] + offsets[1]
    np.testing.assert_allclose(centred.max(axis=0), -centred.min(axis=0), rtol=1e-3, atol=1e-3)
    for change in (offsets, rng.standard_normal(offsets.shape)):
        for cache in ("float", "int16"):
            logits = Model(checkpoint, CONFIG, weights="int16", cache=cache, key_offsets=change).forward(tokens)
            assert np.abs(logits - expected).mean() < 5e-3 * np.abs(expected).mean()
    with pytest.raises(ValueError, match=r"key_offsets must be of shape \(2, 2, 6\), not \(6,\)"):
        Model(checkpoint, CONFIG, weights="int16", cache="int8", key_offsets=np.zeros(6))


def test_chunks_do_not_matter(rng):
    """A context of several chunks, against the reference."""
    checkpoint = random_checkpoint(replace(LLAMA, max_positions=128), rng)
    tokens = rng.integers(3, 17, 100)
    expected = Reference(checkpoint).forward(tokens)
    logits = Model(checkpoint, CONFIG, weights="int16", cache="int16").forward(tokens)
    assert np.abs(logits - expected).mean() < 5e-3 * np.abs(expected).mean()


def test_refuses(rng):
    checkpoint = random_checkpoint(LLAMA, rng)
    for change, message in (
        ({"weights": "fp8"}, "weights must be one of int16, int8, int4, mxfp4, not 'fp8'"),
        ({"classifier": "float"}, "classifier must be one of int16, int8, int4, mxfp4, not 'float'"),
        ({"cache": "fp16"}, "cache must be one of float, int16, int8, int4, not 'fp16'"),
        ({"values": "float"}, "values must be as the cache if one of them is float, not 'float' beside 'int8'"),
    ):
        with pytest.raises(ValueError, match=message):
            Model(checkpoint, CONFIG, **({"weights": "int8", "cache": "int8"} | change))
    with pytest.raises(ValueError, match="activations of the configuration must be fp32, not 'fp16'"):
        Model(checkpoint, preset("tiny", activations="fp16"), weights="int8", cache="int8")
    with pytest.raises(ValueError, match="a context of 17 is past the model's 16 positions; ask for fewer tokens"):
        Model(checkpoint, CONFIG, weights="int8", cache="int8").forward([3] * 17)
    bad = checkpoint.tensor("layers.1.feed_forward.up").copy()
    bad[3, 2] = np.nan
    broken = replace(checkpoint, sources={**checkpoint.sources, "layers.1.feed_forward.up": bad.__getitem__})
    with pytest.raises(
        CheckpointError, match=r"^random: layers.1.feed_forward.up: weights\[3, 2\] is nan, weights must be finite"
    ):
        Model(broken, CONFIG, weights="int8", cache="int8")


@pytest.fixture(scope="module")
def real():
    try:
        checkpoint, _ = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return checkpoint, greedy(Reference(checkpoint), [1], 150)


@pytest.mark.parametrize(
    ("formats", "limit", "n_equal"),
    [
        ({"weights": "int16", "cache": "int16"}, 1.601, 150),
        ({"weights": "int8", "cache": "int16"}, 1.606, 60),
        ({"weights": "int8", "cache": "int16", "folded": False}, 1.603, 110),
        ({"weights": "int8", "cache": "int8", "values": "int4"}, 1.615, 25),
        # 4-bit weights, nearer to float32 if the norms' gains stay out of them.
        ({"weights": "int4", "cache": "int16"}, 1.88, 8),
        ({"weights": "int4", "cache": "int16", "folded": False}, 1.765, 8),
        ({"weights": "int4", "classifier": "int8", "cache": "float", "folded": False}, 1.706, 30),
    ],
)
def test_real_model(real, formats, limit, n_equal):
    """Perplexity over float32's greedy tokens (float32: 1.600), and how many of them the model gives as well."""
    checkpoint, tokens = real
    logits = Model(checkpoint, CONFIG, **formats).forward([1, *tokens[:-1]])
    assert perplexity(logits, tokens) < limit
    assert agreement(logits, tokens) >= n_equal


def test_keys_of_four_bits(real):
    """Keys of four bits are hopeless as they are, and usable less what those of another text have in common."""
    checkpoint, tokens = real
    _, tokenizer = example.load()
    offsets = key_offsets(checkpoint, tokenizer.encode(CALIBRATION))
    options = {"weights": "int16", "cache": "int4"}
    plain, centred = (
        perplexity(Model(checkpoint, CONFIG, **options, key_offsets=each).forward([1, *tokens[:-1]]), tokens)
        for each in (None, offsets)
    )
    assert plain > 4
    assert centred < 1.8


def test_greedy_token_by_token(real):
    checkpoint, tokens = real
    assert greedy(Model(checkpoint, CONFIG, weights="int8", cache="int16"), [1], 20) == tokens[:20]
