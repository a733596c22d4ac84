"""Group systolic array against the golden array: results and cycles of every stream, under stalls."""

import functools

import numpy as np
import pytest

from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import array as golden
from edgeaccel.golden.pe import align
from edgeaccel.quantise import quantise
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.systolic import GroupArray
from edgeaccel.tiles import pack

ALL = tuple(FORMATS)


def random_operator(rng, config, format, n_channels, n_inputs, *, n_rows=None, first_group=0, n_groups=None, n_sets=1):
    """Beats, words of each group, and result beats of a random matrix times `n_sets` sets of random vectors."""
    weights = rng.standard_normal((n_channels, n_inputs)).astype(np.float32)
    tiles = pack(quantise(weights, format, block=config.block_of(format)), lanes=config.lanes)
    sets = [_set(rng, config, format, n_inputs, n_rows) for _ in range(n_sets)]
    activations = [np.stack(parts) for parts in zip(*sets, strict=True)]
    groups = {"first_group": first_group, "n_groups": n_groups}
    results = golden.operator_results(config, tiles, format, *activations)
    return (
        golden.operator_beats(config, format, len(tiles), n_inputs, *activations, **groups),
        repeated_words(config, format, n_inputs, golden.group_words(config, tiles, **groups), n_sets),
        golden.result_beats(config, results, n_groups=n_groups),
    )


def repeated_words(config, format, n_inputs, words, n_sets):
    """Words of each group as it takes them: those of each tile once for each set."""
    layout = config.layout(format)
    sizes = [layout.tile_words(min(layout.inputs, n_inputs - n)) for n in range(0, n_inputs, layout.inputs)]
    row = sum(sizes)
    ends = np.cumsum(sizes)
    order = np.concatenate(
        [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True) for _ in range(n_sets)]
    )
    return [of.reshape(-1, row, of.shape[-1])[:, order].reshape(-1, of.shape[-1]) for of in words]


