"""Tests of the block movers' Verilog against `cocotbext-axi`'s memory, for `edgeaccel.sim.cocotb_runner`.

The device has a reader and a writer, which share the memory. Plus-arguments: `parameters`, a JSON object of the movers'
parameters, and `seed`.
"""

import json
import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import Event, ReadOnly, RisingEdge
from cocotbext.axi import AxiReadBus, AxiResp, AxiWriteBus
from cocotbext.axi.axi_ram import AxiRamRead, AxiRamWrite

from edgeaccel.golden.blocks import Beat, Command, Reader, Writer, pack
from edgeaccel.golden.memory import BOUNDARY_BYTES, Error
from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockError, BlockErrorCode
from edgeaccel.memory.reader import BlockReader

MEMORY_BYTES = 1 << 16
WATCHDOG_CYCLES = 2000
QUIET_CYCLES = 40
# `random` itself: cocotb seeds it, we seed it once more.
RNG = random.Random()


class FaultyReads(AxiRamRead):
    """Answers beats at some addresses with an error, or with EXOKAY."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.responses = {}
        self._address = None
        self._send = self.r_channel.send
        self.r_channel.send = self._respond

    async def _read(self, address, length):
        self._address = address
        return await super()._read(address, length)

    async def _respond(self, beat):
        beat.rresp = AxiResp[self.responses.get(self._address, "OKAY")]
        await self._send(beat)


class FaultyWrites(AxiRamWrite):
    """Answers bursts at some addresses with an error, or with EXOKAY."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.responses = {}
        self._address = None
        self._recv, self._send = self.aw_channel.recv, self.b_channel.send
        self.aw_channel.recv, self.b_channel.send = self._note, self._respond

    async def _note(self):
        burst = await self._recv()
        self._address = int(burst.awaddr)
        return burst

    async def _respond(self, answer):
        answer.bresp = AxiResp[self.responses.get(self._address, "OKAY")]
        await self._send(answer)


class Side:
    """One mover: sends its commands, serves its stream.

    Members
    -------
    results : list
        Beats that were read, or numbers of blocks that were written, since the last reset.
    error : Error or None
        What the register shows.
    """

    def __init__(self, dut, name, golden, channels):
        self.dut, self.name, self.golden, self.channels = dut, name, golden, channels
        self.layout = BlockReader(**json.loads(cocotb.plusargs["parameters"])).widths.commands
        self.restart()

    def port(self, name):
        return getattr(self.dut, f"{self.name}__{name}")

    def axi(self, name):
        return getattr(self.dut, f"{self.name}_m_axi_{name}")

    def restart(self):
        self.results, self.error, self.pending = [], None, None
        self.port("i_commands__valid").value = 0
        self.port("clear").value = 0
        self.stop()

    def stall_axi(self, share=0.0):
        """Pause each channel for a share of the cycles, several at a time."""
        for channel in self.channels:
            channel.clear_pause_generator()
            channel.pause = False
            if share:
                channel.set_pause_generator(_pauses(share))

    async def run(self, commands, n_results, *, offering=1.0, moving=1.0, cycles=None):
        """Until all results came and commands are taken, or there is an error, and then nothing happens any more."""
        left, offered = list(commands), False
        quiet = n_cycles = 0
        finished = False
        while quiet < QUIET_CYCLES or not finished:
            offered = bool(left) and (offered or RNG.random() < offering)
            self.port("i_commands__valid").value = int(offered)
            if offered:
                self.port("i_commands__payload").value = self.layout.const(vars(left[0])).as_bits()
            self.drive(moving)
            await ReadOnly()
            moved = self.sample()
            if offered and self.port("i_commands__ready").value:
                left.pop(0)
                offered, moved = False, True
            error = _error(int(self.port("error").value))
            assert self.error is None or error == self.error, "the error did not stay"
            moved |= error != self.error
            self.error = error
            finished = len(self.results) >= n_results and (error is not None or not left)
            quiet = 0 if moved else quiet + 1
            n_cycles += 1
            await RisingEdge(self.dut.clk)
            if n_cycles == cycles:
                return
            assert quiet < WATCHDOG_CYCLES, (
                f"hangs with {len(left)} commands left, {len(self.results)} of {n_results} results, {error}"
            )
        self.port("i_commands__valid").value = 0
        self.stop()

    async def clear(self):
        """A `clear` pulse; returns when commands are taken again."""
        self.restart()
        self.port("clear").value = 1
        await RisingEdge(self.dut.clk)
        self.port("clear").value = 0
        for _ in range(WATCHDOG_CYCLES):
            await RisingEdge(self.dut.clk)
            await ReadOnly()
            if self.port("i_commands__ready").value:
                break
        else:
            raise AssertionError("hangs in clear")
        await RisingEdge(self.dut.clk)
        self.restart()


