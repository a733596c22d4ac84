"""Which function an element is for."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Mux, Value
from amaranth.lib import enum

__all__ = ["GRID", "POWERS", "PRODUCTS", "ROOTS", "Choice", "Function"]

POWERS = ("exp2", "exp")
ROOTS = ("reciprocal", "rsqrt")  # their tables are for the significand alone
PRODUCTS = ("silu", "gelu", "gelu_tanh", "tanh")  # with the argument; tanh below 1/2
GRID = (*POWERS, "sigmoid", *PRODUCTS)  # their tables are for the magnitude in fixed point


class Function(enum.Enum, shape=4):
    """Functions of a vector lane; `edgeaccel.golden.function` has them by the same names in lower case."""

    EXP2 = 0
    EXP = 1
    RECIPROCAL = 2
    RSQRT = 3
    SIGMOID = 4
    SILU = 5
    TANH = 6
    GELU = 7
    GELU_TANH = 8


class Choice:
    """The function of an element in a build of some.

    Parameters
    ----------
    functions : sequence of str
        Those of the build.
    code : Value or None
        The element's, a `Function`; None in a build of one.
    """

    def __init__(self, functions, code=None):
        self.functions = functions
        self._code = code

    def among(self, *names):
        """Whether the function is one of these; a constant if the build leaves no doubt."""
        chosen = [name for name in self.functions if name in names]
        if len(chosen) in (0, len(self.functions)):
            return Const(bool(chosen))
        return Cat(self._code == Function[name.upper()] for name in chosen).any()

    def pick(self, value_of):
        """`value_of(function)`, of the element's function; it is called once for each of the build."""
        if len(self.functions) == 1:
            return Value.cast(value_of(self.functions[0]))
        # Not as a chain, in which each function would wait for the one before.
        return reduce(or_, (Mux(self.among(name), value_of(name), 0) for name in self.functions))
