"""Block aligner against the golden model: results and cycles, under stalls."""

import ml_dtypes
import numpy as np
import pytest

from edgeaccel.golden import pe as golden
from edgeaccel.golden.timing import Pattern
from edgeaccel.pe.align import BlockAligner
from edgeaccel.pe.float import BF16, FP16, FP32
from edgeaccel.sim.bench import random_stalls, run

DTYPES = {"fp16": (FP16, np.float16), "bf16": (BF16, ml_dtypes.bfloat16), "fp32": (FP32, np.float32)}


def random_block(rng, n_elements, dtype):
    """Codes of a block of one of the kinds that matter."""
    code_dtype = np.dtype(f"u{np.dtype(dtype).itemsize}")
    kind = rng.integers(9)
    with np.errstate(over="ignore"):
        values = {
            0: lambda: rng.standard_normal(n_elements),
            1: lambda: rng.standard_normal(n_elements) * np.where(rng.random(n_elements) < 0.05, 50, 1),
            2: lambda: np.zeros(n_elements),
            3: lambda: np.where(np.arange(n_elements) == rng.integers(n_elements), -1.5, 0),
            # Halfway cases: integers whose last bits are cut off.
            4: lambda: np.append(rng.integers(-2048, 2048, n_elements - 1) / 64.0, 2.0 ** rng.integers(4, 10)),
            5: lambda: float(ml_dtypes.finfo(dtype).max) * rng.choice([-1, 1, 0.5, 0.999], n_elements),
            6: lambda: float(ml_dtypes.finfo(dtype).smallest_subnormal) * rng.integers(-7, 8, n_elements),
        }.get(kind, lambda: np.ldexp(rng.standard_normal(n_elements), rng.integers(-24, 16, n_elements)))()
        codes = values.astype(dtype).view(code_dtype)
    if kind == 7:  # any codes
        codes = rng.integers(0, 1 << 8 * code_dtype.itemsize, n_elements, dtype=code_dtype)
    if kind == 8:
        special = np.array([np.inf, -np.inf, np.nan, -np.nan], dtype).view(code_dtype)
        codes[rng.integers(n_elements)] = rng.choice(special)
    return codes


def check(engine, seed, *, format="fp16", mantissa_bits=16, width=4, block=16, depth=3, n_blocks=150, stalled=True):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    float_format, dtype = DTYPES[format]
    aligner = BlockAligner(format=float_format, mantissa_bits=mantissa_bits, width=width, block=block, depth=depth)
    lengths = rng.integers(1, block // width + 1, n_blocks)
    blocks = [random_block(rng, width * length, dtype) for length in lengths]
    # A block as long as it may be needs no `last`.
    last = [
        np.arange(length) == (length - 1 if length < block // width or n % 2 else -1)
        for n, length in enumerate(lengths)
    ]
    elements = np.concatenate([codes.reshape(-1, width) for codes in blocks])
    stalls = random_stalls(rng, aligner, 2 * len(elements)) if stalled else {}
    inputs = {"i": {"elements": elements, "last": np.concatenate(last)}}
    result = run(aligner, engine, inputs, len(elements), stalls=stalls)

    start = 0
    out = result.results["o"]
    kinds = set()
    for codes, length in zip(blocks, lengths, strict=True):
        beats = slice(start, start + length)
        start += length
        with np.errstate(invalid="ignore"):
            mantissas, exponent, nan = golden.align(codes.view(dtype).astype(np.float64), format, mantissa_bits)
        kinds.add(nan)
        np.testing.assert_array_equal(out["nan"][beats], nan)
        np.testing.assert_array_equal(out["last"][beats], np.arange(length) == length - 1)
        if not nan:
            np.testing.assert_array_equal(out["exponent"][beats], exponent)
            np.testing.assert_array_equal(out["mantissas"][beats].ravel(), mantissas)
    assert kinds == {False, True}

    take, taken = golden.aligner_cycles(
        lengths,
        Pattern(stalls.get("i", ())),
        Pattern(stalls.get("o", ())),
        width=width,
        block=block,
        depth=depth,
    )
    np.testing.assert_array_equal(result.cycles["i"], take)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    return aligner, lengths, result


@pytest.mark.parametrize("format", list(DTYPES))
@pytest.mark.parametrize("mantissa_bits", [8, 12, 16, 18])
def test_formats_and_widths(format, mantissa_bits):
    check("amaranth", 20, format=format, mantissa_bits=mantissa_bits)


@pytest.mark.parametrize(("width", "block"), [(1, 1), (1, 5), (3, 9), (4, 4), (8, 64)])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_sizes_and_depths(width, block, depth):
    check("amaranth", 21, width=width, block=block, depth=depth, n_blocks=60)


@pytest.mark.parametrize("format", ["fp16", "fp32"])
def test_full_size_verilog(format):
    check("verilated", 22, format=format, width=32, block=128, n_blocks=5000)
    aligner, lengths, result = check("verilated", 23, format=format, width=32, block=128, n_blocks=500, stalled=False)
    # One beat a cycle, no bubble between blocks of any lengths.
    np.testing.assert_array_equal(result.cycles["i"], np.arange(lengths.sum()))
    assert result.cycles["o"][0] == lengths[0] - 1 + aligner.latency


def test_cocotb():
    check("cocotb", 24, width=8, block=32)


def test_known_blocks():
    """By hand: 1, -0.5 and 2**-20 beside 1.5, to 16 bits and to 8."""
    block = np.array([1.5, -0.5, 2.0**-20, 0.0])
    assert golden.align(block, "fp16", 16)[0].tolist() == [24576, -8192, 0, 0]
    assert golden.align(block, "fp16", 16)[1] == -14
    assert golden.align(block, "fp16", 8)[0].tolist() == [96, -32, 0, 0]
    # Ties go to even: 1.5 and 2.5 units of the last place both become 2.
    unit = 2.0**-14
    assert golden.align(np.array([1.0, 1.5 * unit, 2.5 * unit, -1.5 * unit]), "fp32", 16)[0].tolist() == [
        16384,
        2,
        2,
        -2,
    ]
    # Rounded past the largest mantissa: saturated.
    assert golden.align(np.array([2 - 2.0**-23]), "fp32", 16)[0].tolist() == [32767]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"mantissa_bits": 7}, "mantissa_bits must be 8 to 18"),
        ({"width": 0}, "width must be at least 1 element, not 0"),
        ({"width": 32, "block": 100}, "block must be a positive multiple of the 32 elements of a beat, not 100"),
        ({"depth": 4}, "depth must be 1 to 3 register stages, not 4"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        BlockAligner(**parameters)