class ReaderSide(Side):
    def stop(self):
        self.port("o__ready").value = 0

    def drive(self, moving):
        self.ready = RNG.random() < moving
        self.port("o__ready").value = int(self.ready)

    def sample(self):
        beat = None
        if self.port("o__valid").value:
            beat = _unpack(self.port("o__payload").value.to_unsigned(), self.golden.stream_bytes)
        assert self.pending is None or beat == self.pending, "an offered beat changed before it was taken"
        self.pending = None if self.ready else beat
        if beat is None or not self.ready:
            return False
        self.results.append(beat)
        return True

    async def check(self, memory, commands, *, code=None, responses=None, **options):
        """What comes is what the golden model says, which ends with an error of this code."""
        beats, _, error = self.golden.read(commands, memory, responses)
        await self.run(commands, len(beats), **options)
        assert self.results == beats
        assert self.error == error
        assert code == (error and error.code)


class WriterSide(Side):
    def stop(self):
        self.port("i__valid").value = 0
        self.left, self.offered = [], False

    def drive(self, moving):
        if not self.offered and self.left and RNG.random() < moving:
            self.offered = True
            self.port("i__payload").value = _bits(self.left[0], self.golden.stream_bytes)
        self.port("i__valid").value = int(self.offered)

    def sample(self):
        moved = False
        if self.offered and self.port("i__ready").value:
            self.left.pop(0)
            self.offered, moved = False, True
        if self.port("done").value:
            self.results.append(int(self.port("done_command").value))
            self.done.set()
            moved = True
        return moved

    def restart(self):
        self.done = Event()
        super().restart()

    def send(self, blocks):
        """Stream these blocks while the mover runs."""
        self.left = [beat for block in blocks for beat in pack(block, self.golden.stream_bytes)]

    async def check(self, memory, commands, blocks, *, code=None, responses=None, **options):
        """What is done is what the golden model says; returns the bursts that were to be written."""
        bursts, done, error = self.golden.write(commands, blocks, responses)
        self.send(blocks)
        await self.run(commands, len(done), **options)
        assert self.results == done
        assert self.error == error
        assert code == (error and error.code)
        return bursts


