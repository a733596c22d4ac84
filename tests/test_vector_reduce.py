"""Sums and maxima of vectors against the golden models: results and cycles, under stalls."""

import math

import numpy as np
import pytest

from edgeaccel.golden import vector as golden
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import assert_pipeline, codes, generator, traffic
from edgeaccel.vector.reduce import VectorMaximum, VectorSum
from edgeaccel.vector.topk import TopK

NAN = 0x7FC00000


def check(unit, engine, seed, n_vectors, expect, *, lanes, max_length, stalled=True):
    rng = generator(seed)
    vectors, beats = traffic(rng, lanes, max_length, n_vectors)
    stalls = random_stalls(rng, unit, 2 * len(beats["last"])) if stalled else {}
    result = run(unit, engine, {"i": beats}, n_vectors, stalls=stalls)
    out = result.results["o"]
    expected = [expect(vector) for vector in vectors]
    if isinstance(out, dict):
        for number, (name, column) in enumerate(out.items()):
            np.testing.assert_array_equal(column, [item[number] for item in expected], err_msg=name)
    else:
        np.testing.assert_array_equal(out, expected)
    assert_pipeline(unit, result, stalls, ["i"], emits=beats["last"])
    return vectors, beats, result


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("lanes", "max_length"), [(1, 1), (1, 5), (2, 2), (2, 12), (4, 32)])
def test_sum_amaranth(lanes, max_length, square):
    unit = VectorSum(lanes=lanes, max_length=max_length, square=square, depth=2)
    check(unit, "amaranth", 100, 25, lambda v: golden.total(v, square=square), lanes=lanes, max_length=max_length)


def test_sum_verilog():
    sizes = {"lanes": 2, "max_length": 16}
    unit = VectorSum(**sizes, square=True)
    assert unit.latency == 5 * (1 + 1) + 6 * 3 + 2
    check(unit, "verilated", 101, 2000, lambda v: golden.total(v, square=True), **sizes)
    # A beat each cycle, whatever the lengths.
    _, beats, result = check(
        unit, "verilated", 102, 300, lambda v: golden.total(v, square=True), **sizes, stalled=False
    )
    np.testing.assert_array_equal(result.cycles["i"], np.arange(len(beats["last"])))


@pytest.mark.slow
@pytest.mark.parametrize("square", [False, True])
def test_sum_full_size(square):
    unit = VectorSum(lanes=8, max_length=4096, square=square)
    check(unit, "verilated", 104, 300, lambda v: golden.total(v, square=square), lanes=8, max_length=4096)


def test_sum_by_hand():
    """The order: (1 + 2**24) + (1 + 1), and no 1 + 2**24 + 1 + 1."""
    assert golden.total(codes([1, 2**24, 1, 1])) == codes(2**24 + 2)
    assert golden.total(codes([2**24, 1, 1])) == codes(2**24)
    assert golden.total(codes([-0.0])) == codes(-0.0)
    assert golden.total(codes([np.inf, 1, -np.inf])) == NAN
    assert golden.total(codes([3e38, 3e38])) == codes(np.inf)
    assert golden.total(codes([3, -4]), square=True) == codes(25)


@pytest.mark.parametrize("length", [1, 7, 128, 4096, 16384])
def test_sum_is_accurate(length):
    rng = generator(103)
    numbers = (rng.standard_normal(length) * np.where(rng.random(length) < 0.01, 1e4, 1)).astype(np.float32)
    result = np.uint32(golden.total(numbers.view(np.uint32))).view(np.float32)
    bound = math.ceil(math.log2(length)) * 2.0**-24 * np.abs(numbers.astype(np.float64)).sum()
    assert abs(result - math.fsum(numbers.tolist())) <= bound


@pytest.mark.parametrize(("lanes", "max_length"), [(1, 1), (1, 5), (2, 2), (2, 10), (8, 64)])
def test_maximum_amaranth(lanes, max_length):
    unit = VectorMaximum(lanes=lanes, max_length=max_length)
    check(unit, "amaranth", 110, 200, golden.maximum, lanes=lanes, max_length=max_length)


def test_maximum_verilog():
    unit = VectorMaximum(lanes=4, max_length=256)
    check(unit, "verilated", 111, 3000, golden.maximum, lanes=4, max_length=256)


