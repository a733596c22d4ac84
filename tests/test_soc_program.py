"""Program and token memory, and AXI4-Lite's signature."""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from test_sequencer import Bench
from test_sequencer import small_machine as sequencer_machine
from test_soc_share import MACHINES, STALLED, Bundle, closed, run, small_machine, stalls_of

from edgeaccel import isa
from edgeaccel.memory import axi
from edgeaccel.sim.vectors import generator
from edgeaccel.soc import axi_lite
from edgeaccel.soc.program import LINE_WIDTH, ProgramMemory, line_layout
from edgeaccel.soc.sequencer import SequencerErrorCode, State
from edgeaccel.soc.tokens import TokenMemory

N_CYCLES = 1500


class Program(wiring.Component):
    """`ProgramMemory`; `words` is its line in words of 32 bits, the lowest first."""

    def __init__(self, machine):
        self._memory = ProgramMemory(machine)
        members = dict(self._memory.signature.members)
        del members["line"]
        super().__init__(members | {"words": Out(data.ArrayLayout(32, LINE_WIDTH // 32))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        for name, member in self.signature.members.items():
            if member.is_signature:
                own, inner = getattr(self, name), getattr(memory, name)
                wiring.connect(
                    m, *((inner, wiring.flipped(own)) if member.flow is Out else (wiring.flipped(own), inner))
                )
            elif member.flow is In:
                m.d.comb += getattr(memory, name).eq(getattr(self, name))
        m.d.comb += [self.loaded.eq(memory.loaded), self.words.eq(memory.line)]
        return m


class Tokens(wiring.Component):
    """`TokenMemory` whose two ports are driven by a stream, an item a cycle; `reads` come with the next item."""

    def __init__(self, machine):
        self._memory = TokenMemory(machine)
        port = data.StructLayout({"position": range(machine.positions), "write": 1, "token": isa.TOKEN_WIDTH})
        self._names = ("host", "sequencer")
        reads = data.StructLayout(dict.fromkeys(self._names, isa.TOKEN_WIDTH))
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(dict.fromkeys(self._names, port)))),
                "o": Out(stream.Signature(reads)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = self._memory
        m.d.comb += [self.i.ready.eq(1), self.o.valid.eq(self.i.valid)]
        for name in self._names:
            port, given = getattr(self._memory, name), self.i.p[name]
            m.d.comb += [
                port.position.eq(given.position),
                port.write.eq(given.write & self.i.valid),
                port.token.eq(given.token),
                self.o.p[name].eq(port.read),
            ]
        return m


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    parts = {"program": Program(machine), "tokens": Tokens(machine)}
    return machine, Bundle(parts, ("program.loaded", "program.words"))


def program_lines(rng, n):
    """Lines of a `BlockReader`: a program of n instructions."""
    return {
        "data": rng.integers(0, 256, (n, isa.INSTRUCTION_BYTES)),
        "last_byte": np.full(n, isa.INSTRUCTION_BYTES - 1),
        "last": (np.arange(n) == n - 1).astype(int),
    }


@MACHINES
@STALLED
def test_programs(sizes, stalled):
    """Each is asked for once and taken from its first line on; a shorter one leaves the lines behind it as they are."""
    machine, units = bundle(**sizes)
    rng = generator([570, stalled])
    programs = [program_lines(rng, n) for n in (machine.instructions, 3, 1)]
    starts = [10, 410, 810]
    addresses = [0x123456789ABCDE00, 64, 0xFFFFFFFFFFFFFFC0]
    n_bytes = [isa.INSTRUCTION_BYTES * len(program["last"]) for program in programs]
    index = {}
    expected, memory = {}, np.zeros((machine.instructions, isa.INSTRUCTION_BYTES), int)
    for start, program in zip(starts, programs, strict=True):
        memory[: len(program["last"])] = program["data"]
        for n, place in enumerate(rng.permutation(machine.instructions).tolist()):
            index[start + 300 + 2 * n] = place
            expected[start + 301 + 2 * n] = memory[place].copy()
    values = {
        "load": {cycle + n: 1 - n for cycle in starts for n in (0, 1)},
        "address": {0: 5} | dict(zip(starts, addresses, strict=True)),
        "bytes": dict(zip(starts, n_bytes, strict=True)),
        "index": index,
    }
    lines = {name: np.concatenate([program[name] for program in programs]) for name in programs[0]}
    stalls = stalls_of(rng, units, "program", N_CYCLES, share=0.4) if stalled else {}
    result = run(units, "program", {"i_lines": lines}, 3, stalls=stalls, values=values, n_cycles=N_CYCLES)

    commands = result.results["o_commands"]
    assert commands["address"].view(np.uint64).tolist() == addresses
    np.testing.assert_array_equal(commands["bytes"], n_bytes)
    assert (result.cycles["o_commands"] > starts).all()
    ends = np.nonzero(lines["last"])[0]
    taken = result.cycles["i_lines"]
    (loaded,) = np.nonzero(result.watched["program_loaded"])
    np.testing.assert_array_equal(loaded, taken[ends])
    for start, part in zip(starts, np.split(taken, ends[:-1] + 1), strict=True):
        assert start < part[0]
        assert part[-1] < start + 300
        if not stalled:  # a line a cycle
            np.testing.assert_array_equal(part, start + 1 + np.arange(len(part)))
    given = result.watched["program_words"].astype(np.uint32).view(np.uint8)
    for cycle, line in expected.items():
        np.testing.assert_array_equal(given[cycle], line, err_msg=f"cycle {cycle}")


def test_a_command_that_is_not_taken():
    """It stands, and lines are taken meanwhile: who gives them decides."""
    _, units = bundle()
    rng = generator(571)
    lines = program_lines(rng, 2)
    values = {"load": {3: 1, 4: 0}, "address": 640, "bytes": 128}
    stalls = {"o_commands": closed(60)}
    result = run(units, "program", {"i_lines": lines}, 1, stalls=stalls, values=values, n_cycles=100)
    assert result.cycles["o_commands"].tolist() == [60]
    assert result.cycles["i_lines"].tolist() == [4, 5]


@pytest.mark.parametrize("name", isa.INSTRUCTIONS)
def test_line_layout(name):
    """A line's fields are where the assembler puts them."""
    rng = generator([572, isa.INSTRUCTIONS[name].opcode])
    fields = isa.INSTRUCTIONS[name].fields
    values = {}
    for field, of in fields.items():
        most = min(1 << of.width, len(of.names) or 1 << of.width) - 1
        values[field] = int(rng.integers(0, most, dtype=np.uint64, endpoint=True))
    when = str(rng.choice(isa.WHEN))
    code = int.from_bytes(isa.encode(name, when=when, **values), "little")
    layout = line_layout(name)
    got = {field: code >> of.offset & ((1 << of.width) - 1) for field, of in layout}
    assert got == {"opcode": isa.INSTRUCTIONS[name].opcode, "when": isa.WHEN.index(when)} | values
    assert layout.size <= LINE_WIDTH


@pytest.mark.parametrize("jump", ["again", "next"])
def test_a_jump_past_any_program(jump):
    """Nor does a target count that is past all that the memory holds: it is not taken for one of the program."""
    machine = sequencer_machine(rows=2)
    fields = {"again": {"target": 64}, "next": {"target": 128}}[jump]
    program = isa.assemble([("loop", {"layers": 2}), (jump, fields), ("end", {})])
    bench = Bench(machine, generator(574), program, [1, 2, 3, 4], open_share=1.0)
    assert bench.run((0, 4, 8)) == [(State.ERROR, SequencerErrorCode.PROGRAM)]


@MACHINES
def test_tokens(sizes):
    """Both ports read and write in every cycle; only what was written in that cycle is unknown to who reads it.

    The host's tokens are written in the first cycle behind in which the sequencer writes none.
    """
    machine, units = bundle(**sizes)
    rng = generator(573)
    n = 600
    items = {
        name: {
            "position": rng.integers(0, machine.positions, n),
            "write": rng.integers(0, 2, n),
            "token": rng.integers(0, 1 << isa.TOKEN_WIDTH, n),
        }
        for name in ("host", "sequencer")
    }
    host, sequencer = items["host"], items["sequencer"]
    for place in range(machine.positions):  # first all of them are written
        host["position"][place], host["write"][place] = place, 1
    # One of the host's tokens must be written before the next one is kept.
    is_kept = False
    for cycle in range(n):
        sequencer["write"][cycle] &= not (is_kept and host["write"][cycle])
        is_kept = host["write"][cycle] or (is_kept and sequencer["write"][cycle])
    memory, kept, n_known, n_late = {}, None, 0, 0
    reads = run(units, "tokens", {"i": items}, n).results["o"]
    for cycle in range(n - 1):
        written = {}
        if sequencer["write"][cycle]:
            written[sequencer["position"][cycle]] = sequencer["token"][cycle]
            n_late += kept is not None
        elif kept is not None:
            written, kept = dict([kept]), None
        if host["write"][cycle]:
            assert kept is None
            kept = host["position"][cycle], host["token"][cycle]
        for name, port in items.items():
            place = port["position"][cycle]
            if place in memory and place not in written:
                assert reads[name][cycle + 1] == memory[place], (name, cycle)
                n_known += 1
        memory |= written
    assert n_late > 10
    assert n_known > n // 2


def test_axi_lite_signature():
    """Members, widths and directions of IHI 0022, part B, table B1-1, from the master's side."""
    signature = axi_lite.Signature(address_width=13)
    widths = {"addr": 13, "prot": 3, "data": 32, "strb": 4, "resp": 2, "valid": 1, "ready": 1}
    channels = {
        "aw": ("addr", "prot"),
        "w": ("data", "strb"),
        "b": ("resp",),
        "ar": ("addr", "prot"),
        "r": ("data", "resp"),
    }
    expected = {}
    for channel, fields in channels.items():
        flow, back = (In, Out) if channel in "br" else (Out, In)
        expected |= {channel + name: (flow, widths[name]) for name in (*fields, "valid")}
        expected[f"{channel}ready"] = (back, 1)
    assert set(signature.members) == set(expected)
    created = signature.create()
    for name, (flow, width) in expected.items():
        assert signature.members[name].flow == flow, name
        value = getattr(created, name)
        assert len(value.as_value() if hasattr(value, "as_value") else value) == width, name
    assert isinstance(signature, axi.Signature)
    assert repr(signature) == "axi_lite.Signature(address_width=13)"
