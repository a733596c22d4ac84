"""Tables of the elementary functions: the parabolas between three values of each segment.

A *run* is a stretch of a function with segments of one length. In a segment from `a` of length `h` stands the parabola
through f(a), f(a + h / 2) and f(a + h), so that neighbours meet, and with t from 0 to 1

    f(a + t * h) ~ f(a) + t * (slope + t * bend),   error at most max|f'''| * h**3 / (72 * sqrt(3))

All functions here have values of at most 1. A run that falls to zero has its segments *scaled*: by 2**exponent, so that
f(a) is in 1/2 to 1, and the error is relative to the function.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from amaranth.hdl import Shape
from amaranth.lib import data
from amaranth.lib.memory import Memory

__all__ = ["FRACTION_BITS", "Run", "Table", "runs_of"]

FRACTION_BITS = 22  # of what a table holds


@dataclass(frozen=True)
class Run:
    """A stretch of a function.

    Parameters
    ----------
    f : function of a float
    start, stop : float
    segment_bits : int
        2**segment_bits segments a unit.
    is_scaled : bool
        Whether each segment has an exponent of its own.
    """

    f: Callable
    start: float
    stop: float
    segment_bits: int
    is_scaled: bool = False

    def rows(self):
        """For each segment (exponent, start, slope, bend), all but the exponent in units of 2**-FRACTION_BITS."""
        h = 2.0**-self.segment_bits
        for n in range(round((self.stop - self.start) / h)):
            a = self.start + n * h
            first, middle, last = self.f(a), self.f(a + h / 2), self.f(a + h)
            exponent = -math.ceil(math.log2(first)) if self.is_scaled else 0
            terms = (first, 4 * middle - 3 * first - last, 2 * (first - 2 * middle + last))
            yield exponent, *(math.floor(term * 2.0 ** (FRACTION_BITS + exponent) + 0.5) for term in terms)


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


def _normal(x):
    """The normal distribution function."""
    return math.erfc(-x / math.sqrt(2)) / 2


def _normal_tanh(x):
    """(1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2, which is a sigmoid."""
    return _sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def _gate(f, *, rising, falling):
    """Sides of a distribution function over |x|: (end, segment bits) for x >= 0 and below."""
    return (Run(f, 0, *rising),), (Run(lambda u: f(-u), 0, *falling, is_scaled=True),)


# A table has one or two sides, each of one or more runs. The second is for arguments below zero, or for `rsqrt` for odd
# exponents. Segments are as long as an error far below half a unit of FP16 allows, and where a run ends the function is
# as near to its limit: beyond it is 1, or 0.
SIDES = {
    "exp2": ((Run(lambda u: 2**u / 2, 0, 1, 4),), (Run(lambda u: 2**-u, 0, 1, 4),)),
    "reciprocal": ((Run(lambda m: 1 / m, 1, 2, 5),),),
    "rsqrt": ((Run(lambda m: m**-0.5, 1, 2, 5),), (Run(lambda m: m**-0.5, 2, 4, 4),)),
    "sigmoid": _gate(_sigmoid, rising=(16, 3), falling=(24, 4)),
    "tanh": ((Run(lambda u: math.tanh(u) / u if u else 1, 0, 0.5, 4), Run(math.tanh, 0.5, 8, 4)),),
    "gelu": _gate(_normal, rising=(6, 4), falling=(6, 5)),
    "gelu_tanh": _gate(_normal_tanh, rising=(6, 4), falling=(6, 5)),
}
SHARED = {"exp": "exp2", "silu": "sigmoid"}


def runs_of(function, side):
    """The runs of a side of a function's table, 0 or 1; a table with one has it on both."""
    sides = SIDES[SHARED.get(function, function)]
    return sides[min(side, len(sides) - 1)]


@cache
def _rows(runs):
    return tuple(row for run in runs for row in run.rows())


class Table:
    """The tables of some functions, one behind the other in one memory.

    Parameters
    ----------
    functions : collection of str

    Members
    -------
    rows : list of tuple of int
        (exponent, start, slope, bend).
    layout : StructLayout
        These fields, as narrow as the rows allow.
    """

    FIELDS = ("exponent", "start", "slope", "bend")

    def __init__(self, functions):
        self._bases, self.rows = {}, []
        for runs in dict.fromkeys(runs_of(function, side) for function in functions for side in (0, 1)):
            self._bases[runs] = len(self.rows)
            self.rows += _rows(runs)
        spans = (range(min(column), max(column) + 1) for column in zip(*self.rows, strict=True))
        self.layout = data.StructLayout({name: Shape.cast(span) for name, span in zip(self.FIELDS, spans, strict=True)})

    def base(self, function, side):
        """Row of the first segment of a side of a function."""
        return self._bases[runs_of(function, side)]

    def memory(self):
        """The rows as a memory."""
        init = [self.layout.const(dict(zip(self.FIELDS, row, strict=True))).as_value().value for row in self.rows]
        return Memory(shape=self.layout.size, depth=len(init), init=init)