def test_maximum_by_hand():
    assert golden.maximum(codes([-1, -0.0, 0.0, -0.0])) == (0, 1)
    assert golden.maximum(codes([np.inf, np.nan, np.nan])) == (NAN, 1)
    assert golden.maximum(codes([-np.inf])) == (int(codes(-np.inf)), 0)
    assert golden.maximum(codes([1, 2, 2])) == (int(codes(2)), 1)
    # A NaN with its sign set is one too.
    assert golden.maximum(np.array([0x7F800000, 0xFFFFFFFF], np.uint32)) == (NAN, 1)


def test_ties_and_zeros():
    """Few different values: nearly all elements tie."""
    rng = generator(112)
    values = codes([0.0, -0.0, 1.0, -1.0])
    vectors = [rng.choice(values, rng.integers(1, 17)) for _ in range(200)]
    unit = VectorMaximum(lanes=4, max_length=16)
    result = run(unit, "amaranth", {"i": golden.beats(vectors, 4, 16)}, len(vectors))
    expected = [golden.maximum(vector) for vector in vectors]
    np.testing.assert_array_equal(np.stack([*result.results["o"].values()], axis=1), expected)


def check_top_k(engine, seed, n_vectors, *, k, lanes, max_length, few=False):
    """With `few` different values nearly all elements tie."""
    rng = generator(seed)
    unit = TopK(k=k, lanes=lanes, max_length=max_length)
    vectors, beats = traffic(rng, lanes, max_length, n_vectors)
    if few:
        vectors = [rng.choice(codes([0.0, -0.0, 1.0, np.nan, -np.inf]), len(vector)) for vector in vectors]
        beats = golden.beats(vectors, lanes, max_length)
    stalls = random_stalls(rng, unit, 2 * len(beats["last"]))
    result = run(unit, engine, {"i": beats}, n_vectors, stalls=stalls)
    out = result.results["o"]
    for n, vector in enumerate(vectors):
        values, places = golden.top_k(vector, k)
        assert out["count"][n] == len(places)
        np.testing.assert_array_equal(out["values"][n, : len(places)], values)
        np.testing.assert_array_equal(out["indices"][n, : len(places)], places)
    assert_pipeline(unit, result, stalls, ["i"], emits=beats["last"])


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize(("k", "lanes", "max_length"), [(1, 1, 1), (2, 1, 5), (3, 2, 10), (5, 4, 16), (2, 8, 64)])
def test_top_k_amaranth(k, lanes, max_length, few):
    check_top_k("amaranth", 120, 60, k=k, lanes=lanes, max_length=max_length, few=few)


@pytest.mark.parametrize("few", [False, True])
def test_top_k_verilog(few):
    check_top_k("verilated", 121, 1000, k=4, lanes=4, max_length=128, few=few)


@pytest.mark.slow
@pytest.mark.parametrize("few", [False, True])
def test_top_k_full_size(few):
    check_top_k("verilated", 122, 1000, k=8, lanes=8, max_length=4096, few=few)


def test_top_k_by_hand():
    values, places = golden.top_k(codes([1, 3, np.nan, 3, -np.inf, -0.0]), 5)
    assert values.tolist() == [NAN, *codes([3, 3, 1, 0]).tolist()]
    assert places.tolist() == [2, 1, 3, 0, 5]
    assert golden.top_k(codes([4, 5]), 3)[1].tolist() == [1, 0]


@pytest.mark.parametrize("k", [0, 17])
def test_refused_k(k):
    with pytest.raises(ValueError, match=f"k must be 1 to 16 elements, not {k}"):
        TopK(k=k, lanes=4, max_length=16)


@pytest.mark.parametrize("length", [0, 17])
def test_refused_lengths(length):
    with pytest.raises(ValueError, match=rf"vector 1 must have 1 to 16 elements, not {length}"):
        golden.beats([np.zeros(3, np.uint32), np.zeros(length, np.uint32)], 4, 16)


@pytest.mark.parametrize("unit", [VectorSum, VectorMaximum])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lanes": 3}, "lanes must be a power of two, not 3"),
        ({"lanes": 0}, "lanes must be a power of two, not 0"),
        ({"lanes": 8, "max_length": 0}, "max_length must be a positive multiple of the 8 elements of a beat, not 0"),
        ({"lanes": 8, "max_length": 12}, "max_length must be a positive multiple of the 8 elements of a beat, not 12"),
    ],
)
def test_bad_parameters(unit, parameters, message):
    with pytest.raises(ValueError, match=message):
        unit(**parameters)
