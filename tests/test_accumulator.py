"""Interleaved accumulator against the golden model: results and cycles, under stalls."""

import numpy as np
import pytest

from edgeaccel.golden import pe as golden
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe.accumulator import Accumulator
from edgeaccel.sim.bench import random_stalls, run


def check(engine, seed, *, channels, depth, n_terms, stalled=True):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    accumulator = Accumulator(channels=channels, depth=depth)
    terms = np.ldexp(rng.standard_normal(n_terms), rng.integers(-6, 6, n_terms)).astype(np.float32)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38], np.float32)
    terms = np.where(rng.random(n_terms) < 0.03, rng.choice(special, n_terms), terms)
    # Each channel's sums begin and end on their own.
    first, last = np.zeros(n_terms, bool), np.zeros(n_terms, bool)
    for channel in range(channels):
        turns = np.arange(channel, n_terms, channels)
        ends = np.sort(rng.choice(len(turns), max(1, len(turns) // 5), replace=False))
        last[turns[ends]] = True
        first[turns[np.append(0, (ends + 1)[ends + 1 < len(turns)])]] = True
    stalls = random_stalls(rng, accumulator, 2 * n_terms) if stalled else {}
    inputs = {"i": {"term": terms.view(np.uint32), "first": first, "last": last}}
    result = run(accumulator, engine, inputs, last.sum(), stalls=stalls)

    expected = golden.accumulate(terms, first, last, channels)
    codes = np.where(np.isnan(expected), 0x7FC00000, expected.view(np.uint32))
    np.testing.assert_array_equal(result.results["o"], codes)
    latency = golden.accumulator_latency(depth)
    take, taken = pipeline_cycles(
        n_terms,
        [Pattern(stalls.get("i", ()))],
        Pattern(stalls.get("o", ())),
        latency=latency,
        credits=latency + 1,
        emits=last,
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    return result


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("more", [0, 1, 5])
def test_amaranth(depth, more):
    check("amaranth", 30, channels=depth + 2 + more, depth=depth, n_terms=600)


def test_verilog():
    check("verilated", 31, channels=32, depth=5, n_terms=50_000)
    # One term a cycle, with as few channels as the adder allows.
    result = check("verilated", 32, channels=7, depth=5, n_terms=5_000, stalled=False)
    np.testing.assert_array_equal(result.cycles["i"], np.arange(5_000))


def test_cocotb():
    check("cocotb", 33, channels=8, depth=5, n_terms=1000)


def test_first_term_keeps_the_sign_of_zero():
    result = run(
        Accumulator(channels=3, depth=1),
        "amaranth",
        {"i": {"term": np.array([0x80000000]), "first": np.array([1]), "last": np.array([1])}},
        1,
    )
    assert result.results["o"].tolist() == [0x80000000]


def test_too_few_channels():
    with pytest.raises(ValueError, match=r"channels must be at least 6, the cycles .* depth 4, not 5"):
        Accumulator(channels=5, depth=4)
