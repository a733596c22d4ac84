"""Results of the array through the epilogue against the golden models: alone, and behind the array itself."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from test_array import random_operator
from test_vector_epilogue import ALL, EPSILON, FUNCTIONS, random_steps
from test_vector_epilogue import cut as cut_operands

from edgeaccel.config import preset
from edgeaccel.golden import epilogue as golden_epilogue
from edgeaccel.golden import norm as golden_norm
from edgeaccel.golden import rotary as golden_rotary
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.array import array_cycles, result_beats
from edgeaccel.golden.path import cut, path_cycles
from edgeaccel.golden.timing import Pattern
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.sim.vectors import codes, generator, random_codes, random_lengths
from edgeaccel.systolic import GroupArray
from edgeaccel.vector import Function, FunctionUnit, ResultPath
from edgeaccel.vector.path import ResultCutter


class ArrayPath(wiring.Component):
    """The array, and behind it the path."""

    def __init__(self, config, **settings):
        self.array, self.path = GroupArray(config), ResultPath(config, **settings)
        array, path = self.array.signature.members, self.path.signature.members
        members = {name: array[name] for name in ("i_beats", "i_words")}
        super().__init__(members | {name: member for name, member in path.items() if name != "i"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        m.submodules.path = path = self.path
        wiring.connect(m, array.o, path.i)
        wiring.connect(m, wiring.flipped(self.i_beats), array.i_beats)
        for n, words in enumerate(self.i_words):
            wiring.connect(m, wiring.flipped(words), array.i_words[n])
        for name in path.signature.members:
            if name != "i":
                wiring.connect(m, getattr(path, name), wiring.flipped(getattr(self, name)))
        return m


class Work:
    """What is done to the vectors that results are cut into: the path's inputs, and what comes of it.

    Parameters
    ----------
    results : FP32 codes [channels, rows]
    lengths : int array
        Channels of each vector.
    on : list, for each vector the names of its steps or None for any
    """

    def __init__(self, rng, config, results, lengths, on, *, max_rotated, layer=False):
        lanes, rows = config.vector_lanes, config.rows
        self.lengths, self.lanes = lengths, lanes
        sizes = {"lanes": lanes, "max_rotated": max_rotated}
        shared, wanted = zip(
            *(random_steps(rng, n, on=names, **sizes) for n, names in zip(lengths, on, strict=True)), strict=True
        )
        steps = [[_of_row(rng, one, length) for _ in range(rows)] for one, length in zip(shared, lengths, strict=True)]
        factors = [[codes(7) if row.factor is None else row.factor for row in one] for one in steps]
        centres = rng.integers(0, 2, len(lengths)) * layer
        wanted = np.array(wanted, bool)
        asks = {
            name: np.array([getattr(one, name) is not None for one in shared])
            for name in ("bias", "factors", "residual")
        }
        self.steps = asks | {
            "channels": lengths,
            "scale": np.array([one.factor is not None for one in shared]),
            "factor": np.array(factors, np.uint32),
            "rotated": np.array([one.rotated for one in shared]),
            "half": np.array([one.half for one in shared]),
            "activate": np.array([one.activation is not None for one in shared]),
            "function": np.array([Function[(one.activation or "silu").upper()].value for one in shared]),
            "statistics": wanted,
            "inverse_length": codes(1 / lengths),
            "epsilon": np.full(len(lengths), EPSILON),
        }
        if layer:
            self.steps["centre"] = centres

        beats_of = -(-lengths // lanes)
        ends = np.cumsum(beats_of) - 1
        self.last = np.zeros(beats_of.sum(), bool)
        self.last[ends] = True
        self.flags = {name: np.repeat(values, beats_of) for name, values in (asks | {"statistics": wanted}).items()}
        self.flags["last"] = self.last
        self.roles = golden_rotary.beat_roles(lengths, self.steps["rotated"], self.steps["half"], lanes)
        self.inputs = {"i_steps": self.steps, "i_bias": _operand([one.bias for one in shared], lanes)}
        for name in ("factors", "residual"):
            by_row = [_operand([getattr(one[row], name) for one in steps], lanes) for row in range(rows)]
            self.inputs[f"i_{name}"] = np.stack(by_row, axis=1)
        self.inputs["i_table"] = {}
        for field, name in (("cos", "cosines"), ("sin", "sines")):
            by_row = []
            for row in range(rows):
                tables = [getattr(one[row], name) for one in steps]
                none = [np.zeros(n * lanes, np.uint32) for n in beats_of]
                tables = [other if x is None else x for x, other in zip(tables, none, strict=True)]
                by_row.append(cut_operands(tables, lanes)[self.roles[0]])
            self.inputs["i_table"][field] = np.stack(by_row, axis=1)

        self.vectors = [
            np.array([golden_epilogue.epilogue(*row) for row in zip(vector, one, strict=True)])
            for vector, one in zip(cut(results, lengths, config.tile_channels), steps, strict=True)
        ]
        self.statistics = np.array(
            [
                [golden_norm.statistics(row, codes(1 / row.size), EPSILON, centre=centre) for row in vector]
                for vector, centre, is_wanted in zip(self.vectors, centres, wanted, strict=True)
                if is_wanted
            ]
        ).reshape(-1, rows, 2)
        self.counts = {"o": len(self.last), "o_statistics": len(self.statistics)}

    def check(self, results):
        """What came out is what should."""
        out = results["o"]
        for row in range(out["elements"].shape[1]):
            beats = golden_vector.beats([vector[row] for vector in self.vectors], self.lanes, max(self.lengths))
            kept = beats["keep"][:, None] >> np.arange(self.lanes, dtype=np.uint64) & 1 != 0
            np.testing.assert_array_equal(out["elements"][:, row][kept], beats["elements"][kept])
        np.testing.assert_array_equal(out["keep"], beats["keep"])
        np.testing.assert_array_equal(out["last"], self.last)
        np.testing.assert_array_equal(results["o_statistics"]["scale"], self.statistics[..., 1])
        if "mean" in results["o_statistics"]:
            np.testing.assert_array_equal(results["o_statistics"]["mean"], self.statistics[..., 0])


def _of_row(rng, steps, length):
    """The steps with a row's own factor, table, factors and residual."""
    own = {"factor": int(random_codes(rng, 1)[0])}
    own |= {name: random_codes(rng, length) for name in ("factors", "residual")}
    if steps.rotated:
        own |= {name: random_codes(rng, len(getattr(steps, name))) for name in ("cosines", "sines")}
    return replace(steps, **{name: value for name, value in own.items() if getattr(steps, name) is not None})


