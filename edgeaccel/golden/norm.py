"""RMSNorm and LayerNorm in NumPy, on FP32 codes: what the units give, and after how many cycles."""

import numpy as np

from edgeaccel.golden import function
from edgeaccel.golden.float import add, multiply
from edgeaccel.golden.vector import relu, total

__all__ = ["applier_latency", "apply", "norm", "statistics", "statistics_latency"]

SIGN = np.uint32(1 << 31)
ADDER, MULTIPLIER = 5, 5  # register stages


def statistics(codes, inverse_length, epsilon, *, centre=False):
    """(mean, scale) of a vector, codes; the mean is +0 unless `centre` asks for LayerNorm."""
    mean = multiply(total(codes), inverse_length) if centre else 0
    variance = multiply(total(codes, square=True), inverse_length)
    if centre:
        variance = relu(add(variance, multiply(mean, int(mean) ^ SIGN)))
    return int(mean), int(function.evaluate("rsqrt", add(variance, epsilon)))


def apply(codes, mean, scale, gain, bias=None):
    """Codes of ((x - mean) * scale) * gain + bias, without the difference and the sum if there is no bias."""
    codes = codes if bias is None else add(codes, np.uint32(mean) ^ SIGN)
    codes = multiply(multiply(codes, scale), gain)
    return codes if bias is None else add(codes, bias)


def norm(codes, gain, bias, inverse_length, epsilon, *, centre=False):
    """Codes of a whole vector; `bias` is None in a build of RMSNorm alone."""
    return apply(codes, *statistics(codes, inverse_length, epsilon, centre=centre), gain, bias)


def statistics_latency(lanes, max_length, *, layer=False):
    """Cycles from a vector's last beat to its statistics.

    A stage that leaves out lanes, the squares, a level of adders for each halving of the lanes and, with a stage that
    pairs, of the beats, the mean; LayerNorm's square of the mean, difference and clipping; epsilon; rsqrt.
    """
    levels = max(1, int(np.ceil(np.log2(max_length // lanes))))
    sums = 1 + MULTIPLIER + ADDER * int(np.log2(lanes)) + (ADDER + 1) * levels
    variance = MULTIPLIER + ADDER + 1 if layer else 0
    return sums + MULTIPLIER + variance + ADDER + function.latency({"rsqrt"})


def applier_latency(*, layer=False):
    """Cycles from a beat and its statistics to the result."""
    return 2 * MULTIPLIER + (2 * ADDER if layer else 0) + 1