class Bench:
    """The device with its clock, its memory and monitors of the AXI ports.

    Members
    -------
    memory : uint8 array
        What the memory should hold.
    """

    def __init__(self, dut):
        parameters = json.loads(cocotb.plusargs["parameters"])
        self.dut = dut
        Clock(dut.clk, 4, "ns").start()
        dut.rst.value = 1
        self.memory = np.frombuffer(RNG.randbytes(MEMORY_BYTES), np.uint8).copy()
        reads = AxiReadBus.from_prefix(dut, "reader_m_axi")
        writes = AxiWriteBus.from_prefix(dut, "writer_m_axi")
        self.reads = FaultyReads(reads, dut.clk, dut.rst, size=MEMORY_BYTES)
        self.writes = FaultyWrites(writes, dut.clk, dut.rst, size=MEMORY_BYTES, mem=self.reads.mem)
        self.reads.write(0, self.memory.tobytes())
        self.reader = ReaderSide(dut, "reader", Reader(**parameters), (self.reads.ar_channel, self.reads.r_channel))
        self.writer = WriterSide(
            dut,
            "writer",
            Writer(**parameters),
            (self.writes.aw_channel, self.writes.w_channel, self.writes.b_channel),
        )
        self.sides = (self.reader, self.writer)
        cocotb.start_soon(self._monitor())

    def stall_axi(self, share=0.0):
        for side in self.sides:
            side.stall_axi(share)

    async def reset(self):
        self.dut.rst.value = 1
        for side in self.sides:
            side.restart()
        for _ in range(4):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        for _ in range(2):
            await RisingEdge(self.dut.clk)

    async def clear(self):
        for side in self.sides:
            await side.clear()

    async def write(self, commands, blocks=None, **options):
        """Write blocks; then the memory holds them, and all other bytes are what they were."""
        blocks = [RNG.randbytes(command.bytes) for command in commands] if blocks is None else blocks
        bursts = await self.writer.check(self.memory, commands, blocks, **options)
        if options.get("code") == "RESPONSE":
            # What had started after it may be written or not: only bytes of these blocks can have changed.
            self.resync(commands)
            return
        for burst in bursts:
            for n, (strobe, beat) in enumerate(zip(burst.strobes, burst.data, strict=True)):
                place = burst.address + n * self.writer.golden.beat_bytes
                lanes = [lane for lane in range(len(beat)) if strobe >> lane & 1]
                self.memory[[place + lane for lane in lanes]] = [beat[lane] for lane in lanes]
        self.check_memory()

    async def read(self, commands, **options):
        await self.reader.check(self.memory, commands, **options)

    def check_memory(self):
        np.testing.assert_array_equal(self._content(), self.memory)

    def resync(self, commands):
        """Take over what the memory holds in these blocks; all other bytes are what they were."""
        content = self._content()
        for command in commands:
            places = slice(command.address, command.address + command.bytes)
            self.memory[places] = content[places]
        self.check_memory()

    def _content(self):
        return np.frombuffer(self.reads.read(0, MEMORY_BYTES), np.uint8)

    async def _monitor(self):
        """The rules of AXI that the memory does not check itself."""
        ports = [
            (self.reader, "ar", ("araddr", "arlen"), ("rvalid", "rready", "rlast")),
            (self.writer, "aw", ("awaddr", "awlen"), ("bvalid", "bready")),
        ]
        outstanding = dict.fromkeys(self.sides, 0)
        pending = dict.fromkeys(("ar", "aw", "w"))
        while True:
            await RisingEdge(self.dut.clk)
            await ReadOnly()
            if self.dut.rst.value:
                outstanding = dict.fromkeys(self.sides, 0)
                pending = dict.fromkeys(pending)
                continue
            for side, channel, fields, answered in ports:
                accepted = self._check_stable(side, channel, fields, pending)
                if side.axi(f"{channel}valid").value:
                    assert int(side.axi(f"{channel}burst").value) == axi.Burst.INCR.value
                    assert 1 << int(side.axi(f"{channel}size").value) == side.golden.beat_bytes
                    assert int(side.axi(f"{channel}len").value) < side.golden.burst_beats
                outstanding[side] += accepted - all(side.axi(name).value for name in answered)
                assert outstanding[side] in range(side.golden.outstanding + 1)
            self._check_stable(self.writer, "w", ("wdata", "wstrb", "wlast"), pending)
            assert self.reader.axi("rready").value, "R was held up"
            assert self.writer.axi("bready").value, "B was held up"

    def _check_stable(self, side, channel, fields, pending):
        """An offer stands until it is accepted; returns whether one was."""
        valid = side.axi(f"{channel}valid").value
        now = tuple(int(side.axi(name).value) for name in fields) if valid else None
        assert pending[channel] is None or now == pending[channel], f"{channel} changed before it was accepted"
        accepted = bool(valid and side.axi(f"{channel}ready").value)
        pending[channel] = None if accepted else now
        return accepted


def _pauses(share):
    while True:
        pause = RNG.random() < share
        for _ in range(RNG.randrange(1, 6)):
            yield pause


def _bits(beat, n_bytes):
    width = (n_bytes - 1).bit_length()
    # Only the last beat of a block tells where it ends.
    last_byte = beat.last_byte if beat.last else RNG.randrange(n_bytes)
    return int.from_bytes(beat.data, "little") | last_byte << 8 * n_bytes | beat.last << 8 * n_bytes + width


def _unpack(bits, n_bytes):
    width = (n_bytes - 1).bit_length()
    data = (bits & (1 << 8 * n_bytes) - 1).to_bytes(n_bytes, "little")
    return Beat(data, bits >> 8 * n_bytes & n_bytes - 1, bool(bits >> 8 * n_bytes + width))


