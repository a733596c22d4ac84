"""Tests of the tile streamer's Verilog against `cocotbext-axi`'s memory, for `edgeaccel.sim.cocotb_runner`.

Plus-arguments: `parameters`, a JSON object of the streamer's parameters, and `seed`.
"""

import json
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiReadBus, AxiResp
from cocotbext.axi.axi_ram import AxiRamRead

from edgeaccel.golden.memory import BOUNDARY_BYTES, Command, Error, Streamer
from edgeaccel.memory import TileStreamer, axi
from edgeaccel.memory.command import ErrorCode, StreamerError
from edgeaccel.pe.digit import FormatCode

CORE_PS = 4000
PORT_PS = 2222
MEMORY_BYTES = 1 << 16
WATCHDOG_CYCLES = 3000
QUIET_CYCLES = 60
# `random` itself: cocotb seeds it, we seed it once more.
RNG = random.Random()


class FaultyRam(AxiRamRead):
    """A memory that answers beats at some addresses with an error, or with EXOKAY."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.responses = {}
        self._response = "OKAY"
        self._send = self.r_channel.send
        self.r_channel.send = self._respond

    async def _read(self, address, length):
        self._response = self.responses.get(address, "OKAY")
        return await super()._read(address, length)

    async def _respond(self, beat):
        beat.rresp = AxiResp[self._response]
        await self._send(beat)


class Bench:
    """A streamer with its clocks, its memory and a monitor of the AXI port.

    Members
    -------
    words : list of bytes
        Taken since the last reset.
    error : Error or None
        What the register shows.
    """

    def __init__(self, dut):
        parameters = json.loads(cocotb.plusargs["parameters"])
        port_domain = parameters.pop("port_domain", "sync")
        self.dut = dut
        self.golden = Streamer(**parameters)
        self.layout = TileStreamer(port_domain=port_domain, **parameters).widths.commands
        self.one_clock = port_domain == "sync"
        self.port_clock = dut.clk if self.one_clock else dut.hbm_clk
        self.resets = [dut.rst] if self.one_clock else [dut.rst, dut.hbm_rst]
        self.words, self.error = [], None
        self.memory = np.frombuffer(RNG.randbytes(MEMORY_BYTES), np.uint8)
        Clock(dut.clk, CORE_PS, "ps").start()
        if not self.one_clock:
            Clock(dut.hbm_clk, PORT_PS, "ps").start()
        for port in (dut.i_commands__valid, dut.o_words__ready, dut.events, dut.clear):
            port.value = 0
        for reset in self.resets:
            reset.value = 1
        bus = AxiReadBus.from_prefix(dut, "m_axi")
        self.ram = FaultyRam(bus, self.port_clock, self.resets[-1], size=MEMORY_BYTES)
        self.ram.write(0, self.memory.tobytes())
        self.stall_axi()
        cocotb.start_soon(self._monitor())

    def stall_axi(self, share=0.0):
        """Pause the AR and R channels for a share of the cycles, several at a time."""
        for channel in (self.ram.ar_channel, self.ram.r_channel):
            channel.clear_pause_generator()
            channel.pause = False
            if share:
                channel.set_pause_generator(_pauses(share))

    async def reset(self, cycles=8):
        """Both resets together, long enough for both clocks."""
        for reset in self.resets:
            reset.value = 1
        self.dut.i_commands__valid.value = 0
        for _ in range(cycles):
            await RisingEdge(self.dut.clk)
        for reset in self.resets:
            reset.value = 0
        for _ in range(4):
            await RisingEdge(self.dut.clk)
        self.words, self.error = [], None

    async def run(self, commands, *, offering=1.0, taking=1.0, events=(), cycles=None):
        """Send commands and take words until both are done, or there is an error, and then nothing happens any more."""
        dut, left, offered, pending = self.dut, list(commands), False, None
        n_words = len(self.golden.read(commands, self.memory, self.ram.responses)[0])
        quiet = n_cycles = 0
        events = list(events)
        while quiet < QUIET_CYCLES:
            offered = bool(left) and (offered or RNG.random() < offering)
            ready = RNG.random() < taking
            dut.i_commands__valid.value = int(offered)
            if offered:
                dut.i_commands__payload.value = self._pack(left[0])
            dut.o_words__ready.value = int(ready)
            pulse = 1 << events.pop(0) if events and RNG.random() < 0.1 else 0
            dut.events.value = pulse
            await ReadOnly()
            word = dut.o_words__payload.value.to_unsigned() if dut.o_words__valid.value else None
            assert pending is None or word == pending, "an offered word changed before it was taken"
            pending = None if ready else word
            moved = bool(pulse)
            if offered and dut.i_commands__ready.value:
                left.pop(0)
                offered, moved = False, True
            if word is not None and ready:
                self.words.append(word.to_bytes(self.golden.word_bytes, "little"))
                moved = True
            error = _error(int(dut.error.value))
            assert self.error is None or error == self.error, "the error did not stay"
            self.error = error
            finished = len(self.words) >= n_words and (error is not None or not left)
            quiet = 0 if moved or not finished else quiet + 1
            n_cycles += 1
            if n_cycles == cycles:
                await RisingEdge(dut.clk)
                return
            assert n_cycles < WATCHDOG_CYCLES + 100 * (n_words + len(commands)), (
                f"hangs with {len(left)} commands left, {len(self.words)} of {n_words} words, {error}"
            )
            await RisingEdge(dut.clk)
        dut.i_commands__valid.value = 0

    async def check(self, commands, *, code=None, **options):
        """`run`, and what came is what the golden model says, which ends with an error of this code."""
        await self.run(commands, **options)
        words, _, error = self.golden.read(commands, self.memory, self.ram.responses)
        assert self.words == [word.tobytes() for word in words]
        assert self.error == error
        assert code == (error and error.code)

    async def clear(self):
        """A `clear` pulse; returns when commands are taken again."""
        self.dut.o_words__ready.value = 0
        self.dut.i_commands__valid.value = 0
        self.dut.clear.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.clear.value = 0
        for _ in range(WATCHDOG_CYCLES):
            await RisingEdge(self.dut.clk)
            await ReadOnly()
            if self.dut.i_commands__ready.value:
                break
        else:
            raise AssertionError("hangs in clear")
        await RisingEdge(self.dut.clk)
        self.words, self.error = [], None

    def _pack(self, command):
        fields = vars(command) | {"format": FormatCode[command.format.upper()]}
        return self.layout.const(fields).as_bits()

    async def _monitor(self):
        """The rules of AXI that the memory does not check itself."""
        dut, request, outstanding = self.dut, None, 0
        while True:
            await RisingEdge(self.port_clock)
            await ReadOnly()
            if self.resets[-1].value:
                request, outstanding = None, 0
                continue
            asked = dut.m_axi_arvalid.value
            now = (int(dut.m_axi_araddr.value), int(dut.m_axi_arlen.value)) if asked else None
            assert request is None or now == request, "AR changed before it was accepted"
            accepted = now is not None and bool(dut.m_axi_arready.value)
            request = None if accepted else now
            if now:
                assert int(dut.m_axi_arburst.value) == axi.Burst.INCR.value
                assert 1 << int(dut.m_axi_arsize.value) == self.golden.beat_bytes
                assert now[1] < self.golden.burst_beats
            if self.one_clock:
                assert dut.m_axi_rready.value, "R was held up"
            done = dut.m_axi_rvalid.value and dut.m_axi_rready.value and dut.m_axi_rlast.value
            outstanding += accepted - bool(done)
            assert 0 <= outstanding <= self.golden.outstanding


def _pauses(share):
    while True:
        pause = RNG.random() < share
        for _ in range(RNG.randrange(1, 6)):
            yield pause


def _error(bits):
    error = StreamerError.from_bits(bits)
    if not error.valid:
        return None
    return Error(
        code=ErrorCode(error.code).name,
        response=axi.Response(error.response).name,
        address=error.address,
        command=error.command,
    )


async def start(dut):
    RNG.seed(int(cocotb.plusargs["seed"]))
    bench = Bench(dut)
    await bench.reset()
    return bench


def _any_command(golden, address=None):
    entry = golden.entry_bytes
    if address is None:
        address = entry * RNG.randrange(MEMORY_BYTES // entry - 64)
    most = min(4 * golden.burst_beats * golden.beat_bytes, MEMORY_BYTES - address) // golden.word_bytes
    return Command(address=address, words=RNG.randint(1, most), format=RNG.choice(golden.formats))


def _edge_commands(golden):
    """All addresses around a page's end, with all lengths around it and around a burst's end."""
    entry, word = golden.entry_bytes, golden.word_bytes
    page = BOUNDARY_BYTES * RNG.randrange(1, MEMORY_BYTES // BOUNDARY_BYTES)
    burst = golden.burst_beats * golden.beat_bytes
    commands = []
    for address in range(page - 3 * entry, page + 2 * entry, entry):
        ends = {address, page, page + burst, (address // burst + 1) * burst}
        lengths = {(end - address) // word + more for end in ends for more in range(-1, 2)}
        commands += [Command(address=address, words=words) for words in sorted(lengths) if words > 0]
    return commands


@cocotb.test()
async def page_edges_and_lengths(dut):
    bench = await start(dut)
    for axi_share, share in ((0.0, 1.0), (0.5, 0.5)):
        bench.stall_axi(axi_share)
        await bench.check(_edge_commands(bench.golden), offering=share, taking=share)
        await bench.reset()


@cocotb.test()
async def back_pressure_on_all_channels(dut):
    bench = await start(dut)
    for axi_share, offering, taking in ((0.0, 1.0, 0.2), (0.7, 1.0, 1.0), (0.4, 0.3, 0.6), (0.2, 0.05, 1.0)):
        bench.stall_axi(axi_share)
        commands = [_any_command(bench.golden) for _ in range(12)]
        await bench.check(commands, offering=offering, taking=taking)
        await bench.reset()


@cocotb.test()
async def events(dut):
    bench = await start(dut)
    commands = []
    for _ in range(16):
        command = vars(_any_command(bench.golden))
        commands.append(
            Command(**command | {"wait": RNG.random() < 0.6, "event": RNG.randrange(bench.golden.n_events)})
        )
    await bench.check(commands, events=[command.event for command in commands if command.wait])


@cocotb.test()
async def error_responses(dut):
    bench = await start(dut)
    bench.stall_axi(0.3)
    for _ in range(8):
        commands = [_any_command(bench.golden) for _ in range(6)]
        beats = [
            address + n * bench.golden.beat_bytes
            for command in commands
            for address, n_beats in bench.golden.bursts(command)
            for n in range(n_beats)
        ]
        bench.ram.responses = dict.fromkeys(beats[::2], "EXOKAY")
        bench.ram.responses |= {RNG.choice(beats): RNG.choice(["SLVERR", "DECERR"]) for _ in range(2)}
        await bench.check(commands, code="RESPONSE", taking=0.5)
        await bench.clear()
        bench.ram.responses = {}
        await bench.check([_any_command(bench.golden) for _ in range(3)])
        await bench.clear()


@cocotb.test()
async def refused_commands(dut):
    bench = await start(dut)
    golden = bench.golden
    words_per_entry = golden.entry_bytes // golden.word_bytes
    for bad, code in (
        (Command(address=golden.entry_bytes, words=0), "EMPTY"),
        (Command(address=3 * golden.entry_bytes // 2, words=1), "MISALIGNED"),
        (Command(address=golden.memory_bytes - golden.entry_bytes, words=words_per_entry + 1), "RANGE"),
        (Command(address=0, words=1, format="mxfp4"), "FORMAT"),
    ):
        good = [_any_command(golden) for _ in range(3)]
        await bench.check([*good, bad, *good], code=code, taking=0.5)
        assert bench.error.command == 3
        await bench.clear()
    await bench.check([_any_command(golden) for _ in range(3)])


@cocotb.test()
async def reset_and_clear_in_mid_burst(dut):
    """At any cycle; after a reset, which the memory sees too, or a `clear`, which it does not, all is as at first."""
    bench = await start(dut)
    bench.stall_axi(0.2)
    for n in range(24):
        commands = [_any_command(bench.golden) for _ in range(6)]
        await bench.run(commands, taking=0.7, cycles=RNG.randrange(1, 120))
        await (bench.clear() if n % 2 else bench.reset())
        await ReadOnly()
        assert not dut.o_words__valid.value
        await RisingEdge(dut.clk)
        await bench.check([_any_command(bench.golden) for _ in range(2)])
        await bench.reset()
