"""Quantising vectors for the KV cache in NumPy, on FP32 codes: what the units give, and after how many cycles."""

import numpy as np

from edgeaccel.golden.float import decode, encode

__all__ = ["applier_latency", "codes", "quantise", "scale", "scale_latency"]

NAN = 0x7E00
LARGEST = {"int4": 7, "int8": 127, "int16": 32767}


def scale(vector, format):
    """FP16 code of a vector's scale; float64 holds a quotient by 7 or 127 well enough to round it again."""
    largest = np.abs(decode(vector)).max()
    if not np.isfinite(largest):
        return NAN
    if largest == 0:
        return 0
    number = 2.0 ** (np.frexp(largest)[1] - 1 - 14) if format == "int16" else largest / LARGEST[format]
    code = int(encode(max(number, 2.0**-24), "fp16"))
    return NAN if code == 0x7C00 else code


def codes(vector, scale, format):
    """Integers nearest to the quotients of a vector by a scale, an FP16 code.

    A quotient of 24 bits by 11 that is no tie is further than 2**-36 of itself from one, so float64 makes none.
    """
    divisor = decode(scale, "fp16")
    if divisor == 0 or np.isnan(divisor):
        return np.zeros(len(vector), int)
    limit = LARGEST[format]
    return np.clip(np.rint(decode(vector) / divisor), -limit, limit).astype(int)


def quantise(vector, format):
    """(codes, scale) of a vector."""
    code = scale(vector, format)
    return codes(vector, code, format), code


def scale_latency(lanes):
    """From a vector's last beat to its scale: lanes left out, lanes, beats, the quotient (five), queue."""
    return 1 + int(np.log2(lanes)) + 1 + 5 + 1 + 1


def applier_latency():
    """From a beat and its scale to codes: reading, normalising, aligning (two), 17 bits, rounding, queue."""
    return 4 + 17 + 1 + 1
