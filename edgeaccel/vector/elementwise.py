"""Element-wise units: one function of the elements of a beat, in every lane."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Mux

from edgeaccel.pe.float import FP16, FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_convert import FloatConverter
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import check_lanes, fields_of, vector_beat
from edgeaccel.vector.choice import Function
from edgeaccel.vector.function import FunctionUnit

__all__ = [
    "Elementwise",
    "GatedProduct",
    "Rectifier",
    "VectorAdder",
    "VectorConverter",
    "VectorFunction",
    "VectorMultiplier",
    "VectorScaler",
]


class Elementwise(Pipelined):
    """Base of the units that treat each lane alike, one beat a cycle.

    The results of lanes without an element mean nothing, but are what the same function makes of the codes there.

    Subclasses describe `element`.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    inputs : dict of str to shape
        The input streams. The first has `keep` and `last`, which go to the results.
    cycles : int
        Register stages of `element`.
    fields : dict of str to shape
        More that goes from the first input to the results.
    element_width : int
        Of a result's code.

    Members
    -------
    o : stream of vector beats
    latency : int
        cycles + 1.
    """

    def __init__(self, lanes, inputs, *, cycles, fields=None, element_width=FP32.width):
        check_lanes(lanes)
        self.lanes = lanes
        self._carried = ("keep", "last", *(fields or {}))
        super().__init__(inputs, vector_beat(lanes, element_width=element_width, **(fields or {})), cycles=cycles)

    def element(self, pipe, n, *beats):
        """Describe the pipeline from the beats to the element of lane `n`, which it returns."""
        raise NotImplementedError

    def datapath(self, pipe, *beats):
        pipe.carry(**{name: getattr(beats[0], name) for name in self._carried})
        elements = []
        for n in range(self.lanes):
            lane = pipe.branch(f"lane{n}")
            elements.append(self.element(lane, n, *beats))
        pipe.wait(lane.cycles)
        return Cat(elements, [pipe.take(name) for name in self._carried])


class VectorAdder(Elementwise):
    """Sum of two vectors, or a vector and its bias: o[k] = round(i_a[k] + i_b[k]).

    Beats of both streams go together; `keep` and `last` are those of `i_a`. Equals `edgeaccel.golden.float.add`. One
    beat a cycle.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    depth : int
        Register stages of the adders, 1 to 5.

    Members
    -------
    i_a, i_b : streams of vector beats
    o : stream of vector beats
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, depth=5):
        self._adder = FloatAdder(depth=depth)
        beat = vector_beat(lanes)
        super().__init__(lanes, {"i_a": beat, "i_b": beat}, cycles=depth)

    def element(self, pipe, n, a, b):
        return self._adder.inline(pipe, SimpleNamespace(a=a.elements[n], b=b.elements[n]))


class VectorMultiplier(Elementwise):
    """Product of two vectors, element by element: o[k] = round(i_a[k] * i_b[k]).

    Beats of both streams go together; `keep` and `last` are those of `i_a`. Equals `edgeaccel.golden.float.multiply`.
    One beat a cycle. One DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    depth : int
        Register stages of the multipliers, 1 to 5.

    Members
    -------
    i_a, i_b : streams of vector beats
    o : stream of vector beats
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, depth=5):
        self._multiplier = FloatMultiplier(depth=depth)
        beat = vector_beat(lanes)
        super().__init__(lanes, {"i_a": beat, "i_b": beat}, cycles=depth)

    def element(self, pipe, n, a, b):
        return self._multiplier.inline(pipe, SimpleNamespace(a=a.elements[n], b=b.elements[n]))


class VectorScaler(Elementwise):
    """A vector times a number: o[k] = round(factor * i[k]).

    The factor travels with each beat. Equals `edgeaccel.golden.float.multiply`. One beat a cycle. One DSP48E2
    a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    depth : int
        Register stages of the multipliers, 1 to 5.

    Members
    -------
    i : stream of vector beats with factor: FP32 code
    o : stream of vector beats
    latency : int
        depth + 1 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, depth=5):
        self._multiplier = FloatMultiplier(depth=depth)
        super().__init__(lanes, {"i": vector_beat(lanes, factor=FP32.width)}, cycles=depth)

    def element(self, pipe, n, i):
        return self._multiplier.inline(pipe, SimpleNamespace(a=i.elements[n], b=i.factor))


class Rectifier(Elementwise):
    """ReLU of a vector: o[k] = i[k] if that is more than zero or NaN, else +0.

    A NaN stays the code that it is. Equals `edgeaccel.golden.vector.relu`. One beat a cycle.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i, o : streams of vector beats
    latency : int
        2 cycles.

    Raises
    ------
    ValueError
        If `lanes` is no power of two.
    """

    def __init__(self, *, lanes=8):
        super().__init__(lanes, {"i": vector_beat(lanes)}, cycles=1)

    def element(self, pipe, n, i):
        return pipe.stage(element=rectified(i.elements[n]))


