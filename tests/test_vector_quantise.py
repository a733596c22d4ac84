"""Quantising vectors against the golden model, and that against the library's quantiser: results and cycles."""

import numpy as np
import pytest

from edgeaccel.formats import FORMATS
from edgeaccel.golden import quantise as golden
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.two_pass import two_pass
from edgeaccel.quantise import quantise
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, patterns, random_codes, random_lengths
from edgeaccel.vector.quantise import KVQuantiser, ScaleFinder

NAMES = ("int4", "int8", "int16")


def random_vector(rng, n, name):
    """FP32 codes of a vector of one of the kinds that matter."""
    x = rng.standard_normal(n).astype(np.float32)
    match rng.integers(10):
        case 0:
            x *= np.float32(2.0) ** rng.integers(-45, 20)
        case 1:
            x *= np.where(rng.random(n) < 0.1, np.float32(100), np.float32(1))
        case 2:
            x[:] = 0
        case 3:
            x = np.ldexp(x, rng.integers(-30, 5, n)).astype(np.float32)
        case 4 | 5:
            # Quotients halfway between integers, or next to it.
            limit = 2 * golden.LARGEST[name]
            x = (rng.integers(-limit, limit + 1, n) / 2).astype(np.float32)
            x[0] = golden.LARGEST[name]
            x = (x.view(np.int32) + rng.integers(-1, 2, n)).astype(np.int32).view(np.float32)
            x *= np.float32(2.0) ** rng.integers(-20, 8)
        case 6:
            x = x.astype(np.float16).astype(np.float32)
        case 7:
            return random_codes(rng, n, special=0.1)
        case 8:
            x *= np.float32(2.0) ** rng.integers(-140, 120)
    return codes(x)


def check(engine, seed, n_vectors, *, lanes, max_length, stalled=True):
    rng = generator(seed)
    unit = KVQuantiser(lanes=lanes, max_length=max_length)
    names = rng.choice(NAMES, n_vectors)
    lengths = random_lengths(rng, n_vectors, lanes, max_length)
    vectors = [random_vector(rng, n, name) for n, name in zip(lengths, names, strict=True)]
    beats = golden_vector.beats(vectors, lanes, max_length, filler=int(rng.integers(0, 1 << 32)))
    beats["format"] = np.repeat([FORMATS[name].code for name in names], -(-lengths // lanes))
    n_beats = len(beats["last"])
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, {"i": beats}, n_beats, stalls=stalls)
    out = result.results["o"]
    start = 0
    for vector, name in zip(vectors, names, strict=True):
        part = slice(start, start := start - -len(vector) // lanes)
        expected, scale = golden.quantise(vector, name)
        np.testing.assert_array_equal(out["scale"][part], scale)
        np.testing.assert_array_equal(out["codes"][part].ravel()[: len(vector)], expected)
    for name in ("keep", "last", "format"):
        np.testing.assert_array_equal(out[name], beats[name])
    take, _, taken = two_pass(
        beats["last"],
        max_length // lanes,
        *patterns(stalls, "i", "o"),
        statistic_latency=golden.scale_latency(lanes),
        apply_latency=golden.applier_latency(),
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    if not stalled:
        np.testing.assert_array_equal(take, np.arange(n_beats))


@pytest.mark.parametrize(("lanes", "max_length"), [(1, 5), (2, 16), (4, 64)])
def test_amaranth(lanes, max_length):
    check("amaranth", 160, 60, lanes=lanes, max_length=max_length)


def test_verilog():
    check("verilated", 161, 6000, lanes=2, max_length=64)
    check("verilated", 162, 300, lanes=2, max_length=64, stalled=False)


@pytest.mark.parametrize("name", NAMES)
def test_golden_is_the_quantiser(name):
    rng = generator(163)
    n_compared = 0
    for _ in range(1500):
        vector = random_vector(rng, int(rng.integers(1, 200)), name)
        weights = vector.view(np.float32)
        try:
            with np.errstate(invalid="ignore"):
                expected = quantise(weights[None], name, block=len(weights))
        except ValueError:  # not finite, or over the range of scales
            assert golden.quantise(vector, name)[1] == golden.NAN
            continue
        result, scale = golden.quantise(vector, name)
        assert scale == expected.scales.view(np.uint16)[0, 0]
        np.testing.assert_array_equal(result, expected.codes[0])
        n_compared += 1
    assert n_compared > 1000


def test_special_vectors():
    for name in NAMES:
        assert golden.quantise(codes([0, -0.0]), name)[1] == 0
        assert golden.quantise(codes([1, np.nan]), name)[1] == golden.NAN
        assert golden.quantise(codes([1, -np.inf]), name)[1] == golden.NAN
        assert golden.quantise(codes([3e38]), name)[1] == golden.NAN
        assert golden.quantise(codes([1e-45]), name) == ([0], 1)
    assert golden.quantise(codes([-7, 3.5, 2.5]), "int4")[0].tolist() == [-7, 4, 2]


@pytest.mark.parametrize("unit", [KVQuantiser, ScaleFinder])
def test_bad_parameters(unit):
    with pytest.raises(ValueError, match="lanes must be a power of two, not 5"):
        unit(lanes=5)
