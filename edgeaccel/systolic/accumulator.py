"""Scaled accumulator whose channels have a sum for each set of activations."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.utils import ceil_log2

from edgeaccel.formats import FORMATS
from edgeaccel.pe.accumulator import NEGATIVE_ZERO, Accumulator
from edgeaccel.pe.align import EXPONENT_WIDTH
from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import add
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.pe.scaler import Scaler
from edgeaccel.systolic.serialiser import term

__all__ = ["SetAccumulator"]


class SetAccumulator(Pipelined):
    """`edgeaccel.pe.ScaledAccumulator` with a sum for each set of each channel and row; a term says whose it is.

    Between two terms of a channel, of whatever set, come all other channels, so nothing is read before it is written.

    Parameters
    ----------
    config : Config
    sum_width : int
        Of a block sum.

    Members
    -------
    i : stream of `term`
    o : stream of FP32 codes x rows
    latency : int
        That of `ScaledAccumulator`.
    """

    def __init__(self, config, *, sum_width):
        self.rows = config.rows
        scales = tuple(dict.fromkeys(FORMATS[name].scale for name in config.formats))
        self._scaler = Scaler(sum_width, scales=scales, exponent_width=EXPONENT_WIDTH)
        self._accumulator = _Accumulator(channels=config.tile_channels // config.scalers, sets=config.sets)
        cycles = self._scaler.latency - 1 + self._accumulator.latency - 1
        super().__init__({"i": term(config, sum_width)}, data.ArrayLayout(FP32.width, config.rows), cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        sums = []
        for n in range(self.rows):
            row = pipe.branch(f"row{n}", first=i.first, last=i.last, set=i.set)
            scaled = SimpleNamespace(sum=i.sums[n], scale=i.scale, exponent=i.exponents[n], nan=i.nans[n], e8m0=i.e8m0)
            scaled_sum = self._scaler.inline(row, scaled)
            given = SimpleNamespace(term=scaled_sum, first=row.first, last=row.last, set=row.set)
            sums.append(self._accumulator.inline(row, given))
            last = row.cycles
        pipe.wait(last)
        return Cat(sums)


class _Accumulator(Accumulator):
    """`edgeaccel.pe.Accumulator` with a sum for each set: of channel c and set s at s * 2**n + c."""

    def __init__(self, *, channels, sets):
        super().__init__(channels=channels)
        self.sets = sets

    def datapath(self, pipe, i):
        m = pipe.m
        depth = self.sets << ceil_log2(self.channels)
        m.submodules.sums = sums = Memory(shape=FP32.width, depth=depth, init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()
        channel = Signal(range(self.channels))
        with m.If(pipe.valid):
            m.d.sync += channel.eq(Mux(channel == self.channels - 1, 0, channel + 1))
        address = Cat(channel, i.set)
        m.d.comb += read.addr.eq(address)
        pipe.carry(address=address)
        so_far, term = pipe.stage(so_far=Mux(i.first, NEGATIVE_ZERO, read.data), term=i.term)
        with pipe.inside("add"):
            total = add(pipe, so_far, term, FP32, self._registers)
        m.d.comb += [write.addr.eq(pipe.address), write.data.eq(total), write.en.eq(pipe.valid)]
        return total
