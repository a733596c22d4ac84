"""Golden models of the elementary functions: parabolas through the functions themselves.

Codes are FP32. A number is looked up in a table of segments, each with the parabola that meets the function at both
ends and in the middle, where it is computed with 50 decimal digits. What is looked up, the *core*, lies between
1/4 and 1. Beside it are an exact power of two and, for some functions, the argument itself:

    exp2(x) = 2**n * core(u - n), or 2**(n + 1) for x > 0   u = |x|, n = floor(u)
    exp(x) = exp2(x * log2(e))
    reciprocal(x) = core(m) / 2**n                          |x| = m * 2**n, 1 <= m < 2
    rsqrt(x) = core(m) / 2**n                               x = m * 4**n, 1 <= m < 4
    sigmoid(x) = core(u) / 2**e                             u = |x|; `e` belongs to the segment, 0 for x > 0
    silu(x) = x * sigmoid(x)
    gelu(x) = x * core(u) / 2**e                            the core is the normal distribution function
    gelu_tanh(x) = x * core(u) / 2**e                       the core is (1 + tanh(...)) / 2
    tanh(x) = x * core(u) for u < 1/2, else +-core(u)

What is rounded: values of the parabolas to 22 fraction bits, to nearest; `u` and `m` down, to 2**-17 of a segment; both
products of the parabola down, to 22 fraction bits; the result towards zero, to the 24 bits of FP32. Subnormal arguments
count as zeros, and subnormal results are zeros.
"""

from decimal import Decimal, localcontext
from functools import cache

import numpy as np

from edgeaccel.golden.float import decode, encode

__all__ = ["FUNCTIONS", "evaluate", "latency", "parabolas"]

