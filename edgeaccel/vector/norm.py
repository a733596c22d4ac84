"""RMSNorm and LayerNorm: statistics while a vector streams by, and what applies them.

The statistics alone are the deferred form: a product with the vector starts at once, and 1/rms multiplies its results.
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Mux
from amaranth.lib import data
from amaranth.utils import ceil_log2

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import FloatAdder
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.vector.beat import check_max_length, fields_of, vector_beat
from edgeaccel.vector.elementwise import Elementwise, rectified
from edgeaccel.vector.function import ReciprocalSquareRoot
from edgeaccel.vector.reduce import add_beats, add_lanes, masked, sum_levels
from edgeaccel.vector.two_pass import TwoPass, applied

__all__ = ["Norm", "NormApplier", "NormStatistics"]


def norm_fields(layer):
    """What the statistics need of the program: 1/length, epsilon, and whether it is LayerNorm."""
    return {"inverse_length": FP32.width, "epsilon": FP32.width} | ({"centre": 1} if layer else {})


def statistics_layout(layer):
    """What is known of a vector: o = (x - mean) * scale; no mean in a build of RMSNorm alone."""
    return data.StructLayout(({"mean": FP32.width} if layer else {}) | {"scale": FP32.width})


def _negative(code):
    return code ^ (1 << FP32.width - 1)


class NormStatistics(Pipelined):
    """Mean and 1/sigma of a vector, or 1/rms.

    RMSNorm     scale = rsqrt(squares * inverse_length + epsilon)
    LayerNorm   mean = sum * inverse_length
                scale = rsqrt(max(squares * inverse_length - mean * mean, 0) + epsilon)

    (B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv 1910.07467; J. L. Ba et al., "Layer
    Normalization", 2016, arXiv 1607.06450.) The sums are those of `VectorSum`; every operation is rounded to FP32, and
    rsqrt is that of the function unit. The variance is as good as the difference allows: its relative error is at most
    (1 + mean**2 / sigma**2) * 2**-20. A NaN in the vector makes the statistics NaN, an infinity too or a scale of 0; a
    sum of squares over FP32's range gives a scale of 0, and a vector of zeros with an epsilon of 0 an infinite one.

    Equals `edgeaccel.golden.norm.statistics`. One beat a cycle, without bubbles between vectors of any lengths.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.
    layer : bool
        Whether the build has LayerNorm beside RMSNorm.

    Members
    -------
    i : stream of vector beats with inverse_length, epsilon: FP32 codes, centre: 1
        The three are taken with the last beat; `centre` asks for LayerNorm and is left out in a build without.
    o : stream of {mean, scale: FP32 codes}
        One for each vector. Mean is +0 for RMSNorm, and left out in a build without LayerNorm.
    latency : int
        From a vector's last beat: `edgeaccel.golden.norm.statistics_latency`.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, layer=False):
        self._levels = sum_levels(check_max_length(max_length, lanes))
        self.layer = bool(layer)
        self._adder = FloatAdder()
        self._multiplier = FloatMultiplier()
        self._rsqrt = ReciprocalSquareRoot()
        adds, multiplies = self._adder.latency - 1, self._multiplier.latency - 1
        sums = 1 + multiplies + adds * ceil_log2(lanes) + (adds + 1) * self._levels
        variance = multiplies + adds + 1 if layer else 0
        cycles = sums + multiplies + variance + adds + self._rsqrt.latency - 1
        super().__init__({"i": vector_beat(lanes, **norm_fields(layer))}, statistics_layout(layer), cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        codes = masked(i)
        pipe.carry(inverse_length=i.inverse_length, epsilon=i.epsilon)
        if self.layer:
            pipe.carry(centre=i.centre)
            total = pipe.branch("mean", last=i.last, inverse_length=i.inverse_length, centre=i.centre)
            self._carry_mean(total, codes)
        squares = pipe.branch("squares", last=i.last)
        mean_square = self._sum_squares(squares, codes)
        pipe.wait(squares.cycles)
        with pipe.inside("mean_square"):
            variance = self._multiply(pipe, mean_square, pipe.take("inverse_length"))
        if self.layer:
            total.wait(pipe.cycles)
            pipe.take("centre")
            pipe.carry(mean=total.mean, mean_square=variance)
            with pipe.inside("square_of_mean"):
                square = self._multiply(pipe, pipe.mean, _negative(pipe.mean))
            with pipe.inside("variance"):
                variance = self._add(pipe, pipe.take("mean_square"), square)
            # What is rounded may come out below zero.
            variance = pipe.stage(variance=rectified(variance))
        with pipe.inside("epsilon"):
            variance = self._add(pipe, variance, pipe.take("epsilon"))
        with pipe.inside("rsqrt"):
            scale = self._rsqrt.inline(pipe, variance)
        return Cat(pipe.take("mean"), scale) if self.layer else scale

    def _add(self, pipe, a, b):
        return self._adder.inline(pipe, SimpleNamespace(a=a, b=b))

    def _multiply(self, pipe, a, b):
        return self._multiplier.inline(pipe, SimpleNamespace(a=a, b=b))

    def _sum(self, pipe, codes):
        with pipe.inside("lanes"):
            code = add_lanes(pipe, codes, self._adder)
        with pipe.inside("beats"):
            return add_beats(pipe, code, self._adder, self._levels)

    def _sum_squares(self, pipe, codes):
        products = []
        for n, code in enumerate(pipe.stage(element=codes)):
            lane = pipe.branch(f"square{n}")
            products.append(self._multiply(lane, code, code))
        pipe.wait(lane.cycles)
        return self._sum(pipe, products)

    def _carry_mean(self, pipe, codes):
        """Let the mean, or +0, travel in a pipe beside that of the squares."""
        total = self._sum(pipe, pipe.stage(element=codes))
        with pipe.inside("mean"):
            mean = self._multiply(pipe, total, pipe.take("inverse_length"))
        pipe.carry(mean=Mux(pipe.take("centre"), mean, 0))


class NormApplier(Elementwise):
    """Applies the statistics of a norm: o[k] = ((x[k] - mean) * scale) * gain[k] + bias[k], each operation rounded.

    Equals `edgeaccel.golden.norm.apply`. One beat a cycle. Two DSP48E2 a lane.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    layer : bool
        Whether the build has LayerNorm; if not, there are no mean and no bias.

    Members
    -------
    i : stream of {beat: as `NormStatistics` takes it, statistic: as it gives it}
    i_parameters : stream of {gain, bias: FP32 codes x lanes}
        A beat with each of `i`. A bias of -0 adds nothing, whatever the element.
    o : stream of vector beats
    latency : int
        21 cycles, or 11 in a build without LayerNorm.

    Raises
    ------
    ValueError
        If `lanes` is no power of two.
    """

    def __init__(self, *, lanes=8, layer=False):
        self.layer = bool(layer)
        self._multiplier = FloatMultiplier()
        cycles = 2 * (self._multiplier.latency - 1)
        if layer:
            self._adder = FloatAdder()
            cycles += 2 * (self._adder.latency - 1)
        codes = data.ArrayLayout(FP32.width, lanes)
        parameters = data.StructLayout({"gain": codes} | ({"bias": codes} if layer else {}))
        i = applied(vector_beat(lanes, **norm_fields(layer)), statistics_layout(layer))
        super().__init__(lanes, {"i": i, "i_parameters": parameters}, cycles=cycles)

    def datapath(self, pipe, i, parameters):
        beat = SimpleNamespace(**fields_of(i.beat), **fields_of(i.statistic))
        return super().datapath(pipe, beat, parameters)

    def element(self, pipe, n, i, parameters):
        x = i.elements[n]
        pipe.carry(scale=i.scale, gain=parameters.gain[n])
        if self.layer:
            pipe.carry(bias=parameters.bias[n])
            with pipe.inside("centred"):
                x = self._adder.inline(pipe, SimpleNamespace(a=x, b=_negative(i.mean)))
        with pipe.inside("scaled"):
            x = self._multiplier.inline(pipe, SimpleNamespace(a=x, b=pipe.take("scale")))
        with pipe.inside("gained"):
            x = self._multiplier.inline(pipe, SimpleNamespace(a=x, b=pipe.take("gain")))
        if self.layer:
            with pipe.inside("biased"):
                x = self._adder.inline(pipe, SimpleNamespace(a=x, b=pipe.take("bias")))
        return x


class Norm(TwoPass):
    """RMSNorm or LayerNorm of vectors: `NormStatistics`, then `NormApplier` of the same vector.

    Equals `edgeaccel.golden.norm.norm`, and in cycles `edgeaccel.golden.two_pass.two_pass`. One beat a cycle.

    Parameters
    ----------
    lanes : int
        Elements of a beat, a power of two.
    max_length : int
        Elements of the longest vector, a multiple of `lanes`.
    layer : bool
        Whether the build has LayerNorm beside RMSNorm.

    Members
    -------
    i : stream of vector beats, as `NormStatistics` takes them
    i_parameters : stream of {gain, bias: FP32 codes x lanes}, as `NormApplier` takes them
    o : stream of vector beats

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, lanes=8, max_length=4096, layer=False):
        statistics = NormStatistics(lanes=lanes, max_length=max_length, layer=layer)
        super().__init__(statistics, NormApplier(lanes=lanes, layer=layer), beats=max_length // lanes)