def _operand(vectors, lanes):
    return cut_operands([vector for vector in vectors if vector is not None], lanes)


@cache  # so that Verilog is emitted once
def build(component, config, **settings):
    return component(config, functions=FUNCTIONS, **settings)


def check(engine, seed, n_vectors, config, *, max_length, max_rotated, layer=False, on=None, stalled=True):
    """Random results through the path alone: results, and the cycles of all streams."""
    rng = generator(seed)
    path = build(ResultPath, config, max_length=max_length, max_rotated=max_rotated, layer=layer)
    lengths = random_lengths(rng, n_vectors, config.vector_lanes, max_length)
    tiles = -(-lengths // config.tile_channels)
    results = random_codes(rng, tiles.sum() * config.tile_channels * config.rows).reshape(-1, config.rows)
    work = Work(rng, config, results, lengths, n_vectors * [on], max_rotated=max_rotated, layer=layer)
    beats = {"values": result_beats(config, results)}
    n_beats = len(beats["values"])
    beats["last"] = rng.integers(0, 2, n_beats)  # passes end where they will
    stalls = random_stalls(rng, path, 2 * n_beats) if stalled else {}
    result = run(path, engine, work.inputs | {"i": beats}, work.counts, stalls=stalls)
    work.check(result.results)
    cycles = path_cycles(
        lengths,
        work.flags,
        work.roles,
        {name: Pattern(stalls.get(name, ())) for name in result.cycles},
        config,
        functions=FUNCTIONS,
        max_length=max_length,
        max_rotated=max_rotated,
        layer=layer,
    )
    for name, expected in cycles.items():
        np.testing.assert_array_equal(result.cycles[name], expected, err_msg=name)
    if not stalled:
        np.testing.assert_array_equal(result.cycles["i"], np.arange(n_beats))
    return path, result


NARROW = preset("tiny", vector_lanes=2)
SIZES = {"max_length": 20, "max_rotated": 8}


def test_amaranth():
    check("amaranth", 180, 20, NARROW, **SIZES)


@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("lanes", [1, 4, 8])
def test_cutter(lanes, stalled):
    """A tile has eight beats, or two, or one, none of which is then dropped."""
    rng = generator(185)
    config = preset("tiny", vector_lanes=lanes)
    cutter = ResultCutter(config, {"number": 16}, max_length=20)
    lengths = np.append(rng.integers(1, 21, 40), [1, 20, 8, 16])
    n_channels = (-(-lengths // config.tile_channels)).sum() * config.tile_channels
    results = random_codes(rng, n_channels * config.rows).reshape(-1, config.rows)
    values = result_beats(config, results)
    inputs = {
        "i": {"values": values, "last": rng.integers(0, 2, len(values))},
        "i_steps": {"channels": lengths, "number": np.arange(len(lengths))},
    }
    stalls = random_stalls(rng, cutter, 2 * len(values)) if stalled else {}
    vectors = cut(results, lengths, config.tile_channels)
    beats = golden_vector.beats([vector[0] for vector in vectors], lanes, 20)
    result = run(cutter, "amaranth", inputs, len(beats["last"]), stalls=stalls)
    out = result.results["o"]
    for name in ("keep", "last"):
        np.testing.assert_array_equal(out[name], beats[name])
    np.testing.assert_array_equal(out["number"], np.repeat(np.arange(len(lengths)), -(-lengths // lanes)))
    for row in range(config.rows):
        kept = golden_vector.beats([vector[row] for vector in vectors], lanes, 20)["elements"]
        held = out["keep"][:, None] >> np.arange(lanes) & 1 != 0
        np.testing.assert_array_equal(out["elements"][:, row][held], kept[held])
    if not stalled:
        np.testing.assert_array_equal(result.cycles["i"], np.arange(len(values)))


@pytest.mark.slow
def test_verilog():
    """Any steps under stalls, and one, none or all of them at line rate."""
    check("verilated", 181, 500, NARROW, **SIZES)
    for on in ((), ALL, *((name,) for name in ALL)):
        print("on:", *on)
        check("verilated", 182, 40, NARROW, **SIZES, on=on, stalled=False)


@pytest.mark.slow
def test_layer_norm_of_three_rows():
    check("verilated", 184, 200, preset("tiny", vector_lanes=2, rows=3), **SIZES, layer=True)


OPERATORS = [
    # format, channels, inputs, channels of its vectors, steps of each
    ("int4", 60, 64, [60], ("factor", "residual", "statistics")),
    ("int8", 9, 32, [9], ()),
    ("int4", 48, 32, [16, 16, 16], ("factor", "bias", "rotary")),
    ("int8", 1, 1, [1], ("bias", "statistics")),
    ("int16", 24, 33, [24], ("activation", "factors")),
    ("int4", 30, 40, [8, 22], ALL),
    ("int4", 64, 20, [64], ()),
]


@pytest.mark.slow  # tests/test_soc.py has it in the whole machine
@pytest.mark.parametrize("stalled", [True, False])
@pytest.mark.parametrize("config", [replace(NARROW, rows=1), preset("tiny")], ids=["narrow", "tiny"])
def test_behind_the_array(config, stalled):
    """Operators in a row; without stalls, the array gives its results as it does with nothing behind it."""
    rng = generator(187)
    sizes = {"max_length": 64, "max_rotated": 8}
    unit = build(ArrayPath, config, **sizes)
    parts = [random_operator(rng, config, *operator[:3]) for operator in OPERATORS]
    beats = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    words = [np.concatenate([part[1][n] for part in parts]) for n in range(config.groups)]
    lengths = np.array([length for *_, of_operator, _ in OPERATORS for length in of_operator])
    on = [steps for *_, of_operator, steps in OPERATORS for _ in of_operator]
    work = Work(rng, config, np.concatenate([part[2] for part in parts]), lengths, on, max_rotated=8)
    inputs = {"i_beats": beats} | {
        f"i_words__{n}": np.stack([group & 15, group >> 4], axis=-1).reshape(len(group), -1)
        for n, group in enumerate(words)
    }
    stalls = random_stalls(rng, unit, 2 * len(beats["last"]), share=0.8) if stalled else {}
    result = run(unit, "verilated", inputs | work.inputs, work.counts, stalls=stalls)
    work.check(result.results)
    if not stalled:
        given = array_cycles(config, beats, [len(group) for group in words], {})
        offered = np.zeros(given["o"][-1] + 1, bool)
        offered[given["o"]] = True
        patterns = dict.fromkeys(result.cycles, Pattern()) | {"i": Pattern(offered)}
        expected = path_cycles(lengths, work.flags, work.roles, patterns, config, functions=FUNCTIONS, **sizes)
        # The path takes each beat in the cycle in which the array gives it.
        np.testing.assert_array_equal(expected.pop("i"), given["o"])
        latency = FunctionUnit(FUNCTIONS).latency + 38
        assert result.cycles["o"][0] - given.pop("o")[0] == unit.path.latency == latency
        for name, cycles in (given | expected).items():
            np.testing.assert_array_equal(result.cycles[name], cycles, err_msg=name)


def test_bad_parameters():
    settings = {"functions": FUNCTIONS, "max_length": 64, "max_rotated": 8}
    with pytest.raises(ValueError, match="max_length must be a positive multiple of the 4 elements of a beat, not 66"):
        ResultPath(preset("tiny"), **settings | {"max_length": 66})
    with pytest.raises(ValueError, match="lanes must be at least 2, the elements of a pair, not 1"):
        ResultPath(preset("tiny", vector_lanes=1), **settings)
    with pytest.raises(ValueError, match="vectors of 16 channels with their padding must be all 24 results"):
        cut(np.zeros((24, 1)), [9], 8)
