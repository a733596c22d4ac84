"""Registers: what each of them holds, under random stalls of the bus; and the texts that derive from the same map."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from edgeaccel import isa
from edgeaccel.machine import machine as named_machine
from edgeaccel.memory.axi import Response
from edgeaccel.soc import counters as counters_module
from edgeaccel.soc.core import Unit
from edgeaccel.soc.document import ERROR_CODES, c_header, instruction_page, main, register_page
from edgeaccel.soc.register_map import STATES, UNITS, machine_words, register_map
from edgeaccel.soc.registers import Registers
from edgeaccel.soc.sequencer import State
from edgeaccel.soc.tokens import TokenMemory
from edgeaccel.verilated import lint
from edgeaccel.verilog import describe_ports, emit

COUNTERS = ("port0_words", "port0_starved", "waits")
OKAY, SLVERR = Response.OKAY, Response.SLVERR


class Host:
    """Reads and writes, with random pauses on every channel."""

    def __init__(self, ctx, bus, rng, share=0.5):
        self.ctx, self.bus, self.rng, self.share = ctx, bus, rng, share

    async def _tick_until(self, done):
        for _ in range(200):
            if self.ctx.get(done):
                return
            await self.ctx.tick()
        raise AssertionError("the bus does not answer")

    async def _pause(self):
        while self.rng.random() > self.share:
            await self.ctx.tick()

    async def _answer(self, prefix, *names):
        """Take an answer, which must stand until it is."""
        valid, ready = (getattr(self.bus, prefix + name) for name in ("valid", "ready"))
        await self._tick_until(valid)
        answers = {self._values(names)}
        while self.rng.random() > self.share:
            await self.ctx.tick()
            assert self.ctx.get(valid)
            answers.add(self._values(names))
        assert len(answers) == 1
        self.ctx.set(ready, 1)
        await self.ctx.tick()
        self.ctx.set(ready, 0)
        return answers.pop()

    def _values(self, names):
        return tuple(self.ctx.get(getattr(self.bus, name)) for name in names)

    async def _offer(self, prefix, **values):
        await self._pause()
        for name, value in values.items():
            self.ctx.set(getattr(self.bus, prefix + name), value)
        self.ctx.set(getattr(self.bus, prefix + "valid"), 1)
        await self._tick_until(getattr(self.bus, prefix + "ready"))
        await self.ctx.tick()
        self.ctx.set(getattr(self.bus, prefix + "valid"), 0)

    async def read(self, address):
        await self._offer("ar", addr=address)
        return await self._answer("r", "rdata", "rresp")

    async def write(self, address, data, strobes=15):
        parts = [("aw", {"addr": address}), ("w", {"data": data, "strb": strobes})]
        if self.rng.random() < 0.5:
            parts.reverse()
        if self.rng.random() < 0.5:  # both at once
            for prefix, values in parts:
                for name, value in values.items():
                    self.ctx.set(getattr(self.bus, prefix + name), value)
                self.ctx.set(getattr(self.bus, prefix + "valid"), 1)
            assert self.ctx.get(self.bus.awready & self.bus.wready)
            await self.ctx.tick()
            for prefix, _ in parts:
                self.ctx.set(getattr(self.bus, prefix + "valid"), 0)
        else:
            for prefix, values in parts:
                await self._offer(prefix, **values)
        return (await self._answer("b", "bresp"))[0]


def simulate(bench, machine, *others, seed=0, counters=COUNTERS):
    """Run ``bench(ctx, registers, host, tokens)`` with a token memory behind the registers: `tokens` is its other port.

    All benches have hosts of their own, on the same bus: one may read and one may write.
    """
    print(f"seed {seed}")
    m = Module()
    m.submodules.registers = registers = Registers(machine, counters)
    m.submodules.memory = memory = TokenMemory(machine)
    wiring.connect(m, registers.tokens, memory.host)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)

    def started(bench, seed):
        async def run(ctx):
            await bench(ctx, registers, Host(ctx, registers.s_axil, np.random.default_rng(seed)), memory.sequencer)

        return run

    for n, each in enumerate((bench, *others)):
        simulator.add_testbench(started(each, [seed, n]), background=n > 0)
    simulator.run()


def small_machine(**sizes):
    return named_machine("tiny", **{"positions": 64, **sizes})


def masked(strobes):
    return sum(255 << 8 * n for n in range(4) if strobes >> n & 1)


def test_every_register():
    """Reads as the map says; writes change what can be held, as far as strobes say, and nothing else."""
    machine = small_machine()
    map_ = register_map(machine, COUNTERS)

    async def bench(ctx, registers, host, tokens):
        rng = np.random.default_rng(1)
        inputs = {}
        for register in map_.registers:
            if register.kind == "read" and not register.name.startswith(("counter_", "cycles", "error", "status")):
                for bits in register.bits:
                    port = getattr(registers, bits.name)
                    inputs[bits.name] = int(rng.integers(0, 1 << len(port)))
                    ctx.set(port, inputs[bits.name])
        ctx.set(registers.state, State.LIMIT)
        inputs["state"] = State.LIMIT.value
        inputs["busy"] = 0
        error = {"unit": Unit.PORT, "code": 9, "port": 200, "command": 54321, "address": 0xFEDCBA9876543210}
        for name, value in error.items():
            ctx.set(getattr(registers.error, name), value)
            inputs[f"error_{name}"] = getattr(value, "value", value)
        held = {}
        for _ in range(3):
            for register in rng.permutation(np.array(map_.registers, object)):
                data = int(rng.integers(0, 1 << 32))
                strobes = int(rng.choice([15, rng.integers(0, 16)]))
                if register.kind == "pulse":
                    continue
                response = await host.write(register.offset + int(rng.integers(0, 4)), data, strobes)
                assert response == (OKAY if register.can_be_written else SLVERR), register.name
                if register.kind == "hold":
                    mask = masked(strobes) & sum(bits.mask for bits in register.bits)
                    held[register.name] = (held.get(register.name, 0) & ~mask) | (data & mask)
            for register in rng.permutation(np.array(map_.registers, object)):
                expected = 0
                if register.kind == "constant":
                    expected = register.value
                elif register.kind == "hold":
                    expected = held[register.name]
                elif register.kind == "read":
                    for bits in register.bits:
                        value = inputs.get(bits.name, 0) >> bits.low & ((1 << bits.width) - 1)
                        expected |= value << bits.first
                assert await host.read(register.offset) == (expected, OKAY), register.name
        for name in ("program_bytes", "position", "prompt", "limit"):
            assert ctx.get(getattr(registers, name)) == held[name]
        address = held["program_address_low"] | held["program_address_high"] << 32
        assert ctx.get(registers.program_address) == address
        assert not ctx.get(registers.irq)

    simulate(bench, machine)


def test_unmapped():
    """Neither registers nor tokens: SLVERR, for reads and writes; and the last token is the last that there is."""
    machine = small_machine()
    map_ = register_map(machine, COUNTERS)
    assert (map_.tokens_offset, map_.tokens_bytes, map_.address_width) == (0x1000, 0x100, 13)

    async def bench(ctx, registers, host, tokens):
        last = map_.registers[-1].offset
        for address in (0x00C, 0x03C, 0x0FC, 0x124, 0x220, last + 4, 0xFFC, 0x1100, 0x1FFC):
            assert (await host.read(address)) == (0, SLVERR)
            assert (await host.write(address, 0xFFFFFFFF)) == SLVERR
        assert await host.write(0x10FC, 5) == OKAY
        assert await host.read(0x10FC) == (5, OKAY)

    simulate(bench, machine)


@pytest.mark.parametrize("seed", range(3))
def test_tokens(seed):
    """The window onto the token memory, while reads and writes come at the same time."""
    machine = small_machine(positions=2048)
    offset = register_map(machine).tokens_offset
    assert offset == 0x2000
    rng = np.random.default_rng([7, seed])
    written = rng.integers(0, 1 << 20, 40).tolist()
    places = [0, 2047, *rng.choice(np.arange(1, 2047), 38, replace=False).tolist()]
    progress = []

    async def writer(ctx, registers, host, tokens):
        for place, token in zip(places, written, strict=True):
            assert await host.write(offset + 4 * place, token | 0xFFF00000, int(rng.choice([7, 15]))) == OKAY
            progress.append(place)
            strobes = int(rng.choice([0, 1, 2, 3, 4, 5, 6, 8, 11]))
            assert await host.write(offset + 4 * place, 0xFFFFFFFF, strobes) == SLVERR
        for place, token in zip(places, written, strict=True):
            ctx.set(tokens.position, place)
            await ctx.tick()
            assert ctx.get(tokens.read) == token

    async def reader(ctx, registers, host, tokens):
        while True:
            if not progress:
                await ctx.tick()
                continue
            n = int(rng.integers(0, len(progress)))
            assert await host.read(offset + 4 * progress[n]) == (written[n], OKAY)

    simulate(writer, machine, reader, seed=seed, counters=())


def test_control():
    """A written bit is a pulse of a cycle, if its byte is strobed."""
    machine = small_machine()
    control = register_map(machine)["control"].offset
    pulses = {"start": 0, "stop": 0, "clear": 0}

    async def bench(ctx, registers, host, tokens):
        for bits in range(8):
            before = dict(pulses)
            assert await host.write(control, bits) == OKAY
            assert pulses == {name: before[name] + (bits >> n & 1) for n, name in enumerate(pulses)}
        before = dict(pulses)
        assert await host.write(control, 7, 14) == OKAY
        assert await host.write(control, 0xFFFFFFF8) == OKAY
        assert await host.read(control) == (0, OKAY)
        assert pulses == before

    async def monitor(ctx, registers, host, tokens):
        while True:
            for name in pulses:
                pulses[name] += ctx.get(getattr(registers, name))
            await ctx.tick()

    simulate(bench, machine, monitor)


def test_interrupt():
    machine = small_machine()
    map_ = register_map(machine)
    pending, enable = map_["interrupt"].offset, map_["interrupt_enable"].offset

    async def finish(ctx, registers):
        ctx.set(registers.done, 1)
        await ctx.tick()
        ctx.set(registers.done, 0)
        await ctx.tick().repeat(2)

    async def bench(ctx, registers, host, tokens):
        assert await host.read(pending) == (0, OKAY)
        await finish(ctx, registers)
        assert not ctx.get(registers.irq)
        assert await host.read(pending) == (1, OKAY)
        await host.write(enable, 1)
        await ctx.tick().repeat(2)
        assert ctx.get(registers.irq)
        for data, strobes in ((0, 15), (1, 14), (0xFFFFFFFE, 15)):
            await host.write(pending, data, strobes)
            assert await host.read(pending) == (1, OKAY)
        assert ctx.get(registers.irq)
        await host.write(pending, 1)
        assert not ctx.get(registers.irq)
        assert await host.read(pending) == (0, OKAY)
        await finish(ctx, registers)
        assert ctx.get(registers.irq)
        await host.write(enable, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(registers.irq)
        assert await host.read(pending) == (1, OKAY)

    simulate(bench, machine)


def test_a_run_that_ends_while_the_last_end_is_cleared():
    machine = small_machine()
    pending = register_map(machine)["interrupt"].offset

    async def bench(ctx, registers, host, tokens):
        ctx.set(registers.done, 1)  # in every cycle, so in that of the write too
        await host.write(pending, 1)
        assert await host.read(pending) == (1, OKAY)

    simulate(bench, machine)


def test_counters():
    """They count while a run is under way, from 0 at its start; a start during a run changes nothing."""
    machine = small_machine()
    map_ = register_map(machine, COUNTERS)

    async def run(ctx, registers, rng, n):
        counts = np.zeros(len(COUNTERS), int)
        ctx.set(registers.busy, 1)
        for _ in range(n):
            events = int(rng.integers(0, 8))
            counts += [events >> n & 1 for n in range(3)]
            ctx.set(registers.events, events)
            await ctx.tick()
        ctx.set(registers.busy, 0)
        ctx.set(registers.events, 7)
        return counts.tolist()

    async def bench(ctx, registers, host, tokens):
        rng = np.random.default_rng(3)

        async def check(cycles, counts):
            assert await host.read(map_["cycles_low"].offset) == (cycles, OKAY)
            assert await host.read(map_["cycles_high"].offset) == (0, OKAY)
            for name, count in zip(COUNTERS, counts, strict=True):
                assert await host.read(map_[f"counter_{name}"].offset) == (count, OKAY)

        await host.write(map_["control"].offset, 1)
        counts = await run(ctx, registers, rng, 100)
        await check(100, counts)
        ctx.set(registers.busy, 1)
        ctx.set(registers.events, 0)
        await host.write(map_["control"].offset, 1)
        ctx.set(registers.busy, 0)
        for name, count in zip(COUNTERS, counts, strict=True):
            assert await host.read(map_[f"counter_{name}"].offset) == (count, OKAY)
        await host.write(map_["control"].offset, 1)
        await check(30, await run(ctx, registers, rng, 30))

    simulate(bench, machine)


def test_cycles_above_32_bits(monkeypatch):
    """Reading the lower half keeps the upper one that belongs to it."""
    machine = small_machine()
    map_ = register_map(machine)
    first = (5 << 32) - 100
    monkeypatch.setattr(counters_module, "_CYCLES_AT_RESET", first)

    async def bench(ctx, registers, host, tokens):
        ctx.set(registers.busy, 1)
        before = 0
        for _ in range(12):
            low, _ = await host.read(map_["cycles_low"].offset)
            await ctx.tick().repeat(7)
            high, _ = await host.read(map_["cycles_high"].offset)
            assert before < (high << 32 | low) - first < before + 200
            before = (high << 32 | low) - first
        assert before > 100

    simulate(bench, machine, counters=())


def test_answer_cycles():
    """As the docstring says: 4 cycles from an access to its answer."""

    async def bench(ctx, registers, host, tokens):
        bus = registers.s_axil
        ctx.set(bus.arvalid, 1)
        await ctx.tick()
        ctx.set(bus.arvalid, 0)
        for _ in range(3):
            assert not ctx.get(bus.rvalid)
            await ctx.tick()
        assert ctx.get(bus.rvalid)

    simulate(bench, small_machine())


def test_map():
    """No register lies on another; bits do not overlap; names are the RTL's."""
    for name in ("tiny", "vcu128", "vu9p"):
        map_ = register_map(named_machine(name), COUNTERS)
        offsets = [register.offset for register in map_.registers]
        assert offsets == sorted(set(offsets))
        assert offsets[-1] < 0x1000 <= map_.tokens_offset
        assert map_.tokens_offset % map_.tokens_bytes == 0 or map_.tokens_bytes < 0x1000
        assert len({register.name for register in map_.registers}) == len(map_.registers)
        for register in map_.registers:
            assert sum(bits.mask for bits in register.bits) == np.bitwise_or.reduce([b.mask for b in register.bits])
            assert max(bits.mask for bits in register.bits) < 1 << 32
    assert register_map(named_machine("vcu128")).address_width == 18
    assert [state.name.lower() for state in State] == list(STATES)
    assert [unit.name.lower() for unit in Unit] == list(UNITS)
    assert list(ERROR_CODES) == list(UNITS[1:])
    with pytest.raises(KeyError, match="nothing"):
        map_["nothing"]
    with pytest.raises(ValueError, match=r"counters must be at most 768 different names, not \('a', 'a'\)"):
        register_map(small_machine(), ("a", "a"))


