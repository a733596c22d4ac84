"""Interleaved accumulator: many sums in turn through one adder."""

from amaranth.hdl import Mux, Signal
from amaranth.lib import data
from amaranth.lib.memory import Memory

from edgeaccel.pe.float import FP32
from edgeaccel.pe.float_add import N_CUTS, add
from edgeaccel.pe.pipeline import Pipelined, place_registers

__all__ = ["Accumulator"]

NEGATIVE_ZERO = 1 << (FP32.width - 1)  # -0 + x = x for every x, -0 too


class Accumulator(Pipelined):
    """FP32 sums of `channels` channels that take turns, one term a cycle.

    Term `n` belongs to channel `n mod channels`. A channel's terms are added in the order in which they come, each sum
    rounded: sum = round(sum + term), from the one with `first` to the one with `last`, which leaves the result.

    The adder needs `depth` cycles, so a channel can have its next turn `depth + 2` cycles after the last: with fewer
    channels a sum would be read before it is written. Equals `edgeaccel.golden.pe.accumulate`.

    Parameters
    ----------
    channels : int
        At least depth + 2.
    depth : int
        Register stages of the adder, 1 to 5.

    Members
    -------
    i : stream of {term: FP32 code, first: 1, last: 1}
    o : stream of FP32 codes
    latency : int
        depth + 2 cycles.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    def __init__(self, *, channels=32, depth=5):
        self._registers = place_registers(N_CUTS, depth)
        if channels < depth + 2:
            raise ValueError(
                f"channels must be at least {depth + 2}, the cycles from reading a sum to reading it again with an"
                f" adder of depth {depth}, not {channels!r}"
            )
        self.channels = channels
        term = data.StructLayout({"term": FP32.width, "first": 1, "last": 1})
        super().__init__({"i": term}, FP32.width, cycles=depth + 1)

    def emits(self, i):
        return i.last

    def datapath(self, pipe, i):
        m = pipe.m
        m.submodules.sums = sums = Memory(shape=FP32.width, depth=self.channels, init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()
        channel = Signal(range(self.channels))
        with m.If(pipe.valid):
            m.d.sync += channel.eq(Mux(channel == self.channels - 1, 0, channel + 1))
        m.d.comb += read.addr.eq(channel)
        pipe.carry(channel=channel)
        so_far, term = pipe.stage(so_far=Mux(i.first, NEGATIVE_ZERO, read.data), term=i.term)
        with pipe.inside("add"):
            total = add(pipe, so_far, term, FP32, self._registers)
        m.d.comb += [write.addr.eq(pipe.channel), write.data.eq(total), write.en.eq(pipe.valid)]
        return total
