"""What is done to the results of the array as they leave it, at line rate, without going through memory.

i -> scale, bias -> rotary -> activation, x factors, + residual -+-> o
      |              |                    |          |           +-> statistics
    i_bias        i_table             i_factors  i_residual

Each step is switched by a field that travels with the beat.
"""

from types import SimpleNamespace

from amaranth.hdl import Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.vector.beat import fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise, function_fields, function_of
from edgeaccel.vector.function import FunctionUnit
from edgeaccel.vector.norm import NormStatistics, norm_fields
from edgeaccel.vector.operand import OperandJoin, with_operands
from edgeaccel.vector.rotary import Rotary

__all__ = ["Epilogue", "EpilogueFinisher", "EpilogueScaler"]


def _codes(lanes):
    return data.ArrayLayout(FP32.width, lanes)


class EpilogueScaler(Elementwise):
    """The first steps: o[k] = round(round(i[k] * factor) + bias[k]), each operation only if its field is set.

    What no operation touches stays the code that it is. One beat a cycle. One DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    fields : dict of str to shape
        More that beats bring along.

    Members
    -------
    i : stream of {beat: vector beat with scale: 1, factor: FP32 code, bias: 1; bias: FP32 codes x lanes}
    o : stream of vector beats
    latency : int
        12 cycles.
    """

    def __init__(self, *, lanes=8, fields=None):
        self._multiplier = FloatMultiplier()
        self._adder = FloatAdder()
        beat = vector_beat(lanes, scale=1, factor=FP32.width, bias=1, **(fields or {}))
        i = with_operands(beat, {"bias": _codes(lanes)})
        cycles = self._multiplier.latency - 1 + 1 + self._adder.latency - 1
        super().__init__(lanes, {"i": i}, cycles=cycles, fields=fields)

    def datapath(self, pipe, i):
        beat = fields_of(i.beat)
        adds = beat.pop("bias")
        return super().datapath(pipe, SimpleNamespace(**beat, adds=adds, bias=i.bias))

    def element(self, pipe, n, i):
        pipe.carry(x=i.elements[n], scale=i.scale, bias=i.bias[n], adds=i.adds)
        with pipe.inside("product"):
            product = self._multiplier.inline(pipe, SimpleNamespace(a=i.elements[n], b=i.factor))
        return _add_if(pipe, self._adder, _kept(pipe, "x", product, "scale"), "bias", "adds")


def _kept(pipe, name, result, flag):
    """The result if the flag that the pipe carries is set, else what it carries by `name`."""
    return Mux(pipe.take(flag), result, pipe.take(name))


def _add_if(pipe, adder, x, operand, flag):
    """The sum of x and an operand that the pipe carries, if the flag is set; a stage, and the adder."""
    x = pipe.stage(x=x)
    pipe.carry(x=x)
    with pipe.inside("sum"):
        total = adder.inline(pipe, SimpleNamespace(a=x, b=pipe.take(operand)))
    return _kept(pipe, "x", total, flag)


def finishing_fields(functions):
    """What the last steps need of the program."""
    return {"activate": 1, "factors": 1, "residual": 1} | function_fields(functions)


class EpilogueFinisher(Elementwise):
    """The last steps: o[k] = round(round(function(i[k]) * factors[k]) + residual[k]), each only if its field is set.

    What no operation touches stays the code that it is. One beat a cycle. One DSP48E2 a lane, and the function's.

    Parameters
    ----------
    functions : sequence of str
        Functions of the build, as `FunctionUnit` takes them; each beat tells which it wants.
    lanes : int
        Elements of a beat, a power of two.
    fields : dict of str to shape
        More that beats bring along.

    Members
    -------
    i : stream of {beat: vector beat with activate: 1, function, factors: 1, residual: 1; factors, residual}
        The operands are FP32 codes x lanes; no `function` in a build of one.
    o : stream of vector beats
    latency : int
        That of the functions + 12 cycles.

    Raises
    ------
    ValueError
        If `lanes` is no power of two or a function unknown.
    """

    def __init__(self, *, functions=("silu",), lanes=8, fields=None):
        self._function = FunctionUnit(functions)
        self.functions = self._function.functions
        self._multiplier = FloatMultiplier()
        self._adder = FloatAdder()
        beat = vector_beat(lanes, **finishing_fields(self.functions), **(fields or {}))
        i = with_operands(beat, {"factors": _codes(lanes), "residual": _codes(lanes)})
        arithmetic = 1 + self._multiplier.latency - 1 + 1 + self._adder.latency - 1
        super().__init__(lanes, {"i": i}, cycles=self._function.latency - 1 + arithmetic, fields=fields)

    def datapath(self, pipe, i):
        beat = fields_of(i.beat)
        multiplies, adds = beat.pop("factors"), beat.pop("residual")
        operands = {"factors": i.factors, "residual": i.residual}
        return super().datapath(pipe, SimpleNamespace(**beat, **operands, multiplies=multiplies, adds=adds))

    def element(self, pipe, n, i):
        pipe.carry(x=i.elements[n], activate=i.activate, multiplies=i.multiplies, adds=i.adds)
        pipe.carry(factor=i.factors[n], residual=i.residual[n])
        with pipe.inside("function"):
            argument = SimpleNamespace(x=i.elements[n], function=function_of(i))
            activation = self._function.inline(pipe, argument)
        x = pipe.stage(x=_kept(pipe, "x", activation, "activate"))
        pipe.carry(x=x)
        with pipe.inside("product"):
            product = self._multiplier.inline(pipe, SimpleNamespace(a=x, b=pipe.take("factor")))
        return _add_if(pipe, self._adder, _kept(pipe, "x", product, "multiplies"), "residual", "adds")


