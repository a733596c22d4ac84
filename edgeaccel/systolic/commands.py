"""What the groups' streamers are told, along a chain beside that of the activations."""

from amaranth.hdl import Cat, Const, Module, Mux
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from edgeaccel.fork import Fork
from edgeaccel.memory.command import WORDS_WIDTH
from edgeaccel.pe.digit import FormatCode
from edgeaccel.queue import Queue
from edgeaccel.repeated import repeated

__all__ = ["WORD_ADDRESS_WIDTH", "CommandChain", "CommandHop", "port_request"]

WORD_ADDRESS_WIDTH = 40
HOP_REQUESTS = 2  # as many as one a cycle needs


def port_request(config):
    """The same words of several ports, each of its own memory.

    address, words
        In words of a port's memory.
    format
        Of the tiles.
    skip, take
        For the `take` groups behind the first `skip` ones.
    """
    return data.StructLayout(
        {
            "address": WORD_ADDRESS_WIDTH,
            "words": WORDS_WIDTH,
            "format": FormatCode,
            "skip": range(config.groups),
            "take": range(config.groups + 1),
        }
    )


class CommandHop(wiring.Component):
    """A group's place in the chain: its command to its streamer, and the request to the next group.

    One request a cycle, one cycle a hop.

    Parameters
    ----------
    config : Config
    commands : layout
        Of the streamers' commands.

    Members
    -------
    i, o : streams of `port_request`
    o_commands : stream of commands
        Of bytes, without waiting for an event.
    """

    def __init__(self, config, commands):
        self.config = config
        requests = stream.Signature(port_request(config))
        super().__init__({"i": In(requests), "o": Out(requests), "o_commands": Out(stream.Signature(commands))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.requests = requests = Queue(port_request(self.config), HOP_REQUESTS)
        m.submodules.fork = fork = Fork(port_request(self.config), 2)
        wiring.connect(m, wiring.flipped(self.i), requests.i)
        wiring.connect(m, requests.o, fork.i)
        request, command = requests.o.p, self.o_commands
        here = request.skip == 0
        own, on = fork.o
        goes_on = (request.skip != 0) | (request.take > 1 if self.config.groups > 1 else 0)
        m.d.comb += [
            fork.wanted.eq(Cat(here, goes_on)),
            command.valid.eq(own.valid),
            own.ready.eq(command.ready),
            command.p.address.eq(Cat(Const(0, exact_log2(self.config.word_bytes)), own.p.address)),
            command.p.words.eq(own.p.words),
            command.p.format.eq(own.p.format),
            self.o.valid.eq(on.valid),
            on.ready.eq(self.o.ready),
            self.o.p.eq(on.p),
            self.o.p.skip.eq(Mux(here, 0, on.p.skip - 1)),
            self.o.p.take.eq(on.p.take - here),
        ]
        return m


class CommandChain(wiring.Component):
    """Requests to the streamers' commands, in order for each port. No net spans more than two groups.

    Parameters
    ----------
    config : Config
    commands : layout
        Of the streamers' commands.

    Members
    -------
    i : stream of `port_request`
        `take` is at least 1.
    o : array of streams of commands, one for each group
    clear : 1 bit
        A pulse drops what is on its way.
    """

    def __init__(self, config, commands):
        self.config, self._commands = config, commands
        super().__init__(
            {
                "i": In(stream.Signature(port_request(config))),
                "o": Out(stream.Signature(commands)).array(config.groups),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        before = wiring.flipped(self.i)
        for n in range(self.config.groups):
            hop = CommandHop(self.config, self._commands)
            m.submodules[f"hop{n}"] = repeated(platform, hop, clear=self.clear)
            wiring.connect(m, before, hop.i)
            wiring.connect(m, hop.o_commands, wiring.flipped(self.o[n]))
            before = hop.o
        m.d.comb += before.ready.eq(1)  # behind the last group nothing is left
        return m
