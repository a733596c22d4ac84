"""Token memory: the tokens that were given, and those that the machine has made."""

from amaranth.hdl import Module, Mux, Signal
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

    No memory on chip has two ports that write while others read without any collision, so there is one: a token of the
    host is kept until the first cycle behind in which the sequencer writes none.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    host, sequencer : flipped `token_port`
        From one of the host's tokens to the next there must be a cycle, the next one's at the latest, in which the
        sequencer writes none.
    """

    def __init__(self, machine):
        self.machine = machine
        super().__init__({"host": In(token_port(machine)), "sequencer": In(token_port(machine))})

    def elaborate(self, platform):
        m = Module()
        depth = self.machine.positions
        m.submodules.memory = memory = Memory(shape=TOKEN_WIDTH, depth=depth, init=[], attrs=memory_attributes(depth))
        for port in (self.host, self.sequencer):
            read = memory.read_port()
            m.d.comb += [read.addr.eq(port.position), port.read.eq(read.data)]

        write, own = memory.write_port(), self.sequencer
        is_kept, position, token = Signal(), Signal.like(own.position), Signal.like(own.token)
        with m.If(self.host.write):
            m.d.sync += [is_kept.eq(1), position.eq(self.host.position), token.eq(self.host.token)]
        with m.Elif(~own.write):
            m.d.sync += is_kept.eq(0)
        m.d.comb += [
            write.en.eq(own.write | is_kept),
            write.addr.eq(Mux(own.write, own.position, position)),
            write.data.eq(Mux(own.write, own.token, token)),
        ]
        return m
