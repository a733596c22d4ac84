"""Operands that some beats take and others do not."""

from amaranth.hdl import Cat, Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["OperandJoin", "with_operands"]


def with_operands(beat, operands):
    """A beat and its operands."""
    return data.StructLayout({"beat": beat} | operands)


class OperandJoin(wiring.Component):
    """Puts beats together with the operands that they ask for; of an operand that is not asked for, any code.

    A beat asks for an operand with the field of its name. What is asked for is waited for and taken, the others are
    left alone. There is no register: `o` is offered in the cycle in which all is there.

    Parameters
    ----------
    beat : layout
        With a field for each operand, not 0 where it asks for it.
    operands : dict of str to shape

    Members
    -------
    i : stream of beats
    i_NAME : stream of the operand NAME
    o : stream of {beat, operands by their names}
    """

    def __init__(self, beat, operands):
        self._operands = tuple(operands)
        streams = {f"i_{name}": In(stream.Signature(shape)) for name, shape in operands.items()}
        o = Out(stream.Signature(with_operands(beat, operands)))
        super().__init__({"i": In(stream.Signature(beat))} | streams | {"o": o})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        streams = {name: getattr(self, f"i_{name}") for name in self._operands}
        asked = {name: i.p[name].any() for name in streams}
        there = Cat(i.valid, [~asked[name] | operand.valid for name, operand in streams.items()]).all()
        m.d.comb += [o.valid.eq(there), o.p.beat.eq(i.p), i.ready.eq(o.ready & there)]
        for name, operand in streams.items():
            m.d.comb += [o.p[name].eq(operand.payload), operand.ready.eq(o.ready & there & asked[name])]
        return m
