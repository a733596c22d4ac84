"""Quantisers, against exact rational arithmetic and against the conversions of ml_dtypes."""

import os
import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from edgeaccel import quantise as module
from edgeaccel.formats import FORMATS
from edgeaccel.quantise import Quantised, quantise

INTEGER_FORMATS = {"int4": 7, "int8": 127, "int16": 32767}


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def random_weights(rng, shape, dtype=np.float32, exponents=(-30, 8)):
    """Normal values, each channel at its own magnitude, with zeros and outliers; within FP16's range."""
    weights = rng.standard_normal(shape) * 2.0 ** rng.integers(*exponents, (shape[0], 1))
    weights[rng.random(shape) < 0.05] = 0
    weights[rng.random(shape) < 0.02] *= 50
    return weights.astype(dtype)


def reference_scale(block, name):
    largest = max(abs(Fraction(float(w))) for w in block)
    if not largest:
        return Fraction(0)
    if name == "int16":
        exponent = -24
        while largest >= Fraction(2) ** (exponent + 15):
            exponent += 1
        return Fraction(2) ** exponent
    scale = Fraction(float(np.float16(float(largest) / INTEGER_FORMATS[name])))
    return max(scale, Fraction(2) ** -24)


def reference_codes(block, scale, limit):
    """Python rounds a Fraction exactly, ties to even."""
    return [max(-limit, min(limit, round(Fraction(float(w)) / scale))) if scale else 0 for w in block]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_integers_equal_exact_arithmetic(name, dtype, rng):
    block = 24
    weights = random_weights(rng, (40, 100), dtype)
    quantised = quantise(weights, name, block=block)
    assert quantised.scales.shape == (40, 5)
    for n, channel in enumerate(weights):
        for b in range(5):
            inputs = slice(b * block, (b + 1) * block)
            scale = reference_scale(channel[inputs], name)
            assert Fraction(float(quantised.scales[n, b])) == scale
            codes = reference_codes(channel[inputs], scale, INTEGER_FORMATS[name])
            assert quantised.codes[n, inputs].tolist() == codes


@pytest.mark.parametrize(
    ("dtype", "exponents"),
    [
        (np.float16, (-24, 8)),
        *((dtype, (-30, 10)) for dtype in (ml_dtypes.bfloat16, np.float32, np.float64)),
        *((dtype, (-149, -120)) for dtype in (ml_dtypes.bfloat16, np.float32, np.float64)),
        *((dtype, (110, 118)) for dtype in (ml_dtypes.bfloat16, np.float32, np.float64)),
    ],
)
def test_mxfp4_equals_ml_dtypes(dtype, exponents, rng):
    weights = random_weights(rng, (200, 80), dtype, exponents)
    if dtype == np.float64:  # ml_dtypes rounds it to float32 first, and so may round twice
        weights = weights.astype(np.float32).astype(np.float64)
    quantised = quantise(weights, "mxfp4")
    for b, inputs in enumerate((slice(0, 32), slice(32, 64), slice(64, 80))):
        values = weights[:, inputs].astype(np.float64)
        largest = np.abs(values).max(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            exponent = np.where(largest, np.clip(np.floor(np.log2(largest)) - 2, -127, 127), 0)
        scales = np.exp2(exponent)
        stored = scales.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
        np.testing.assert_array_equal(quantised.scales[:, b : b + 1], stored)
        codes = np.clip(values / scales, -6, 6).astype(ml_dtypes.float4_e2m1fn)
        np.testing.assert_array_equal(quantised.codes[:, inputs], codes.view(np.uint8))
        expected = (codes.astype(np.float64) * scales).astype(np.float32)
        np.testing.assert_array_equal(quantised.dequantise()[:, inputs], expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mxfp4_rounds_half_way_to_even(dtype):
    middles = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], dtype)
    for values, codes in (
        (middles, [0, 2, 2, 4, 4, 6, 6]),
        (np.nextafter(middles, dtype(0)), [0, 1, 2, 3, 4, 5, 6]),
        (np.nextafter(middles, dtype(9)), [1, 2, 3, 4, 5, 6, 7]),
    ):
        weights = np.append(values, dtype(7.99))[np.newaxis]  # 7.99 saturates and sets the scale to 1
        assert quantise(weights, "mxfp4").codes[0].tolist() == [*codes, 7]
        assert quantise(-weights, "mxfp4").codes[0].tolist() == [*(8 | np.array(codes)), 15]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_integers_round_half_way_to_even(name, dtype):
    """With the largest weight at exactly q scales, at every odd half and just beside it."""
    limit = INTEGER_FORMATS[name]
    scale = 2.0**-3 if name == "int16" else 1.3330078125  # the second one has all 11 bits of an FP16
    codes = np.arange(-limit, limit)
    middles = (codes + 0.5).astype(dtype) * dtype(scale)
    largest = np.array([limit * scale], dtype)
    for values, expected in (
        (middles, codes + (codes & 1)),
        (np.nextafter(middles, dtype(-np.inf)), codes),
        (np.nextafter(middles, dtype(np.inf)), codes + 1),
    ):
        quantised = quantise(np.append(values, largest)[np.newaxis], name, block=1 << 17)
        assert quantised.scales.tolist() == [[scale]]
        np.testing.assert_array_equal(quantised.codes[0, :-1], expected)
        assert quantised.codes[0, -1] == limit


