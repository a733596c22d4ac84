"""From an FP32 argument to a row of the tables and a place in its segment."""

import math

from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32, clip_distance
from edgeaccel.vector.choice import GRID, POWERS, ROOTS
from edgeaccel.vector.route import add_exponent, table_end
from edgeaccel.vector.table import runs_of

__all__ = ["STEP_BITS", "locate"]

STEP_BITS = 17  # of a place in a segment: what the shorter operand of a DSP48E2 has, less its sign
LOG2_E_BITS = 25
LOG2_E = round(2 ** (LOG2_E_BITS - 1) / math.log(2))


def locate(pipe, x, choice, table):
    """Row of the table and place in its segment, (address, step), through one to four stages.

    The pipe carries a `route`; the integer part of a power goes into its exponent.
    """
    m = pipe.m
    functions = choice.functions
    windows = sorted({_window(function, side) for function in functions for side in (0, 1)})
    side = Mux(choice.among("rsqrt"), ~x.exponent[0], x.sign)

    def of_side(value_of):
        return lambda function: Mux(side, value_of(function, 1), value_of(function, 0))

    pipe.carry(
        base=choice.pick(of_side(table.base)),
        window=choice.pick(of_side(lambda *run: windows.index(_window(*run)))),
        falls=x.sign,
        fraction=x.fraction,
    )
    sources = {}
    if on_grid := [function for function in functions if function in GRID]:
        grid = _Grid(on_grid)
        magnitude = grid.convert(pipe, x, choice)
        sources |= dict.fromkeys(("magnitude", "part"), (magnitude, grid.fraction_bits))
    window, falls = pipe.take("window"), pipe.take("falls")
    sources["significand"] = pipe.take("fraction"), FP32.fraction_width

    places = []
    for source, segment_bits in windows:
        bits, point = sources[source]
        low = point - segment_bits
        index, power = bits[low:], Const(0, 1)
        if source == "part":
            # Rising 2 * 2**n * (2**part / 2), falling 2 * 2**(-n - 1) * 2**-part; and -n - 1 is ~n.
            index, integer = bits[low:point], bits[point:]
            power = Cat(integer ^ falls.replicate(len(integer)), falls).as_signed()
        places.append((index, bits[low - STEP_BITS : low], power))
    index, step, power = (_chosen(window, values) for values in zip(*places, strict=True))
    pipe.carry(route=add_exponent(m, pipe.take("route"), power))
    return pipe.stage(address=(pipe.take("base") + index)[: ceil_log2(len(table.rows))], step=step)


def _chosen(number, values):
    """Value `number` of some."""
    *others, last = values
    for n, value in reversed(list(enumerate(others))):
        last = Mux(number == n, value, last)
    return last


def _window(function, side):
    """Where the index of a segment is taken from, and how many bits of it come after the point."""
    if function in ROOTS:
        return "significand", runs_of(function, 0)[0].segment_bits
    return "part" if function in POWERS else "magnitude", runs_of(function, side)[0].segment_bits


class _Grid:
    """Magnitudes in fixed point, as the tables of some functions need them.

    Parameters
    ----------
    functions : list of str

    Members
    -------
    integer_bits, fraction_bits, width : int
        As many integer bits as the ends of the tables have, and fraction bits down to the smallest step.
    """

    def __init__(self, functions):
        sides = [(function, side) for function in functions for side in (0, 1)]
        self._functions = functions
        # exp(x) ends at x = 128, its magnitude times log2(e).
        self.integer_bits = ceil_log2(max(256 if run[0] in POWERS else table_end(*run) for run in sides))
        self.fraction_bits = max(runs_of(*run)[0].segment_bits for run in sides) + STEP_BITS
        self.width = self.integer_bits + self.fraction_bits

    def convert(self, pipe, x, choice):
        """|x|, or |x| * log2(e) for `exp`, rounded down, in two or three stages; from the end on it does not matter."""
        significand_width = FP32.significand_width
        # The binade of which nothing is to be shifted; one less before log2(e), which makes a number longer by a bit.
        first = FP32.bias + self.integer_bits - 1
        is_exp = choice.among("exp")
        distance = Signal(FP32.exponent_width)
        pipe.m.d.comb += distance.eq(first - is_exp - x.exponent)
        is_mixed = {"exp"} < set(self._functions)
        if is_mixed:
            pipe.carry(is_exp=is_exp)
        significand, distance = pipe.stage(
            significand=Cat(x.fraction, x.exponent.any()), distance=clip_distance(distance, self.width)
        )
        aligned = significand << self.width - significand_width
        if "exp" in self._functions:
            product, aligned, distance = pipe.stage(product=significand * LOG2_E, aligned=aligned, distance=distance)
            product = product[significand_width + LOG2_E_BITS - self.width :]
            aligned = Mux(pipe.take("is_exp"), product, aligned) if is_mixed else product
        return pipe.stage(magnitude=(aligned >> distance)[: self.width])
