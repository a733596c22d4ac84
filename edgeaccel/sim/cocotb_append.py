"""Tests of the KV-cache writer's Verilog against `cocotbext-axi`'s memory, for `edgeaccel.sim.cocotb_runner`.

Plus-arguments: `config`, the name of a preset, and `seed`.
"""

import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiBus, AxiRam

from edgeaccel.attention.append_command import AppendKind, append_command
from edgeaccel.config import preset
from edgeaccel.formats import FORMATS
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.append import Append, append
from edgeaccel.golden.scatter import apply

PORT_BYTES = 1 << 14
HANGING_CYCLES = 2000
# `random` itself: cocotb seeds it, we seed it once more.
RNG = random.Random()


class Bench:
    """The device with its clock and memory, whose content should be `memory`."""

    def __init__(self, dut):
        self.dut = dut
        self.config = preset(cocotb.plusargs["config"])
        Clock(dut.clk, 4, "ns").start()
        size = (self.config.groups + 1) * PORT_BYTES
        self.memory = np.frombuffer(RNG.randbytes(size), np.uint8).copy()
        self.ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
        self.ram.write(0, self.memory.tobytes())
        self.n_done = 0

    async def reset(self):
        for name in ("i__valid", "i_commands__valid", "clear", "rst"):
            getattr(self.dut, name).value = int(name == "rst")
        for _ in range(4):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0

    def stall(self, share):
        """Pause each AXI channel for a share of the cycles."""
        write, read = self.ram.write_if, self.ram.read_if
        for channel in (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel):
            channel.set_pause_generator(_pauses(share))

    async def append(self, commands, *, offering=1.0):
        """Give commands and vectors; then the memory is as in the golden model."""
        vectors = [_vectors(command) for command in commands]
        layout = append_command(self.config)
        items = [layout.const(_fields(command)).as_bits() for command in commands]
        beats = _beats(self.config, vectors)
        left = {"i_commands": items, "i": beats}
        offered = dict.fromkeys(left, False)
        waiting, wanted = 0, self.n_done + len(commands)
        while self.n_done < wanted:
            for name, of_stream in left.items():
                offered[name] = bool(of_stream) and (offered[name] or RNG.random() < offering)
                self._port(name, "valid").value = int(offered[name])
                if offered[name]:
                    self._port(name, "payload").value = of_stream[0]
            await ReadOnly()
            waiting += 1
            for name in left:
                if offered[name] and self._port(name, "ready").value:
                    left[name].pop(0)
                    offered[name], waiting = False, 0
            if self.dut.done.value:
                self.n_done += 1
                waiting = 0
            assert waiting < HANGING_CYCLES, "hangs"
            await RisingEdge(self.dut.clk)
        assert not int(self.dut.error.value) & 1
        for command, of_command in zip(commands, vectors, strict=True):
            apply(append(self.config, PORT_BYTES, command, of_command), self.memory)
        found = np.frombuffer(self.ram.read(0, len(self.memory)), np.uint8)
        np.testing.assert_array_equal(found, self.memory)

    def _port(self, name, part):
        return getattr(self.dut, f"{name}__{part}")


def _pauses(share):
    while True:
        pause = RNG.random() < share
        for _ in range(RNG.randrange(1, 6)):
            yield pause


def _fields(command):
    kinds = {"kind": AppendKind[command.kind.upper()], "format": FORMATS[command.format].code}
    return vars(command) | kinds


def _vectors(command):
    rng = np.random.default_rng(RNG.randrange(1 << 32))
    shape = (command.heads, command.rows, command.inputs)
    return rng.standard_normal(shape).astype(np.float32).view(np.uint32)


def _beats(config, vectors):
    rows = [row for of_command in vectors for head in of_command for row in head]
    beats = golden_vector.beats(rows, config.vector_lanes, 256)
    width = 32 * config.vector_lanes
    payloads = []
    for elements, keep, last in zip(beats["elements"], beats["keep"], beats["last"], strict=True):
        codes = int.from_bytes(elements.astype("<u4").tobytes(), "little")
        payloads.append(codes | int(keep) << width | int(last) << width + config.vector_lanes)
    return payloads


def _command(config, kind, place, rows, **changes):
    """A command of a page of which all tiles are within a port's memory."""
    where = {"page": 7, "unit": RNG.randrange(3), "scales": config.groups * PORT_BYTES, "share_bits": 1}
    words = {"k_words": 66, "k_stride": 132, "v_region": 600, "v_words": 33, "v_stride": 99}
    settings = {"kind": kind, "place": place, "rows": rows, "heads": 2, "inputs": 20, **where, **words, **changes}
    return Append(**settings)


async def start(dut):
    RNG.seed(int(cocotb.plusargs["seed"]))
    bench = Bench(dut)
    await bench.reset()
    return bench


@cocotb.test()
async def all_formats(dut):
    """Positions of a chunk one after the other, and in batches, with stalls everywhere."""
    bench = await start(dut)
    for format in bench.config.formats:
        for share, offering in ((0.0, 1.0), (0.4, 0.6)):
            bench.stall(share)
            places = [(0, 1), (1, 1), (2, bench.config.rows), (5, 1), (30, 1), (31, 1)]
            commands = [_command(bench.config, kind, *place, format=format) for place in places for kind in "kv"]
            await bench.append(commands, offering=offering)


@cocotb.test()
async def half_bytes_follow_each_other(dut):
    """The same beats again and again, each time with other half bytes: every read sees the write before."""
    bench = await start(dut)
    for share in (0.0, 0.5):
        bench.stall(share)
        commands = [
            _command(bench.config, "k", 2 * n + odd, 1, format="int4", unit=1, heads=1, inputs=8)
            for n in range(3)
            for odd in (0, 1, 1)
        ]
        await bench.append(commands)


@cocotb.test()
async def clear_and_reset(dut):
    """In the middle of a command; what was to be written may be, all else is kept, and the next command is whole."""
    bench = await start(dut)
    bench.stall(0.3)
    for cycles in (40, 150, 260):
        broken = _command(bench.config, "v", 0, bench.config.rows, format="int16")
        task = cocotb.start_soon(bench.append([broken]))
        for _ in range(cycles):
            await RisingEdge(dut.clk)
        task.cancel()
        dut.i__valid.value = dut.i_commands__valid.value = 0
        dut.clear.value = 1
        await RisingEdge(dut.clk)
        dut.clear.value = 0
        for _ in range(300):
            await RisingEdge(dut.clk)
        written = np.zeros(len(bench.memory), np.uint8)
        for item in append(bench.config, PORT_BYTES, broken, _vectors(broken)):
            written[item.address : item.address + len(item.data)] = 1
        found = np.frombuffer(bench.ram.read(0, len(bench.memory)), np.uint8)
        np.testing.assert_array_equal(found[written == 0], bench.memory[written == 0])
        bench.memory = found.copy()
        await bench.append([_command(bench.config, "k", 3, 1, format="int4")])
