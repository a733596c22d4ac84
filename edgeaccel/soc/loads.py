"""Loads into the activation buffer: vectors times a norm's gain."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.pe.pipeline import Pipelined
from edgeaccel.soc.parameters import codes
from edgeaccel.systolic.feed import activation_load
from edgeaccel.vector.beat import fields_of
from edgeaccel.vector.operand import OperandJoin, with_operands

__all__ = ["GainLoader", "gained_load"]


def gained_load(config):
    """A load, to be multiplied by the next beat of gains if `gain` is set."""
    return data.StructLayout({"load": activation_load(config), "gain": 1})


class _GainMultiplier(Pipelined):
    """Loads times gains, in all rows alike. One DSP48E2 a lane and row.

    i : stream of {beat: `gained_load`, gain: FP32 codes x lanes}; o : stream of `activation_load`.
    """

    def __init__(self, config):
        self._multiplier = FloatMultiplier()
        self._rows, self._lanes = config.rows, config.vector_lanes
        i = with_operands(gained_load(config), {"gain": codes(config)})
        super().__init__({"i": i}, activation_load(config), cycles=self._multiplier.latency - 1)

    def datapath(self, pipe, i):
        load = i.beat.load
        pipe.carry(**fields_of(load, "elements"))
        results = []
        for row in range(self._rows):
            for lane in range(self._lanes):
                branch = pipe.branch(f"row{row}_lane{lane}", x=load.elements[row][lane], gains=i.beat.gain)
                argument = SimpleNamespace(a=load.elements[row][lane], b=i.gain[lane])
                product = self._multiplier.inline(branch, argument)
                results.append(Mux(branch.gains, product, branch.x))
        pipe.wait(branch.cycles)
        return Cat(pipe.address, results, pipe.rows, pipe.event)


class GainLoader(wiring.Component):
    """Multiplies loads by gains where they ask for it: o[k] = round(i[k] * gain[k]). One load a cycle.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : stream of `gained_load`
    i_gain : stream of FP32 codes x lanes
        A beat is taken with each load that asks for it.
    o : stream of `activation_load`
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(gained_load(config))),
                "i_gain": In(stream.Signature(codes(config))),
                "o": Out(stream.Signature(activation_load(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.join = join = OperandJoin(gained_load(self.config), {"gain": codes(self.config)})
        m.submodules.multiplier = multiplier = _GainMultiplier(self.config)
        wiring.connect(m, wiring.flipped(self.i), join.i)
        wiring.connect(m, wiring.flipped(self.i_gain), join.i_gain)
        wiring.connect(m, join.o, multiplier.i)
        wiring.connect(m, multiplier.o, wiring.flipped(self.o))
        return m