def test_the_constants_tell_machines_apart():
    """All sizes of a machine are among them."""
    first = {name: value for name, (value, _) in machine_words(named_machine("tiny")).items()}
    assert first["groups"] == 2
    assert first["formats"] == 7
    assert first["port_bits"] == 24
    for changes in (
        {"changes": {"rows": 3}},
        {"changes": {"sets": 2}},
        {"changes": {"formats": ("int4",)}},
        {"changes": {"buffer_inputs": 8192}},
        {"vector_inputs": 8192},
        {"functions": ("gelu",)},
        {"slots": 8},
        {"port_bytes": 1 << 20},
    ):
        other = {name: value for name, (value, _) in machine_words(named_machine("tiny", **changes)).items()}
        assert sum(first[name] != other[name] for name in first) == 1


def test_header(tmp_path):
    """Every name once, and a C compiler takes it."""
    machine = named_machine("vcu128")
    text = c_header(machine, COUNTERS)
    assert text == c_header(machine, COUNTERS)
    names = re.findall(r"^#define (\w+)", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert "#define EDGEACCEL_STATUS 0x200\n" in text
    assert "#define EDGEACCEL_TOKENS 0x20000\n" in text
    assert "#define EDGEACCEL_STATE_END_OF_TEXT 3\n" in text
    assert "#define EDGEACCEL_COUNTER_WAITS 0x408\n" in text
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source = tmp_path / "x.c"
    (tmp_path / "edgeaccel.h").write_text(text)
    checks = [
        f'_Static_assert(EDGEACCEL_{name.upper()}_VALUE == {value}u, "{name}");'
        for name, (value, _) in machine_words(machine).items()
    ]
    source.write_text('#include "edgeaccel.h"\n#include "edgeaccel.h"\n' + "\n".join(checks) + "\n")
    subprocess.run([compiler, "-Wall", "-Werror", "-fsyntax-only", source], check=True)


def test_pages(tmp_path):
    """Tables of all registers and fields, with as many cells in each row."""
    machine = named_machine("tiny")
    page = register_page(machine, COUNTERS)
    for register in register_map(machine, COUNTERS).registers:
        assert f"| {register.offset:#05x} | `{register.name}` |" in page
    isa_page = instruction_page()
    for name, of in isa.INSTRUCTIONS.items():
        assert f"| {of.opcode} | `{name}` |" in isa_page
        for field in of.fields:
            assert f"| `{field}` |" in isa_page
    assert "| 511:" not in isa_page
    for text in (page, isa_page):
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    paths = {name: tmp_path / name for name in ("header", "registers", "instructions")}
    arguments = [f"--{name}={path}" for name, path in paths.items()]
    assert main(["--machine", "tiny", "--counters", ",".join(COUNTERS), *arguments]) == 0
    assert paths["header"].read_text() == c_header(machine, COUNTERS)
    assert paths["registers"].read_text() == page
    assert paths["instructions"].read_text() == isa_page


def test_header_to_nowhere(tmp_path, capsys):
    assert main(["--header", str(tmp_path / "absent/x.h")]) == 2
    assert "absent/x.h" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["tiny", "vcu128"])
def test_lint(tmp_path, preset):
    for counters in ((), COUNTERS):
        registers = Registers(named_machine(preset), counters)
        source = tmp_path / "x.v"
        source.write_text(emit(registers, "x"))
        assert lint(source, "x") == ""
    names = {port["name"] for port in describe_ports(registers) if port["name"].startswith("s_axil")}
    channels = [
        "awaddr",
        "awprot",
        "awvalid",
        "awready",
        "wdata",
        "wstrb",
        "wvalid",
        "wready",
        "bresp",
        "bvalid",
        "bready",
    ]
    channels += ["araddr", "arprot", "arvalid", "arready", "rdata", "rresp", "rvalid", "rready"]
    assert names == {f"s_axil_{name}" for name in channels}