def test_int16_is_exact_for_fp16_within_four_binades():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float32)
    for exponent in range(-24, 16):
        block = every[np.abs(every) < 2.0 ** (exponent + 1)][np.newaxis]
        quantised = quantise(block, "int16", block=block.size)
        error = np.abs(quantised.dequantise() - block)
        near = np.abs(block) >= 2.0 ** (exponent - 4)
        assert not error[near].any()
        assert error.max() <= max(2.0**-24, 2.0 ** (exponent - 14)) / 2
    assert block.size == every.size


def test_int16_clips_what_would_round_to_two_to_the_15():
    weights = np.array([[1.99999, -1.99999, 1.0]], np.float32)
    quantised = quantise(weights, "int16")
    assert quantised.codes.tolist() == [[32767, -32767, 16384]]
    assert quantised.scales.tolist() == [[2.0**-14]]


@pytest.mark.parametrize("name", FORMATS)
def test_zero_blocks(name):
    weights = np.zeros((3, 70), np.float32)
    weights[1, 40] = 1
    quantised = quantise(weights, name, block=32)
    zero_scale = 127 if name == "mxfp4" else 0
    np.testing.assert_array_equal(quantised.scales != zero_scale, [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    assert np.count_nonzero(quantised.codes) == 1
    np.testing.assert_array_equal(quantised.dequantise() != 0, weights != 0)


def test_negative_zeros():
    weights = np.array([[-0.0, 0.0]], np.float32)
    assert quantise(weights, "mxfp4").codes.tolist() == [[8, 0]]
    assert quantise(weights, "int4").codes.tolist() == [[0, 0]]


@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_blocks_below_fp16(name):
    """Their scale is FP16's smallest subnormal, and what is over half of it is kept."""
    tiny = 2.0**-24
    weights = np.array([[tiny, -tiny * 0.75, tiny / 2, 1e-30], [1e-30, 0, -1e-38, 1e-45]], np.float32)
    quantised = quantise(weights, name)
    assert quantised.scales.tolist() == [[tiny], [tiny]]
    assert quantised.codes.tolist() == [[1, -1, 0, 0], [0, 0, 0, 0]]


def test_blocks_of_subnormal_scale():
    """An FP16 subnormal scale is coarse: rounded down, it makes the largest weights clip."""
    weights = np.array([[1.4 * 7 * 2.0**-24, -1.4 * 7 * 2.0**-24, 3.2 * 2.0**-24]], np.float32)
    quantised = quantise(weights, "int4")
    assert quantised.scales.tolist() == [[2.0**-24]]
    assert quantised.codes.tolist() == [[7, -7, 3]]


def test_mxfp4_at_the_ends_of_e8m0():
    lowest = np.array([[2.0**-149, 0.75 * 2.0**-127, 2.0**-127]], np.float32)
    assert quantise(lowest, "mxfp4").scales.tolist() == [[0]]
    assert quantise(lowest, "mxfp4").codes.tolist() == [[0, 2, 2]]
    highest = np.array([[np.finfo(np.float32).max, 2.0**126]], np.float32)
    assert quantise(highest, "mxfp4").scales.tolist() == [[252]]
    assert quantise(highest, "mxfp4").dequantise().tolist() == [[6 * 2.0**125, 2.0**126]]
    beyond = quantise(np.array([[2.0**200, 2.0**127]]), "mxfp4")
    assert beyond.scales.tolist() == [[254]]
    assert beyond.codes.tolist() == [[7, 2]]
    assert beyond.dequantise().tolist() == [[np.inf, 2.0**127]]


@pytest.mark.parametrize("name", FORMATS)
def test_one_element(name):
    quantised = quantise(np.array([[-3.0]]), name)
    assert quantised.shape == (1, 1)
    assert quantised.block == FORMATS[name].block
    assert quantised.codes.dtype == FORMATS[name].code_dtype
    assert quantised.scales.dtype == FORMATS[name].scale_dtype
    np.testing.assert_allclose(quantised.dequantise(), [[-3.0]], rtol=2**-11)


@pytest.mark.parametrize("name", FORMATS)
def test_short_last_block_and_chunks_change_nothing(name, rng, monkeypatch):
    """Each block is quantised as if it stood alone, however the matrix is cut up."""
    weights = random_weights(rng, (9, 75))
    whole = quantise(weights, name, block=32)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 160)  # two channels at a time, then one left
    chunked = quantise(weights, name, block=32)
    np.testing.assert_array_equal(whole.codes, chunked.codes)
    np.testing.assert_array_equal(whole.scales, chunked.scales)
    np.testing.assert_array_equal(whole.dequantise(), chunked.dequantise())
    for b, inputs in enumerate((slice(0, 32), slice(32, 64), slice(64, 75))):
        alone = quantise(weights[:, inputs], name, block=10**12)
        np.testing.assert_array_equal(alone.codes, whole.codes[:, inputs])
        np.testing.assert_array_equal(alone.scales[:, 0], whole.scales[:, b])
        np.testing.assert_array_equal(alone.dequantise(), whole.dequantise()[:, inputs])


@pytest.mark.parametrize("name", FORMATS)
def test_input_is_not_written(name):
    weights = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    weights.flags.writeable = False
    quantise(weights, name)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(4), r"^weights must be \[channels, inputs\] and not empty, not of shape \(4,\)$"),
        (np.zeros((2, 0)), r"^weights must be \[channels, inputs\] and not empty, not of shape \(2, 0\)$"),
        (np.zeros((0, 2)), r"^weights must be .* not of shape \(0, 2\)$"),
        (np.zeros((2, 2), np.int32), "^weights must be floating point, not int32$"),
        (np.zeros((2, 2), ml_dtypes.int4), "^weights must be floating point, not int4$"),
        (np.zeros((2, 2), np.complex64), "^weights must be floating point, not complex64$"),
        ([["a"]], "^weights must be floating point, not <U1$"),
    ],
)
def test_bad_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        quantise(weights, "int4")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_weights_that_are_not_finite(name, value, shown, dtype, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 40)  # two channels at a time
    weights = np.ones((6, 20), dtype)
    weights[3, 17] = weights[4, 0] = value
    with pytest.raises(ValueError, match=rf"^weights\[3, 17\] is {shown}, weights must be finite$"):
        quantise(weights, name, block=16)


