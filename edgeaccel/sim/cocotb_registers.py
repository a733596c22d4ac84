"""Tests of the registers' Verilog against `cocotbext-axi`'s AXI4-Lite master, for `edgeaccel.sim.cocotb_runner`.

The device has the members of `edgeaccel.soc.registers.Registers`, but for `tokens`; the token memory's other port is
`sequencer`. Plus-arguments: `machine`, a JSON object of what `edgeaccel.machine.machine` takes; `counters`, a JSON list
of names; and `seed`.
"""

import json
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from edgeaccel.isa import TOKEN_WIDTH
from edgeaccel.machine import machine
from edgeaccel.soc.register_map import MAGIC, STATES, VERSION, machine_words, register_map

PULSES = ("start", "stop", "clear")
PERIOD_NS = 4
# `random` itself: cocotb seeds it, we seed it once more.
RNG = random.Random()


class Bench:
    """The device with its clock, a host, monitors of the answers and of the pulses, and what the registers should hold.

    Members
    -------
    map : RegisterMap
    held : dict of str to int
        What registers of the kind "hold" were written with.
    inputs : dict of str to int
        What the registers are told by the machine, by the names of its values.
    n_pulses : dict of str to int
        Cycles in which each pulse was high.
    """

    def __init__(self, dut):
        self.dut = dut
        self.machine = machine(**json.loads(cocotb.plusargs["machine"]))
        self.counters = json.loads(cocotb.plusargs["counters"])
        self.map = register_map(self.machine, self.counters)
        Clock(dut.clk, PERIOD_NS, "ns").start()
        dut.rst.value = 1
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
        self.held = {register.name: 0 for register in self.map.registers if register.kind == "hold"}
        self.inputs, self.n_pulses = {}, dict.fromkeys(PULSES, 0)
        for name in ("busy", "done", "events", "sequencer__write", "sequencer__position", "sequencer__token"):
            getattr(dut, name).value = 0
        cocotb.start_soon(self._monitor())

    async def reset(self):
        self.tell()
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, 4)
        self.dut.rst.value = 0
        await ClockCycles(self.dut.clk, 2)

    def tell(self):
        """Give the registers other values to show; those of an error are fields of one port."""
        widths = self.map.widths("read")
        names = {"state", "at_position", "rows", "layer", "pc", *(n for n in widths if n.startswith("error_"))}
        self.inputs = {name: RNG.getrandbits(widths[name]) for name in sorted(names)}
        self.inputs["error_unit"] %= 9  # so many units there are
        error = 0
        for name, width in reversed((("unit", 4), ("code", 4), ("port", 8), ("command", 16), ("address", 64))):
            error = error << width | self.inputs[f"error_{name}"]
        self.dut.error.value = error
        for name in ("state", "at_position", "rows", "layer", "pc"):
            bits = len(getattr(self.dut, name))
            self.inputs[name] &= (1 << bits) - 1
            getattr(self.dut, name).value = self.inputs[name]

    def pause(self, share=0.0):
        """Pause each channel for a share of the cycles, several at a time."""
        write, read = self.host.write_if, self.host.read_if
        for channel in (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel):
            channel.clear_pause_generator()
            channel.pause = False
            if share:
                channel.set_pause_generator(_pauses(share))

    async def read(self, address, n_bytes=4):
        """(value, response) of bytes."""
        answer = await with_timeout(self.host.read(address, n_bytes), 1, "ms")
        return int.from_bytes(answer.data, "little"), AxiResp(answer.resp)

    async def write(self, address, value, n_bytes=4):
        answer = await with_timeout(self.host.write(address, value.to_bytes(n_bytes, "little")), 1, "ms")
        return AxiResp(answer.resp)

    def expected(self, register):
        """What a register reads as, but those that count."""
        if register.kind == "constant":
            return register.value
        if register.kind == "hold":
            return self.held[register.name]
        content = 0
        for bits in register.bits if register.kind == "read" else ():
            value = self.inputs.get(bits.name, 0) >> bits.low & (1 << bits.width) - 1
            content |= value << bits.first
        return content

    async def check_all(self):
        """All registers read as they should; none of them is changed by that."""
        for register in RNG.sample(self.map.registers, len(self.map.registers)):
            assert await self.read(register.offset) == (self.expected(register), AxiResp.OKAY), register.name

    async def token(self, position, token=None):
        """The token that the sequencer sees, or write one as the sequencer does."""
        port = {name: getattr(self.dut, f"sequencer__{name}") for name in ("position", "write", "token", "read")}
        port["position"].value = position
        port["write"].value = int(token is not None)
        port["token"].value = token or 0
        await RisingEdge(self.dut.clk)
        port["write"].value = 0
        await ReadOnly()
        seen = int(port["read"].value)
        await RisingEdge(self.dut.clk)
        return seen

    async def _monitor(self):
        """An answer stands unchanged until it is taken; pulses are counted."""
        channels = {"b": ("bresp",), "r": ("rdata", "rresp")}
        pending = dict.fromkeys(channels)
        while True:
            await RisingEdge(self.dut.clk)
            await ReadOnly()
            if self.dut.rst.value:
                pending = dict.fromkeys(channels)
                continue
            for name in PULSES:
                self.n_pulses[name] += int(getattr(self.dut, name).value)
            for channel, fields in channels.items():
                valid = getattr(self.dut, f"s_axil_{channel}valid").value
                now = tuple(int(getattr(self.dut, f"s_axil_{name}").value) for name in fields) if valid else None
                assert pending[channel] in (None, now), f"{channel} changed before it was taken"
                pending[channel] = None if getattr(self.dut, f"s_axil_{channel}ready").value else now


