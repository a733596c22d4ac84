"""Values summed over the chunks of a slot in NumPy, on FP32 codes: results, and the cycles of all that moves.

What was summed before is multiplied by two to minus the shift of the chunk that comes, which is exact but that numbers
below 2**-126 become zeros; the end is multiplied by one over the sum of the weights.
"""

import numpy as np

from edgeaccel.golden import function
from edgeaccel.golden.float import add, multiply

__all__ = ["accumulate", "accumulate_sum", "finish", "inverse", "shifted"]

NEGATIVE_ZERO = np.uint32(1 << 31)
INFINITY = 0x7F800000


def shifted(codes, shift):
    """Codes of x * 2**-shift: zeros of its sign where x or that is below 2**-126, infinities and NaNs as they are."""
    codes = np.asarray(codes, np.uint32)
    sign, magnitude = codes & NEGATIVE_ZERO, codes & ~NEGATIVE_ZERO
    exponent = (magnitude >> 23).astype(np.int64)
    moved = magnitude - (np.asarray(shift, np.uint32) << np.uint32(23))
    return sign | np.where(exponent == 255, magnitude, np.where(exponent > shift, moved, 0)).astype(np.uint32)


def accumulate(before, results, shift, first):
    """Codes of a slot's sums with the results of another chunk: all arrays, of shapes that broadcast."""
    before = np.where(first, NEGATIVE_ZERO, shifted(before, shift))
    return add(before, results).astype(np.uint32)


def accumulate_sum(before, total, shift, first):
    """Codes of a slot's sums of weights with those of another chunk, as in `accumulate`."""
    return accumulate(before, total, shift, first)


def inverse(totals):
    """Codes of 1/total, and 0 where that is infinite."""
    codes = function.evaluate("reciprocal", np.ravel(totals)).reshape(np.shape(totals))
    return np.where(codes & ~NEGATIVE_ZERO == INFINITY, 0, codes).astype(np.uint32)


def finish(codes, totals):
    """Codes of the sums of a slot times one over its sum of weights, of shapes that broadcast."""
    return multiply(codes, inverse(totals)).astype(np.uint32)