FUNCTIONS = ("exp2", "exp", "reciprocal", "rsqrt", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh")

DIGITS = 50
PI = Decimal("3.14159265358979323846264338327950288419716939937511")
STEPS = 1 << 17  # of an argument in a segment
ONE = 1 << 22
SMALLEST = 2.0**-126


def evaluate(function, codes):
    """FP32 codes of a function of FP32 codes.

    Parameters
    ----------
    function : str
        One of `FUNCTIONS`.
    codes : int array

    Returns
    -------
    uint32 array
    """
    _check(function)
    x = _flush(decode(codes))
    with np.errstate(all="ignore"):
        y = _MODELS[function](np.where(np.isnan(x), 0.0, x))
        fraction, exponent = np.frexp(y)
        y = _flush(np.ldexp(np.trunc(np.ldexp(fraction, 24)), exponent - 24))
    return encode(np.where(np.isnan(x), np.nan, y)).astype(np.uint32)


def latency(functions):
    """Cycles from taking an argument to offering its result, of a unit with these functions.

    Address, table (two), parabola (four), normalising and rounding are nine, and the queue is one. All but `reciprocal`
    and `rsqrt` shift their argument, which takes two more; `exp` and those that multiply by `x` have a multiplier more.
    """
    for function in functions:
        _check(function)
    shifts = set(functions) - {"reciprocal", "rsqrt"}
    return 10 + 2 * bool(shifts) + ("exp" in shifts) + bool(shifts & {"silu", "tanh", "gelu", "gelu_tanh"})


def _check(function):
    if function not in FUNCTIONS:
        raise ValueError(f"function must be one of {', '.join(FUNCTIONS)}, not {function!r}")


def _flush(x):
    return np.where(np.abs(x) < SMALLEST, np.copysign(0.0, x), x)


# Models of numbers: float64 holds all that they make exactly.


def _exp2(x):
    return _power_of_two(x, np.floor(np.ldexp(np.minimum(np.abs(x), 256), 21)))


def _exp(x):
    significand, exponent = np.frexp(np.minimum(np.abs(x), 256))
    with localcontext(prec=DIGITS):
        log2_e = round(2**24 / Decimal(2).ln())
    # Of 49 bits, shifted right by 19 bits or more where the result is neither zero nor infinite.
    product = np.ldexp(significand, 24).astype(np.int64) * log2_e
    return _power_of_two(x, np.floor(np.ldexp(product.astype(np.float64), exponent - 27)))


def _power_of_two(x, steps):
    """2**(+-steps / 2**21) with the sign of x."""
    n, rest = np.divmod(np.minimum(steps, 256 * 16 * STEPS).astype(np.int64), 16 * STEPS)
    return np.where(
        np.signbit(x),
        np.ldexp(_core("exp2 falling", rest), -n),
        np.ldexp(_core("exp2 rising", rest), n + 1),
    )


def _reciprocal(x):
    m, n = _binade(x)
    y = np.ldexp(_core("reciprocal", _steps(m - 1, 32)), -n)
    return np.copysign(np.where(x == 0, np.inf, np.where(np.isinf(x), 0, y)), x)


def _rsqrt(x):
    m, n = _binade(x)
    core = np.where(n % 2, _core("rsqrt from 2", _steps(m - 1, 32)), _core("rsqrt to 2", _steps(m - 1, 32)))
    y = np.where(np.isinf(x), 0, np.ldexp(core, -(n // 2)))
    return np.where(x == 0, np.copysign(np.inf, x), np.where(x < 0, np.nan, y))


def _sigmoid(x):
    return _gate(x, ("sigmoid rising", 16, 8), ("sigmoid falling", 24, 16))


def _silu(x):
    return _product(x, _sigmoid(x))


def _gelu(x):
    return _product(x, _gate(x, ("gelu rising", 6, 16), ("gelu falling", 6, 32)))


def _gelu_tanh(x):
    return _product(x, _gate(x, ("gelu_tanh rising", 6, 16), ("gelu_tanh falling", 6, 32)))


def _tanh(x):
    u = np.abs(x)
    factor = _core("tanh over x", _steps(np.where(u < 0.5, u, 0), 16))
    core = _core("tanh", _steps(np.where((u >= 0.5) & (u < 8), u, 0.5) - 0.5, 16))
    return np.where(u < 0.5, x * factor, np.copysign(np.where(u < 8, core, 1), x))


def _gate(x, rising, falling):
    """A distribution function: of either sign a table, where it ends, and its segments a unit."""
    u = np.abs(x)

    def core(table, end, segments):
        return _core(table, _steps(np.where(u < end, u, 0), segments))

    below = np.where(u < falling[1], core(*falling), 0)
    return np.where(np.signbit(x), below, np.where(u < rising[1], core(*rising), 1))


def _product(x, gate):
    return np.where(x == -np.inf, -0.0, x * gate)


_MODELS = {
    "exp2": _exp2,
    "exp": _exp,
    "reciprocal": _reciprocal,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}


def _binade(x):
    """(m, n) with |x| = m * 2**n and 1 <= m < 2; (1, 0) for what has none."""
    significand, exponent = np.frexp(np.where(np.isfinite(x) & (x != 0), np.abs(x), 1))
    return 2 * significand, exponent - 1


def _steps(argument, segments):
    return np.floor(argument * segments * STEPS).astype(np.int64)


def _core(table, steps):
    """Value at so many steps from the beginning of a table."""
    exponent, at_0, slope, bend = parabolas(table)[steps // STEPS].T
    t = steps % STEPS
    value = at_0 + ((slope + (bend * t >> 17)) * t >> 17)
    return np.ldexp(value / ONE, -exponent)


# Tables: function, where it starts and ends, segments a unit, and whether each segment is scaled by a power of two.


@cache
def parabolas(table):
    """int64 [segments, 4]: exponent, value at the start, slope and bend of the parabola over 2**exponent."""
    function, start, end, segments, is_scaled = _TABLES[table]
    with localcontext(prec=DIGITS):
        rows = []
        for n in range(int((end - start) * segments)):
            left, middle, right = (function(Decimal(start) + (n + part) / segments) for part in _PARTS)
            exponent = 0
            while is_scaled and left * 2 ** (exponent + 1) <= 1:
                exponent += 1
            scale = ONE * 2**exponent
            terms = (left, 4 * middle - 3 * left - right, 2 * (left + right) - 4 * middle)
            rows.append([exponent, *(int((term * scale).to_integral_value()) for term in terms)])
    return np.array(rows, np.int64)


_PARTS = (Decimal(0), Decimal("0.5"), Decimal(1))


def _logistic(x):
    return 1 / (1 + (-x).exp())


def _hyperbolic_tangent(x):
    return 2 * _logistic(2 * x) - 1


def _normal_distribution(x):
    """1/2 + density(x) * (x + x**3 / 3 + x**5 / (3 * 5) + ...)"""
    term = total = x
    for odd in range(3, 400, 2):
        term *= x * x / odd
        total += term
    return Decimal("0.5") + (-x * x / 2).exp() / (2 * PI).sqrt() * total


def _gelu_tanh_gate(x):
    return _logistic(2 * (2 / PI).sqrt() * (x + Decimal("0.044715") * x**3))


_TABLES = {
    "exp2 rising": (lambda u: 2 ** (u - 1), 0, 1, 16, False),
    "exp2 falling": (lambda u: 2**-u, 0, 1, 16, False),
    "reciprocal": (lambda m: 1 / m, 1, 2, 32, False),
    "rsqrt to 2": (lambda m: 1 / m.sqrt(), 1, 2, 32, False),
    "rsqrt from 2": (lambda m: 1 / (2 * m).sqrt(), 1, 2, 32, False),
    "sigmoid rising": (_logistic, 0, 16, 8, False),
    "sigmoid falling": (lambda u: _logistic(-u), 0, 24, 16, True),
    "tanh over x": (lambda u: _hyperbolic_tangent(u) / u if u else Decimal(1), 0, 0.5, 16, False),
    "tanh": (_hyperbolic_tangent, 0.5, 8, 16, False),
    "gelu rising": (_normal_distribution, 0, 6, 16, False),
    "gelu falling": (lambda u: _normal_distribution(-u), 0, 6, 32, True),
    "gelu_tanh rising": (_gelu_tanh_gate, 0, 6, 16, False),
    "gelu_tanh falling": (lambda u: _gelu_tanh_gate(-u), 0, 6, 32, True),
}
