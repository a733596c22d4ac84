"""The simulation that lives on: a small top level of a register bank and a block copier."""

import contextlib
import functools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from edgeaccel.image import Image
from edgeaccel.machine import machine
from edgeaccel.memory import BlockReader, BlockWriter, axi
from edgeaccel.runtime import Batch, Device, StopReason
from edgeaccel.runtime.rtl import RtlDevice
from edgeaccel.sim import device as simulation
from edgeaccel.sim.bench import StreamError
from edgeaccel.sim.device import Simulation, write_timeline
from edgeaccel.sim.memory import HBM2, IDEAL
from edgeaccel.sim.system import Memory
from edgeaccel.soc import axi_lite
from edgeaccel.soc.core import Unit
from edgeaccel.soc.registers import Registers
from edgeaccel.soc.sequencer import State
from edgeaccel.soc.tokens import TokenMemory
from edgeaccel.verilog import emit

MACHINE = machine("tiny", positions=64, port_bytes=1 << 16)
SIZES = {"data_width": 64, "stream_bytes": 8, "buffer_beats": 32}
SOURCE, TARGET, BYTES, CONTROL, SILENT = 0, 4, 8, 12, 16
MODEL = replace(IDEAL.with_latency(12), data_width=64, outstanding=4)
REFRESHED = replace(HBM2, data_width=64, bank_bits=(), group_bits=(), refresh_interval=400, refresh_cycles=60)
BUS = {
    "awaddr": In(5),
    "awprot": In(3),
    "awvalid": In(1),
    "awready": Out(1),
    "wdata": In(32),
    "wstrb": In(4),
    "wvalid": In(1),
    "wready": Out(1),
    "bresp": Out(2),
    "bvalid": Out(1),
    "bready": In(1),
    "araddr": In(5),
    "arprot": In(3),
    "arvalid": In(1),
    "arready": Out(1),
    "rdata": Out(32),
    "rresp": Out(2),
    "rvalid": Out(1),
    "rready": In(1),
}


