"""Rotary embedding against the golden model, and that against complex numbers: results and cycles, under stalls."""

from functools import cache

import numpy as np
import pytest

from edgeaccel.golden import rotary as golden
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.float import decode
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, patterns, random_codes, random_lengths
from edgeaccel.vector.rotary import Rotary, check_positions, check_rotation


def heads(rng, n_heads, *, lanes, max_length, half=None):
    """Random heads, of lengths, rotations and layouts of their own: (vectors, rotated, half)."""
    vectors, rotated, layouts = [], [], []
    for length in random_lengths(rng, n_heads, lanes, max_length):
        layout = bool(rng.integers(0, 2)) if half is None else half
        step = 2 * lanes if layout else 2
        n = int(rng.integers(0, length // step + 1)) * step
        n = int(length) // step * step if rng.random() < 0.4 else n
        check_rotation(int(length), n, half=layout, lanes=lanes, max_length=max_length)
        vectors.append(random_codes(rng, length, special=0.05))
        rotated.append(n)
        layouts.append(layout)
    return vectors, rotated, layouts


@cache  # so that Verilog is emitted once
def build(lanes, max_length):
    return Rotary(lanes=lanes, max_length=max_length)


def check(engine, seed, n_heads, *, lanes, max_length, half=None, stalled=True):
    rng = generator(seed)
    unit = build(lanes, max_length)
    vectors, rotated, layouts = heads(rng, n_heads, lanes=lanes, max_length=max_length, half=half)
    beats = golden_vector.beats(vectors, lanes, max_length, filler=int(rng.integers(0, 1 << 32)))
    n_beats = len(beats["last"])
    beats_of = [-(-len(vector) // lanes) for vector in vectors]
    beats |= {"rotated": np.repeat(rotated, beats_of), "half": np.repeat(layouts, beats_of)}
    # Any numbers, also where the table does not count; it has beats for those that are rotated alone.
    table = {name: random_codes(rng, n_beats * lanes).reshape(n_beats, lanes) for name in ("cos", "sin")}
    roles = golden.beat_roles([len(vector) for vector in vectors], rotated, layouts, lanes)
    taken = {name: codes[roles[0]] for name, codes in table.items()}
    stalls = random_stalls(rng, unit, 2 * n_beats) if stalled else {}
    result = run(unit, engine, {"i": beats, "i_table": taken}, n_beats, stalls=stalls)
    out = result.results["o"]
    start = 0
    for vector, n, layout in zip(vectors, rotated, layouts, strict=True):
        part = slice(start, start := start - -len(vector) // lanes)
        cosines, sines = (table[name][part].ravel() for name in ("cos", "sin"))
        expected = golden.rotate(vector, cosines, sines, n, half=layout)
        np.testing.assert_array_equal(out["elements"][part].ravel()[: len(vector)], expected)
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    expected = golden.rotary_cycles(roles, *patterns(stalls, "i", "i_table", "o"), lanes=lanes, max_rotated=max_length)
    for name, cycles in zip(("i", "i_table", "o"), expected, strict=True):
        np.testing.assert_array_equal(result.cycles[name], cycles, err_msg=name)
    return result


@pytest.mark.parametrize("half", [False, True, None])
@pytest.mark.parametrize(("lanes", "max_length"), [(2, 16), (4, 40)])
def test_amaranth(lanes, max_length, half):
    check("amaranth", 150, 12, lanes=lanes, max_length=max_length, half=half)


def test_verilog():
    check("verilated", 151, 1000, lanes=2, max_length=32)
    for half in (False, True):
        result = check("verilated", 152, 100, lanes=2, max_length=32, half=half, stalled=False)
        np.testing.assert_array_equal(result.cycles["i"], np.arange(len(result.cycles["i"])))


@pytest.mark.slow
def test_full_size():
    check("verilated", 155, 500, lanes=4, max_length=256)


@pytest.mark.parametrize("half", [False, True])
def test_rotation_of_complex_numbers(half):
    """Pairs are complex numbers, and position p turns them by p * base**(-2 j / n)."""
    rng = generator(153)
    x = rng.standard_normal(96).astype(np.float32)
    rotated, position, base = 64, 1234, 500_000.0
    cosines, sines = golden.table([position], rotated, base=base, half=half)
    result = decode(golden.rotate(codes(x), cosines[0], sines[0], rotated, half=half))
    pairs = x[:32] + 1j * x[32:64] if half else x[0:64:2] + 1j * x[1:64:2]
    turned = pairs * np.exp(1j * position * base ** (-np.arange(32) / 32))
    expected = np.concatenate([turned.real, turned.imag]) if half else np.stack([turned.real, turned.imag], 1).ravel()
    np.testing.assert_allclose(result[:64], expected, atol=1e-6)
    np.testing.assert_array_equal(result[64:], x[64:])


def test_layouts_are_the_same_rotation():
    rng = generator(154)
    x = rng.standard_normal(32).astype(np.float32)
    order = np.concatenate([np.arange(0, 32, 2), np.arange(1, 32, 2)])
    tables = [golden.table([77], 32, half=half) for half in (False, True)]
    pairs = golden.rotate(codes(x), tables[0][0][0], tables[0][1][0], 32, half=False)
    split = golden.rotate(codes(x[order]), tables[1][0][0], tables[1][1][0], 32, half=True)
    np.testing.assert_array_equal(pairs[order], split)


def test_table_scaling():
    """Linear scaling divides positions; Llama 3.1 keeps fast frequencies, divides slow ones by 8."""
    plain = golden.table(100, 8)
    np.testing.assert_array_equal(golden.table(np.arange(100) * 4, 8, linear=4)[0], plain[0])
    assert decode(golden.table([3], 2)[1][0, 0]) == np.float32(np.sin(3))
    frequencies = 500_000.0 ** (-np.arange(64) / 64)
    scaled = golden.Llama3Scaling().apply(frequencies)
    wavelengths = 2 * np.pi / frequencies
    np.testing.assert_allclose(scaled[wavelengths < 2048], frequencies[wavelengths < 2048])
    np.testing.assert_allclose(scaled[wavelengths > 8192], frequencies[wavelengths > 8192] / 8)
    between = (wavelengths > 2048) & (wavelengths < 8192)
    assert between.any()
    smooth = (8192 / wavelengths[between] - 1) / 3
    np.testing.assert_allclose(scaled[between], frequencies[between] * ((1 - smooth) / 8 + smooth))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "a vector must have 1 to 64 elements, not 0"),
        ((65, 0), "a vector must have 1 to 64 elements, not 65"),
        ((33, 33), "rotated must be an even number of the 33 dimensions of a head, not 33"),
        ((32, 34), "rotated must be an even number of the 32 dimensions of a head, not 34"),
        ((32, 24), "rotated must be a multiple of 16 to be split in halves of whole beats of 8, not 24"),
    ],
)
def test_refused_rotations(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_rotation(*arguments, half=True, lanes=8, max_length=64)


def test_too_many_dimensions():
    with pytest.raises(ValueError, match="rotated must be at most 32 dimensions, not 48"):
        check_rotation(64, 48, half=False, lanes=8, max_length=64, max_rotated=32)
    with pytest.raises(ValueError, match="max_rotated must be a multiple of 8 to 64, not 12"):
        Rotary(lanes=8, max_length=64, max_rotated=12)


@pytest.mark.parametrize("rotated", [0, 1, 63])
def test_refused_tables(rotated):
    with pytest.raises(ValueError, match=f"rotated must be an even number of dimensions, not {rotated}"):
        golden.table(4, rotated)


def test_positions_past_the_table():
    check_positions(4096, 4096)
    with pytest.raises(ValueError, match="a program of 4097 positions needs a larger table than one of 4096"):
        check_positions(4097, 4096)


def test_bad_lanes():
    with pytest.raises(ValueError, match="lanes must be at least 2, the elements of a pair, not 1"):
        Rotary(lanes=1)