def _pauses(share):
    while True:
        pause = RNG.random() < share
        for _ in range(RNG.randrange(1, 6)):
            yield pause


async def start(dut):
    RNG.seed(int(cocotb.plusargs["seed"]))
    bench = Bench(dut)
    await bench.reset()
    return bench


@cocotb.test()
async def self_description(dut):
    """A host that knows nothing finds out what the machine is, register by register or all at once."""
    bench = await start(dut)
    assert await bench.read(0x000) == (MAGIC, AxiResp.OKAY)
    assert await bench.read(0x004) == (VERSION, AxiResp.OKAY)
    assert await bench.read(0x008) == (len(bench.counters), AxiResp.OKAY)
    words = machine_words(bench.machine)
    for n, (name, (value, _)) in enumerate(words.items()):
        assert bench.map[name].offset == 0x040 + 4 * n
        assert await bench.read(0x040 + 4 * n) == (value, AxiResp.OKAY), name
    together, response = await bench.read(0x040, 4 * len(words))
    assert response == AxiResp.OKAY
    assert together == sum(value << 32 * n for n, (value, _) in enumerate(words.values()))
    # A byte of a register, and the two lowest bits of an address do not count.
    assert await bench.read(0x001, 1) == (MAGIC >> 8 & 0xFF, AxiResp.OKAY)
    assert await bench.read(0x002, 2) == (MAGIC >> 16, AxiResp.OKAY)


@cocotb.test()
async def read_only(dut):
    """What cannot be written answers with SLVERR, and stays as it is."""
    bench = await start(dut)
    for _ in range(2):
        bench.tell()
        for register in bench.map.registers:
            if not register.can_be_written:
                assert await bench.write(register.offset, RNG.getrandbits(32)) == AxiResp.SLVERR, register.name
        await bench.check_all()
    status, _ = await bench.read(bench.map["status"].offset)
    assert STATES[status & 7] == STATES[bench.inputs["state"]]


