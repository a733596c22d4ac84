"""What the host sees of a machine: registers behind AXI4-Lite, and an interrupt."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory import axi
from edgeaccel.soc import axi_lite
from edgeaccel.soc.core import UnitError
from edgeaccel.soc.counters import RunCounters, any_of
from edgeaccel.soc.register_map import REGISTER_BYTES, register_map
from edgeaccel.soc.sequencer import State
from edgeaccel.soc.tokens import token_port

__all__ = ["Registers"]

_TOKEN_LANES = 3  # bytes that a token needs
_ERROR_FIELDS = ("unit", "code", "port", "command", "address")


class _Step(enum.Enum, shape=2):
    IDLE = 0
    DECODE = 1
    ACCESS = 2
    ANSWER = 3


class Registers(wiring.Component):
    """The registers of `edgeaccel.soc.register_map`, one access at a time.

    An access is answered 4 cycles after it was taken; reads and writes take turns. SLVERR is the answer to an address
    where nothing is, to a write where nothing can be written, and to a token that is written in part; then nothing
    happens. The two lowest bits of an address do not count.

    Parameters
    ----------
    machine : Machine
    counters : tuple of str
        Names of the performance counters.

    Members
    -------
    s_axil : flipped axi_lite.Signature
    start, stop, clear : out
        Pulses, from `control`.
    program_address, program_bytes, position, prompt, limit : out
        As the host has set them.
    state, busy, at_position, rows, layer, pc : in
    done : in
        High for a cycle when a run has ended.
    error : in, UnitError
    events : in, a bit for each counter
        It counts the cycles in which its bit is high while `busy`, from 0 at `start` on, modulo 2**32.
    tokens : `token_port`
    irq : out
        A run has ended, and the host wants to know; until it clears that.
    """

    def __init__(self, machine, counters=()):
        self.machine = machine
        self.map = register_map(machine, counters)
        held = self.map.widths("hold")
        held.pop("enable_done")
        progress = self.map.widths("read")
        super().__init__(
            {
                "s_axil": In(axi_lite.Signature(address_width=self.map.address_width)),
                **{name: Out(1) for name in self.map.widths("pulse")},
                **{name: Out(width) for name, width in held.items()},
                "state": In(State),
                "busy": In(1),
                "done": In(1),
                **{name: In(progress[name]) for name in ("at_position", "rows", "layer", "pc")},
                "error": In(UnitError),
                **({"events": In(len(counters))} if counters else {}),
                "tokens": Out(token_port(machine)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        step, writing = Signal(_Step), Signal()
        address = Signal(self.map.address_width)
        data, strobes = Signal(32), Signal(4)
        self._accesses(m, step, writing, address, data, strobes)
        values = self._values(m)
        number = address[2:]
        registers = self.map.registers
        hits = Signal(len(registers))
        is_token, known = Signal(), Signal()
        tokens_bits = (self.map.tokens_bytes - 1).bit_length()
        is_whole = ~writing | strobes[:_TOKEN_LANES].all()
        can_be_written = Const(sum(r.can_be_written << n for n, r in enumerate(registers)), len(registers))
        with m.If(step == _Step.DECODE):
            m.d.sync += [
                hits.eq(Cat(number == register.offset // REGISTER_BYTES for register in registers)),
                is_token.eq(address[tokens_bits:] == self.map.tokens_offset >> tokens_bits),
            ]
        is_reading = (step == _Step.ACCESS) & ~writing
        counted = self._counters(m, {r.name: hits[n] for n, r in enumerate(registers)}, is_reading)
        held = [(n, register) for n, register in enumerate(registers) if not _is_counted(register)]
        contents = [Mux(hits[n], self._content(register, values), 0) for n, register in held]
        content = Signal(32)
        write = Signal()
        m.d.comb += [
            content.eq(any_of([*contents, counted])),
            known.eq(Mux(is_token, is_whole, (hits & Mux(writing, can_be_written, ~0)).any())),
            write.eq((step == _Step.ACCESS) & writing & known),
            self.tokens.position.eq(number),
            self.tokens.token.eq(data),
            self.tokens.write.eq(write & is_token),
        ]
        with m.If(step == _Step.ACCESS):
            response = Mux(known, axi.Response.OKAY.value, axi.Response.SLVERR.value)
            m.d.sync += [
                Value.cast(self.s_axil.bresp).eq(response),
                Value.cast(self.s_axil.rresp).eq(response),
                self.s_axil.rdata.eq(Mux(is_token, self.tokens.read, content)),
            ]
        written = [(hits[n] & write, register) for n, register in enumerate(registers) if register.can_be_written]
        self._write(m, written, data, strobes, values)
        return m

    def _accesses(self, m, step, writing, address, data, strobes):
        """Take accesses, and hand out the answers."""
        bus = self.s_axil
        has_write_address, has_data, has_read = Signal(), Signal(), Signal()
        write_address, read_address = Signal.like(address), Signal.like(address)
        m.d.comb += [
            bus.awready.eq(~has_write_address),
            bus.wready.eq(~has_data),
            bus.arready.eq(~has_read),
            bus.bvalid.eq((step == _Step.ANSWER) & writing),
            bus.rvalid.eq((step == _Step.ANSWER) & ~writing),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [has_write_address.eq(1), write_address.eq(bus.awaddr)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [has_data.eq(1), data.eq(bus.wdata), strobes.eq(bus.wstrb)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [has_read.eq(1), read_address.eq(bus.araddr)]
        has_write = has_write_address & has_data
        with m.Switch(step):
            with m.Case(_Step.IDLE), m.If(has_write | has_read):
                # Neither waits for ever: none of its kind is there in the cycle behind an answer.
                m.d.sync += [
                    writing.eq(has_write),
                    address.eq(Mux(has_write, write_address, read_address)),
                    step.eq(_Step.DECODE),
                ]
            with m.Case(_Step.DECODE):
                m.d.sync += step.eq(_Step.ACCESS)
            with m.Case(_Step.ACCESS):
                m.d.sync += step.eq(_Step.ANSWER)
            with m.Case(_Step.ANSWER), m.If(Mux(writing, bus.bready, bus.rready)):
                m.d.sync += step.eq(_Step.IDLE)
                with m.If(writing):
                    m.d.sync += [has_write_address.eq(0), has_data.eq(0)]
                with m.Else():
                    m.d.sync += has_read.eq(0)

    def _values(self, m):
        """Signals by the names that the map gives them."""
        names = self.map.widths("hold", "read")
        own = {name: getattr(self, name) for name in names if hasattr(self, name)}
        own |= {f"error_{name}": self.error[name] for name in _ERROR_FIELDS}
        counted = {bits.name for register in self.map.registers if _is_counted(register) for bits in register.bits}
        others = {name: Signal(width, name=name) for name, width in names.items() if name not in own.keys() | counted}
        pending = Signal(name="done_pending")
        m.d.sync += self.irq.eq(pending & others["enable_done"])
        return own | others | {"done": pending}

    def _content(self, register, values):
        """What a register reads as."""
        if register.kind == "constant":
            return Const(register.value, 32)
        if register.kind == "pulse":
            return Const(0, 32)
        content = Const(0, 0)
        for bits in register.bits:
            value = Value.cast(values[bits.name])[bits.low : bits.low + bits.width]
            content = Cat(content, Const(0, bits.first - len(content)), value)
        return content

    def _write(self, m, written, data, strobes, values):
        """What writes do, and what clears pending bits or pulses."""
        mask = Cat(strobe.replicate(8) for strobe in strobes)
        for name in self.map.widths("pulse"):
            m.d.sync += getattr(self, name).eq(0)
        for enabled, register in written:
            for bits in register.bits:
                place = slice(bits.first, bits.first + bits.width)
                given, chosen = data[place], mask[place]
                with m.If(enabled):
                    if register.kind == "hold":
                        held = Value.cast(values[bits.name])[bits.low : bits.low + bits.width]
                        m.d.sync += held.eq((held & ~chosen) | (given & chosen))
                    elif register.kind == "pulse":
                        m.d.sync += getattr(self, bits.name).eq(given & chosen)
                    else:
                        m.d.sync += values[bits.name].eq(values[bits.name] & ~(given & chosen))
        with m.If(self.done):
            m.d.sync += values["done"].eq(1)

    def _counters(self, m, hits, is_reading):
        """Count cycles and events of a run; gives what a read of one of them reads."""
        names = [register.name for register in self.map.registers if _is_counted(register)]
        m.submodules.counters = counters = RunCounters(len(names) - 2)
        m.d.comb += [
            counters.clear.eq(self.start & ~self.busy),
            counters.count.eq(self.busy),
            counters.chosen.eq(Cat(hits[name] for name in names)),
            counters.keep.eq(hits["cycles_low"] & is_reading),
        ]
        if len(names) > 2:
            m.d.comb += counters.events.eq(self.events)
        return counters.content


def _is_counted(register):
    return register.name in ("cycles_low", "cycles_high") or register.name.startswith("counter_")
