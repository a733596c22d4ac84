"""Token memory: the tokens that were given, and those that the machine has made."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgeaccel.isa import TOKEN_WIDTH
from edgeaccel.memory.buffer import memory_attributes

__all__ = ["TokenMemory", "token_port"]


def token_port(machine):
    """A port of the token memory, seen from its user.

    position : of a token
    write : write `token` there
    token : what is written
    read : the token there, a cycle later; unknown if it was written in that cycle
    """
    return wiring.Signature(
        {
            "position": Out(range(machine.positions)),
            "write": Out(1),
            "token": Out(TOKEN_WIDTH),
            "read": In(TOKEN_WIDTH),
        }
    )


class TokenMemory(wiring.Component):
    """A token for each position, with a port for the host and one for the sequencer.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    host, sequencer : flipped `token_port`
        They must not write to one position in the same cycle.
    """

    def __init__(self, machine):
        self.machine = machine
        super().__init__({"host": In(token_port(machine)), "sequencer": In(token_port(machine))})

    def elaborate(self, platform):
        m = Module()
        depth = self.machine.positions
        m.submodules.memory = memory = Memory(shape=TOKEN_WIDTH, depth=depth, init=[], attrs=memory_attributes(depth))
        for port in (self.host, self.sequencer):
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(port.position),
                write.en.eq(port.write),
                write.data.eq(port.token),
                read.addr.eq(port.position),
                port.read.eq(read.data),
            ]
        return m