@cocotb.test()
async def byte_strobes(dut):
    """Any bytes of the registers that hold what was written; bits that a register does not have read as 0."""
    bench = await start(dut)
    registers = [register for register in bench.map.registers if register.kind == "hold"]
    for share in (0.0, 0.5):
        bench.pause(share)
        for _ in range(120):
            register = RNG.choice(registers)
            first = RNG.randrange(4)
            n_bytes = RNG.randint(1, 4 - first)
            value = RNG.getrandbits(8 * n_bytes)
            assert await bench.write(register.offset + first, value, n_bytes) == AxiResp.OKAY
            mask = ((1 << 8 * n_bytes) - 1 << 8 * first) & sum(bits.mask for bits in register.bits)
            bench.held[register.name] = bench.held[register.name] & ~mask | value << 8 * first & mask
        await bench.check_all()
    await ReadOnly()
    for name in ("program_bytes", "position", "prompt", "limit"):
        assert int(getattr(dut, name).value) == bench.held[name]
    address = bench.held["program_address_low"] | bench.held["program_address_high"] << 32
    assert int(dut.program_address.value) == address
    await RisingEdge(dut.clk)


@cocotb.test()
async def unmapped(dut):
    """SLVERR wherever nothing is, and nothing happens; the bus goes on."""
    bench = await start(dut)
    known = {register.offset for register in bench.map.registers}
    tokens = range(bench.map.tokens_offset, bench.map.tokens_offset + bench.map.tokens_bytes)
    end = 1 << len(dut.s_axil_awaddr)
    holes = [address for address in range(0, end, 4) if address not in known and address not in tokens]
    edges = [address for address in holes if {address - 4, address + 4} & (known | set(tokens))]
    bench.pause(0.3)
    for address in [*edges, *RNG.sample(holes, 40), holes[-1]]:
        assert await bench.write(address, RNG.getrandbits(32)) == AxiResp.SLVERR, hex(address)
        value, response = await bench.read(address)
        assert (value, response) == (0, AxiResp.SLVERR), hex(address)
    await bench.check_all()
    assert bench.n_pulses == dict.fromkeys(PULSES, 0)


@cocotb.test()
async def tokens(dut):
    """What the host writes the sequencer reads, and the other way round; a token is written whole or not at all."""
    bench = await start(dut)
    offset, positions = bench.map.tokens_offset, bench.machine.positions
    bench.pause(0.3)
    memory = {}
    for position in [0, positions - 1, *RNG.sample(range(positions), 20)]:
        token = memory[position] = RNG.getrandbits(TOKEN_WIDTH)
        more = RNG.getrandbits(32 - TOKEN_WIDTH) << TOKEN_WIDTH  # bits that a token does not have
        n_bytes = RNG.choice([3, 4])
        value = (token | more) & (1 << 8 * n_bytes) - 1
        assert await bench.write(offset + 4 * position, value, n_bytes) == AxiResp.OKAY
        first = RNG.randrange(4)
        n_bytes = RNG.randint(1, 2) if first == 0 else RNG.randint(1, 4 - first)
        assert await bench.write(offset + 4 * position + first, RNG.getrandbits(8 * n_bytes), n_bytes) == AxiResp.SLVERR
        assert await bench.token(position) == token
    for position in RNG.sample(range(positions), 20):
        memory[position] = RNG.getrandbits(TOKEN_WIDTH)
        await bench.token(position, memory[position])
    for position, token in memory.items():
        assert await bench.read(offset + 4 * position) == (token, AxiResp.OKAY)


@cocotb.test()
async def pulses(dut):
    """A bit of `control` that is written as 1 is a cycle high, and reads as 0."""
    bench = await start(dut)
    control = bench.map["control"].offset
    for share in (0.0, 0.5):
        bench.pause(share)
        for bits in range(16):
            before = dict(bench.n_pulses)
            assert await bench.write(control, bits) == AxiResp.OKAY
            assert await bench.read(control) == (0, AxiResp.OKAY)
            assert bench.n_pulses == {name: before[name] + (bits >> n & 1) for n, name in enumerate(PULSES)}
        before = dict(bench.n_pulses)
        assert await bench.write(control + 1, 0xFFFFFF, 3) == AxiResp.OKAY
        assert bench.n_pulses == before


