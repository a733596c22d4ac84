"""Elementary functions: golden models against float64 and IEEE, units against the golden models."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from edgeaccel.bench import functions as bench
from edgeaccel.bench.__main__ import main
from edgeaccel.golden import float as golden_float
from edgeaccel.golden import function as golden
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe.float import FP32
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.vector.choice import Function
from edgeaccel.vector.function import FunctionUnit, Reciprocal, SiLU
from edgeaccel.vector.table import Table
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit

# NumPy warns of the infinities and NaNs that are part of the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")

FUNCTIONS = golden.FUNCTIONS
LANE = ("exp2", "reciprocal", "rsqrt", "silu", "gelu")
SIGN = 1 << 31
ALL_HALF = golden_float.encode(golden_float.decode(np.arange(1 << 16), "fp16")).astype(np.int64)


def generator(seed):
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def codes_of(numbers):
    return golden_float.encode(numbers).astype(np.int64)


def random_codes(rng, n):
    """FP32 codes: any, those of exponents that the tables cover, and those about what is special."""
    near = rng.integers(105, 136, n) << 23 | rng.integers(0, 1 << 23, n) | rng.integers(0, 2, n) << 31
    ends = codes_of([0.5, 1, 2, 4, 6, 8, 16, 24, 87.4, 88.8, 126, 127, 128, 150, 256, 2.0**-126, 2.0**126, np.inf])
    special = rng.choice(np.append(ends, [0, 1 << 22, 0x7F7FFFFF]), n) + rng.integers(-2, 3, n) & SIGN - 1
    special |= rng.integers(0, 2, n) << 31
    return np.choose(rng.integers(0, 3, n), [rng.integers(0, 1 << 32, n), near, special])


def segment_codes():
    """The first, a middle and the last argument of every segment of every table, of both signs."""
    numbers = []
    for stop, segments in ((1, 16), (16, 8), (24, 16), (6, 32), (8, 16)):
        starts = np.arange(stop * segments) / segments
        numbers += [starts, starts + 0.4 / segments, np.nextafter(starts[1:].astype(np.float32), np.float32(0))]
    significands = np.arange(64) / 32 + 1  # of [1, 3): from 2 on it is both 1 to 1.5 and an odd exponent
    numbers += [significands, 2 * significands, np.nextafter((1 + significands).astype(np.float32), np.float32(0))]
    codes = codes_of(np.concatenate(numbers))
    return np.append(codes, codes | SIGN)


# Golden models against float64.


@pytest.mark.parametrize("function", FUNCTIONS)
def test_float64_decides_the_correctly_rounded_result(function):
    exact = bench.reference(function, bench.half_arguments())
    exact = np.abs(exact[np.isfinite(exact) & (exact != 0) & (np.abs(exact) < 2**16)])
    units = exact / np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 11, -24))
    from_halfway = np.abs(units % 1 - 0.5) / units
    assert np.all((from_halfway == 0) | (from_halfway > 2.0**-38))
    # There are exact ties only where float64 is exact too.
    assert np.count_nonzero(from_halfway == 0) == (1 if function == "exp2" else 0)


@pytest.mark.parametrize(
    ("function", "worst"),
    [
        ("exp2", 0.502),
        ("exp", 0.502),
        ("reciprocal", 0.501),
        ("rsqrt", 0.501),
        ("sigmoid", 0.504),
        ("silu", 0.506),
        ("tanh", 0.503),
        ("gelu", 0.524),
        ("gelu_tanh", 0.527),
    ],
)
def test_every_half_argument(function, worst):
    numbers = bench.half_arguments()
    assert len(numbers) == 63490
    exact, results = bench.reference(function, numbers), bench.half_results(function, numbers)
    np.testing.assert_array_equal(np.isnan(results), np.isnan(exact))
    valid = ~np.isnan(exact)
    exact, results, numbers = exact[valid], results[valid], numbers[valid]
    rounded = golden_float.decode(golden_float.encode(exact, "fp16"), "fp16")
    np.testing.assert_array_equal(np.isinf(results), np.isinf(rounded))
    np.testing.assert_array_equal(np.signbit(results), np.signbit(rounded))
    # Codes without their sign count the FP16 numbers from zero.
    ranks, right = (golden_float.encode(values, "fp16").astype(int) & 0x7FFF for values in (results, rounded))
    assert np.abs(ranks - right).max() == 1
    assert np.abs(bench.errors_in_ulp(function, numbers)).max() <= worst


@pytest.mark.parametrize("function", FUNCTIONS)
def test_monotone(function):
    numbers = bench.half_arguments()
    results, exact = bench.half_results(function, numbers), bench.reference(function, numbers)
    match function:
        case "reciprocal":
            falling, rising = [numbers < 0, numbers > 0], []
        case "rsqrt":
            falling, rising = [numbers > 0], []
        case "silu" | "gelu" | "gelu_tanh":  # which have one minimum
            minimum = numbers[np.nanargmin(exact)]
            assert -1.5 < minimum < -0.5
            falling, rising = [(numbers <= minimum) & (numbers > -np.inf)], [numbers >= minimum]
        case _:
            falling, rising = [], [np.ones(len(numbers), bool)]
    for inside in falling:
        assert np.all(results[inside][1:] <= results[inside][:-1])
    for inside in rising:
        assert np.all(results[inside][1:] >= results[inside][:-1])
    assert len(np.unique(results)) > 1000


@pytest.mark.parametrize(
    ("function", "start", "stop", "bound"),
    [
        ("exp2", -126, 128, 2**-19),
        ("exp", -87.3, 88.7, 2**-18.4),
        ("reciprocal", -(2.0**126), 2.0**126, 2**-19),
        ("rsqrt", 0, np.inf, 2**-19.3),
        ("sigmoid", -24, np.inf, 2**-17.5),
        ("silu", -24, np.inf, 2**-17.5),
        ("tanh", -np.inf, np.inf, 2**-18.3),
        ("gelu", -4, np.inf, 2**-15.9),
        ("gelu_tanh", -4, np.inf, 2**-15),
    ],
)
def test_error_of_single_arguments(function, start, stop, bound):
    """What the docstrings of the units claim: all exponents, and densely where the tables are."""
    rng = generator(20)
    n = 150_000
    exponents = np.append(rng.integers(1, 255, n), rng.integers(115, 135, n))
    codes = exponents << 23 | rng.integers(0, 1 << 23, 2 * n) | rng.integers(0, 2, 2 * n) << 31
    numbers = golden_float.decode(codes)
    inside = (numbers > start) & (numbers < stop)
    results = golden_float.decode(golden.evaluate(function, codes[inside]))
    exact = bench.reference(function, numbers[inside])
    normal = (np.abs(exact) >= 2.0**-126) & (np.abs(exact) < 2.0**128)
    error = np.abs(results / exact - 1)[normal]
    assert np.count_nonzero(normal) > n // 4
    assert bound / 2 < error.max() <= bound
    # What is not normal is zero; and what the tables do not reach is small.
    np.testing.assert_array_equal(results[np.abs(exact) < 2.0**-127], 0)
    if function in ("sigmoid", "silu", "gelu", "gelu_tanh"):
        below = codes[numbers <= start]
        rest = golden_float.decode(golden.evaluate(function, below)) - bench.reference(
            function, numbers[numbers <= start]
        )
        assert np.abs(rest).max() <= {"sigmoid": 2**-34.6, "silu": 2**-30}.get(function, 2**-27)


@pytest.mark.parametrize(
    ("table", "start", "segments", "function", "third_derivative"),
    [
        ("reciprocal", 1, 32, lambda m: 1 / m, lambda m: 6 / m**4),
        ("rsqrt to 2", 1, 32, lambda m: m**-0.5, lambda m: 15 / 8 * m**-3.5),
        ("exp2 falling", 0, 16, lambda u: 2**-u, lambda u: np.log(2) ** 3 * 2**-u),
        ("exp2 rising", 0, 16, lambda u: 2 ** (u - 1), lambda u: np.log(2) ** 3 * 2 ** (u + 1 / 16 - 1)),
    ],
)
def test_error_of_parabolas(table, start, segments, function, third_derivative):
    """The bound for parabolas through three values, as stated with the tables, and no more than rounding above it."""
    a = start + np.arange(segments)[:, None] / segments
    t = np.linspace(0, 1, 1001)
    exponent, at_0, slope, bend = golden.parabolas(table).T[..., None]
    assert not exponent.any()
    error = np.abs((at_0 + t * (slope + t * bend)) / 2**22 - function(a + t / segments)).max(axis=1)
    bound = third_derivative(a[:, 0]) / segments**3 / (72 * 3**0.5)
    assert np.all(error <= bound + 1.5 * 2.0**-22)
    assert np.all(error >= bound * 0.8 - 1.5 * 2.0**-22)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "binades", "bound"),
    [
        ("exp2", [1, -1, 126, -64], 2**-19),
        ("exp", [1, -1, 64, -64], 2**-18.4),
        ("reciprocal", [1], 2**-19),
        ("rsqrt", [1, 2], 2**-19.3),
        ("sigmoid", [0.0625, 0.125, 0.25, 0.5, 1, -1, -8], 2**-17.5),
        ("tanh", [0.125, 0.25, 0.5, 1, 2], 2**-18.3),
    ],
)
def test_error_of_every_significand(function, binades, bound):
    """All arguments of the binades where the error is largest; others repeat them, or have less of it."""
    functions = {
        "exp2": np.exp2,
        "exp": np.exp,
        "reciprocal": lambda x: 1 / x,
        "rsqrt": lambda x: 1 / np.sqrt(x),
        "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "tanh": np.tanh,
    }
    worst = 0
    for first in codes_of(binades):
        codes = (first & -1 << 23) + np.arange(1 << 23)
        exact = functions[function](golden_float.decode(codes))
        normal = (exact >= 2.0**-126) & (exact < 2.0**128 * (1 - 2.0**-17))
        results = golden_float.decode(golden.evaluate(function, codes))
        worst = max(worst, np.abs(results[normal] / exact[normal] - 1).max())
    assert bound / 1.1 < worst <= bound


INF, NAN, MAX, TINY, LEAST = np.inf, np.nan, float(np.finfo(np.float32).max), 2.0**-149, 2.0**-126
SPECIAL = {
    "exp2": [(0, 1), (-0.0, 1), (TINY, 1), (-TINY, 1), (INF, INF), (-INF, 0), (MAX, INF), (-MAX, 0), (128, INF),
             (-126, LEAST), (-127, 0), (127, 2.0**127), (1, 2), (-1, 0.5), (10, 1024)],
    "exp": [(0, 1), (-0.0, 1), (TINY, 1), (-TINY, 1), (INF, INF), (-INF, 0), (MAX, INF), (-MAX, 0), (88.73, INF),
            (128, INF), (-87.34, 0), (-128, 0)],
    "reciprocal": [(0, INF), (-0.0, -INF), (TINY, INF), (-TINY, -INF), (INF, 0), (-INF, -0.0), (MAX, 0), (-MAX, -0.0),
                   (1, 1), (-1, -1), (4, 0.25), (1 / LEAST, LEAST), (2 / LEAST, 0), (-2 / LEAST, -0.0),
                   (LEAST, 1 / LEAST)],
    "rsqrt": [(0, INF), (-0.0, -INF), (TINY, INF), (-TINY, -INF), (INF, 0), (-INF, NAN), (-1, NAN), (-MAX, NAN),
              (-LEAST, NAN), (1, 1), (4, 0.5), (LEAST, 2.0**63), (1 / LEAST, 2.0**-63)],
    "sigmoid": [(0, 0.5), (-0.0, 0.5), (TINY, 0.5), (INF, 1), (-INF, 0), (MAX, 1), (-MAX, 0), (16, 1), (-24, 0)],
    "silu": [(0, 0), (-0.0, -0.0), (TINY, 0), (-TINY, -0.0), (INF, INF), (-INF, -0.0), (MAX, MAX), (-MAX, -0.0),
             (16, 16), (-24, -0.0), (2 * LEAST, LEAST), (LEAST, 0), (-LEAST, -0.0)],
    "tanh": [(0, 0), (-0.0, -0.0), (TINY, 0), (-TINY, -0.0), (INF, 1), (-INF, -1), (MAX, 1), (-MAX, -1), (8, 1),
             (-8, -1), (LEAST, LEAST), (-LEAST, -LEAST)],
    "gelu": [(0, 0), (-0.0, -0.0), (TINY, 0), (-TINY, -0.0), (INF, INF), (-INF, -0.0), (MAX, MAX), (-MAX, -0.0), (6, 6),
             (-6, -0.0), (2 * LEAST, LEAST), (LEAST, 0), (-LEAST, -0.0)],
}  # fmt: skip
SPECIAL["gelu_tanh"] = SPECIAL["gelu"]


def special_codes(function):
    return codes_of([argument for argument, _ in SPECIAL[function]])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_special_arguments(function):
    arguments = special_codes(function)
    expected = golden_float.encode([result for _, result in SPECIAL[function]])
    np.testing.assert_array_equal(golden.evaluate(function, arguments), expected)
    nans = np.array([FP32.nan, FP32.infinity | 1, SIGN | FP32.nan, SIGN | FP32.infinity | 0x7FFFFF])
    np.testing.assert_array_equal(golden.evaluate(function, nans), FP32.nan)
    with np.errstate(all="raise"):
        golden.evaluate(function, np.append(arguments, nans))


def test_exact_powers():
    n = np.arange(-126, 127)
    np.testing.assert_array_equal(golden.evaluate("exp2", codes_of(n)), codes_of(2.0**n))
    np.testing.assert_array_equal(golden.evaluate("reciprocal", codes_of(2.0**n)), codes_of(2.0**-n))
    np.testing.assert_array_equal(golden.evaluate("rsqrt", codes_of(4.0 ** n[63:-63])), codes_of(2.0 ** -n[63:-63]))


def test_bench(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "_cost_records", lambda progress: [])
    assert main(["functions", "--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]) == 0
    values = {record["name"]: record["value"] for record in json.loads((tmp_path / "x.json").read_text())}
    assert values.keys() == {f"functions.{name}.{figure}" for name in FUNCTIONS for figure in ("worst", "not_nearest")}
    assert all(0.5 <= values[f"functions.{function}.worst"] < 0.53 for function in FUNCTIONS)
    assert all(0 < values[f"functions.{function}.not_nearest"] < 100 for function in FUNCTIONS)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_no_table_is_shared():
    """Neither world imports the other, and what each computes is the same."""
    script = (
        "import sys, edgeaccel.{}; print(*(name for name in sys.modules if name.startswith(('amaranth', 'edgeaccel'))))"
    )

    def modules(name):
        run = subprocess.run([sys.executable, "-c", script.format(name)], capture_output=True, text=True, check=True)
        return run.stdout.split()

    assert not [name for name in modules("golden.function") if name.startswith(("amaranth", "edgeaccel.vector"))]
    assert not [name for name in modules("vector.function") if name.startswith("edgeaccel.golden")]
    runs = {
        "exp2": ("exp2 rising", "exp2 falling"),
        "reciprocal": ("reciprocal",),
        "rsqrt": ("rsqrt to 2", "rsqrt from 2"),
        "silu": ("sigmoid rising", "sigmoid falling"),
        "tanh": ("tanh over x", "tanh"),
        "gelu": ("gelu rising", "gelu falling"),
        "gelu_tanh": ("gelu_tanh rising", "gelu_tanh falling"),
    }
    for function, tables in runs.items():
        np.testing.assert_array_equal(
            Table([function]).rows, np.concatenate([golden.parabolas(name) for name in tables])
        )


# Units.


def expect(functions, codes, chosen):
    """Golden results of elements that want `functions[chosen]`."""
    results = np.zeros(len(codes), np.int64)
    for n, function in enumerate(functions):
        results[chosen == n] = golden.evaluate(function, codes[chosen == n])
    return results


def check(unit, engine, i, expected, functions, stalls=None):
    """Results, and by the golden timing the cycle of every transfer."""
    stalls = stalls or {}
    result = run(unit, engine, {"i": i}, len(expected), stalls=stalls)
    np.testing.assert_array_equal(result.results["o"], expected)
    latency = golden.latency(functions)
    take, taken = pipeline_cycles(
        len(expected),
        [Pattern(stalls.get("i", ()))],
        Pattern(stalls.get("o", ())),
        latency=latency,
        credits=latency + 1,
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    return result


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_in_verilog(function):
    rng = generator(30)
    unit = bench.UNITS[function]()
    codes = np.concatenate([ALL_HALF, segment_codes(), random_codes(rng, 100_000)])
    result = check(unit, "verilated", codes, golden.evaluate(function, codes), [function])
    np.testing.assert_array_equal(result.cycles["i"], np.arange(len(codes)))
    codes = random_codes(rng, 10_000)
    stalls = random_stalls(rng, unit, 3 * len(codes))
    check(unit, "verilated", codes, golden.evaluate(function, codes), [function], stalls)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_in_amaranth(function):
    rng = generator(31)
    unit = bench.UNITS[function]()
    codes = np.concatenate([random_codes(rng, 500), rng.choice(segment_codes(), 200), special_codes(function)])
    stalls = random_stalls(rng, unit, 3 * len(codes))
    check(unit, "amaranth", codes, golden.evaluate(function, codes), [function], stalls)


def elements(rng, unit, codes):
    """Payloads of an element each for the functions of a unit in random order, and the golden results."""
    chosen = rng.integers(0, len(unit.functions), len(codes))
    numbers = np.array([Function[function.upper()].value for function in unit.functions])
    i = {"x": codes} | ({"function": numbers[chosen]} if len(unit.functions) > 1 else {})
    return i, expect(unit.functions, codes, chosen)


BUILDS = {
    "lane": LANE,
    "all": FUNCTIONS,
    "softmax": ("exp2", "reciprocal"),
    "roots": ("rsqrt", "reciprocal"),
    "powers": ("exp", "exp2"),
    "exp and roots": ("exp", "reciprocal", "rsqrt"),
    "gates": ("sigmoid", "silu", "gelu", "gelu_tanh"),
    "tanh and exp": ("tanh", "exp"),
    "one": ("tanh",),
}


@pytest.mark.parametrize("build", BUILDS)
def test_functions_in_any_order(build):
    rng = generator(32)
    unit = FunctionUnit(BUILDS[build])
    assert unit.functions == tuple(function for function in FUNCTIONS if function in BUILDS[build])
    i, expected = elements(rng, unit, random_codes(rng, 400))
    check(unit, "amaranth", i, expected, unit.functions, random_stalls(rng, unit, 1200))


@pytest.mark.parametrize("build", BUILDS)
def test_lint(tmp_path, build):
    source = tmp_path / "x.v"
    source.write_text(emit(FunctionUnit(BUILDS[build]), "x"))
    assert lint(source, "x") == ""


@pytest.mark.parametrize("build", ["lane", "all"])
def test_functions_in_verilog(build):
    rng = generator(33)
    unit = FunctionUnit(BUILDS[build])
    for codes in (np.tile(ALL_HALF, 2), np.append(segment_codes(), random_codes(rng, 100_000))):
        check(unit, "verilated", *elements(rng, unit, codes), unit.functions)
    i, expected = elements(rng, unit, random_codes(rng, 10_000))
    check(unit, "verilated", i, expected, unit.functions, random_stalls(rng, unit, 30_000))


@pytest.mark.slow
def test_cocotb():
    rng = generator(34)
    unit = FunctionUnit()
    i, expected = elements(rng, unit, random_codes(rng, 500))
    check(unit, "cocotb", i, expected, unit.functions, random_stalls(rng, unit, 1500))


class _Composition(Pipelined):
    """reciprocal(silu(x)), with something beside it that must stay in step."""

    def __init__(self):
        self._silu, self._reciprocal = SiLU(), Reciprocal()
        cycles = self._silu.latency - 1 + self._reciprocal.latency - 1
        super().__init__({"i": FP32.width}, FP32.width, cycles=cycles)

    def datapath(self, pipe, i):
        pipe.carry(sign=i[-1])
        with pipe.inside("silu"):
            y = self._silu.inline(pipe, i)
        with pipe.inside("reciprocal"):
            y = self._reciprocal.inline(pipe, y)
        return y ^ (pipe.sign << 31)


def test_functions_inside_another_unit():
    rng = generator(35)
    unit = _Composition()
    codes = random_codes(rng, 500)
    expected = golden.evaluate("reciprocal", golden.evaluate("silu", codes)) ^ (codes & SIGN)
    result = run(unit, "amaranth", {"i": codes}, len(codes), stalls=random_stalls(rng, unit, 1500))
    np.testing.assert_array_equal(result.results["o"], expected)


def test_functions_are_the_golden_ones():
    assert tuple(function.name.lower() for function in Function) == FUNCTIONS


@pytest.mark.parametrize("functions", [(), "exp", ("exp", "sin"), ["relu"]])
def test_unknown_functions(functions):
    message = re.escape(f"functions must be one or more of {', '.join(FUNCTIONS)}, not {functions!r}")
    with pytest.raises(ValueError, match=f"^{message}$"):
        FunctionUnit(functions)


def test_unknown_golden_function():
    message = r"^function must be one of exp2, exp, .*, gelu_tanh, not '{}'$"
    with pytest.raises(ValueError, match=message.format("sin")):
        golden.evaluate("sin", [0])
    with pytest.raises(ValueError, match=message.format("r")):
        golden.latency("rsqrt")
