"""Scaler and accumulator in one pipeline against the golden models: results and cycles, under stalls."""

import numpy as np
import pytest

from edgeaccel.golden import float as golden_float
from edgeaccel.golden.pe import scaled_accumulator_latency
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe import ScaledAccumulator
from edgeaccel.sim.bench import random_stalls, run

CHANNELS, ROWS, SUM_WIDTH = 8, 3, 30


@pytest.mark.parametrize("engine", ["amaranth", "verilated"])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_rounds_of_channels(engine, share):
    rng = np.random.default_rng(60)
    n_rounds, per_sum = 60, 3
    n_items = CHANNELS * n_rounds
    unit = ScaledAccumulator(sum_width=SUM_WIDTH, rows=ROWS, channels=CHANNELS, scales=("fp16", "e8m0"))
    turn = np.arange(n_items) // CHANNELS % per_sum
    first, last = turn == 0, turn == per_sum - 1
    sums = rng.integers(-(1 << 28), 1 << 28, (n_items, ROWS))
    exponents = rng.integers(-28, 2, (n_items, ROWS))
    nans = rng.random((n_items, ROWS)) < 0.01
    e8m0 = rng.random(n_items) < 0.5
    scales = np.where(
        e8m0, rng.integers(100, 140, n_items), rng.standard_normal(n_items).astype(np.float16).view("<u2")
    )
    stalls = random_stalls(rng, unit, 3 * n_items, share=share)
    i = {
        "sums": sums,
        "exponents": exponents,
        "nans": (nans << np.arange(ROWS)).sum(axis=1),
        "scale": scales,
        "e8m0": e8m0,
        "first": first,
        "last": last,
    }
    result = run(unit, engine, {"i": i}, last.sum(), stalls=stalls)

    terms = golden_float.scale(sums, scales[:, None], exponents, nan=nans, e8m0=e8m0[:, None])
    terms = terms.reshape(-1, per_sum, CHANNELS, ROWS)
    expected = golden_float.add(golden_float.add(terms[:, 0], terms[:, 1]), terms[:, 2])
    np.testing.assert_array_equal(result.results["o"], expected.reshape(-1, ROWS))
    latency = scaled_accumulator_latency()
    take, taken = pipeline_cycles(
        n_items,
        [Pattern(stalls["i"])],
        Pattern(stalls["o"]),
        latency=latency,
        credits=latency + 1,
        emits=last,
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