@cocotb.test()
async def interrupt(dut):
    """The line follows what is pending and enabled; only a 1 in the pending bit clears it."""
    bench = await start(dut)
    pending, enable = bench.map["interrupt"].offset, bench.map["interrupt_enable"].offset

    async def line():
        await ClockCycles(dut.clk, 2)
        await ReadOnly()
        level = int(dut.irq.value)
        await RisingEdge(dut.clk)
        return level

    async def end_a_run():
        dut.done.value = 1
        await RisingEdge(dut.clk)
        dut.done.value = 0

    assert (await line(), await bench.read(pending)) == (0, (0, AxiResp.OKAY))
    for enabled in (0, 1):
        await bench.write(enable, enabled)
        assert await line() == 0
        await end_a_run()
        assert (await line(), await bench.read(pending)) == (enabled, (1, AxiResp.OKAY))
        await bench.write(enable, 1 - enabled)
        assert await line() == 1 - enabled
        await bench.write(enable, 1)
        for address, value, n_bytes in ((pending, 0xFFFFFFFE, 4), (pending, 0, 4), (pending + 1, 0xFF, 1)):
            assert await bench.write(address, value, n_bytes) == AxiResp.OKAY
            assert (await line(), await bench.read(pending)) == (1, (1, AxiResp.OKAY))
        await bench.write(pending, 1, 1)
        assert (await line(), await bench.read(pending)) == (0, (0, AxiResp.OKAY))
    dut.done.value = 1  # also in the cycle of the write
    await bench.write(pending, 1)
    dut.done.value = 0
    assert (await line(), await bench.read(pending)) == (1, (1, AxiResp.OKAY))


@cocotb.test()
async def counters(dut):
    """Cycles and events of a run, from 0 at its start; they stand when it has ended."""
    bench = await start(dut)
    for _ in range(2):
        await bench.write(bench.map["control"].offset, 1)
        n_cycles, counts = RNG.randrange(100, 300), [0] * len(bench.counters)
        dut.busy.value = 1
        for _ in range(n_cycles):
            events = RNG.getrandbits(len(counts))
            counts = [count + (events >> n & 1) for n, count in enumerate(counts)]
            dut.events.value = events
            await RisingEdge(dut.clk)
        dut.busy.value = 0
        dut.events.value = (1 << len(counts)) - 1
        assert await bench.read(bench.map["cycles_low"].offset, 8) == (n_cycles, AxiResp.OKAY)
        for name, count in zip(bench.counters, counts, strict=True):
            assert await bench.read(bench.map[f"counter_{name}"].offset) == (count, AxiResp.OKAY)


@cocotb.test()
async def back_pressure(dut):
    """Reads and writes at the same time, several asked for in advance, with pauses on every channel."""
    bench = await start(dut)
    holds = [register for register in bench.map.registers if register.kind == "hold"]
    constants = [register for register in bench.map.registers if register.kind == "constant"]
    for share in (0.0, 0.2, 0.5, 0.8):
        bench.pause(share)
        for _ in range(6):
            writes, reads = [], []
            for register in RNG.sample(holds, len(holds)):
                value = RNG.getrandbits(32)
                bench.held[register.name] = value & sum(bits.mask for bits in register.bits)
                writes.append(bench.host.init_write(register.offset, value.to_bytes(4, "little")))
                writes.append(bench.host.init_write(0x03C, bytes(4)))  # where nothing is
                own = RNG.choice(constants)
                reads.append((own.value, bench.host.init_read(own.offset, 4)))
                reads.append((None, bench.host.init_read(0x03C, 4)))
            for n, event in enumerate(writes):
                await with_timeout(event.wait(), 1, "ms")
                assert AxiResp(event.data.resp) == (AxiResp.SLVERR if n % 2 else AxiResp.OKAY)
            for value, event in reads:
                await with_timeout(event.wait(), 1, "ms")
                answer = event.data
                assert AxiResp(answer.resp) == (AxiResp.SLVERR if value is None else AxiResp.OKAY)
                assert int.from_bytes(answer.data, "little") == (value or 0)
        await bench.check_all()
