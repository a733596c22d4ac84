"""Float units against the golden models, and these against NumPy and ml_dtypes."""

import ml_dtypes
import numpy as np
import pytest

from edgeaccel.golden import float as golden
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe.float import BF16, FP16, FP32, FloatFormat
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_convert import FloatConverter, IntToFloat
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.scaler import Scaler
from edgeaccel.sim.bench import random_stalls, run
from edgeaccel.verilog import emit

# NumPy and ml_dtypes warn of the infinities and NaNs that are part of the tests.
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")

FORMATS = {"fp32": FP32, "fp16": FP16, "bf16": BF16}
DTYPES = {"fp32": np.float32, "fp16": np.float16, "bf16": ml_dtypes.bfloat16}
ALL_16 = np.arange(1 << 16)
CHUNK = 1 << 19


def generator(seed):
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def native(codes, format):
    """Codes as numbers of the dtype that others implement."""
    return codes.astype(f"u{FORMATS[format].width // 8}").view(DTYPES[format])


def canonical(numbers, format):
    """Codes of such numbers, all NaNs alike."""
    return np.where(np.isnan(numbers), FORMATS[format].nan, numbers.view(f"u{FORMATS[format].width // 8}"))


N_CLASSES = 12


def codes_of_class(rng, classes, format):
    """A random code of each class, with a random sign."""
    f = FORMATS[format]
    n = len(classes)
    fractions = rng.integers(0, 1 << f.fraction_width, n)
    exponents = rng.integers(1, f.special_exponent, n)
    one = f.bias << f.fraction_width
    magnitudes = np.choose(
        classes,
        [
            0,
            1,
            np.maximum(fractions, 1),
            (1 << f.fraction_width) - 1,
            1 << f.fraction_width,
            f.infinity - 1,
            one,
            exponents << f.fraction_width | fractions,
            # Near one another, and with few bits, so that sums cancel and products are exact or halfway.
            (f.bias + rng.integers(-2, 3, n)) << f.fraction_width | fractions,
            exponents << f.fraction_width | fractions & -1 << (f.fraction_width + 1) // 2,
            f.infinity,
            f.infinity | np.maximum(fractions, 1),
        ],
    )
    return magnitudes | rng.integers(0, 2, n) << f.width - 1