def rectified(code):
    """ReLU of an FP32 code."""
    fields = FP32.layout(code)
    is_nan = fields.exponent.all() & fields.fraction.any()
    return Mux(fields.sign & ~is_nan, 0, code)


class VectorConverter(Elementwise):
    """A vector in another format: o[k] = round(i[k]), from memory's format to FP32 or back.

    Equals `edgeaccel.golden.float.convert`. One beat a cycle.

    Parameters
    ----------
    i_format, o_format : FloatFormat
    lanes : int
        Elements of a beat, a power of two.
    fields : dict of str to shape
        More that beats bring along.

    Members
    -------
    i, o : streams of vector beats, of codes of their formats
    latency : int
        That of the `FloatConverter`: 3 cycles between FP16 and FP32.

    Raises
    ------
    ValueError
        If `lanes` is no power of two.
    """

    def __init__(self, i_format=FP16, o_format=FP32, *, lanes=8, fields=None):
        self._converter = FloatConverter(i_format, o_format)
        beat = vector_beat(lanes, element_width=i_format.width, **(fields or {}))
        cycles = self._converter.latency - 1
        super().__init__(lanes, {"i": beat}, cycles=cycles, fields=fields, element_width=o_format.width)

    def element(self, pipe, n, i):
        return self._converter.inline(pipe, i.elements[n])


def function_fields(functions):
    """What a beat needs to say which of the functions of a build is meant: nothing, if there is only one."""
    return {"function": Function} if len(functions) > 1 else {}


def function_of(beat):
    return getattr(beat, "function", None)


class VectorFunction(Elementwise):
    """An elementary function of each element: o[k] = function(i[k]).

    Equals `edgeaccel.golden.function.evaluate`. One beat a cycle.

    Parameters
    ----------
    functions : sequence of str
        Functions of the build, as `FunctionUnit` takes them; each beat tells which it wants.
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i : stream of vector beats with function: a `Function`
        No `function` in a build of one.
    o : stream of vector beats
    latency : int
        That of the `FunctionUnit`.

    Raises
    ------
    ValueError
        If `lanes` is no power of two or a function unknown.
    """

    def __init__(self, *, functions=("silu",), lanes=8):
        self._function = FunctionUnit(functions)
        beat = vector_beat(lanes, **function_fields(self._function.functions))
        super().__init__(lanes, {"i": beat}, cycles=self._function.latency - 1)

    def datapath(self, pipe, i):
        return super().datapath(pipe, SimpleNamespace(**fields_of(i)))

    def element(self, pipe, n, i):
        return self._function.inline(pipe, SimpleNamespace(x=i.elements[n], function=function_of(i)))


class GatedProduct(Elementwise):
    """An activation times its gate: o[k] = round(function(i_gate[k]) * i_up[k]), SiLU or GELU as the function.

    (N. Shazeer, "GLU Variants Improve Transformer", 2020, arXiv 2002.05202.) Beats of both streams go together; `keep`
    and `last` are those of `i_gate`. Equals `edgeaccel.golden.vector.gated`. One beat a cycle.

    Parameters
    ----------
    functions : sequence of str
        Functions of the build, as `FunctionUnit` takes them; each beat tells which it wants.
    lanes : int
        Elements of a beat, a power of two.

    Members
    -------
    i_gate : stream of vector beats with function: a `Function`
        No `function` in a build of one.
    i_up, o : streams of vector beats
    latency : int
        That of the `FunctionUnit` + 5 cycles.

    Raises
    ------
    ValueError
        If `lanes` is no power of two or a function unknown.
    """

    def __init__(self, *, functions=("silu",), lanes=8):
        self._function = FunctionUnit(functions)
        self._multiplier = FloatMultiplier()
        gate = vector_beat(lanes, **function_fields(self._function.functions))
        cycles = self._function.latency + self._multiplier.latency - 2
        super().__init__(lanes, {"i_gate": gate, "i_up": vector_beat(lanes)}, cycles=cycles)

    def datapath(self, pipe, gate, up):
        return super().datapath(pipe, SimpleNamespace(**fields_of(gate)), up)

    def element(self, pipe, n, gate, up):
        pipe.carry(up=up.elements[n])
        with pipe.inside("function"):
            argument = SimpleNamespace(x=gate.elements[n], function=function_of(gate))
            activation = self._function.inline(pipe, argument)
        return self._multiplier.inline(pipe, SimpleNamespace(a=activation, b=pipe.take("up")))
