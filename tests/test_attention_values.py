"""Values summed over chunks against the golden model: results and cycles, under stalls."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.attention.values import ValueAccumulator
from edgeaccel.config import preset
from edgeaccel.golden import values as golden
from edgeaccel.golden.array import result_beats
from edgeaccel.golden.float import decode
from edgeaccel.golden.timing import Pattern
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, random_codes

AHEAD = 6
CHANNELS = (1, 8, 10, 64, 80, 128, 256)
TAG_WIDTH = 9
SLOW = [(3, 8, 32), (4, 4, 1)]


class Work:
    """Units of slots that take turns: the inputs of the accumulator, and what comes of them.

    Parameters
    ----------
    chunks : sequence of int
        How many units a vector may have.
    again : float
        Share of units that are of the same slot as the one before.
    channels : sequence of int
        How many a vector may have.
    special : float
        Share of special values among the results.
    """

    def __init__(self, rng, config, n_units, *, slots, chunks=(1, 2, 3, 5), again=0.4, channels=CHANNELS, special=0.01):
        lanes, rows, tile = config.vector_lanes, config.rows, config.tile_channels
        self.units = {name: [] for name in ("slot", "first", "last", "channels", "tag")}
        self.shifts, self.sums, self.results, self.out = [], [], [], []
        left, slot, states = {}, 0, {}
        for _ in range(n_units):
            slot = slot if rng.random() < again else int(rng.integers(slots))
            first = slot not in left
            n_channels = int(rng.choice(channels)) if first else len(states[slot][0])
            left[slot] = int(rng.choice(chunks)) - 1 if first else left[slot] - 1
            last = left[slot] == 0
            tag = int(rng.integers(1 << TAG_WIDTH))
            for name, value in zip(self.units, (slot, first, last, n_channels, tag), strict=True):
                self.units[name].append(value)
            results = random_codes(rng, -(-n_channels // tile) * tile * rows, special=special).reshape(-1, rows)
            shift = np.where(rng.random(rows) < 0.8, rng.integers(0, 4, rows), rng.integers(0, 256, rows))
            total = codes(rng.random(rows) * 100)
            if rng.random() < 10 * special:
                total = random_codes(rng, rows, special=0.5)
            before, weights = (0, 0) if first else states[slot]
            sums = golden.accumulate(before, results[:n_channels], shift, first)
            states[slot] = sums, golden.accumulate_sum(weights, total, shift, first)
            self.shifts.append(shift)
            self.sums.append(total)
            self.results.append(results)
            if last:
                del left[slot]
                self.out.append((golden.finish(*states[slot]), slot, tag))
        self.units = {name: np.array(values, int) for name, values in self.units.items()}
        beats = {"values": np.concatenate([result_beats(config, results) for results in self.results])}
        beats["last"] = rng.integers(0, 2, len(beats["values"]))  # passes end where they will
        chunks = {name: self.units[name] for name in ("slot", "first", "last")}
        chunks |= {"shift": np.array(self.shifts), "sum": np.array(self.sums)}
        self.inputs = {"i": beats, "i_steps": self.units, "i_chunks": chunks}
        self.lanes = lanes
        self.n_beats = sum(-(-len(vector) // lanes) for vector, *_ in self.out)

    def check(self, o):
        """What came out is what should."""
        start = 0
        for vector, slot, tag in self.out:
            padding = -len(vector) % self.lanes
            part = slice(start, start := start + (len(vector) + padding) // self.lanes)
            padded = np.concatenate([vector, np.zeros((padding, vector.shape[1]), np.uint32)])
            elements = o["elements"][part].transpose(0, 2, 1).reshape(padded.shape)
            np.testing.assert_array_equal(elements, padded)
            keep = (1 << self.lanes) - 1 >> np.where(o["last"][part], padding, 0)
            np.testing.assert_array_equal(o["keep"][part], keep)
            assert not o["last"][part][:-1].any()
            assert o["last"][part][-1]
            assert (o["slot"][part] == slot).all()
            assert (o["tag"][part] == tag).all()
        assert start == len(o["last"])


@cache  # so that Verilog is emitted once
def build(rows, lanes, slots, max_head_dim):
    config = preset("tiny", rows=rows, vector_lanes=lanes)
    return ValueAccumulator(config, slots=slots, max_head_dim=max_head_dim, ahead=AHEAD, tag_width=TAG_WIDTH)


def check(engine, seed, n_units, *, rows, lanes, slots, max_head_dim=256, stalls=True, **kind):
    rng = generator(seed)
    unit = build(rows, lanes, slots, max_head_dim)
    kind = {"channels": [n for n in CHANNELS if n <= max_head_dim]} | kind
    work = Work(rng, unit.config, n_units, slots=slots, **kind)
    n_given = len(work.inputs["i"]["last"])
    if stalls is True:
        stalls = random_stalls(rng, unit, 2 * n_given)
    result = run(unit, engine, work.inputs, work.n_beats, stalls=stalls)
    work.check(result.results["o"])
    patterns = {name: Pattern((stalls or {}).get(name, ())) for name in result.cycles}
    for name, expected in golden.value_cycles(work.units, patterns, unit.config, ahead=AHEAD).items():
        np.testing.assert_array_equal(result.cycles[name], expected, err_msg=name)
    return unit, work, result


@pytest.mark.parametrize(("rows", "lanes", "slots"), [(1, 4, 3), (1, 8, 1)])
def test_amaranth(rows, lanes, slots):
    check("amaranth", 400, 12, rows=rows, lanes=lanes, slots=slots, max_head_dim=24)


@pytest.mark.parametrize(
    ("rows", "lanes", "slots"), [(2, 4, 5), *(pytest.param(*size, marks=pytest.mark.slow) for size in SLOW)]
)
def test_verilog(rows, lanes, slots):
    size = {"rows": rows, "lanes": lanes, "slots": slots}
    check("verilated", 401, 200, **size)
    check("verilated", 402, 200, **size, stalls=None)
    # A beat a cycle, if chunks come before their results.
    *_, result = check("verilated", 409, 40, **size, channels=(64, 80, 128), stalls={"i": np.arange(60) >= 50})
    np.testing.assert_array_equal(np.diff(result.cycles["i"]), 1)
    # As few as one beat a unit, of the same slot as often as not.
    check("verilated", 403, 500, **size, channels=(1, 8, 10), again=0.7, chunks=(1, 2, 9))
    check("verilated", 404, 500, **size, channels=(1, 8, 10), again=0.7, chunks=(1, 2, 9), stalls=None)
    # Chunks as far ahead as they may be, and late; results that nobody takes.
    for seed, name in enumerate(("i", "i_steps", "i_chunks", "o")):
        held = {name: np.arange(400) >= 300}
        check("verilated", 405 + seed, 40, **size, channels=(10, 64), stalls=held, chunks=(1, 3))


def test_ahead():
    """As many chunks as there is room for before the results; beats then go through without waiting."""
    stalls = {"i": np.arange(110) >= 100}
    unit, _, result = check(
        "amaranth", 410, 2 * AHEAD, rows=1, lanes=4, slots=3, max_head_dim=24, chunks=(1,), stalls=stalls
    )
    chunks = result.cycles["i_chunks"]
    np.testing.assert_array_equal(chunks[:AHEAD], 8 * np.arange(AHEAD))
    assert chunks[AHEAD] > 100
    assert result.cycles["o"][0] - result.cycles["i"][0] == unit.latency == 16


def test_shifted():
    """All shifts, against float64."""
    rng = generator(411)
    numbers = random_codes(rng, 500, special=0.1)
    numbers = numbers[~np.isnan(decode(numbers))][:, None]
    shift = np.arange(256)
    result = golden.shifted(numbers, shift)
    before = decode(numbers)
    after = before * 2.0**-shift
    after = np.where(np.minimum(abs(before), abs(after)) < 2.0**-126, np.copysign(0, before), after)
    np.testing.assert_array_equal(decode(result), after)
    np.testing.assert_array_equal(np.signbit(decode(result)), np.signbit(after))


def test_accuracy():
    """Chunks whose maximum rises, put together: the weighted mean in float64."""
    rng = generator(412)
    maxima = np.cumsum(rng.integers(0, 5, 64))
    results, totals = rng.standard_normal((64, 10)), 1 + rng.random(64)
    shifts = np.diff(maxima, prepend=maxima[0])
    sums, weights = 0, 0
    for n, shift in enumerate(shifts):
        sums = golden.accumulate(sums, codes(results[n]), shift, n == 0)
        weights = golden.accumulate_sum(weights, codes(totals[n]), shift, n == 0)
    scale = 2.0 ** (maxima - maxima[-1])
    np.testing.assert_allclose(decode(golden.finish(sums, weights)), scale @ results / (scale @ totals), rtol=1e-5)


def test_defined_results():
    def result(values, total):
        return decode(golden.finish(codes(values), codes(total))).tolist()

    assert result([1, -1, 0], 2) == [0.5, -0.5, 0]
    assert result([1, -1, 0], 0) == [0, 0, 0]  # nothing but masked positions
    assert np.isnan(result([np.nan, np.inf], 0)).all()
    assert np.isnan(result([1, 0], np.nan)).all()
    assert result([1, 2], np.inf) == [0, 0]


def test_no_tag():
    unit = ValueAccumulator(preset("tiny"), max_head_dim=8)
    assert "tag" not in unit.i_steps.p.shape().members | unit.o.p.shape().members


def test_bad_parameters():
    with pytest.raises(
        ValueError, match="max_head_dim must be a positive multiple of the 4 elements of a beat, not 66"
    ):
        ValueAccumulator(preset("tiny"), max_head_dim=66)
    for name, least in (("slots", 1), ("ahead", 1), ("tag_width", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least {least}, not {least - 1}"):
            ValueAccumulator(preset("tiny"), **{name: least - 1})