def _error(bits):
    error = BlockError.from_bits(bits)
    if not error.valid:
        return None
    return Error(
        code=BlockErrorCode(error.code).name,
        response=axi.Response(error.response).name,
        address=error.address,
        command=error.command,
    )


async def start(dut):
    RNG.seed(int(cocotb.plusargs["seed"]))
    bench = Bench(dut)
    await bench.reset()
    return bench


def _any_command(port):
    most = 4 * port.burst_beats * port.beat_bytes
    address = RNG.randrange(MEMORY_BYTES - most)
    return Command(address=address, bytes=RNG.choice([RNG.randint(1, 3 * port.beat_bytes), RNG.randint(1, most)]))


def _edge_commands(port):
    """Blocks from around a page's end, to around the ends of beats, bursts and pages."""
    burst = port.burst_beats * port.beat_bytes
    units = (1, port.beat_bytes, port.stream_bytes, burst)
    commands = []
    for start_at in (-burst, -port.beat_bytes, 0):
        for before in (-1, 0, 1):
            page = BOUNDARY_BYTES * RNG.randrange(2, MEMORY_BYTES // BOUNDARY_BYTES - 2)
            address = page + start_at + before
            lengths = {unit + more for unit in units for more in (-1, 0, 1)}
            lengths |= {end - address + more for end in (page, page + burst, page + 2 * burst) for more in (-1, 0, 1)}
            commands += [Command(address=address, bytes=n) for n in sorted(lengths) if n > 0]
    return commands


@cocotb.test()
async def every_offset(dut):
    """All first and all last lanes of a beat, in blocks of one, two or three beats; all pairs of up to 16 lanes."""
    bench = await start(dut)
    beat_bytes = bench.reader.golden.beat_bytes
    for offset in range(beat_bytes):
        page = BOUNDARY_BYTES * RNG.randrange(1, MEMORY_BYTES // BOUNDARY_BYTES)
        n_beats = RNG.randrange(3)
        ends = range(offset + 1, beat_bytes + 1) if not n_beats else range(1, beat_bytes + 1)
        # Of wide beats there are too many pairs: each first lane meets some last ones.
        ends = sorted([*RNG.sample(ends, min(len(ends), 16)), ends[0], ends[-1]])
        address = page - beat_bytes * RNG.randrange(1, 4) + offset
        commands = [Command(address=address, bytes=n_beats * beat_bytes + end - offset) for end in ends]
        await bench.write(commands)
        await bench.read(commands)
        await bench.clear()


@cocotb.test()
async def edges_and_lengths(dut):
    bench = await start(dut)
    for share, offering, moving in ((0.0, 1.0, 1.0), (0.4, 0.7, 0.7)):
        bench.stall_axi(share)
        commands = _edge_commands(bench.reader.golden)
        await bench.write(commands, offering=offering, moving=moving)
        await bench.read(commands, offering=offering, moving=moving)
        await bench.reset()


@cocotb.test()
async def back_pressure_on_all_channels(dut):
    bench = await start(dut)
    for share, offering, moving in ((0.0, 1.0, 0.2), (0.7, 1.0, 1.0), (0.4, 0.3, 0.6), (0.2, 0.05, 1.0)):
        bench.stall_axi(share)
        commands = [_any_command(bench.reader.golden) for _ in range(15)]
        await bench.write(commands, offering=offering, moving=moving)
        await bench.read(commands, offering=offering, moving=moving)
        await bench.reset()


@cocotb.test()
async def read_after_done(dut):
    """A block is read as soon as the writer says that it is written, while it writes the next ones."""
    bench = await start(dut)
    bench.stall_axi(0.3)
    most = 4 * bench.reader.golden.burst_beats * bench.reader.golden.beat_bytes
    n_blocks = MEMORY_BYTES // most
    commands = [
        Command(address=n * most + RNG.randrange(most // 2), bytes=RNG.randint(1, most // 2)) for n in range(n_blocks)
    ]
    blocks = [RNG.randbytes(command.bytes) for command in commands]
    writing = cocotb.start_soon(bench.write(commands, blocks, moving=0.9))
    for n, (command, block) in enumerate(zip(commands, blocks, strict=True)):
        while len(bench.writer.results) <= n:
            await bench.writer.done.wait()
            bench.writer.done.clear()
        await RisingEdge(dut.clk)
        beats = pack(block, bench.reader.golden.stream_bytes)
        bench.reader.results.clear()
        await bench.reader.run([command], len(beats))
        assert bench.reader.results == beats
    await writing


@cocotb.test()
async def error_responses(dut):
    bench = await start(dut)
    bench.stall_axi(0.3)
    golden = bench.reader.golden
    for _ in range(8):
        commands = [_any_command(golden) for _ in range(5)]
        asked = [piece for command in commands for piece in golden.bursts(command)]
        beats = [address + n * golden.beat_bytes for address, n_beats in asked for n in range(n_beats)]
        bench.reads.responses = dict.fromkeys(beats[::2], "EXOKAY")
        bench.reads.responses |= {RNG.choice(beats): RNG.choice(["SLVERR", "DECERR"]) for _ in range(2)}
        await bench.read(commands, code="RESPONSE", responses=bench.reads.responses, moving=0.5)
        bench.writes.responses = {address: "EXOKAY" for address, _ in asked[::2]}
        bench.writes.responses |= {RNG.choice(asked)[0]: RNG.choice(["SLVERR", "DECERR"]) for _ in range(2)}
        await bench.write(commands, code="RESPONSE", responses=bench.writes.responses, moving=0.8)
        await bench.clear()
        bench.reads.responses = bench.writes.responses = {}
        commands = [_any_command(golden) for _ in range(2)]
        await bench.write(commands)
        await bench.read(commands)
        await bench.clear()


@cocotb.test()
async def refused_commands(dut):
    bench = await start(dut)
    for bad, code in (
        (Command(address=3, bytes=0), "EMPTY"),
        (Command(address=MEMORY_BYTES - 1, bytes=2), "RANGE"),
        (Command(address=MEMORY_BYTES, bytes=1), "RANGE"),
        (Command(address=(1 << 64) - 1, bytes=(1 << 32) - 1), "RANGE"),
    ):
        good = [_any_command(bench.reader.golden) for _ in range(3)]
        blocks = [RNG.randbytes(command.bytes) for command in good]
        await bench.write([*good, bad, *good], [*blocks, b"", *blocks], code=code)
        await bench.read([*good, bad, *good], code=code, moving=0.5)
        assert bench.reader.error.command == bench.writer.error.command == 3
        await bench.clear()
    await bench.read([_any_command(bench.reader.golden) for _ in range(3)])


@cocotb.test()
async def blocks_of_another_length(dut):
    bench = await start(dut)
    bench.stall_axi(0.2)
    for more in (-1, 1, -bench.writer.golden.stream_bytes, bench.writer.golden.beat_bytes, 1000, -50):
        good = [_any_command(bench.writer.golden) for _ in range(2)]
        bad = Command(address=RNG.randrange(MEMORY_BYTES // 2), bytes=RNG.randint(200, 2000))
        commands = [*good, bad, *good]
        blocks = [RNG.randbytes(command.bytes) for command in commands]
        blocks[2] = RNG.randbytes(bad.bytes + more)
        await bench.write(commands, blocks, code="LENGTH", moving=RNG.choice([0.5, 1.0]))
        assert bench.writer.error.command == 2
        await bench.clear()


@cocotb.test()
async def reset_and_clear_in_mid_burst(dut):
    """At any cycle; after a reset, which the memory sees too, or a `clear`, which it does not, all is as at first."""
    bench = await start(dut)
    bench.stall_axi(0.2)
    for n in range(30):
        commands = [_any_command(bench.reader.golden) for _ in range(5)]
        bench.writer.send([RNG.randbytes(command.bytes) for command in commands])
        cycles = RNG.randrange(1, 120)
        writing = cocotb.start_soon(bench.writer.run(commands, 5, moving=0.9, cycles=cycles))
        await bench.reader.run(commands, 1 << 20, moving=0.7, cycles=cycles)
        await writing
        await (bench.clear() if n % 2 else bench.reset())
        bench.resync(commands)
        await ReadOnly()
        assert not dut.reader__o__valid.value
        assert not dut.writer_m_axi_wvalid.value
        await RisingEdge(dut.clk)
        commands = [_any_command(bench.reader.golden) for _ in range(2)]
        await bench.write(commands)
        await bench.read(commands)
        await bench.reset()
