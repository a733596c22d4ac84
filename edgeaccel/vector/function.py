"""Elementary functions of FP32 numbers: a unit for several, and one for each.

All are the same datapath, one element a cycle: a table gives the parabola of the argument's segment, two multipliers
evaluate it, and another multiplies by the argument where the function asks for it. See `edgeaccel.vector.table` for
the parabolas and `edgeaccel.vector.argument` for what is looked up.

Subnormal arguments count as zeros of their sign, and results below 2**-126 are zeros. Every NaN is 0x7FC00000. Where
nothing else is said, errors are relative and for all FP32 arguments, as far as results are normal. Rounded to FP16, the
result for an FP16 argument is the correctly rounded one or next to it, and rises and falls where the function does.
"""

from amaranth.lib import data

from edgeaccel.pe.float import FP32
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.choice import Choice, Function
from edgeaccel.vector.evaluate import evaluate, evaluation_cycles

__all__ = [
    "GELU",
    "Exponential",
    "Exponential2",
    "FunctionUnit",
    "Reciprocal",
    "ReciprocalSquareRoot",
    "SiLU",
    "Sigmoid",
    "Tanh",
    "TanhGELU",
]


class FunctionUnit(Pipelined):
    """Several functions that share one table memory and all multipliers; each element tells which it wants.

    Results are those of the units for one function. Equals `edgeaccel.golden.function.evaluate`. One element a cycle,
    functions in any order. Two DSP48E2 evaluate the parabola, one multiplies by the argument, and two more are for
    'exp' alone. By default it takes 838 LUT, 3 DSP48E2 and 2 block RAMs, estimated by Yosys.

    Parameters
    ----------
    functions : collection of str
        Of 'exp2', 'exp', 'reciprocal', 'rsqrt', 'sigmoid', 'silu', 'tanh', 'gelu', 'gelu_tanh'.

    Members
    -------
    i : stream of {x: FP32 code, function: Function}
        No `function` in a build of one. One that is not in the build gives a result that means nothing.
    o : stream of FP32 codes
    latency : int
        10 cycles with 'reciprocal' and 'rsqrt' alone; 2 more with any other, 1 more with 'exp', and 1 more with any of
        'silu', 'tanh', 'gelu' and 'gelu_tanh'. `edgeaccel.golden.function.latency`.

    Raises
    ------
    ValueError
        If `functions` is empty or has others.
    """

    def __init__(self, functions=("exp2", "reciprocal", "rsqrt", "silu", "gelu")):
        names = [function.name.lower() for function in Function]
        if not functions or isinstance(functions, str) or not set(functions) <= set(names):
            raise ValueError(f"functions must be one or more of {', '.join(names)}, not {functions!r}")
        self.functions = tuple(name for name in names if name in functions)
        element = {"x": FP32.width}
        if len(self.functions) > 1:
            element["function"] = Function
        cycles = evaluation_cycles(self.functions)
        super().__init__({"i": data.StructLayout(element)}, FP32.width, cycles=cycles)

    name = "function"

    @property
    def key(self):
        return self.functions

    def datapath(self, pipe, i):
        code = i.function if len(self.functions) > 1 else None
        return evaluate(pipe, i.x, Choice(self.functions, code))


class _SingleFunction(Pipelined):
    """A unit from FP32 codes to FP32 codes; subclasses name the `function`."""

    def __init__(self):
        super().__init__({"i": FP32.width}, FP32.width, cycles=evaluation_cycles([self.function]))

    @property
    def name(self):
        return self.function

    @property
    def key(self):
        return self.function

    def datapath(self, pipe, i):
        return evaluate(pipe, i, Choice([self.function]))


class Exponential2(_SingleFunction):
    """o = 2**i, with an error of at most 2**-19.

    Whole numbers give exact powers of two. 0 for -inf and below -126, +inf from 128 on.

    Equals `edgeaccel.golden.function.evaluate("exp2", ...)`. One element a cycle. 2 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        12 cycles.
    """

    function = "exp2"


class Exponential(_SingleFunction):
    """o = e**i, with an error of at most 2**-18.4.

    2**(i * log2(e)), with log2(e) in 25 bits. 0 for -inf and below -87.34, +inf from 88.73 on.

    Equals `edgeaccel.golden.function.evaluate("exp", ...)`. One element a cycle. 4 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        13 cycles.
    """

    function = "exp"


class Reciprocal(_SingleFunction):
    """o = 1 / i, with an error of at most 2**-19.

    Powers of two give exact ones. Infinite for zeros and zero for infinities, of their sign; zero above 2**126.

    Equals `edgeaccel.golden.function.evaluate("reciprocal", ...)`. One element a cycle. 2 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        10 cycles.
    """

    function = "reciprocal"


class ReciprocalSquareRoot(_SingleFunction):
    """o = 1 / sqrt(i), with an error of at most 2**-19.3 (IEEE 754-2019 section 9.2, rSqrt).

    Powers of four give exact powers of two. Infinite for zeros, of their sign, 0 for +inf, NaN below zero.

    Equals `edgeaccel.golden.function.evaluate("rsqrt", ...)`. One element a cycle. 2 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        10 cycles.
    """

    function = "rsqrt"


class Sigmoid(_SingleFunction):
    """o = 1 / (1 + e**-i), with an error of at most 2**-17.5 from -24 on.

    0 from -24 down, 1 from 16 on; the absolute error of that is at most 2**-34.6 and 2**-23.

    Equals `edgeaccel.golden.function.evaluate("sigmoid", ...)`. One element a cycle. 2 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        12 cycles.
    """

    function = "sigmoid"


class SiLU(_SingleFunction):
    """o = i / (1 + e**-i), the activation of Llama, with an error of at most 2**-17.5 from -24 on.

    `Sigmoid` times the argument in the same pipeline, not rounded between. -0 from -24 down to -inf, with an absolute
    error of at most 2**-30; the argument itself from 16 on.

    Equals `edgeaccel.golden.function.evaluate("silu", ...)`. One element a cycle. 3 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        13 cycles.
    """

    function = "silu"


class Tanh(_SingleFunction):
    """o = tanh(i), with an error of at most 2**-18.3.

    Below 1/2 the table has tanh(u) / u and is multiplied by the argument. 1 or -1 from 8 on.

    Equals `edgeaccel.golden.function.evaluate("tanh", ...)`. One element a cycle. 3 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        13 cycles.
    """

    function = "tanh"


class GELU(_SingleFunction):
    """o = i * (1 + erf(i / sqrt(2))) / 2, with an error of at most 2**-15.9 from -4 on.

    Absolute error of at most 2**-27 below that; -0 from -6 down to -inf, the argument itself from 6 on.

    Equals `edgeaccel.golden.function.evaluate("gelu", ...)`. One element a cycle. 3 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        13 cycles.
    """

    function = "gelu"


class TanhGELU(_SingleFunction):
    """o = i * (1 + tanh(sqrt(2 / pi) * (i + 0.044715 * i**3))) / 2, with an error of at most 2**-15 from -4 on.

    With a table of its own it costs no more than `GELU`, unlike a composition with `Tanh`. Absolute error of at most
    2**-27 below -4; -0 from -6 down to -inf, the argument itself from 6 on.

    Equals `edgeaccel.golden.function.evaluate("gelu_tanh", ...)`. One element a cycle. 3 DSP48E2.

    Members
    -------
    i, o : streams of FP32 codes
    latency : int
        13 cycles.
    """

    function = "gelu_tanh"
