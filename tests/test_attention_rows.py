"""Rows one after the other against the golden model: results and cycles, under stalls."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.attention.rows import RowSerialiser
from edgeaccel.config import preset
from edgeaccel.golden import rows as golden
from edgeaccel.golden import vector as golden_vector
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import generator, patterns, random_codes, random_lengths

FIELDS = {"tag": 7, "slot": range(5)}


@cache  # so that Verilog is emitted once
def build(rows, lanes, max_length):
    return RowSerialiser(preset("tiny", rows=rows, vector_lanes=lanes), max_length=max_length, fields=FIELDS)


def check(engine, seed, n_vectors, *, rows, lanes, max_length, wanted=None, lengths=None, stalls=True):
    rng = generator(seed)
    unit = build(rows, lanes, max_length)
    lengths = random_lengths(rng, n_vectors, lanes, max_length) if lengths is None else np.full(n_vectors, lengths)
    wanted = rng.integers(0, rows + 1, n_vectors) if wanted is None else np.full(n_vectors, wanted)
    vectors = [random_codes(rng, rows * length).reshape(rows, length) for length in lengths]
    by_row = [golden_vector.beats([vector[row] for vector in vectors], lanes, max_length) for row in range(rows)]
    beats = by_row[0] | {"elements": np.stack([one["elements"] for one in by_row], axis=1)}
    steps = {"rows": wanted, "tag": rng.integers(0, 128, n_vectors), "slot": rng.integers(0, 5, n_vectors)}
    if stalls is True:
        stalls = random_stalls(rng, unit, 2 * sum(len(vector) for vector in vectors))
    expected = golden.serialise(vectors, wanted)
    out = golden_vector.beats([vector for *_, vector in expected], lanes, max_length)
    result = run(unit, engine, {"i": beats, "i_steps": steps}, len(out["last"]), stalls=stalls)
    o = result.results["o"]
    held = out["keep"][:, None] >> np.arange(lanes, dtype=np.uint64) & 1 != 0
    np.testing.assert_array_equal(o["elements"][held], out["elements"][held])
    for name in ("keep", "last"):
        np.testing.assert_array_equal(o[name], out[name])
    repeats = [-(-len(vector) // lanes) for *_, vector in expected]
    numbers, given = (np.repeat([one[n] for one in expected], repeats) for n in (0, 1))
    np.testing.assert_array_equal(o["row"], given)
    for name in FIELDS:
        np.testing.assert_array_equal(o[name], steps[name][numbers])
    names = ("i", "i_steps", "o")
    stream_patterns = dict(zip(names, patterns(stalls or {}, *names), strict=True))
    for name, cycles in golden.row_cycles(-(-lengths // lanes), wanted, stream_patterns).items():
        np.testing.assert_array_equal(result.cycles[name], cycles, err_msg=name)
    return unit, result


@pytest.mark.parametrize(("rows", "lanes", "max_length"), [(1, 4, 4), (2, 4, 20), (3, 8, 24), (4, 1, 7)])
def test_amaranth(rows, lanes, max_length):
    check("amaranth", 420, 30, rows=rows, lanes=lanes, max_length=max_length)
    check("amaranth", 421, 20, rows=rows, lanes=lanes, max_length=max_length, stalls=None)


def test_verilog():
    size = {"rows": 4, "lanes": 8, "max_length": 256}
    check("verilated", 422, 200, **size)
    for seed, name in enumerate(("i", "i_steps", "o")):
        check("verilated", 423 + seed, 12, **size, stalls={name: np.arange(900) >= 700})


def test_rate():
    """One beat a cycle comes out, and with one row one is taken too; the first after two cycles."""
    size = {"lanes": 8, "max_length": 64, "lengths": 64, "stalls": None}
    unit, result = check("amaranth", 426, 10, rows=1, wanted=1, **size)
    np.testing.assert_array_equal(result.cycles["i"], np.arange(80))
    assert result.cycles["o"][0] - result.cycles["i"][7] == unit.latency == 2
    _, result = check("amaranth", 427, 6, rows=3, wanted=3, **size)
    np.testing.assert_array_equal(np.diff(result.cycles["o"]), 1)


def test_bad_parameters():
    with pytest.raises(ValueError, match="max_length must be a positive multiple of the 4 elements of a beat, not 66"):
        RowSerialiser(preset("tiny"), max_length=66)
    with pytest.raises(ValueError, match="fields must have other names than those of a beat, not keep, rows"):
        RowSerialiser(preset("tiny"), fields={"rows": 2, "keep": 1, "tag": 1})