class Copier(wiring.Component):
    """Copies a block from one memory to another, and pulls its interrupt until the control register is read."""

    domains = ("sync", "port")

    def __init__(self):
        self._reader, self._writer = BlockReader(**SIZES), BlockWriter(**SIZES)
        members = {f"s_axil_{name}": member for name, member in BUS.items()}
        members |= {"m_axi": Out(axi.Signature(data_width=64, write=False)).array(1)}
        members |= {"m_axi_data": Out(axi.Signature(data_width=64, read=False)), "interrupt": Out(1)}
        super().__init__(members | {"busy": Out(2), "port_cycles": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = self._reader
        m.submodules.writer = writer = self._writer
        connect(m, flipped(self.m_axi[0]), reader.m_axi)
        connect(m, flipped(self.m_axi_data), writer.m_axi)
        connect(m, reader.o, writer.i)
        m.d.port += self.port_cycles.eq(self.port_cycles + 1)

        registers = {name: Signal(32, name=name) for name in ("source", "target", "bytes")}
        m.d.comb += [
            reader.i_commands.p.address.eq(registers["source"]),
            writer.i_commands.p.address.eq(registers["target"]),
            reader.i_commands.p.bytes.eq(registers["bytes"]),
            writer.i_commands.p.bytes.eq(registers["bytes"]),
            self.busy[1].eq(reader.m_axi.arvalid),
        ]
        busy, done = self.busy[0], Signal()
        for mover in (reader, writer):
            with m.If(mover.i_commands.valid & mover.i_commands.ready):
                m.d.sync += mover.i_commands.valid.eq(0)
        with m.If(writer.done | reader.error.valid | writer.error.valid):
            m.d.sync += [busy.eq(0), done.eq(busy | done)]
        m.d.comb += self.interrupt.eq(done)

        write = self.s_axil_awvalid & self.s_axil_wvalid & ~self.s_axil_bvalid & (self.s_axil_awaddr != SILENT)
        m.d.comb += [self.s_axil_awready.eq(write), self.s_axil_wready.eq(write)]
        with m.If(write):
            m.d.sync += self.s_axil_bvalid.eq(1)
            m.d.sync += self.s_axil_bresp.eq(0)
            with m.Switch(self.s_axil_awaddr):
                for place, register in zip((SOURCE, TARGET, BYTES), registers.values(), strict=True):
                    with m.Case(place):
                        m.d.sync += register.eq(self.s_axil_wdata)
                with m.Case(CONTROL):
                    m.d.sync += [reader.i_commands.valid.eq(1), writer.i_commands.valid.eq(1), busy.eq(1)]
                with m.Default():
                    m.d.sync += self.s_axil_bresp.eq(axi.Response.DECERR)
        with m.Elif(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        read = self.s_axil_arvalid & ~self.s_axil_rvalid
        m.d.comb += self.s_axil_arready.eq(read)
        with m.If(read):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rresp.eq(0), self.s_axil_rdata.eq(0)]
            with m.Switch(self.s_axil_araddr):
                for place, register in zip((SOURCE, TARGET, BYTES), registers.values(), strict=True):
                    with m.Case(place):
                        m.d.sync += self.s_axil_rdata.eq(register)
                with m.Case(CONTROL):
                    error = reader.error.valid | writer.error.valid
                    m.d.sync += [self.s_axil_rdata.eq(busy | error << 1), done.eq(0)]
                with m.Default():
                    m.d.sync += self.s_axil_rresp.eq(axi.Response.SLVERR)
        with m.Elif(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        return m


@functools.cache
def copier():
    return Copier()


def start(source_bytes=4096, target_bytes=4096, *, model=MODEL, errors=(), **options):
    rng = np.random.default_rng(1)
    source = rng.integers(0, 256, source_bytes, dtype=np.uint8)
    target = np.zeros(target_bytes, np.uint8)
    memories = {
        "m_axi_0": Memory(model=model, content=source, errors=list(errors)),
        "m_axi_data": Memory(model=model, content=target, base=1 << 16),
    }
    return Simulation(copier(), memories, **options), source, target


def copy(device, source, target, n_bytes):
    for register, value in ((SOURCE, source), (TARGET, (1 << 16) + target), (BYTES, n_bytes), (CONTROL, 1)):
        device.write(register, value)


@pytest.mark.parametrize("check", [False, True])
def test_copies_as_often_as_asked(check):
    device, source, target = start(check=check)
    with device:
        for n, (a, b, n_bytes) in enumerate([(3, 100, 1000), (0, 7, 1), (4000, 2000, 96)]):
            source[a] = n  # what the host writes in between is seen
            copy(device, a, b, n_bytes)
            assert [device.read(register) for register in (SOURCE, TARGET, BYTES)] == [a, (1 << 16) + b, n_bytes]
            assert device.run(10_000) == "interrupt"
            assert device.read(CONTROL) == 0
            assert device.output("busy") == 0
            np.testing.assert_array_equal(target[b : b + n_bytes], source[a : a + n_bytes])
        assert device.run(100) == "cycles"
        assert device.run(1000, until_interrupt=False, hang_cycles=50) == "hang"
        copy(device, 0, 2000, 96)
        begin = device.cycles
        assert device.run(10_000, poll=(BYTES, 96, 10)) == "interrupt"
        assert device.run(10_000, until_interrupt=False, poll=(CONTROL, 1, 10)) == "changed"
        assert device.cycles - begin < 200
        copied = np.zeros_like(target)
        copied[100:1100], copied[7], copied[2000:2096] = source[3:1003], source[0], source[:96]
        copied[100], target[100] = 0, 0
        np.testing.assert_array_equal(target, copied)


def test_simulations_end_in_any_order():
    """The first of two goes on, and ends, when the other has ended; so does one that is made then."""

    def runs(device):
        copy(device, 0, 0, 64)
        return device.run(10_000) == "interrupt"

    first, second = start()[0], start()[0]
    assert runs(second)
    second.close()
    third = start()[0]
    assert runs(first)
    first.close()
    assert runs(third)
    third.close()


def test_counters():
    device, *_ = start(model=REFRESHED)
    with device:
        copy(device, 0, 0, 2048)
        assert device.run(10_000) == "interrupt"
        first = device.counters()
        read = first["m_axi_0"]
        assert (read["beats_read"], read["bursts_read"], read["beats_written"]) == (256, 16, 0)
        assert (first["m_axi_data"]["beats_written"], first["m_axi_data"]["beats_read"]) == (256, 0)
        assert read["cycles"] == device.cycles
        assert 256 <= read["deliverable"] <= read["cycles"]
        device.read(CONTROL)
        mark = device.mark()
        copy(device, 0, 0, 2048)
        assert device.run(10_000) == "interrupt"
        second, both = device.counters(since=mark)["m_axi_0"], device.counters()["m_axi_0"]
        assert second["beats_read"] == 256
        assert both["beats_read"] == 512
        assert 256 <= second["deliverable"] <= second["cycles"] < read["cycles"] + 100
        device.reset()
        assert device.counters()["m_axi_0"]["beats_read"] == device.cycles == 0
        copy(device, 0, 0, 2048)
        assert device.run(10_000) == "interrupt"
        assert device.counters() == first


@pytest.mark.parametrize("seed", range(3))
def test_same_bytes_with_stalls_and_clocks(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    names = ("m_axi_0_ar", "m_axi_0_r", "m_axi_data_aw", "m_axi_data_w", "m_axi_data_b")
    stalls = {name: rng.random(3000) < 0.4 for name in names}
    device, source, target = start(stalls=stalls, clocks={"sync": 250, "port": 450}, check=True)
    with device:
        copy(device, 5, 9, 1500)
        assert device.run(10_000) == "interrupt"
        np.testing.assert_array_equal(target[9:1509], source[5:1505])
        assert device.output("port_cycles") == (device.cycles - 1) * 9 // 5 + 1


def test_errors_and_reset():
    """A beat past the end, and one that is answered with an error; a reset in the midst leaves all as at first."""
    device, source, target = start(1024, errors=[(512, 520, "SLVERR")])
    with device:
        for a, n_bytes in ((900, 200), (500, 30)):
            copy(device, a, 0, n_bytes)
            assert device.run(10_000) == "interrupt"
            assert device.read(CONTROL) & 2
            device.reset()
        copy(device, 0, 0, 400)
        assert device.run(40) == "cycles"
        assert device.output("busy") & 1
        device.reset()
        assert device.output("busy") == 0
        target[:] = 0
        assert device.run(300) == "cycles"
        assert not target.any()
        copy(device, 8, 16, 400)
        assert device.run(10_000) == "interrupt"
        np.testing.assert_array_equal(target[16:416], source[8:408])
        with pytest.raises(StreamError, match="write of register 0x14 was answered with DECERR"):
            device.write(20, 0)
        with pytest.raises(StreamError, match="read of register 0x14 was answered with SLVERR"):
            device.read(20)
        with pytest.raises(StreamError, match="s_axil does not answer"):
            device.write(SILENT, 0)


def test_timeline(tmp_path):
    device, *_ = start(watch=["busy"])
    with device:
        spans = []
        for _ in range(2):
            copy(device, 0, 0, 256)
            begin = device.cycles
            assert device.run(10_000) == "interrupt"
            spans.append((begin, device.cycles))
            device.read(CONTROL)
        intervals, bursts = device.intervals(), device.bursts()
    assert list(intervals) == ["busy.0", "busy.1"]
    for (first, end), (begin, stop) in zip(intervals["busy.0"], spans, strict=True):
        assert abs(first - begin) <= 2
        assert abs(end - stop) <= 2
    assert sum(end - first for first, end in intervals["busy.1"]) >= 4
    assert list(bursts) == ["m_axi_0 reads", "m_axi_data writes"]
    for name in bursts:
        assert len(bursts[name]) == 2
        for (first, end), (begin, stop) in zip(bursts[name], intervals["busy.0"], strict=True):
            assert begin < first < end <= stop
    write_timeline(intervals, tmp_path / "t.json", mhz=250)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [event["args"]["name"] for event in events if event["name"] == "thread_name"] == ["busy.0", "busy.1"]
    spans = [event for event in events if event["ph"] == "X" and event["tid"] == 0]
    assert [event["ts"] for event in spans] == [first / 250 for first, _ in intervals["busy.0"]]


@pytest.mark.slow
def test_waveform(tmp_path):
    device, source, target = start(vcd=True, clocks={"sync": 250})
    with device:
        device.write_vcd(tmp_path / "wave.vcd", 20, 30)
        copy(device, 0, 0, 256)
        assert device.run(10_000) == "interrupt"
        np.testing.assert_array_equal(target[:256], source[:256])
    text = (tmp_path / "wave.vcd").read_text()
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert (times[0], times[-1]) == (20 * 4000, 49 * 4000 + 2000)  # cycles of 4 ns, in ps
    assert "m_axi_0_araddr" in text
    assert "$scope module reader" in text


@pytest.mark.slow
def test_known_component(monkeypatch, tmp_path):
    """What an identity was given to is not emitted again, unless it was built with something else."""
    emitted = []
    monkeypatch.setattr(simulation, "BUILD", tmp_path)
    monkeypatch.setattr(simulation, "emit", lambda *arguments: emitted.append(arguments) or emit(*arguments))
    monkeypatch.setattr(simulation, "_STARTED", math.inf)
    for n, options in enumerate(({}, {"identity": "copier"}, {"identity": "copier"}, {"identity": "another"})):
        simulation.build(Copier(), optimise="-O0", **options)
        assert len(emitted) == (1, 2, 2, 3)[n]
    monkeypatch.setattr(simulation, "_STARTED", 0)  # and the package was changed meanwhile
    simulation.build(Copier(), optimise="-O0", identity="copier")
    assert len(emitted) == 4


def test_bad_arguments():
    memory = Memory(model=MODEL, content=np.zeros(64, np.uint8))
    both = {"m_axi_0": memory, "m_axi_data": memory}
    for arguments, message in (
        (({"m_axi_0": memory},), "no memory for m_axi_data"),
        ((both | {"m_axi": memory},), "memories has no m_axi; there are: m_axi_0, m_axi_data"),
        ((both | {"m_axi_0": replace(memory, model=IDEAL)},), "m_axi_0 has 64 bits, and its memory 256"),
        ((both | {"m_axi_0": replace(memory, base=4)},), "at whole beats of 8 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            Simulation(copier(), *arguments)
    for options, message in (
        ({"watch": ["x"]}, "watch has no x; there are: busy, port_cycles"),
        ({"domains": {"m_axi_0": "fast"}}, "no clock domain fast; there are: sync, port"),
        ({"stalls": {"m_axi_0_aw": []}}, "stalls has no m_axi_0_aw"),
    ):
        with pytest.raises(ValueError, match=message):
            Simulation(copier(), both, **options)
    with pytest.raises(ValueError, match="the component lacks interrupt, s_axil__araddr"):
        Simulation(BlockReader(), {})


class Stand(wiring.Component):
    """What a machine is to its host: a batch takes 200 cycles, and the token behind it is its position plus 7.

    Before a batch it reads 64 bytes of the program, and of the memory of port 1 at 64 x its position. A program of one
    instruction never ends, and one of two is an error.
    """

    bit_names = {"events": ("running", "reading")}

    def __init__(self):
        self.registers = Registers(MACHINE, self.bit_names["events"])
        self.map = self.registers.map
        master = axi.Signature(data_width=128, write=False)
        members = {"s_axil": In(axi_lite.Signature(address_width=self.map.address_width)), "irq": Out(1)}
        members |= {"m_axi": Out(master).array(2), "m_axi_program": Out(master), "events": Out(2)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.registers = registers = self.registers
        m.submodules.tokens = tokens = TokenMemory(MACHINE)
        sizes = {"data_width": 128, "stream_bytes": 16, "buffer_beats": 16}
        m.submodules.program = program = BlockReader(**sizes)
        m.submodules.port = port = BlockReader(**sizes)
        connect(m, flipped(self.s_axil), registers.s_axil)
        connect(m, registers.tokens, tokens.host)
        connect(m, flipped(self.m_axi_program), program.m_axi)
        connect(m, flipped(self.m_axi[1]), port.m_axi)
        state, at, waited = Signal(State), Signal(21), Signal(8)
        behind = Signal(21)
        given = behind < registers.prompt
        running = state == State.RUNNING
        m.d.comb += [
            self.irq.eq(registers.irq),
            self.events.eq(Cat(running, program.m_axi.rvalid)),
            registers.events.eq(self.events),
            registers.state.eq(state),
            registers.busy.eq(running),
            registers.at_position.eq(at),
            registers.error.unit.eq(Unit.PORT),
            registers.error.code.eq(6),
            registers.error.address.eq(0x1234567890),
            behind.eq(Mux(at + 2 <= registers.prompt, at + 2, at + 1)),
            program.i_commands.p.address.eq(registers.program_address),
            program.i_commands.p.bytes.eq(64),
            port.i_commands.p.address.eq(at * 64),
            port.i_commands.p.bytes.eq(64),
            program.i_commands.valid.eq(running & (waited == 0)),
            port.i_commands.valid.eq(running & (waited == 0)),
            program.o.ready.eq(1),
            port.o.ready.eq(1),
            tokens.sequencer.position.eq(behind),
            tokens.sequencer.token.eq(behind + 7),
            tokens.sequencer.write.eq(running & (waited == 199) & ~given),
        ]
        m.d.sync += registers.done.eq(0)
        with m.If(registers.clear):
            m.d.sync += state.eq(State.IDLE)
        with m.Elif(registers.start & ~running):
            m.d.sync += [state.eq(State.RUNNING), at.eq(registers.position), waited.eq(0)]
        with m.Elif(running):
            ends = registers.stop | ((waited == 200) & ~given & (behind >= registers.limit))
            m.d.sync += waited.eq(waited + 1)
            with m.If(registers.program_bytes == 128):
                m.d.sync += [state.eq(State.ERROR), registers.done.eq(1)]
            with m.Elif((waited == 200) & (registers.program_bytes != 64)):
                m.d.sync += [waited.eq(0), at.eq(behind)]
            with m.Elif(waited == 200):
                m.d.sync += waited.eq(waited)
            with m.If(ends & (registers.program_bytes != 128)):
                m.d.sync += [state.eq(Mux(registers.stop, State.STOPPED, State.LIMIT)), registers.done.eq(1)]
        return m


def made_image(n_instructions=3):
    segments = [(64, np.arange(200, dtype=np.uint8)), (MACHINE.data_base + 64, np.full(100, 9, np.uint8))]
    names = ["a", "b", "c"]
    return Image(
        machine=MACHINE,
        program=bytes(range(1, 65)) * n_instructions,
        program_address=MACHINE.data_base + 256,
        segments=segments,
        manifest={"names": names},
    )


@pytest.fixture(scope="module")
def stand():
    with contextlib.closing(RtlDevice(MACHINE, component=Stand(), checks=True, watch=True)) as device:
        yield device


def test_rtl_device(stand, tmp_path):
    assert isinstance(stand, Device)
    stand.load(made_image())
    np.testing.assert_array_equal(stand.read(60, 210), [0] * 4 + list(range(200)) + [0] * 6)
    stand.write(100, np.array([1, 2, 3], np.uint8))
    assert stand.read(99, 5).tolist() == [35, 1, 2, 3, 39]
    stand.write_tokens(3, [5, 6, 1 << 19])
    assert stand.read_tokens(3, 3) == [5, 6, 1 << 19]
    for on_batch in (None, [].append):
        stop = stand.run(1, 6, 9, on_batch)
        assert (stop.reason, stop.position) == (StopReason.LIMIT, 9)
        assert 6 * 200 < stop.cycles < 6 * 202
    assert on_batch.__self__ == [
        Batch(1, 2, None),
        Batch(3, 2, None),
        Batch(5, 1, 13),
        Batch(6, 1, 14),
        Batch(7, 1, 15),
        Batch(8, 1, 16),
    ]
    assert stand.read_tokens(6, 4) == [13, 14, 15, 16]
    counted = stand.counters()
    assert counted["running"] == stop.cycles
    assert 0 < counted["reading"] < counted["running"]
    ports = counted["ports"]
    assert [ports[name]["beats_read"] for name in ("m_axi_0", "m_axi_1", "m_axi_program")] == [0, 48, 48]
    assert [ports[name]["is_array"] for name in ports] == [True, True, False]
    stand.write_timeline(tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [event["args"]["name"] for event in events if event["name"] == "thread_name"] == [
        "running",
        "reading",
        "m_axi_1 reads",
        "m_axi_program reads",
    ]
    stand.load(made_image())
    assert stand.read_tokens(4, 1) == [6]
    assert stand.read(100, 3).tolist() == [36, 37, 38]


def test_rtl_device_stops(stand):
    stand.load(made_image())

    def on_batch(batch):
        seen.append(batch.position)
        if len(seen) == 2:
            stand.stop()

    for _ in range(2):
        seen = []
        stop = stand.run(0, 2, 60, on_batch)
        assert stop.reason is StopReason.STOPPED
        assert seen == [0, 2]
        assert stop.position == 3
    stop = stand.run(0, 2, 3)
    assert stop.reason is StopReason.LIMIT


def test_rtl_device_errors(stand):
    stand.load(made_image(2))
    stop = stand.run(0, 2, 3)
    assert stop.reason is StopReason.ERROR
    assert (stop.code, stop.command, stop.address) == ("port.response", 0, 0x1234567890)
    assert re.search("error port.response of command 0, port 0, .*instruction 0 .a., layer 0, position 0", stop.message)
    stand.load(made_image(1))
    stand.hang_cycles = 500
    stop = stand.run(0, 2, 3)
    assert (stop.reason, stop.code) == (StopReason.ERROR, "hang")
    assert "the machine is running at instruction 0 (a), layer 0, position 0: no memory has moved" in stop.message
    stand.load(made_image())
    assert stand.run(0, 2, 3).reason is StopReason.LIMIT
    for call, message in (
        (lambda: stand.run(2, 2, 3), "position must be below"),
        (lambda: stand.run(0, 2, 65), "limit must be 2"),
        (lambda: stand.write_tokens(63, [1, 2]), "tokens 63 to 64 are outside"),
        (lambda: stand.read(len(stand.memory), 1), "there is no memory at"),
        (lambda: stand.load(replace(made_image(), machine=machine("tiny"))), "for another machine"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_scaled_memories():
    """A beat is a beat, whatever its width: as many of them lie in a row, and in a bank before the next."""
    for width in (128, 512):
        model = HBM2.with_width(width)
        assert model.share == pytest.approx(HBM2.share, abs=0.001)
        assert model.page_bytes * 256 == HBM2.page_bytes * width
