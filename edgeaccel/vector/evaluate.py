"""The datapath of the elementary functions, from code to code.

All that depends on the function is decided in the first stage (`route`, `locate`): what comes after does not know which
function it is.
"""

from amaranth.hdl import Cat, Mux, Signal

from edgeaccel.pe.float import FP32, Unpacked, pack
from edgeaccel.pe.product import product
from edgeaccel.vector.argument import locate
from edgeaccel.vector.choice import GRID, PRODUCTS
from edgeaccel.vector.parabola import evaluate_parabola
from edgeaccel.vector.route import route
from edgeaccel.vector.table import FRACTION_BITS, Table

__all__ = ["evaluate", "evaluation_cycles"]

EXPONENTS = range(-256, 512)  # of results, until those too small are made zero and those too large infinite


def evaluation_cycles(functions):
    """Register stages of `evaluate`.

    Address, table (two), parabola (four), normalising and rounding are nine. All functions but `reciprocal` and `rsqrt`
    shift their argument, in two more; log2(e) and the argument as a factor take one each.
    """
    return 9 + 2 * _any_of(functions, GRID) + ("exp" in functions) + _any_of(functions, PRODUCTS)


def evaluate(pipe, code, choice):
    """Code of a function of a code, in a submodule with a pipe of its own."""
    functions = choice.functions
    inner = pipe.branch("function")
    x = FP32.layout(code)
    table = Table(functions)
    has_product = _any_of(functions, PRODUCTS)
    inner.carry(route=route(inner.m, x, choice))
    if has_product:
        inner.carry(x_fraction=x.fraction)

    address, step = locate(inner, x, choice, table)
    core = evaluate_parabola(inner, address, step, table)
    if has_product:
        fraction = inner.take("x_fraction") & inner.route.times_x.replicate(FP32.fraction_width)
        core = inner.stage(product=product(core, Cat(fraction, 1)))
    else:
        core <<= FP32.fraction_width
    result = _to_float(inner, core[: FRACTION_BITS + FP32.significand_width])
    pipe.wait(inner.cycles)
    return result


def _any_of(functions, others):
    return not set(functions).isdisjoint(others)


def _to_float(pipe, core):
    """Code of a number, in two stages: from a core of at least 1/4, first bit 1, cut to the bits of FP32."""
    m = pipe.m
    width = FP32.significand_width
    route = pipe.take("route")
    windows = [core[-width - zeros : len(core) - zeros] for zeros in range(3)]
    zeros = Mux(core[-1], 0, Mux(core[-2], 1, 2))
    x = Signal(Unpacked(EXPONENTS, width, bias=FP32.bias), name="normalised")
    m.d.comb += [
        x.significand.eq(Mux(core[-1], windows[0], Mux(core[-2], windows[1], windows[2]))),
        x.exponent.eq(route.exponent - zeros),
        x.sign.eq(route.sign),
        x.is_inf.eq(route.is_inf),
        x.is_nan.eq(route.is_nan),
    ]
    x, is_zero = pipe.stage(x=x, is_zero=route.is_zero)
    # What would be subnormal is zero.
    is_zero |= x.exponent < 1
    x = x.shape().signal(m, x, "flushed", significand=x.significand & ~is_zero.replicate(width))
    return pipe.stage(result=pack(m, x, FP32))
