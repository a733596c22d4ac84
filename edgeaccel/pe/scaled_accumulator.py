"""Scaler and interleaved accumulator as one pipeline, for several rows that share a scale."""

from types import SimpleNamespace

from amaranth.hdl import Cat, signed
from amaranth.lib import data

from edgeaccel.pe.accumulator import Accumulator
from edgeaccel.pe.align import EXPONENT_WIDTH
from edgeaccel.pe.float import FP32
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.pe.scaler import Scaler

__all__ = ["ScaledAccumulator"]


class ScaledAccumulator(Pipelined):
    """Block sums to FP32 sums of channels that take turns, one block sum of every row a cycle.

    sum[row] = round(sum[row] + round(block_sum[row] * scale * 2**exponent[row]))

    Of each row it is a `Scaler` followed by an `Accumulator`, without a queue between; see there for the arithmetic and
    for how channels take turns.

    Parameters
    ----------
    sum_width : int
        Of a block sum.
    rows : int
        Block sums that share a scale.
    channels : int
        That take turns.
    scales : tuple of str
        Scale types of the build: "fp16", "e8m0" or both.

    Members
    -------
    i : stream of {sums, exponents, nans, scale, e8m0, first, last}
        sums: signed(sum_width) x rows; exponents: signed(9) x rows; nans: a bit a row; scale: FP16 or E8M0 code.
        `e8m0` counts only in a build of both types.
    o : stream of FP32 codes x rows
    latency : int
        Scaler's latency + accumulator's latency - 1.
    """

    def __init__(self, *, sum_width, rows=1, channels=32, scales=("fp16",)):
        self.rows = rows
        self._scaler = Scaler(sum_width, scales=scales, exponent_width=EXPONENT_WIDTH)
        self._accumulator = Accumulator(channels=channels)
        i = data.StructLayout(
            {
                "sums": data.ArrayLayout(signed(sum_width), rows),
                "exponents": data.ArrayLayout(signed(EXPONENT_WIDTH), rows),
                "nans": rows,
                "scale": 16,
                "e8m0": 1,
                "first": 1,
                "last": 1,
            }
        )
        cycles = self._scaler.latency - 1 + self._accumulator.latency - 1
        super().__init__({"i": i}, data.ArrayLayout(FP32.width, rows), cycles=cycles)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        sums = []
        for n in range(self.rows):
            row = pipe.branch(f"row{n}", first=i.first, last=i.last)
            scaled = SimpleNamespace(sum=i.sums[n], scale=i.scale, exponent=i.exponents[n], nan=i.nans[n], e8m0=i.e8m0)
            term = self._scaler.inline(row, scaled)
            sums.append(self._accumulator.inline(row, SimpleNamespace(term=term, first=row.first, last=row.last)))
            last = row.cycles
        pipe.wait(last)
        return Cat(sums)
