"""Softmax against the golden model, and that against float64: results and cycles, under stalls."""

from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from edgeaccel.golden import softmax as golden
from edgeaccel.golden.float import decode
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, patterns, traffic
from edgeaccel.vector.chunk import ScoreScaler
from edgeaccel.vector.softmax import OnlineSoftmax, Softmax, SoftmaxSum

LOG2_E = codes(golden.LOG2_E)
NAN = 0x7FC00000


def random_row(rng, n):
    """Scores of one of the kinds that matter."""
    scores = rng.standard_normal(n) * rng.choice([1, 8, 300])
    match rng.integers(8):
        case 0:
            scores[:] = scores[0]
        case 1:
            scores[rng.integers(n)] = rng.choice([1e4, 1e30, -1e30])
        case 2:
            scores[rng.random(n) < 0.5] = -np.inf
        case 3:
            scores[:] = -np.inf
        case 4:
            scores[rng.integers(n)] = rng.choice([np.nan, np.inf])
        case 5:
            scores = np.sort(scores)
        case 6:
            scores += rng.choice([-2000, 2000])
    return codes(scores)


def rows_of(rng, n_rows, lanes, max_length):
    """(rows, factors, counts, beats): the counts are more than the length, or less, or 0."""
    vectors, beats = traffic(rng, lanes, max_length, n_rows)
    rows = [random_row(rng, len(vector)) for vector in vectors]
    counts = [int(rng.choice([len(row), max_length, rng.integers(0, len(row) + 1)])) for row in rows]
    factors = [int(codes(golden.LOG2_E * rng.choice([1, 0.125]))) for row in rows]
    beats["elements"] = np.concatenate(
        [np.append(row, rng.integers(0, 1 << 32, -len(row) % lanes)).reshape(-1, lanes) for row in rows]
    )
    n_beats = [-(-len(row) // lanes) for row in rows]
    beats |= {"factor": np.repeat(factors, n_beats), "count": np.repeat(counts, n_beats)}
    return rows, factors, counts, beats


def in_beats(row, lanes):
    """Elements, or what the lanes without one get: zeros."""
    return np.append(row, np.zeros(-len(row) % lanes, np.uint32)).reshape(-1, lanes)


def check_online(engine, seed, n_rows, *, lanes, max_length, chunk, stalled=True):
    rng = generator(seed)
    unit = OnlineSoftmax(lanes=lanes, max_length=max_length, chunk=chunk)
    rows, factors, counts, beats = rows_of(rng, n_rows, lanes, max_length)
    n_beats = len(beats["last"])
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, {"i": beats}, {"o": n_beats, "o_rows": n_rows}, stalls=stalls)
    out, out_rows = result.results["o"], result.results["o_rows"]
    start = 0
    for n, row in enumerate(rows):
        expected = golden.online(row, factors[n], counts[n], chunk)
        part = slice(start, start := start - -len(row) // lanes)
        elements = out["elements"][part].ravel()[: len(row)]
        np.testing.assert_array_equal(elements, expected.powers)
        place = np.arange(part.stop - part.start) * lanes
        np.testing.assert_array_equal(out["maximum"][part], expected.maxima[place // chunk])
        np.testing.assert_array_equal(out["shift"][part], np.where(place % chunk, 0, expected.shifts[place // chunk]))
        assert (out_rows["inverse"][n], out_rows["maximum"][n]) == (expected.inverse, expected.maxima[-1])
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    sizes = {"lanes": lanes, "max_length": max_length, "chunk": chunk}
    expected = golden.online_cycles(beats["last"], *patterns(stalls, "i", "o", "o_rows"), **sizes)
    for name, cycles in zip(("i", "o", "o_rows"), expected, strict=True):
        np.testing.assert_array_equal(result.cycles[name], cycles, err_msg=name)


@cache  # so that Verilog is emitted once
def build(lanes, max_length, chunk):
    return Softmax(lanes=lanes, max_length=max_length, chunk=chunk)


def check_softmax(engine, seed, n_rows, *, lanes, max_length, chunk, stalled=True):
    rng = generator(seed)
    unit = build(lanes, max_length, chunk)
    rows, factors, counts, beats = rows_of(rng, n_rows, lanes, max_length)
    n_beats = len(beats["last"])
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, {"i": beats}, n_beats, stalls=stalls)
    out = result.results["o"]
    start = 0
    for n, row in enumerate(rows):
        expected = golden.softmax(row, factors[n], counts[n], chunk)
        part = slice(start, start := start - -len(row) // lanes)
        np.testing.assert_array_equal(out["elements"][part].ravel()[: len(row)], expected)
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    sizes = {"lanes": lanes, "max_length": max_length, "chunk": chunk}
    take, taken = golden.softmax_cycles(beats["last"], *patterns(stalls, "i", "o"), **sizes)
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    if not stalled:
        np.testing.assert_array_equal(take, np.arange(n_beats))


@pytest.mark.parametrize(("lanes", "max_length", "chunk"), [(2, 16, 4), (4, 16, 64)])
def test_online_amaranth(lanes, max_length, chunk):
    check_online("amaranth", 140, 10, lanes=lanes, max_length=max_length, chunk=chunk)


def test_softmax_amaranth():
    check_softmax("amaranth", 141, 12, lanes=2, max_length=16, chunk=4)


def test_softmax_verilog():
    check_softmax("verilated", 142, 800, lanes=1, max_length=8, chunk=2)
    check_softmax("verilated", 143, 200, lanes=1, max_length=8, chunk=2, stalled=False)


@pytest.mark.slow
def test_online_verilog():
    check_online("verilated", 144, 1000, lanes=2, max_length=64, chunk=16)


@pytest.mark.slow
def test_softmax_full_size():
    check_softmax("verilated", 145, 150, lanes=8, max_length=4096, chunk=128)
    check_softmax("verilated", 146, 40, lanes=8, max_length=4096, chunk=128, stalled=False)


def exact(scores, count):
    x = scores.astype(np.float64)
    x = np.where(np.arange(len(x)) < count, x, -np.inf)
    weights = np.exp(x - x.max())
    return weights / weights.sum()


def ulps_of_fp16(result, reference):
    result, reference = (np.asarray(x, np.float16).view(np.int16).astype(int) for x in (result, reference))
    return np.abs(result - reference)


LENGTHS = (1, 2, 3, 7, 8, 9, 63, 127, 128, 129, 1000, 2048, 4095, 4096)


@pytest.mark.parametrize("kind", ["normal", "wide", "equal", "huge", "masked", "rising", "offset"])
def test_accuracy(kind):
    """Within one unit of the last place of FP16 of the exact softmax, and of sum 1 within 2**-10."""
    rng = generator(147)
    for length in LENGTHS:
        scores = rng.standard_normal(length).astype(np.float32)
        count = length
        match kind:
            case "wide":
                scores *= 20
            case "equal":
                scores[:] = scores[0]
            case "huge":
                scores[rng.integers(length)] = 6e4
            case "masked":
                count = int(rng.integers(1, length + 1))
            case "rising":
                scores = np.linspace(-300, 300, length, dtype=np.float32)
            case "offset":
                scores += 500
        result = decode(golden.softmax(codes(scores), LOG2_E, count, 128))
        assert abs(result.sum() - 1) <= 2.0**-10
        assert ulps_of_fp16(result, exact(scores, count)).max() <= 1
        assert not result[count:].any()


def test_online_equals_whole():
    """Powers and shifts of the online form, put together by hand, are the softmax."""
    rng = generator(148)
    scores = (rng.standard_normal(1000) * 5 + np.arange(1000) / 50).astype(np.float32)
    row = golden.online(codes(scores), LOG2_E, 1000, 64)
    total, weights = 0.0, []
    for n, shift in enumerate(row.shifts):
        chunk = decode(row.powers[64 * n : 64 * (n + 1)])
        total = total * 2.0**-shift + chunk.sum()
        weights = [weight * 2.0**-shift for weight in weights] + chunk.tolist()
    assert (row.shifts > 0).sum() > 2
    assert total * decode(row.inverse) == pytest.approx(1, abs=2e-6)
    np.testing.assert_allclose(np.array(weights) / total, exact(scores, 1000), rtol=1e-5)


def test_defined_results():
    def result(scores, count=None, chunk=2):
        scores = codes(scores)
        return decode(golden.softmax(scores, LOG2_E, len(scores) if count is None else count, chunk)).tolist()

    assert result([-np.inf] * 5) == [0] * 5
    assert result([1, 2, 3], count=0) == [0] * 3
    assert np.isnan(result([1, np.nan, 3])).all()
    assert np.isnan(result([1, 2, np.inf])).all()
    assert result([2, -np.inf, np.nan], count=2) == [pytest.approx(1, abs=1e-6), 0, 0]
    assert result([2e38, 1e38, -3e38]) == [pytest.approx(1, abs=1e-6), 0, 0]
    assert result([-3e38, -1e38], chunk=1) == [0, pytest.approx(1, abs=1e-6)]
    assert result([-5]) == [pytest.approx(1, abs=1e-6)]


@pytest.mark.parametrize("chunk", [0, 4, 12])
def test_bad_chunk(chunk):
    with pytest.raises(ValueError, match=f"chunk must be a positive multiple of the 8 elements of a beat, not {chunk}"):
        ScoreScaler(lanes=8, max_length=64, chunk=chunk)


@pytest.mark.parametrize("unit", [OnlineSoftmax, Softmax, SoftmaxSum])
def test_bad_parameters(unit):
    with pytest.raises(ValueError, match="lanes must be a power of two, not 5"):
        unit(lanes=5)
    with pytest.raises(ValueError, match="max_length must be a positive multiple of the 4 elements of a beat, not 6"):
        unit(lanes=4, max_length=6)


def test_example():
    """examples/softmax_stream.py, on a few rows: attention as in float64, from powers that leave chunk by chunk."""
    path = Path(__file__).parent.parent / "examples/softmax_stream.py"
    spec = spec_from_file_location("softmax_stream", path)
    example = module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = generator(149)
    queries, keys, values = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 48, 48))
    outputs, reference, (taken, left) = example.attend(4 * queries, keys, values, engine="amaranth", chunk=8)
    np.testing.assert_allclose(outputs, reference, atol=2e-6)
    np.testing.assert_array_equal(taken, np.arange(3 * 12))
    assert left[0] < 48