@pytest.mark.parametrize(
    ("name", "fits", "shown"),
    [
        ("int4", 65519 * 7.0, "458640"),
        ("int8", 65519 * 127.0, "8.32104e\\+06"),
        ("int16", 2.0**30 - 64, "1.07374e\\+09"),
    ],
)
def test_scales_over_fp16(name, fits, shown, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 48)  # one channel at a time
    weights = np.ones((3, 48), np.float32)
    weights[1, 40] = fits
    assert np.isfinite(quantise(weights, name, block=16).scales).all()
    weights[1, 40] = {"int4": 65520 * 7.0, "int8": 65520 * 127.0, "int16": 2.0**30}[name]
    message = f"^channel 1, block 2: a largest weight of {shown} needs an {name} scale over FP16's largest, 65504$"
    with pytest.raises(ValueError, match=message):
        quantise(weights, name, block=16)


def test_bad_format_and_block():
    weights = np.ones((1, 4))
    with pytest.raises(ValueError, match=r"^format must be one of 'int4', 'int8', 'int16', 'mxfp4', not 'fp4'$"):
        quantise(weights, "fp4")
    for block in (0, -1):
        with pytest.raises(ValueError, match=f"^block must be at least 1, not {block}$"):
            quantise(weights, "int4", block=block)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "fp4"}, "^format must be one of .* not 'fp4'$"),
        ({"block": 0}, "^block must be at least 1, not 0$"),
        (
            {"codes": np.zeros(8, np.int8)},
            r"^codes must be \[channels, inputs\] and not empty, not of shape \(8,\)$",
        ),
        ({"codes": np.zeros((0, 8), np.int8)}, r"^codes must be .* not of shape \(0, 8\)$"),
        ({"codes": np.zeros((2, 8), np.uint8)}, "^int4 codes must be int8, not uint8$"),
        (
            {"codes": np.array([[0] * 8, [0, 7, -8, 8] * 2], np.int8)},
            r"^codes\[1, 3\] is 8, int4 codes are -8 to 7$",
        ),
        (
            {"codes": np.array([[0] * 8, [0, 7, -9, 8] * 2], np.int8)},
            r"^codes\[1, 2\] is -9, int4 codes are -8 to 7$",
        ),
        (
            {"scales": np.ones((2, 1), np.float16)},
            r"^scales must have shape \(2, 2\) for codes of shape \(2, 8\) in blocks of 4, not \(2, 1\)$",
        ),
        ({"scales": np.ones((2, 2), np.float32)}, "^int4 scales must be float16, not float32$"),
    ],
)
def test_bad_quantised(change, message):
    good = {
        "format": "int4",
        "codes": np.zeros((2, 8), np.int8),
        "scales": np.ones((2, 2), np.float16),
        "block": 4,
    }
    Quantised(**good)
    with pytest.raises(ValueError, match=message):
        Quantised(**{**good, **change})


