"""Program memory: what the sequencer executes, and how it gets there."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from edgeaccel import isa
from edgeaccel.memory.block import BYTES_WIDTH, block_beats
from edgeaccel.memory.buffer import memory_attributes

__all__ = ["LINE_WIDTH", "ProgramMemory", "line_layout", "program_command"]

LINE_WIDTH = 8 * isa.INSTRUCTION_BYTES


def line_layout(name):
    """Bits of an instruction as `isa.encode` makes them: `opcode`, `when`, and the fields of the instruction `name`."""
    return data.StructLayout(isa.HEADER | {field: of.width for field, of in isa.INSTRUCTIONS[name].fields.items()})


def program_command():
    """What a program is asked for with: the command of a `BlockReader`."""
    return data.StructLayout({"address": 64, "bytes": BYTES_WIDTH})


class ProgramMemory(wiring.Component):
    """Holds a program, a line of 64 bytes an instruction.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    load : 1 bit
        A pulse asks for a program, of whole lines and at most `machine.instructions` of them.
    address, bytes : in
        Where it lies; they hold until `loaded`.
    o_commands : stream of `program_command`
    i_lines : stream of block_beats(64)
        What the reader gives.
    loaded : out
        High for a cycle when the last line has been taken.
    index : in
    line : out
        The line `index`, a cycle later.
    """

    def __init__(self, machine):
        self.machine = machine
        super().__init__(
            {
                "load": In(1),
                "address": In(64),
                "bytes": In(BYTES_WIDTH),
                "o_commands": Out(stream.Signature(program_command())),
                "i_lines": In(stream.Signature(block_beats(isa.INSTRUCTION_BYTES))),
                "loaded": Out(1),
                "index": In(range(machine.instructions)),
                "line": Out(LINE_WIDTH),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self.machine.instructions
        m.submodules.memory = memory = Memory(shape=LINE_WIDTH, depth=depth, init=[], attrs=memory_attributes(depth))
        write, read = memory.write_port(), memory.read_port()
        loading, place = Signal(), Signal(range(depth))
        m.d.comb += [
            self.o_commands.p.address.eq(self.address),
            self.o_commands.p.bytes.eq(self.bytes),
            self.i_lines.ready.eq(loading),
            write.en.eq(loading & self.i_lines.valid),
            write.addr.eq(place),
            write.data.eq(self.i_lines.p.data),
            self.loaded.eq(write.en & self.i_lines.p.last),
            read.addr.eq(self.index),
            self.line.eq(read.data),
        ]
        with m.If(self.load):
            m.d.sync += [self.o_commands.valid.eq(1), loading.eq(1), place.eq(0)]
        with m.Elif(self.o_commands.ready):
            m.d.sync += self.o_commands.valid.eq(0)
        with m.If(write.en):
            m.d.sync += [place.eq(place + 1), loading.eq(~self.i_lines.p.last)]
        return m