def crossed_pairs(rng, n, a_format, b_format):
    """Pairs of codes, of each class with each."""
    n_crossed = np.arange(n)
    a = codes_of_class(rng, n_crossed % N_CLASSES, a_format)
    return a, codes_of_class(rng, n_crossed // N_CLASSES % N_CLASSES, b_format)


def near_pairs(rng, n, format):
    """Pairs for the adder: exponents as far apart as matters, the smaller number with few bits or nearly so.

    That makes cancellation, halfway cases, and what is just above or below them.
    """
    f = FORMATS[format]
    exponents = rng.integers(1, f.special_exponent, n)
    others = np.clip(exponents - rng.integers(0, f.fraction_width + 5, n), 0, None)
    fractions = rng.integers(0, 1 << f.fraction_width, n)
    near = (fractions + rng.integers(-2, 3, n)) % (1 << f.fraction_width)
    few = (1 << rng.integers(0, f.fraction_width + 1, n)) + rng.integers(-1, 2, n) & (1 << f.fraction_width) - 1
    a = exponents << f.fraction_width | fractions
    b = others << f.fraction_width | np.where(rng.integers(0, 2, n), near, few)
    signs = rng.integers(0, 4, n)
    a, b = a | (signs & 1) << f.width - 1, b | (signs >> 1) << f.width - 1
    swap = rng.integers(0, 2, n)
    return np.where(swap, b, a), np.where(swap, a, b)


def edge_pairs(rng, n, format):
    """Pairs for the multiplier: products about the smallest and largest normal number, often halfway."""
    f = FORMATS[format]
    exponents = rng.integers(1, f.special_exponent, n)
    target = np.where(rng.integers(0, 4, n), 1 - rng.integers(-3, f.fraction_width + 4, n), f.special_exponent - 1)
    others = np.clip(target + f.bias - exponents + rng.integers(-1, 2, n), 0, f.special_exponent - 1)
    kept = rng.integers(1, f.fraction_width + 1, (2, n))
    fractions = rng.integers(0, 1 << f.fraction_width, (2, n)) & -1 << f.fraction_width - kept
    a = exponents << f.fraction_width | fractions[0]
    b = others << f.fraction_width | fractions[1]
    signs = rng.integers(0, 4, n)
    return a | (signs & 1) << f.width - 1, b | (signs >> 1) << f.width - 1


def check(component, engine, i, expected, stalls=None):
    """The results and, by the golden timing, the cycles of a unit with one input."""
    stalls = stalls or {}
    for start in range(0, len(expected), CHUNK):
        part = slice(start, start + CHUNK)
        items = {name: values[part] for name, values in i.items()} if isinstance(i, dict) else i[part]
        result = run(component, engine, {"i": items}, len(expected[part]), stalls=stalls)
        np.testing.assert_array_equal(result.results["o"], expected[part])
        take, taken = pipeline_cycles(
            len(expected[part]),
            [Pattern(stalls.get("i", ()))],
            Pattern(stalls.get("o", ())),
            latency=component.latency,
            credits=component.credits,
        )
        np.testing.assert_array_equal(result.cycles["i"], take)
        np.testing.assert_array_equal(result.cycles["o"], taken)


# Golden models against what others made.


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    f, info = FORMATS[name], ml_dtypes.finfo(DTYPES[name])
    assert (f.width, f.exponent_width, f.fraction_width) == (info.bits, info.nexp, info.nmant)
    assert (f.bias, f.special_exponent) == (1 - info.minexp, info.maxexp + 1 - info.minexp)
    assert f.width == f.layout.size
    assert golden.encode(np.nan, name) == f.nan
    assert golden.encode(-np.inf, name) == f.infinity | 1 << f.width - 1
    assert golden.encode(float(info.max), name) == f.infinity - 1


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_decode(name):
    numbers = native(ALL_16, name).astype(np.float64)
    np.testing.assert_array_equal(golden.decode(ALL_16, name), numbers)
    np.testing.assert_array_equal(np.signbit(golden.decode(ALL_16, name)), np.signbit(numbers))
    np.testing.assert_array_equal(golden.encode(numbers, name), canonical(native(ALL_16, name), name))


@pytest.mark.parametrize("name", FORMATS)
def test_golden_arithmetic(name):
    rng = generator(10)
    pairs = [crossed_pairs(rng, 200_000, name, name), near_pairs(rng, 200_000, name), edge_pairs(rng, 200_000, name)]
    a, b = (np.concatenate(codes) for codes in zip(*pairs, strict=True))
    x, y = native(a, name), native(b, name)
    np.testing.assert_array_equal(golden.add(a, b, name), canonical(x + y, name))
    formats = dict.fromkeys(("a_format", "b_format", "o_format"), name)
    np.testing.assert_array_equal(golden.multiply(a, b, **formats), canonical(x * y, name))


def test_golden_conversion():
    rng = generator(11)
    codes = codes_of_class(rng, np.arange(600_000) % N_CLASSES, "fp32")
    codes = np.append(codes, rng.integers(0, 1 << 32, 600_000))
    for name in ("fp16", "bf16"):
        converted = golden.convert(codes, "fp32", name)
        np.testing.assert_array_equal(converted, canonical(native(codes, "fp32").astype(DTYPES[name]), name))


def test_golden_integers():
    rng = generator(12)
    integers = random_integers(rng, 300_000, 64)
    np.testing.assert_array_equal(golden.int_to_float(integers), canonical(integers.astype(np.float32), "fp32"))
    # Python's own rounding, through the exact quotient.
    for integer in integers[:2000].tolist():
        shift = max(0, abs(integer).bit_length() - 8)
        quotient, rest = divmod(abs(integer), 1 << shift)
        quotient += 2 * rest > 1 << shift or (2 * rest == 1 << shift and quotient % 2 == 1)
        exact = np.float32(np.ldexp(float(quotient), shift) * (1 if integer >= 0 else -1))
        assert golden.decode(golden.int_to_float(integer, "bf16"), "bf16") == exact


def test_golden_scale():
    codes = golden.scale([3, -3, 3, 0, 0, 5, 3], [0x3C00, 0xC000, 128, 0x7C00, 0x8000, 255, 0x3C00],
                         [0, 1, -1, 0, 0, 0, 200], nan=False, e8m0=[0, 0, 1, 0, 0, 1, 0])  # fmt: skip
    np.testing.assert_array_equal(golden.decode(codes), [3, 12, 1.5, np.nan, -0.0, np.nan, np.inf])
    assert golden.scale(1, 0x3C00, 0, nan=True) == FP32.nan
    # The sum is rounded before it is scaled: 2**24 + 1 to 2**24.
    assert golden.decode(golden.scale((1 << 24) + 1, 0x3E00, 0)) == 1.5 * 2**24


def test_golden_is_silent():
    codes = np.array([FP32.infinity, FP32.infinity | 1, FP32.infinity - 1, 1])
    with np.errstate(all="raise"):
        for name in FORMATS:
            golden.convert(codes, "fp32", name)
        golden.add(codes, codes ^ 1 << 31)
        golden.multiply(codes, codes[::-1], 2000)
        golden.scale([0, 1, 1, 1], [FP16.infinity, FP16.infinity | 1, FP16.infinity - 1, 1], [0, 0, 2000, -2000])


# Units on the emitted Verilog, at length.


def test_add_fp32():
    rng = generator(20)
    pairs = [crossed_pairs(rng, 520_000, "fp32", "fp32"), near_pairs(rng, 520_000, "fp32")]
    a, b = (np.concatenate(codes) for codes in zip(*pairs, strict=True))
    expected = canonical(native(a, "fp32") + native(b, "fp32"), "fp32")
    check(FloatAdder(), "verilated", {"a": a, "b": b}, expected)


def test_multiply_fp32():
    rng = generator(21)
    pairs = [crossed_pairs(rng, 520_000, "fp32", "fp32"), edge_pairs(rng, 520_000, "fp32")]
    a, b = (np.concatenate(codes) for codes in zip(*pairs, strict=True))
    expected = canonical(native(a, "fp32") * native(b, "fp32"), "fp32")
    check(FloatMultiplier(), "verilated", {"a": a, "b": b}, expected)


def test_multiply_with_exponent():
    rng = generator(22)
    a = codes_of_class(rng, rng.integers(0, N_CLASSES, 2 * len(ALL_16)), "fp32")
    b = np.tile(ALL_16, 2)
    exponent = np.append(rng.integers(-256, 256, len(ALL_16)), rng.integers(-40, 40, len(ALL_16)))
    expected = golden.multiply(a, b, exponent, b_format="fp16")
    unit = FloatMultiplier(FP32, FP16, FP32, exponent_width=9)
    check(unit, "verilated", {"a": a, "b": b, "exponent": exponent}, expected)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_convert_to_fp32(name):
    expected = canonical(native(ALL_16, name).astype(np.float32), "fp32")
    check(FloatConverter(FORMATS[name], FP32), "verilated", ALL_16, expected)


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_convert_from_fp32(name):
    rng = generator(23)
    exact = canonical(native(ALL_16, name).astype(np.float32), "fp32").astype(np.int64)
    # Between two neighbours, and half a unit from the largest, is what rounds either way.
    finite = np.arange(FORMATS[name].infinity)
    unit = FP32.fraction_width - FORMATS[name].fraction_width
    ends = golden.decode(np.stack([finite, finite + 1]), name)
    ends[1, -1] = 2 * ends[0, -1] - ends[0, -2]
    halfway = ends.mean(axis=0).astype(np.float32).view(np.uint32).astype(np.int64)
    halfway = np.concatenate([halfway - 1, halfway, halfway + 1])
    codes = np.concatenate([exact, halfway, halfway | 1 << 31, rng.integers(0, 1 << 32, 200_000)])
    codes = np.append(codes, (112 - 26 + rng.integers(0, 60, 200_000)) << 23 | rng.integers(0, 1 << unit, 200_000))
    expected = canonical(native(codes, "fp32").astype(DTYPES[name]), name)
    check(FloatConverter(FP32, FORMATS[name]), "verilated", codes, expected)


def random_integers(rng, n, width):
    """Integers of all magnitudes, those about powers of two, and those halfway between FP32 numbers or nearly so."""
    largest = (1 << width - 1) - 1
    random = rng.integers(-largest - 1, largest, n, endpoint=True) >> rng.integers(0, width, n)
    powers = 1 << np.arange(width - 1)
    halfway = (rng.integers(1 << 24, 1 << 25, n) | 1) << rng.integers(0, max(1, width - 25), n)
    halfway = (halfway + rng.integers(-1, 2, n)) & largest
    halfway = np.where(rng.integers(0, 2, n), -halfway, halfway)
    return np.concatenate([[0, -1, largest, -largest - 1], powers, powers - 1, -powers, 1 - powers, halfway, random])


@pytest.mark.parametrize("width", [30, 64])
def test_int_to_fp32(width):
    integers = random_integers(generator(24), 200_000, width)
    expected = canonical(integers.astype(np.float32), "fp32")
    check(IntToFloat(width), "verilated", integers, expected)


def scaler_inputs(rng, n, unit):
    """Inputs of a scaler, and the golden results."""
    i = {
        "sum": rng.choice(random_integers(rng, n, unit.sum_width), n),
        "scale": np.where(
            rng.random(n) < 0.5, rng.integers(0, 1 << 16, n), codes_of_class(rng, np.arange(n) % N_CLASSES, "fp16")
        ),
        "nan": rng.random(n) < 0.05,
    }
    reach = 1 << unit.exponent_width - 1
    e8m0 = "e8m0" in unit.scales
    if len(unit.scales) > 1:
        e8m0 = i["e8m0"] = rng.random(n) < 0.5
    near = min(reach, 30)
    i["exponent"] = np.where(rng.random(n) < 0.3, rng.integers(-near, near, n), rng.integers(-reach, reach, n))
    # E8M0 reaches far: most sums are to stay in FP32's range.
    centred = np.clip(128 - (i["scale"] & 0xFF) - rng.integers(0, 170, n), -reach, reach - 1)
    i["exponent"] = np.where(e8m0 & (rng.random(n) < 0.7), centred, i["exponent"])
    return i, golden.scale(i["sum"], i["scale"], i["exponent"], i["nan"], e8m0)


@pytest.mark.parametrize("scales", [("fp16",), ("e8m0",), ("fp16", "e8m0")], ids="+".join)
def test_scale(scales):
    unit = Scaler(28, scales=scales)
    check(unit, "verilated", *scaler_inputs(generator(25), 300_000, unit))


# Every unit and depth, briefly, in Amaranth's simulator.


def small_case(unit, rng, n):
    match unit:
        case FloatAdder():
            name = next(name for name in FORMATS if FORMATS[name] == unit.format)
            a, b = (
                np.append(x, y)
                for x, y in zip(crossed_pairs(rng, n, name, name), near_pairs(rng, n, name), strict=True)
            )
            return {"a": a, "b": b}, golden.add(a, b, name)
        case FloatMultiplier():
            formats = {
                member: next(name for name in FORMATS if FORMATS[name] == getattr(unit, member))
                for member in ("a_format", "b_format", "o_format")
            }
            a, b = crossed_pairs(rng, n, formats["a_format"], formats["b_format"])
            i, exponent = {"a": a, "b": b}, 0
            if unit.exponent_width:
                reach = 1 << unit.exponent_width - 1
                exponent = i["exponent"] = rng.integers(-reach, reach, n)
            return i, golden.multiply(a, b, exponent, **formats)
        case FloatConverter():
            i_name, o_name = (
                next(name for name in FORMATS if FORMATS[name] == f) for f in (unit.i_format, unit.o_format)
            )
            codes = codes_of_class(rng, np.arange(n) % N_CLASSES, i_name)
            return codes, golden.convert(codes, i_name, o_name)
        case IntToFloat():
            name = next(name for name in FORMATS if FORMATS[name] == unit.o_format)
            integers = rng.choice(random_integers(rng, n, unit.width), n)
            return integers, golden.int_to_float(integers, name)
        case Scaler():
            return scaler_inputs(rng, n, unit)


UNITS = {
    "add": (lambda depth: FloatAdder(depth=depth), 5),
    "multiply": (lambda depth: FloatMultiplier(depth=depth), 5),
    "fp32_to_fp16": (lambda depth: FloatConverter(FP32, FP16, depth=depth), 2),
    "fp16_to_fp32": (lambda depth: FloatConverter(FP16, FP32, depth=depth), 2),
    "fp32_to_bf16": (lambda depth: FloatConverter(FP32, BF16, depth=depth), 1),
    "bf16_to_fp32": (lambda depth: FloatConverter(BF16, FP32, depth=depth), 1),
    "int_to_fp32": (lambda depth: IntToFloat(28, depth=depth), 4),
    "scale_fp16": (lambda depth: Scaler(28, depth=depth), 7),
    "scale_e8m0": (lambda depth: Scaler(28, scales=("e8m0",), depth=depth), 7),
    "scale_both": (lambda depth: Scaler(28, scales=("fp16", "e8m0"), depth=depth), 7),
}
DEPTHS = [(name, depth) for name, (_, depths) in UNITS.items() for depth in range(1, depths + 1)]


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_depth(name, depth):
    rng = generator(30)
    unit = UNITS[name][0](depth)
    assert unit.latency == depth + 1
    i, expected = small_case(unit, rng, 2 * N_CLASSES**2)
    check(unit, "amaranth", i, expected)
    check(unit, "amaranth", i, expected, random_stalls(rng, unit, 3 * len(expected)))


@pytest.mark.parametrize("name", UNITS)
def test_depth_out_of_range(name):
    build, depths = UNITS[name]
    for depth in (0, depths + 1, -1):
        with pytest.raises(ValueError, match=rf"^depth must be 1 to {depths} register stages, not {depth}$"):
            build(depth)


OTHERS = {
    "add_fp16": lambda: FloatAdder(FP16),
    "add_bf16": lambda: FloatAdder(BF16),
    "multiply_fp16": lambda: FloatMultiplier(FP16, FP16, FP16),
    "multiply_to_longer": lambda: FloatMultiplier(FP16, FP16, FP32),
    "multiply_to_shorter": lambda: FloatMultiplier(FP32, FP32, FP16, exponent_width=1),
    "multiply_mixed": lambda: FloatMultiplier(BF16, FP16, BF16, exponent_width=10),
    "fp16_to_bf16": lambda: FloatConverter(FP16, BF16),
    "bf16_to_fp16": lambda: FloatConverter(BF16, FP16),
    "fp32_to_fp32": lambda: FloatConverter(FP32, FP32),
    **{f"int{width}_to_fp32": lambda width=width: IntToFloat(width) for width in (1, 2, 3, 24, 25, 26, 33)},
    "int20_to_fp16": lambda: IntToFloat(20, FP16),
    "int40_to_bf16": lambda: IntToFloat(40, BF16),
    "scale_narrow": lambda: Scaler(1),
    "scale_wide": lambda: Scaler(64, exponent_width=1),
    "scale_far": lambda: Scaler(20, scales=("e8m0", "fp16"), exponent_width=12),
}


@pytest.mark.parametrize("name", OTHERS)
def test_parameters(name):
    unit = OTHERS[name]()
    check(unit, "amaranth", *small_case(unit, generator(31), 4 * N_CLASSES**2))


@pytest.mark.parametrize("engine", ["verilated", "cocotb"])
@pytest.mark.parametrize("build", [FloatAdder, lambda: Scaler(30, scales=("fp16", "e8m0"))], ids=["add", "scale"])
def test_stalls_in_verilog(build, engine):
    rng = generator(32)
    unit = build()
    i, expected = small_case(unit, rng, 1000)
    check(unit, engine, i, expected, random_stalls(rng, unit, 3 * len(expected)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FloatFormat(1, 10), "exponent_width must be at least 2, not 1"),
        (lambda: FloatFormat(5, 0), "fraction_width must be at least 1, not 0"),
        (lambda: FloatMultiplier(exponent_width=-1), "exponent_width must be at least 0, not -1"),
        (lambda: IntToFloat(65), "width must be 1 to 64 bits, not 65"),
        (lambda: IntToFloat(0), "width must be 1 to 64 bits, not 0"),
        (lambda: Scaler(0), "sum_width must be 1 to 64 bits, not 0"),
        (lambda: Scaler(28, exponent_width=0), "exponent_width must be at least 1, not 0"),
        (lambda: Scaler(28, scales=()), r"scales must be one or both of \('fp16', 'e8m0'\), not \(\)"),
        (lambda: Scaler(28, scales="fp16"), r"scales must be one or both of .*, not 'fp16'"),
        (lambda: Scaler(28, scales=("fp32",)), r"scales must be one or both of .*, not \('fp32',\)"),
        (lambda: golden.encode(0, "fp8"), "format must be one of fp32, fp16, bf16, not 'fp8'"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build()


@pytest.mark.parametrize(
    ("scales", "has_fp16", "has_e8m0"),
    [(("fp16",), True, False), (("e8m0",), False, True), (("fp16", "e8m0"), True, True)],
)
def test_scale_types_cost_only_themselves(scales, has_fp16, has_e8m0):
    unit = Scaler(28, scales=scales)
    verilog = emit(unit, "scaler")
    assert verilog.count(" * ") == has_fp16
    assert ("half" in verilog) == has_fp16
    assert ("either" in verilog) == (has_fp16 and has_e8m0)
    assert ("e8m0" in unit.i.payload.shape().members) == (has_fp16 and has_e8m0)
