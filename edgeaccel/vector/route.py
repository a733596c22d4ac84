"""What makes a function's result beside the tables: sign, exponent, factor, and the results that are fixed."""

import math

from amaranth.hdl import Cat, Const, Mux, Signal, signed
from amaranth.lib import data

from edgeaccel.pe.float import FP32
from edgeaccel.vector.choice import POWERS, ROOTS
from edgeaccel.vector.table import runs_of

__all__ = ["Route", "add_exponent", "route", "table_end"]


class Route(data.Struct):
    """What makes a result of the core that the tables give.

    (-1)**sign * core * 2**(exponent - 127), times the argument's significand if `times_x`, unless it is told otherwise.
    """

    exponent: signed(10)
    sign: 1
    times_x: 1
    core_is_one: 1
    is_zero: 1
    is_inf: 1
    is_nan: 1


def route(m, x, choice):
    """The `Route` of an argument; tables and the integer part of a power add to its exponent later."""
    bias = FP32.bias
    powers, roots, tanh = choice.among(*POWERS), choice.among(*ROOTS), choice.among("tanh")
    is_zero = ~x.exponent.any()  # subnormal numbers count as zeros
    is_special = x.exponent.all()
    is_small = x.exponent < bias - 1  # |x| < 1/2
    ends = [choice.pick(lambda f, side=side: _first_bits(table_end(f, side))) for side in (0, 1)]
    is_large = Cat(x.fraction[-1], x.exponent) >= Mux(x.sign, ends[1], ends[0])

    def exponent(function):
        match function:
            case "exp2" | "exp":
                return Const(bias + 1)
            case "reciprocal":
                return 2 * bias - x.exponent
            case "rsqrt":
                return 3 * bias + 1 - x.exponent >> 1
            case "sigmoid":
                return Const(bias)
            case "tanh":
                return Mux(is_small, x.exponent, bias)
            case _:
                return x.exponent

    made = Signal(Route, name="route")
    m.d.comb += [
        made.exponent.eq(choice.pick(exponent)),
        made.sign.eq(x.sign & ~(powers | choice.among("sigmoid"))),
        made.times_x.eq(choice.among("silu", "gelu", "gelu_tanh") | (tanh & is_small)),
        made.core_is_one.eq(is_large & (~x.sign | tanh)),
        # A zero as a factor has an exponent that no result has, so it needs no flag.
        made.is_zero.eq((is_large & x.sign & ~tanh) | (roots & is_special)),
        made.is_inf.eq((is_large & ~x.sign & powers) | (roots & is_zero)),
        made.is_nan.eq((is_special & x.fraction.any()) | (choice.among("rsqrt") & x.sign & ~is_zero)),
    ]
    return made


def add_exponent(m, route, exponent):
    """A `Route` with a power of two more."""
    made = Signal(Route, name="route")
    m.d.comb += [made.eq(route), made.exponent.eq(route.exponent + exponent)]
    return made


def table_end(function, side):
    """The magnitude from which on the tables do not count: results are infinite, zero, or have a core of one."""
    match function:
        case "exp2":
            return 256
        case "exp":
            return 128
        case "reciprocal" | "rsqrt":
            return math.inf
        case _:
            return runs_of(function, side)[-1].stop


def _first_bits(number):
    """Exponent field and first fraction bit of a positive number that has no more."""
    if math.isinf(number):
        return FP32.special_exponent << 1
    fraction, exponent = math.frexp(number)
    return (exponent + FP32.bias - 1 << 1) + int(4 * fraction) - 2
