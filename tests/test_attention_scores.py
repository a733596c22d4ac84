"""Scores to weights against the golden model, and that against float64: results and cycles, under stalls."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.attention.scores import ScorePath
from edgeaccel.config import preset
from edgeaccel.golden import softmax
from edgeaccel.golden.float import decode
from edgeaccel.golden.scores import scores_cycles, weights
from edgeaccel.golden.timing import Pattern
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator

SCALES = np.array([0, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0xFFFF, 0x0001, 0x7BFF], np.uint16)  # zeros, infinities, NaNs ...


def random_scores(rng, n):
    """Scores of one of the kinds that matter."""
    scores = rng.standard_normal(n) * rng.choice([1, 8, 300])
    match rng.integers(9):
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
            return np.where(rng.random(n) < 0.5, rng.integers(0, 1 << 32, n, dtype=np.uint32), codes(scores))
        case 6:
            scores += rng.choice([-2000, 2000])
    return codes(scores)


def random_scales(rng, n):
    scales = np.abs(rng.standard_normal(n)).astype(np.float16).view(np.uint16)
    return np.where(rng.random(n) < 0.1, rng.choice(SCALES, n), scales)


def random_bounds(rng, n, block):
    """(lo, hi): all, a causal mask, a window, any, nothing."""
    any_two = rng.integers(0, block + 1, 2)
    return [(0, n), (0, any_two[0]), np.sort(any_two), any_two, (0, 0), (0, block), (n, block)][rng.integers(7)]


class Work:
    """Units of random slots, and what comes of them; runs of one slot, and a slot begins anew now and then."""

    def __init__(self, rng, config, slots, n_units, *, beats=None):
        lanes, rows, most = config.vector_lanes, config.rows, config.block // config.vector_lanes
        if beats is None:
            beats = np.choose(rng.integers(0, 3, n_units), [1, most, rng.integers(1, most + 1, n_units)])
        self.beats = np.broadcast_to(beats, n_units)
        slot, running = 0, [None] * slots
        self.steps = {name: [] for name in ("slot", "first", "last", "beats", "factor", "lo", "hi", "address")}
        scores, scales, values, chunks = [], [], [], []
        for n_beats in self.beats:
            n = n_beats * lanes
            slot = slot if rng.random() < 0.4 else int(rng.integers(slots))
            first = running[slot] is None or rng.random() < 0.15
            factor = int(codes(softmax.LOG2_E * rng.choice([1, 0.125])))
            scores.append(np.array([random_scores(rng, n) for _ in range(rows)]))
            scales.append(random_scales(rng, n))
            lo, hi = np.transpose([random_bounds(rng, n, config.block) for _ in range(rows)])
            before = [0] * rows if running[slot] is None else running[slot]
            units = [
                weights(scores[-1][row], scales[-1], lo[row], hi[row], factor, before[row], first)
                for row in range(rows)
            ]
            running[slot] = [unit.maximum for unit in units]
            values.append(np.array([unit.weights for unit in units]))
            chunks.append(([unit.shift for unit in units], [unit.sum for unit in units]))
            address = rng.integers(config.buffer_words - n_beats + 1)
            asked = slot, first, rng.integers(2), n_beats, factor, lo, hi, address
            for name, value in zip(self.steps, asked, strict=True):
                self.steps[name].append(value)
        self.steps = {name: np.array(values) for name, values in self.steps.items()}
        ends = np.cumsum(self.beats)
        place = np.arange(ends[-1]) - np.repeat(ends - self.beats, self.beats)
        self.weights = {
            "address": np.repeat(self.steps["address"], self.beats) + place,
            "elements": _in_beats(values, lanes),
            "rows": np.full(ends[-1], (1 << rows) - 1),
            "event": np.isin(np.arange(ends[-1]), ends - 1),
        }
        shifts, sums = zip(*chunks, strict=True)
        self.chunks = {name: self.steps[name] for name in ("slot", "first", "last")} | {"shift": shifts, "sum": sums}
        self.inputs = {
            "i": {"values": _in_beats(scores, lanes), "last": rng.integers(0, 2, ends[-1])},
            "i_steps": self.steps,
            "i_scales": np.concatenate(scales).reshape(-1, lanes),
        }
        self.counts = {"o": ends[-1], "o_chunks": n_units}


def _in_beats(units, lanes):
    """Of units [rows, positions] the beats [beats, rows, lanes]."""
    return np.concatenate([unit.reshape(len(unit), -1, lanes).swapaxes(0, 1) for unit in units])


@cache  # so that Verilog is emitted once
def build(config, slots):
    return ScorePath(config, slots=slots)


def check(engine, seed, n_units, config, *, slots=4, beats=None, stalled=True, stalls=None):
    """Random units through the path: results, and the cycles of all streams; `stalls` in place of random ones."""
    rng = generator(seed)
    path = build(config, slots)
    work = Work(rng, config, slots, n_units, beats=beats)
    n_beats = int(work.beats.sum())
    if stalls is None:
        stalls = random_stalls(rng, path, 2 * n_beats) if stalled else {}
    result = run(path, engine, work.inputs, work.counts, stalls=stalls)
    for stream, expected in (("o", work.weights), ("o_chunks", work.chunks)):
        for name, values in expected.items():
            np.testing.assert_array_equal(result.results[stream][name], values, err_msg=f"{stream} {name}")
    patterns = {name: Pattern(stalls.get(name, ())) for name in result.cycles}
    for name, expected in scores_cycles(work.beats, patterns, config).items():
        np.testing.assert_array_equal(result.cycles[name], expected, err_msg=name)
    if not stalls:
        np.testing.assert_array_equal(result.cycles["i"], np.arange(n_beats))
    return path, result


def config_of(lanes, rows):
    return preset("tiny", vector_lanes=lanes, rows=rows)


def test_amaranth():
    check("amaranth", 300, 8, config_of(2, 2))


ALL_SIZES = [(2, 3, 3), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((1, 1, 1), (4, 4, 3), (8, 2, 32)))]


@pytest.mark.parametrize(("lanes", "rows", "slots"), ALL_SIZES)
def test_verilog(lanes, rows, slots):
    config = config_of(lanes, rows)
    check("verilated", 301, 300, config, slots=slots)
    check("verilated", 302, 60, config, slots=slots, stalled=False)


@pytest.mark.parametrize("beats", [1, 2, 16])
def test_line_rate(beats):
    """Units of one size without stalls: the latencies that are stated, and one beat a cycle."""
    path, result = check("verilated", 303, 150, config_of(2, 3), slots=3, beats=beats, stalled=False)
    n = 150 * beats
    assert path.latency == 42
    assert path.chunk_latency == 67
    np.testing.assert_array_equal(result.cycles["o"], np.arange(n) + path.latency + beats - 1)
    np.testing.assert_array_equal(
        result.cycles["o_chunks"], np.arange(beats - 1, n, beats) + path.chunk_latency + beats - 1
    )


@pytest.mark.parametrize("stream", ["i_scales", "o", "o_chunks"])
def test_full(stream):
    """One stream waits until units of one beat fill all that is in front of it; none is lost."""
    check("verilated", 307, 200, config_of(2, 3), slots=3, beats=1, stalls={stream: np.zeros(300, bool)})


@pytest.mark.slow
def test_full_size():
    """A row of vcu128, a whole chunk a unit or less."""
    config = preset("vcu128", rows=1)
    check("verilated", 304, 120, config, slots=32)
    path, _ = check("verilated", 305, 30, config, slots=32, stalled=False)
    assert path.latency == 44


def test_whole_attention():
    """Weights, shifts and sums of chunks, put together, are softmax times the values in float64."""
    rng = generator(306)
    scores, values = rng.standard_normal(300) * 5, np.abs(rng.standard_normal(300)).astype(np.float16)
    exact = np.exp(scores.astype(np.float32).astype(np.float64))
    running, total, weighted = 0, 0.0, 0.0
    for n in range(0, 300, 64):
        part = slice(n, n + 64)
        unit = weights(
            codes(scores[part]), values[part].view(np.uint16), 0, 300 - n, codes(softmax.LOG2_E), running, n == 0
        )
        running = unit.maximum
        total = total * 2.0**-unit.shift + decode(unit.sum)
        weighted = weighted * 2.0**-unit.shift + decode(unit.weights).sum()
    np.testing.assert_allclose(weighted / total, (exact * values).sum() / exact.sum(), rtol=2e-6)


def test_masked():
    """What is masked has no influence, nor has a beat that is filled up."""
    scores, scales = codes([1, 2, np.nan, np.inf]), np.array([0x3C00, 0x3C00, 0x7E00, 0x7C00])
    factor = codes(1)
    unit = weights(scores, scales, 0, 2, factor, 0, True)
    assert decode(unit.weights).tolist() == [0.5, 1, 0, 0]
    assert (decode(unit.maximum), unit.shift, decode(unit.sum)) == (2, 0, 1.5)
    alone = weights(scores[:2], scales[:2], 0, 2, factor, 0, True)
    assert alone[1:] == unit[1:]
    nothing = weights(scores, scales, 3, 2, factor, codes(np.nan), False)
    assert (nothing.weights.tolist(), nothing.shift, nothing.sum) == ([0] * 4, 0, 0)


def test_bad_parameters():
    with pytest.raises(ValueError, match="activations must be 'fp32' for attention, not 'fp16'"):
        ScorePath(preset("tiny", activations="fp16"))
    with pytest.raises(ValueError, match="slots must be at least 1, not 0"):
        ScorePath(preset("tiny"), slots=0)
