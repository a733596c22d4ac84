"""Block reader and writer: bursts, strobes, beats, cycles and errors against the golden model."""

import numpy as np
import pytest

from edgeaccel.golden.blocks import Command, Reader, Writer, pack
from edgeaccel.golden.memory import BOUNDARY_BYTES
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory.block import BlockErrorCode
from edgeaccel.memory.command import ErrorCode as StreamerErrorCode
from edgeaccel.memory.reader import BlockReader
from edgeaccel.memory.writer import BlockWriter
from edgeaccel.sim.block_bench import Phase, WriteMemory, run_reader, run_writer
from edgeaccel.sim.streamer_bench import ReadMemory
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit

pytestmark = pytest.mark.slow

SMALL = {"buffer_beats": 24, "burst_beats": 8, "outstanding": 4, "queue": 3}
MEMORY_BYTES = 1 << 15
WIDTHS = [(32, 4), (32, 64), (64, 8), (128, 128), (256, 16), (512, 64)]
LATENCY = 20


def random_stalls(rng, names, n_cycles=20_000, *, share=0.6):
    """Stall patterns that are open for `share` of the cycles, four at a time."""
    return {name: Pattern(np.repeat(rng.random(n_cycles // 4) < share, 4)) for name in names}


def random_commands(rng, port, n):
    """Commands that begin anywhere and end near the edges of beats, bursts and 4 KiB pages, or anywhere."""
    burst = port.burst_beats * port.beat_bytes
    commands = []
    for _ in range(n):
        page = BOUNDARY_BYTES * int(rng.integers(1, MEMORY_BYTES // BOUNDARY_BYTES - 1))
        address = page + int(rng.choice([rng.integers(-40, 40), rng.integers(BOUNDARY_BYTES)]))
        unit = int(rng.choice([port.beat_bytes, port.stream_bytes, burst, 1]))
        n_units = int(rng.integers(0, 4)) if unit > 1 else int(rng.integers(1, 3 * burst))
        end = int(rng.choice([address, -(-address // unit) * unit])) + n_units * unit + int(rng.integers(-1, 2))
        commands.append(Command(address=address, bytes=max(1, end - address)))
    return commands


def random_blocks(rng, commands):
    return [rng.bytes(command.bytes) for command in commands]


class Bench:
    """A reader or writer of some parameters with its golden model and a memory of random bytes."""

    def __init__(self, seed, **parameters):
        print(f"seed {seed}")
        self.rng = np.random.default_rng(seed)
        self.parameters = SMALL | {"memory_bytes": MEMORY_BYTES} | parameters
        self.content = self.rng.integers(0, 256, MEMORY_BYTES, np.uint8)

    def read(self, phases, *, latency=LATENCY, responses=None, memory_stalls=(), stalls=()):
        """Check the beats and errors of phases, each a list of commands or a Phase; return the runs and the memory."""
        golden = Reader(**self.parameters)
        self.stalls = random_stalls(self.rng, stalls)
        memory = ReadMemory(
            self.content,
            golden.beat_bytes,
            latency=latency,
            responses=responses,
            **random_stalls(self.rng, memory_stalls),
        )
        phases = [
            phase
            if isinstance(phase, Phase)
            else Phase(commands=phase, n_results=len(golden.read(phase, self.content, responses)[0]))
            for phase in phases
        ]
        runs = run_reader(BlockReader(**self.parameters), phases, memory, stalls=self.stalls)
        assert memory.most_outstanding <= golden.outstanding
        assert memory.waited == 0
        for phase, result in zip(phases, runs, strict=True):
            beats, _, error = golden.read(phase.commands, self.content, responses)
            if phase.cycles is None:
                assert len(result.results) == len(beats)
                assert result.error == error
            else:
                assert result.error in (None, error)
            assert result.results == beats[: len(result.results)]
        return runs, memory

    def write(self, phases, *, latency=LATENCY, responses=None, memory_stalls=(), stalls=()):
        """Check what phases write: each a list of commands, a tuple of commands and blocks, or a Phase."""
        golden = Writer(**self.parameters)
        self.stalls = random_stalls(self.rng, stalls)
        expected = self.content.copy()
        memory = WriteMemory(
            self.content,
            golden.beat_bytes,
            latency=latency,
            responses=responses,
            **random_stalls(self.rng, memory_stalls),
        )
        complete = []
        for phase in phases:
            if not isinstance(phase, Phase):
                commands, blocks = phase if isinstance(phase, tuple) else (phase, random_blocks(self.rng, phase))
                n_done = len(golden.write(commands, blocks, responses)[1])
                phase = Phase(commands=commands, blocks=blocks, n_results=n_done)
            complete.append(phase)
        runs = run_writer(BlockWriter(**self.parameters), complete, memory, stalls=self.stalls)
        assert memory.most_outstanding <= golden.outstanding
        asked = iter(zip(memory.bursts, _strobes(memory), strict=True))
        for phase, result in zip(complete, runs, strict=True):
            written, done, error = golden.write(phase.commands, phase.blocks, responses)
            if phase.cycles is None:
                assert result.results == done
                assert result.error == error
            else:
                assert result.results == done[: len(result.results)]
                assert result.error in (None, error)
            cut = phase.cycles is not None or (error is not None and error.code == "RESPONSE")
            for burst in written:
                if (now := next(asked, None)) is None:
                    assert cut
                    break
                if cut and now != ((burst.address, len(burst.data)), burst.strobes):
                    asked = iter([now, *asked])
                    break
                assert now == ((burst.address, len(burst.data)), burst.strobes)
                _apply(expected, burst, golden.beat_bytes)
        assert next(asked, None) is None
        np.testing.assert_array_equal(self.content, expected)
        return runs, memory


def _strobes(memory):
    strobes = iter(memory.strobes)
    return [[next(strobes) for _ in range(n_beats)] for _, n_beats in memory.bursts]


def _apply(content, burst, beat_bytes):
    for n, (strobe, data) in enumerate(zip(burst.strobes, burst.data, strict=True)):
        lanes = [lane for lane in range(beat_bytes) if strobe >> lane & 1]
        content[[burst.address + n * beat_bytes + lane for lane in lanes]] = [data[lane] for lane in lanes]


def check_reader(seed, parameters, *, n_commands=30, latency=LATENCY, stalls=(), memory_stalls=(), commands=None):
    """Random commands without errors: beats and bursts and, with a memory that does not stall, cycles."""
    bench = Bench(seed, **parameters)
    golden = Reader(**bench.parameters)
    commands = random_commands(bench.rng, golden, n_commands) if commands is None else commands
    (result,), memory = bench.read([commands], latency=latency, stalls=stalls, memory_stalls=memory_stalls)
    assert memory.bursts == [burst for command in commands for burst in golden.bursts(command)]
    if not memory_stalls:
        timing = golden.timing(
            commands, latency=latency, source=bench.stalls.get("commands"), sink=bench.stalls.get("stream")
        )
        np.testing.assert_array_equal(result.commands, timing.commands)
        np.testing.assert_array_equal(memory.address_cycles, timing.addresses)
        np.testing.assert_array_equal(memory.beat_cycles, timing.beats)
        np.testing.assert_array_equal(result.stream, timing.taken)
    return result, memory


def check_writer(seed, parameters, *, n_commands=30, latency=LATENCY, stalls=(), memory_stalls=(), commands=None):
    """As `check_reader`."""
    bench = Bench(seed, **parameters)
    golden = Writer(**bench.parameters)
    commands = random_commands(bench.rng, golden, n_commands) if commands is None else commands
    (result,), memory = bench.write([commands], latency=latency, stalls=stalls, memory_stalls=memory_stalls)
    assert memory.bursts == [burst for command in commands for burst in golden.bursts(command)]
    if not memory_stalls:
        timing = golden.timing(
            commands, latency=latency, source=bench.stalls.get("commands"), blocks=bench.stalls.get("stream")
        )
        np.testing.assert_array_equal(result.commands, timing.commands)
        np.testing.assert_array_equal(result.stream, timing.taken)
        np.testing.assert_array_equal(memory.address_cycles, timing.addresses)
        np.testing.assert_array_equal(memory.beat_cycles, timing.beats)
        np.testing.assert_array_equal(result.done, timing.done)
    return result, memory


CHECKS = pytest.mark.parametrize("check", [check_reader, check_writer])


@CHECKS
@pytest.mark.parametrize(("data_width", "stream_bytes"), WIDTHS)
def test_widths(check, data_width, stream_bytes):
    parameters = {"data_width": data_width, "stream_bytes": stream_bytes}
    check(1, parameters, n_commands=20)
    check(2, parameters, n_commands=20, stalls=("commands", "stream"))


@pytest.mark.parametrize(("data_width", "stream_bytes"), [(128, 64), (128, 16), (256, 16)])
def test_memory_that_stalls(data_width, stream_bytes):
    parameters = {"data_width": data_width, "stream_bytes": stream_bytes, "burst_beats": 4}
    check_reader(3, parameters, memory_stalls=("addresses", "beats"))
    check_reader(4, parameters, memory_stalls=("addresses", "beats"), stalls=("commands", "stream"))
    check_writer(5, parameters, memory_stalls=("addresses", "beats", "answers"))
    check_writer(6, parameters, memory_stalls=("addresses", "beats", "answers"), stalls=("commands", "stream"))


@CHECKS
@pytest.mark.parametrize(
    "sizing",
    [
        {"outstanding": 1, "queue": 1, "burst_beats": 1, "buffer_beats": 1},
        {"outstanding": 1, "burst_beats": 256, "buffer_beats": 300},
        {"outstanding": 16, "burst_beats": 2, "buffer_beats": 5},
        {"outstanding": 3, "burst_beats": 4, "buffer_beats": 9},
    ],
)
def test_sizes(check, sizing):
    parameters = {"data_width": 128, "stream_bytes": 16} | sizing
    n_commands = 5 if sizing["burst_beats"] > 64 else 20
    check(7, parameters, stalls=("stream",), n_commands=n_commands)
    check(8, parameters, latency=1, n_commands=n_commands)


@CHECKS
@pytest.mark.parametrize("stream_bytes", [8, 16, 32])
def test_every_offset_and_length(check, stream_bytes):
    """All first and last lanes, in blocks of up to two beats and a bit."""
    commands = [
        Command(address=BOUNDARY_BYTES + offset - 16, bytes=n_bytes) for offset in range(16) for n_bytes in range(1, 36)
    ]
    check(9, {"data_width": 128, "stream_bytes": stream_bytes, "burst_beats": 2}, latency=2, commands=commands)


@pytest.mark.parametrize("offset", [0, 1, 31, 63])
def test_throughput(offset):
    """With 64-byte beats on both sides: one a cycle from the first to the last, across bursts and blocks."""
    commands = [Command(address=4096 * n + offset, bytes=4096) for n in range(1, 6)]
    parameters = {"data_width": 512, "stream_bytes": 64, "buffer_beats": 64, "burst_beats": 16, "outstanding": 8}
    _, memory = check_reader(10, parameters, commands=commands)
    n_beats = len(memory.beat_cycles)
    assert n_beats == 5 * (65 if offset else 64)
    np.testing.assert_array_equal(np.diff(memory.beat_cycles), 1)
    _, memory = check_writer(11, parameters, commands=commands)
    np.testing.assert_array_equal(np.diff(memory.beat_cycles), 1)
    assert len(memory.beat_cycles) == n_beats


@pytest.mark.parametrize("check", [check_reader, check_writer])
def test_short_blocks_follow_each_other(check):
    """Blocks of a beat each, aligned: a command, a burst and a beat in each cycle."""
    commands = [Command(address=64 * n, bytes=64) for n in range(40)]
    parameters = {"data_width": 512, "stream_bytes": 64, "buffer_beats": 64, "outstanding": 64, "burst_beats": 16}
    _, memory = check(12, parameters, commands=commands)
    np.testing.assert_array_equal(np.diff(memory.beat_cycles), 1)
    np.testing.assert_array_equal(np.diff(memory.address_cycles), 1)


def test_latencies_as_documented():
    for n_bytes, offset, expected in ((16, 0, 5), (16, 3, 4), (13, 3, 5), (40, 0, 5)):
        commands = [Command(address=BOUNDARY_BYTES + offset, bytes=n_bytes)]
        result, memory = check_reader(13, {"data_width": 128, "stream_bytes": 16}, commands=commands)
        assert memory.address_cycles[0] - result.commands[0] == 4
        assert result.stream[-1] - memory.beat_cycles[-1] == expected
        result, memory = check_reader(13, {"data_width": 128, "stream_bytes": 32}, commands=commands)
        assert result.stream[-1] - memory.beat_cycles[-1] == expected + 1
    commands = [Command(address=BOUNDARY_BYTES, bytes=80)]
    for stream_bytes, expected in ((16, 3), (32, 3), (8, 4)):
        parameters = {"data_width": 128, "stream_bytes": stream_bytes}
        result, memory = check_writer(14, parameters, commands=commands)
        assert memory.address_cycles[0] - result.stream[-1] == expected
        assert memory.beat_cycles[0] == memory.address_cycles[0]
        assert result.done[0] - memory.beat_cycles[-1] == LATENCY + 1


@pytest.mark.parametrize(("data_width", "stream_bytes"), [(128, 64), (128, 16), (256, 16)])
@pytest.mark.parametrize("stalls", [(), ("stream",)])
def test_bad_responses(data_width, stream_bytes, stalls):
    """What came before is given or written; after `clear` all is as at first. An exclusive okay is no error."""
    bench = Bench(100, data_width=data_width, stream_bytes=stream_bytes)
    rng, golden = bench.rng, Reader(**bench.parameters)
    phases = [random_commands(rng, golden, 6) for _ in range(10)]
    okay = dict.fromkeys(range(0, MEMORY_BYTES, golden.beat_bytes), "EXOKAY")
    bad_beats, bad_bursts = {}, {}
    for commands in phases[::2]:
        asked = [piece for command in commands for piece in golden.bursts(command)]
        for _ in range(2):
            address, n_beats = asked[rng.integers(len(asked))]
            beat = address + int(rng.integers(n_beats)) * golden.beat_bytes
            bad_beats[beat], bad_bursts[address] = rng.choice(["SLVERR", "DECERR"], 2)
    runs, _ = bench.read(phases, responses=okay | bad_beats, stalls=stalls)
    assert all(run.error.code == "RESPONSE" for run in runs[::2])
    runs, _ = bench.write(phases, responses=okay | bad_bursts, stalls=stalls)
    assert all(run.error.code == "RESPONSE" for run in runs[::2])


BAD_COMMANDS = [
    (Command(address=100, bytes=0), "EMPTY"),
    (Command(address=0, bytes=0), "EMPTY"),
    (Command(address=MEMORY_BYTES - 7, bytes=8), "RANGE"),
    (Command(address=MEMORY_BYTES, bytes=1), "RANGE"),
    (Command(address=0, bytes=(1 << 32) - 1), "RANGE"),
    (Command(address=(1 << 64) - 1, bytes=1), "RANGE"),
    (Command(address=(1 << 64) - 1, bytes=2), "RANGE"),
]


@pytest.mark.parametrize("stalls", [(), ("stream",)])
def test_refused_commands(stalls):
    """Blocks before the refused one are moved and none after it; after `clear` all is as at first."""
    bench = Bench(200, data_width=128, stream_bytes=16)
    good = random_commands(bench.rng, Reader(**bench.parameters), 4)
    phases = [[*good[:3], bad, *good] for bad, _ in BAD_COMMANDS] + [good]
    codes = [code for _, code in BAD_COMMANDS]
    runs, _ = bench.read(phases, stalls=stalls)
    assert [(run.error.code, run.error.command) for run in runs[:-1]] == [(code, 3) for code in codes]
    blocks = [bench.rng.bytes(command.bytes) for command in good]
    phases = [(phase, [*blocks[:3], b"", *blocks]) for phase in phases[:-1]] + [(good, blocks)]
    runs, _ = bench.write(phases, stalls=stalls)
    assert [(run.error.code, run.error.command) for run in runs[:-1]] == [(code, 3) for code in codes]
    assert [run.results for run in runs] == [[0, 1, 2]] * len(codes) + [[0, 1, 2, 3]]


def test_last_byte_of_the_memory():
    bench = Bench(220, data_width=128, stream_bytes=16)
    commands = [Command(address=MEMORY_BYTES - n, bytes=n) for n in (1, 15, 16, 17, 200)]
    bench.read([commands])
    bench.write([commands])


def test_small_address_width():
    """The end of a block is not lost above a short address."""
    bench = Bench(221, data_width=32, stream_bytes=4, address_width=15, memory_bytes=None)
    good = Command(address=MEMORY_BYTES - 9, bytes=9)
    runs, _ = bench.read([[good, Command(address=0, bytes=1 << 20)]])
    assert runs[0].error.code == "RANGE"
    runs, _ = bench.write([([good, Command(address=8, bytes=1 << 31)], [bytes(9), b""])])
    assert runs[0].error.code == "RANGE"


@pytest.mark.parametrize(("data_width", "stream_bytes"), [(128, 64), (128, 16), (128, 8)])
@pytest.mark.parametrize("stalls", [(), ("stream",)])
def test_blocks_of_another_length(data_width, stream_bytes, stalls):
    """Shorter and longer than the command: refused where it shows, and nothing outside of the block is touched."""
    bench = Bench(230, data_width=data_width, stream_bytes=stream_bytes)
    rng, beat_bytes = bench.rng, data_width // 8
    phases = []
    for _ in range(16):
        good = random_commands(rng, Writer(**bench.parameters), 3)
        n_bytes = int(rng.integers(2, 16 * beat_bytes))
        more = int(rng.choice([-1, 1, -beat_bytes, beat_bytes, rng.integers(1 - n_bytes, 10 * beat_bytes)]))
        length = max(1, n_bytes + more)
        bad = Command(address=4096 + int(rng.integers(4096)), bytes=n_bytes + (length == n_bytes))
        blocks = random_blocks(rng, good)
        phases += [([*good, bad, *good], [*blocks, rng.bytes(length), *blocks]), (good, blocks)]
    runs, _ = bench.write(phases, stalls=stalls)
    assert all((run.error.code, run.error.command) == ("LENGTH", 3) for run in runs[::2])
    assert all(run.results == [0, 1, 2] for run in runs)


@pytest.mark.parametrize("memory_stalls", [(), ("addresses", "beats")])
@pytest.mark.parametrize("stream_bytes", [8, 16, 32])
def test_clear_at_any_time(stream_bytes, memory_stalls):
    """What is outstanding is finished, bytes outside of the blocks are kept, and the next phase is not disturbed."""
    bench = Bench(250, data_width=128, stream_bytes=stream_bytes)
    phases = []
    for cycles in bench.rng.integers(1, 150, 8):
        commands = random_commands(bench.rng, Reader(**bench.parameters), 5)
        blocks = random_blocks(bench.rng, commands)
        phases.append(Phase(commands=commands, blocks=blocks, cycles=int(cycles)))
    commands = random_commands(bench.rng, Reader(**bench.parameters), 5)
    bench.read([*phases, commands], stalls=("stream",), memory_stalls=memory_stalls)
    bench.write([*phases, commands], stalls=("stream",), memory_stalls=memory_stalls)


def test_error_codes_are_those_of_the_streamer():
    """One number has one reason, whichever engine shows it."""
    ours = {code.value: code.name for code in BlockErrorCode}
    theirs = {code.value: code.name for code in StreamerErrorCode}
    assert all(theirs.get(value, name) == name for value, name in ours.items())
    assert all(ours.get(value, name) == name for value, name in theirs.items())


def test_golden_by_hand():
    assert pack(b"abcdefghi", 4) == [(b"abcd", 3, False), (b"efgh", 3, False), (b"i\0\0\0", 0, True)]
    port = Writer(data_width=64, stream_bytes=8, burst_beats=4)
    assert port.bursts(Command(address=4095, bytes=2)) == [(4088, 1), (4096, 1)]
    assert port.bursts(Command(address=30, bytes=40)) == [(24, 1), (32, 4), (64, 1)]
    (first, second), done, error = port.write([Command(address=4093, bytes=5)], [b"abcde"])
    assert first == (4088, [0b11100000], [b"\0\0\0\0\0abc"])
    assert second == (4096, [0b00000011], [b"de\0\0\0\0\0\0"])
    assert (done, error) == ([0], None)
    beats, _, _ = Reader(data_width=64, stream_bytes=8).read(
        [Command(address=3, bytes=9)], np.arange(64, dtype=np.uint8)
    )
    assert beats == [(bytes(range(3, 11)), 7, False), (bytes([11]) + bytes(7), 0, True)]


@pytest.mark.parametrize("mover", [BlockReader, BlockWriter])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"data_width": 32, "stream_bytes": 128, "burst_beats": 1, "buffer_beats": 1, "outstanding": 1, "queue": 1},
        {"data_width": 1024, "stream_bytes": 4, "address_width": 32, "burst_beats": 256},
    ],
)
def test_verilog(mover, parameters, tmp_path):
    path = tmp_path / "dut.v"
    path.write_text(emit(mover(**parameters), "dut"))
    assert lint(path, "dut") == ""


@pytest.mark.parametrize("mover", [BlockReader, BlockWriter])
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stream_bytes": 48}, "stream_bytes must be a power of two from 4 to 128, not 48"),
        ({"data_width": 48}, "data_width must be one of .* not 48"),
        ({"burst_beats": 3}, "burst_beats must be a power of two from 1 to 256, not 3"),
        ({"buffer_beats": 8}, "buffer_beats must be at least a burst, 16 beats, not 8"),
        ({"outstanding": 0}, "outstanding must be at least 1 burst, not 0"),
        ({"queue": 0}, "queue must be at least 1 command, not 0"),
        ({"memory_bytes": 0}, r"memory_bytes must be 1 to 2\*\*64, what an address can tell, not 0"),
        ({"address_width": 11}, "address_width must be 12 to 64 bits, not 11"),
    ],
)
def test_bad_parameters(mover, parameters, message):
    with pytest.raises(ValueError, match=message):
        mover(**parameters)
