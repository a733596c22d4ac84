"""Norms against the golden models, and these against float64: results and cycles, under stalls."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.golden import norm as golden
from edgeaccel.golden.float import decode
from edgeaccel.golden.two_pass import two_pass
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import assert_pipeline, codes, generator, patterns, random_codes, traffic
from edgeaccel.vector.norm import Norm, NormApplier, NormStatistics

EPSILON = int(codes(1e-5))


def norm_traffic(rng, n_vectors, *, lanes, max_length, layer):
    """(vectors, whether each is LayerNorm's, beats); what belongs to the last beat is anything in the others."""
    vectors, beats = traffic(rng, lanes, max_length, n_vectors)
    n_beats, last = len(beats["last"]), beats["last"].astype(bool)
    centres = rng.integers(0, 2, n_vectors) if layer else np.zeros(n_vectors, int)
    beats |= {name: random_codes(rng, n_beats) for name in ("inverse_length", "epsilon")}
    beats["inverse_length"][last] = [codes(1 / len(vector)) for vector in vectors]
    beats["epsilon"][last] = EPSILON
    if layer:
        beats["centre"] = rng.integers(0, 2, n_beats)
        beats["centre"][last] = centres
    return vectors, centres, beats


def statistics(vector, centre):
    return golden.statistics(vector, codes(1 / len(vector)), EPSILON, centre=centre)


def check_statistics(engine, seed, n_vectors, *, lanes, max_length, layer):
    rng = generator(seed)
    unit = NormStatistics(lanes=lanes, max_length=max_length, layer=layer)
    assert unit.latency == golden.statistics_latency(lanes, max_length, layer=layer)
    vectors, centres, beats = norm_traffic(rng, n_vectors, lanes=lanes, max_length=max_length, layer=layer)
    stalls = random_stalls(rng, unit, 2 * len(beats["last"]))
    result = run(unit, engine, {"i": beats}, n_vectors, stalls=stalls)
    expected = np.array([statistics(*item) for item in zip(vectors, centres, strict=True)])
    out = result.results["o"]
    np.testing.assert_array_equal(out["scale"], expected[:, 1])
    if layer:
        np.testing.assert_array_equal(out["mean"], expected[:, 0])
    assert_pipeline(unit, result, stalls, ["i"], emits=beats["last"])


@cache  # so that Verilog is emitted once
def build(lanes, max_length, layer):
    return Norm(lanes=lanes, max_length=max_length, layer=layer)


def check_norm(engine, seed, n_vectors, *, lanes, max_length, layer, stalled=True):
    rng = generator(seed)
    unit = build(lanes, max_length, layer)
    vectors, centres, beats = norm_traffic(rng, n_vectors, lanes=lanes, max_length=max_length, layer=layer)
    n_beats = len(beats["last"])
    parameters = {name: random_codes(rng, n_beats * lanes).reshape(n_beats, lanes) for name in ("gain", "bias")}
    if not layer:
        del parameters["bias"]
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, {"i": beats, "i_parameters": parameters}, n_beats, stalls=stalls)
    out = result.results["o"]
    start = 0
    for vector, centre in zip(vectors, centres, strict=True):
        part = slice(start, start := start - -len(vector) // lanes)
        gain, bias = (
            parameters[name][part].ravel()[: len(vector)] if name in parameters else None for name in ("gain", "bias")
        )
        expected = golden.norm(vector, gain, bias, codes(1 / len(vector)), EPSILON, centre=centre)
        np.testing.assert_array_equal(out["elements"][part].ravel()[: len(vector)], expected)
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    take, apply, taken = two_pass(
        beats["last"],
        max_length // lanes,
        *patterns(stalls, "i", "o"),
        statistic_latency=golden.statistics_latency(lanes, max_length, layer=layer),
        apply_latency=golden.applier_latency(layer=layer),
        others=patterns(stalls, "i_parameters"),
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["i_parameters"], apply)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    return unit, result


@pytest.mark.parametrize("layer", [False, True])
def test_statistics(layer):
    check_statistics("amaranth", 130, 15, lanes=2, max_length=8, layer=layer)


@pytest.mark.parametrize("layer", [False, True])
def test_norm_amaranth(layer):
    check_norm("amaranth", 132, 12, lanes=1, max_length=6, layer=layer)


def test_norm_verilog():
    check_norm("verilated", 133, 1000, lanes=1, max_length=4, layer=False)
    # No bubbles: a beat goes in each cycle.
    _, result = check_norm("verilated", 134, 100, lanes=1, max_length=4, layer=False, stalled=False)
    np.testing.assert_array_equal(result.cycles["i"], np.arange(len(result.cycles["i"])))


@pytest.mark.slow
@pytest.mark.parametrize("layer", [False, True])
def test_norm_full_size(layer):
    check_statistics("verilated", 131, 500, lanes=2, max_length=64, layer=layer)
    check_norm("verilated", 135, 100, lanes=8, max_length=4096, layer=layer)
    _, result = check_norm("verilated", 138, 30, lanes=8, max_length=4096, layer=layer, stalled=False)
    np.testing.assert_array_equal(result.cycles["i"], np.arange(len(result.cycles["i"])))


def ulps_of_fp16(result, reference):
    """Differences of FP16 numbers in units of the last place: codes are ordered like the numbers."""
    ordered = [np.asarray(x, np.float16).view(np.int16).astype(int) for x in (result, reference)]
    ordered = [np.where(x < 0, -(x & 0x7FFF), x) for x in ordered]
    return np.abs(ordered[0] - ordered[1])


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("offset", [0, 5])
def test_accuracy_with_outliers(centre, offset):
    """At most one unit of the last place of FP16 for 99.9% of the elements, with outliers of 10,000."""
    rng = generator(136)
    worst = []
    for length in (64, 768, 4096, 4095):
        for n_outliers in (0, 1, 10):
            x = (rng.standard_normal(length) + offset).astype(np.float32)
            x[rng.choice(length, n_outliers, replace=False)] = 1e4
            gain = rng.standard_normal(length).astype(np.float32)
            bias = rng.standard_normal(length).astype(np.float32) * centre
            result = decode(golden.norm(codes(x), codes(gain), codes(bias), codes(1 / length), EPSILON, centre=centre))
            assert np.isfinite(result).all()
            exact = x.astype(np.float64)
            mean = exact.mean() if centre else 0
            scale = 1 / np.sqrt(((exact - mean) ** 2).mean() + 1e-5)
            reference = (exact - mean) * scale * gain.astype(np.float64) + bias
            worst.append(ulps_of_fp16(result, reference))
    worst = np.concatenate(worst)
    assert (worst <= 1).mean() >= 0.999


@pytest.mark.parametrize("ratio", [0, 1, 30, 100])
def test_variance_is_as_good_as_stated(ratio):
    rng = generator(137)
    for length in (64, 4096):
        x = (rng.standard_normal(length) + ratio).astype(np.float32)
        mean, scale = (decode(code) for code in statistics(codes(x), True))
        exact = x.astype(np.float64)
        variance = exact.var() + 1e-5
        error = abs(scale**-2 / variance - 1)
        assert error <= (1 + exact.mean() ** 2 / variance) * 2.0**-20
        assert abs(mean - exact.mean()) <= 2.0**-21 * np.abs(exact).mean()


def test_special_vectors():
    def parts(numbers, centre=False):
        return [float(decode(code)) for code in statistics(codes(numbers), centre)]

    assert parts([1e4]) == [0, pytest.approx(1e-4, rel=1e-6)]
    assert parts([1e30, 1]) == [0, 0]
    assert parts([np.inf, 1]) == [0, 0]
    assert np.isnan(parts([np.nan, 1])[1])
    assert np.isnan(parts([np.inf, 1], centre=True)[1])
    assert parts([0, 0])[1] == pytest.approx(1e5**0.5, rel=1e-6)
    assert parts([2, 2], centre=True) == [2, pytest.approx(1e5**0.5, rel=1e-6)]


@pytest.mark.parametrize("unit", [Norm, NormStatistics])
def test_bad_parameters(unit):
    with pytest.raises(ValueError, match="lanes must be a power of two, not 5"):
        unit(lanes=5)
    with pytest.raises(ValueError, match="max_length must be a positive multiple of the 4 elements of a beat, not 6"):
        unit(lanes=4, max_length=6)


def test_applier_is_a_unit_of_its_own():
    assert NormApplier(lanes=4).latency == golden.applier_latency()
    assert NormApplier(lanes=4, layer=True).latency == golden.applier_latency(layer=True)