def _set(rng, config, format, n_inputs, n_rows):
    """(mantissas, exponents, nans) of random vectors."""
    width = golden.tile_inputs(config, format)
    vectors = np.zeros((config.rows, -(-n_inputs // width) * width))
    vectors[: n_rows or config.rows, :n_inputs] = rng.standard_normal((n_rows or config.rows, n_inputs)).astype(
        np.float16
    )
    vectors[rng.random(vectors.shape) < 0.001] = np.inf
    aligned = [
        [align(values, "fp16", config.mantissa_bits) for values in row]
        for row in vectors.reshape(config.rows, -1, width)
    ]
    mantissas = np.array([[mantissa for mantissa, _, _ in row] for row in aligned])
    exponents = np.array([[exponent for _, exponent, _ in row] for row in aligned])
    nans = np.array([[int(nan) for _, _, nan in row] for row in aligned])
    # What the mantissas of a block with an infinity are does not matter.
    mantissas[nans.astype(bool)] = 77
    return mantissas, exponents, nans


array_of = functools.cache(GroupArray)  # whose Verilog is emitted once


def check(config, engine, seed, operators, *, stalled=True, closed=None):
    """Run operators in a row: (format, channels, inputs) each, and the groups if not all take part."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    array = array_of(config)
    parts = [
        random_operator(rng, config, *shape, **groups[0] if groups else {})
        for *shape, groups in [(*operator[:3], operator[3:]) for operator in operators]
    ]
    beats = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    words = [np.concatenate([part[1][n] for part in parts]) for n in range(config.groups)]
    expected = np.concatenate([part[2] for part in parts])
    stalls = random_stalls(rng, array, 2 * len(beats["last"]), share=0.8) if stalled else {}
    stalls |= closed or {}

    codes = {f"i_words__{n}": _codes(group) for n, group in enumerate(words)}
    result = run(array, engine, {"i_beats": beats, **codes}, len(expected), stalls=stalls)
    np.testing.assert_array_equal(result.results["o"]["values"], expected)
    ends = np.cumsum(beats["take"][beats["pass_start"]]) * config.tile_channels // config.vector_lanes - 1
    np.testing.assert_array_equal(np.flatnonzero(result.results["o"]["last"]), ends)

    cycles = golden.array_cycles(config, beats, [len(group) for group in words], stalls)
    for name, expected in cycles.items():
        np.testing.assert_array_equal(result.cycles[name], expected, err_msg=name)
    return result


def _codes(words):
    """Words [n, lanes / 2] as codes [n, lanes]."""
    return np.stack([words & 15, words >> 4], axis=-1).reshape(len(words), -1)


@pytest.mark.parametrize(("groups", "engine"), [(1, "amaranth"), (2, "amaranth"), (4, "verilated")])
@pytest.mark.parametrize("format", ALL)
def test_formats(groups, engine, format):
    config = preset("tiny", groups=groups, formats=ALL)
    shapes = [(1, 1), (9, 32), (40, 172)]
    check(config, engine, 50, [(format, *shape) for shape in shapes])


@pytest.mark.parametrize("format", ALL)
def test_formats_in_a_row_of_operators(format):
    """Operators of other formats before and behind, fewer tiles than groups, and no stall between."""
    config = preset("tiny", groups=4, formats=ALL)
    check(config, "verilated", 51, [(format, 100, 40), ("int16", 8, 32), (format, 24, 100), ("mxfp4", 33, 65)])


def last_tiles(config, format):
    """Numbers of inputs at all edges of a last tile: of its words, of a block, of a whole one."""
    word, tile = golden.word_inputs(config, format), golden.tile_inputs(config, format)
    return sorted({1, word, word + 1, tile - 1, tile, tile + 1, tile + word, 2 * tile - word})


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("format", ALL)
def test_last_tiles(format, stalled):
    """Last tiles of all lengths in a row, shorter and longer ones behind each other."""
    config = preset("tiny", groups=4, formats=ALL)
    sizes = last_tiles(config, format)
    sizes = [size for pair in zip(sizes, reversed(sizes), strict=True) for size in pair]
    check(config, "verilated", 57, [(format, 40, size) for size in sizes], stalled=stalled)


def test_last_tiles_of_mixed_formats():
    """In blocks of three words and six."""
    config = preset("tiny", block=48, buffer_inputs=480, formats=ALL)
    operators = [(format, 20, size) for format in ALL for size in last_tiles(config, format)]
    order = np.random.default_rng(58).permutation(len(operators))
    check(config, "verilated", 58, [operators[n] for n in order])
    operators = [("int4", 16, 48), ("int4", 16, 1), ("int16", 16, 20), ("int8", 16, 40)]
    check(config, "amaranth", 59, operators)


@pytest.mark.parametrize("engine", [pytest.param("amaranth", marks=pytest.mark.slow), "verilated"])
def test_some_of_the_groups(engine):
    """Passes of neighbours at the same time, before and behind passes of all: results leave in the order of passes."""
    config = preset("tiny", groups=4)
    halves = [{"first_group": 0, "n_groups": 2}, {"first_group": 2, "n_groups": 2}, {"first_group": 3, "n_groups": 1}]
    operators = [("int8", 16, 32, group) for group in 3 * halves]
    check(config, engine, 54, [("int4", 40, 64), *operators, ("int16", 25, 40)])
    check(config, engine, 55, operators, stalled=False)


@pytest.mark.parametrize("port", [0, 1])
def test_a_port_that_waits_long(port):
    """Its group's store fills up, and the hop before it; nothing is lost."""
    config = preset("tiny")
    closed = {f"i_words__{port}": np.arange(600) >= 500}
    check(config, "amaranth", 56, [("int8", 16, 500)], stalled=False, closed=closed)


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("sets", [2, 3])
def test_sets(sets, stalled):
    """Operators for all sets, for some, and for one, one behind the other."""
    config = preset("tiny", groups=4, sets=sets, formats=ALL)
    counts = [sets, 1, 2, sets, 1, 2]
    shapes = [
        ("int4", 100, 70),
        ("int8", 20, 40),
        ("int16", 40, 33),
        ("mxfp4", 33, 65),
        ("int4", 9, 1),
        ("int8", 33, 96),
    ]
    operators = [(*shape, {"n_sets": count}) for shape, count in zip(shapes, counts, strict=True)]
    check(config, "verilated", 60, operators, stalled=stalled)


@pytest.mark.slow
def test_sets_in_amaranth():
    config = preset("tiny", sets=2)
    check(
        config, "amaranth", 61, [("int8", 20, 40, {"n_sets": 2}), ("int4", 40, 70, {"first_group": 1, "n_groups": 1})]
    )


def test_two_scalers():
    """Words that complete two block sums each."""
    config = preset("tiny", lanes=64, formats=("int4", "int8", "mxfp4"))
    assert config.scalers == 2
    check(config, "amaranth", 52, [("mxfp4", 70, 200), ("int4", 40, 100), ("int8", 10, 32), ("mxfp4", 16, 33)])


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 3])
def test_four_scalers(rows):
    """With 128 lanes MXFP4 completes four block sums a cycle."""
    config = preset("vu9p", groups=2, rows=rows, formats=("int4", "int8", "mxfp4"))
    assert config.scalers == 4
    check(config, "verilated", 52, [("mxfp4", 70, 200), ("int4", 64, 300), ("int8", 10, 128), ("mxfp4", 32, 33)])


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "rows"), [(4, 1), (4, 4), (32, 1)])
def test_full_size(groups, rows):
    config = preset("vcu128", groups=groups, rows=rows)
    shapes = [("int4", 1000, 172), ("int8", 40, 300), ("int16", 33, 128), ("int4", 1, 1)]
    check(config, "verilated", 53, shapes)