class Epilogue(wiring.Component):
    """All steps in a row, each switched by its field, and the statistics of the result for the next norm.

    x = round(x * factor)                         if scale: 1/rms of a norm that was deferred
    x = round(x + i_bias)                         if bias
    x = `Rotary`(x, i_table)                      the first `rotated` dimensions; none if that is 0
    x = function(x)                               if activate
    x = round(x * i_factors)                      if factors: the gate of a feed-forward layer
    x = round(x + i_residual)                     if residual
    o = x, and o_statistics = `NormStatistics`(x) if statistics

    A beat of an operand is taken with each beat that asks for it. Equals `edgeaccel.golden.epilogue.epilogue`, and in
    cycles `epilogue_cycles`. One beat a cycle, whichever steps are on, without bubbles between vectors of any lengths.

    Parameters
    ----------
    functions : sequence of str
        Activations of the build, as `FunctionUnit` takes them; each beat tells which it wants.
    lanes : int
        Elements of a beat, a power of two of at least 2.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.
    max_rotated : int
        Most dimensions that are rotated, a multiple of `lanes`.
    layer : bool
        Whether the statistics can be those of LayerNorm.

    Members
    -------
    i : stream of vector beats with fields
        scale: 1, factor: FP32 code, bias: 1, rotated: dimensions, half: 1, activate: 1, function: a `Function` (not in
        a build of one), factors: 1, residual: 1, statistics: 1, inverse_length, epsilon: FP32 codes, centre: 1 (with
        `layer`). All but the last three are the same in all beats of a vector.
    i_bias, i_factors, i_residual : streams of FP32 codes x lanes
    i_table : stream of {cos, sin: FP32 codes x lanes}
    o : stream of vector beats
    o_statistics : stream, as `NormStatistics` gives them
        One for each vector with `statistics`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, functions=("silu", "gelu"), lanes=8, max_length=4096, max_rotated=256, layer=False):
        last = {"statistics": 1} | norm_fields(layer)
        self.finisher = EpilogueFinisher(functions=functions, lanes=lanes, fields=last)
        finish = finishing_fields(self.finisher.functions) | last
        self.rotary = Rotary(lanes=lanes, max_length=max_length, max_rotated=max_rotated, fields=finish)
        self.statistics = NormStatistics(lanes=lanes, max_length=max_length, layer=layer)
        turn = {"rotated": range(max_rotated + 1), "half": 1}
        self.scaler = EpilogueScaler(lanes=lanes, fields=turn | finish)
        codes = _codes(lanes)
        self.scaler_join = OperandJoin(self.scaler.i.payload.shape().members["beat"], {"bias": codes})
        self.finisher_join = OperandJoin(
            self.finisher.i.payload.shape().members["beat"], {"factors": codes, "residual": codes}
        )
        super().__init__(
            {
                "i": In(stream.Signature(self.scaler_join.i.payload.shape())),
                "i_bias": In(stream.Signature(codes)),
                "i_table": In(stream.Signature(self.rotary.i_table.payload.shape())),
                "i_factors": In(stream.Signature(codes)),
                "i_residual": In(stream.Signature(codes)),
                "o": Out(stream.Signature(vector_beat(lanes))),
                "o_statistics": Out(stream.Signature(self.statistics.o.payload.shape())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler_join = scaler_join = self.scaler_join
        m.submodules.scaler = scaler = self.scaler
        m.submodules.rotary = rotary = self.rotary
        m.submodules.finisher_join = finisher_join = self.finisher_join
        m.submodules.finisher = finisher = self.finisher
        m.submodules.statistics = statistics = self.statistics
        for port, end in (
            (self.i, scaler_join.i),
            (self.i_bias, scaler_join.i_bias),
            (self.i_table, rotary.i_table),
            (self.i_factors, finisher_join.i_factors),
            (self.i_residual, finisher_join.i_residual),
        ):
            wiring.connect(m, wiring.flipped(port), end)
        wiring.connect(m, scaler_join.o, scaler.i)
        wiring.connect(m, scaler.o, rotary.i)
        wiring.connect(m, rotary.o, finisher_join.i)
        wiring.connect(m, finisher_join.o, finisher.i)
        wiring.connect(m, statistics.o, wiring.flipped(self.o_statistics))

        result = finisher.o
        m.d.comb += [
            self.o.valid.eq(result.valid & statistics.i.ready),
            statistics.i.valid.eq(result.valid & self.o.ready & result.p.statistics),
            result.ready.eq(self.o.ready & statistics.i.ready),
        ]
        m.d.comb += [self.o.p[name].eq(result.p[name]) for name in self.o.p.shape().members]
        m.d.comb += [statistics.i.p[name].eq(result.p[name]) for name in statistics.i.p.shape().members]
        return m