def test_e2m1_codes_have_four_bits():
    codes, scales = np.array([[15, 16]], np.uint8), np.full((1, 1), 127, np.uint8)
    with pytest.raises(ValueError, match=r"^codes\[0, 1\] is 16, mxfp4 codes are 0 to 15$"):
        Quantised(format="mxfp4", codes=codes, scales=scales, block=32)


def test_dequantise_knows_the_nan_scale():
    scales = np.array([[255, 0]], np.uint8)
    quantised = Quantised(format="mxfp4", codes=np.array([[2, 1]], np.uint8), scales=scales, block=1)
    np.testing.assert_array_equal(quantised.dequantise(), np.array([[np.nan, 2.0**-128]], np.float32))


def test_large_matrix_in_little_memory():
    """A LLaMA2-7B down projection, in a process of its own so that the peak is this work's alone.

    2 GB are allowed. Weights, codes and tiles are 0.25 GB, and temporaries must not grow with the matrix.
    """
    script = """
import time
import numpy as np
from edgeaccel.quantise import quantise
from edgeaccel.tiles import pack

weights = np.random.default_rng(1).standard_normal((4096, 11008), np.float32)
start = time.perf_counter()
tiles = pack(quantise(weights, "int4"), lanes=128)
seconds = time.perf_counter() - start
assert tiles.nbytes * 8 == 4.125 * weights.size
# Unlike getrusage's ru_maxrss, this is not inherited from the process that started this one.
peak_kib = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(seconds, peak_kib)
"""
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    seconds, peak_kib = map(float, result.stdout.split())
    print(f"4096 x 11008 to packed INT4: {seconds:.2f} s, peak {peak_kib / 2**20:.2f} GiB")
    assert peak_kib * 1024 < 0.5e9
