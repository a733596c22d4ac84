"""The machine as it goes into a block design: registers for the host, masters for the memories, an interrupt."""

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from edgeaccel.soc.processor import Processor
from edgeaccel.soc.register_map import PARTS, counter_names, register_map
from edgeaccel.soc.registers import Registers

__all__ = ["SoC"]

_MASTERS = ("m_axi_scales", "m_axi_cache", "m_axi_data", "m_axi_program")
_HELD = ("start", "stop", "clear", "program_address", "program_bytes", "position", "prompt", "limit")
_SHOWN = ("state", "busy", "done", "at_position", "rows", "layer", "pc", "error")


class SoC(wiring.Component):
    """A whole machine.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    s_axil : flipped axi_lite.Signature
        `map` says what is where.
    m_axi : array of axi.Signature, read channels, one for each group
        Tiles; in the domain of the ports, each with its own memory from address 0 on.
    m_axi_scales : axi.Signature, read channels
        Scales of values, in the domain of the ports.
    m_axi_cache, m_axi_data, m_axi_program
        Writing keys and values; parameters and logits; the program. These and the scales see all memory.
    irq : out
    activity : out
        A bit for each of `bit_names`: what is at work.
    map : RegisterMap
    domains : tuple of str
    """

    def __init__(self, machine):
        self.machine = machine
        groups = range(machine.config.groups)
        counters = counter_names(machine)
        self.processor = Processor(machine)
        self.registers = Registers(machine, counters)
        self.map = register_map(machine, counters)
        self.domains = self.processor.domains
        self.bit_names = {"activity": ("array", *PARTS, "running", *(f"words {n}" for n in groups))}
        members = self.processor.signature.members
        super().__init__(
            {
                "s_axil": self.registers.signature.members["s_axil"],
                "m_axi": members["m_axi"],
                **{name: members[name] for name in _MASTERS},
                "irq": Out(1),
                "activity": Out(len(self.bit_names["activity"])),
            }
        )

    def elaborate(self, platform):
        m = Module()
        processor, registers = self.processor, self.registers
        m.submodules.processor = processor
        m.submodules.registers = registers
        wiring.connect(m, wiring.flipped(self.s_axil), registers.s_axil)
        for n, port in enumerate(processor.m_axi):
            wiring.connect(m, port, wiring.flipped(self.m_axi[n]))
        for name in _MASTERS:
            wiring.connect(m, getattr(processor, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, registers.tokens, processor.tokens)
        m.d.comb += [getattr(processor, name).eq(getattr(registers, name)) for name in _HELD]
        m.d.comb += [getattr(registers, name).eq(getattr(processor, name)) for name in _SHOWN]
        m.d.comb += [
            registers.events.eq(Cat(processor.words, processor.starved, processor.units)),
            self.irq.eq(registers.irq),
            self.activity.eq(Cat(processor.words.any(), processor.units, processor.busy, processor.words)),
        ]
        return m
