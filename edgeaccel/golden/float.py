"""Golden models of the float units: NumPy's arithmetic on codes.

A code is the bit pattern of a number as an unsigned integer, `formats` are named "fp32", "fp16" and "bf16". Operands
become float64, which holds each number of these formats, and the result is rounded to its format. Every NaN that is
made is the canonical one: positive, quiet, the rest of the fraction zero.
"""

import numpy as np

__all__ = ["add", "convert", "decode", "encode", "int_to_float", "multiply", "scale"]

_NANS = {"fp32": np.uint32(0x7FC00000), "fp16": np.uint16(0x7E00), "bf16": np.uint16(0x7FC0)}


def decode(codes, format="fp32"):
    """Numbers of codes as float64, exactly."""
    match _check(format):
        case "fp32":
            floats = np.asarray(codes).astype(np.uint32).view(np.float32)
        case "fp16":
            floats = np.asarray(codes).astype(np.uint16).view(np.float16)
        case "bf16":  # the upper half of binary32
            floats = (np.asarray(codes).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(invalid="ignore"):
        return floats.astype(np.float64)


def encode(numbers, format="fp32"):
    """Codes of float64 numbers, each rounded once, to nearest even."""
    numbers = np.asarray(numbers, np.float64)
    with np.errstate(all="ignore"):
        match _check(format):
            case "fp32":
                codes = numbers.astype(np.float32).view(np.uint32)
            case "fp16":
                codes = numbers.astype(np.float16).view(np.uint16)
            case "bf16":
                # Scaling by a power of two is exact, so `rint` is the one rounding: to 8 bits or, below the smallest
                # normal number, to units of 2**-133. What it makes of the largest numbers, 2**128, becomes infinity.
                units = np.ldexp(1.0, np.maximum(np.frexp(numbers)[1] - 8, -133))
                rounded = np.rint(numbers / units) * units
                codes = (rounded.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), _NANS[format], codes)


def add(a, b, format="fp32"):
    """Codes of a + b.

    The sum is rounded to float64 and again to the format. The second rounding does no harm: float64 has 53 bits, at
    least 2 p + 2 for p = 24, 11 and 8 (S. Figueroa, "When is double rounding innocuous?", 1995), and a subnormal sum is
    exact.
    """
    with np.errstate(all="ignore"):
        return encode(decode(a, format) + decode(b, format), format)


def multiply(a, b, exponent=0, *, a_format="fp32", b_format="fp32", o_format="fp32"):
    """Codes of a * b * 2**exponent.

    Rounded once. A product of two significands has at most 48 bits and is, if it is not zero, at least 2**-298: float64
    holds it, and also 2**exponent times it for exponents to +-700. There all products are past every format's range, so
    that is where the exponent stops.
    """
    with np.errstate(all="ignore"):
        product = decode(a, a_format) * decode(b, b_format)
        return encode(np.ldexp(product, np.clip(exponent, -700, 700)), o_format)


def convert(codes, i_format, o_format):
    """Codes of numbers in another format; rounded once, since float64 holds them."""
    return encode(decode(codes, i_format), o_format)


def int_to_float(integers, format="fp32"):
    """Codes of int64 integers.

    Rounded once: integers of 53 bits are exact in float64. Of others the last 11 bits become a sticky bit in the 12th,
    which leaves float64 exact and is far below the half unit of every format.
    """
    integers = np.asarray(integers, np.int64)
    sticky = (integers & -(1 << 11)) | ((integers & (1 << 11) - 1) != 0).astype(np.int64) << 11
    is_exact = (integers >= -(1 << 53)) & (integers <= 1 << 53)
    return encode(np.where(is_exact, integers, sticky).astype(np.float64), format)


def scale(sums, scales, exponents, nan=False, e8m0=False):
    """FP32 codes of round(sums) * scales * 2**exponents, where `e8m0` tells the type of each scale.

    NaN where `nan`. The product is rounded once, as in `multiply`: 24 bits times 11 bits or one.
    """
    codes = np.asarray(scales)
    powers = np.where(codes & 0xFF == 0xFF, np.nan, np.ldexp(1.0, (codes & 0xFF).astype(np.int64) - 128))
    factors = np.where(e8m0, powers, decode(codes, "fp16"))
    with np.errstate(all="ignore"):
        products = decode(int_to_float(sums)) * factors
        products = np.ldexp(products, np.clip(exponents, -700, 700))
    return encode(np.where(nan, np.nan, products))


def _check(format):
    if format not in _NANS:
        raise ValueError(f"format must be one of {', '.join(_NANS)}, not {format!r}")
    return format
