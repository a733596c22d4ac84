"""Tile streamer and its AXI port: bursts, words, cycles and errors against the golden model."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.formats import FORMATS
from edgeaccel.golden.memory import BOUNDARY_BYTES, Command, Error, Streamer, bursts
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory import TileStreamer, axi
from edgeaccel.sim.streamer_bench import Phase, ReadMemory, run
from edgeaccel.verilated import lint
from edgeaccel.verilog import describe_ports, emit

SMALL = {"buffer_words": 64, "burst_beats": 8, "outstanding": 4, "queue": 3}
MEMORY_BYTES = 1 << 16
WIDTHS = [(data, word) for data in (32, 128, 256, 512) for word in (64, 128, 512, 1024)]


def sizes(data_width, word_width):
    """Parameters of a small streamer of these widths."""
    burst_beats = max(8, word_width // data_width)
    return SMALL | {
        "data_width": data_width,
        "word_width": word_width,
        "burst_beats": burst_beats,
        "buffer_words": max(64, burst_beats * data_width // word_width),
    }


def random_stalls(rng, names, n_cycles=20_000, *, share=0.6):
    """Stall patterns that are open for `share` of the cycles, four at a time."""
    return {name: np.repeat(rng.random(n_cycles // 4) < share, 4) for name in names}


def random_commands(rng, golden, n, *, waits=0.0):
    """Commands of lengths around those of bursts, every other one near the end of a 4 KiB page."""
    entry, burst = golden.entry_bytes, golden.burst_beats * golden.beat_bytes
    commands = []
    for _ in range(n):
        offset = int(
            rng.choice([BOUNDARY_BYTES - rng.integers(1, 6) * entry, rng.integers(BOUNDARY_BYTES // entry) * entry])
        )
        near = int(rng.integers(0, 4)) * burst // golden.word_bytes + int(rng.integers(-2, 3))
        any_length = int(rng.integers(1, 4 * burst // golden.word_bytes + 2))
        commands.append(
            Command(
                address=int(rng.integers(MEMORY_BYTES // BOUNDARY_BYTES)) * BOUNDARY_BYTES + offset,
                words=max(1, int(rng.choice([near, any_length]))),
                format=str(rng.choice(golden.formats)),
                wait=bool(rng.random() < waits),
                event=int(rng.integers(golden.n_events)),
            )
        )
    return commands


def random_events(rng, commands, horizon):
    """One pulse for each command that waits, sooner or later than it does."""
    events = {}
    for command in commands:
        if command.wait:
            events.setdefault(command.event, []).append(int(rng.integers(horizon)))
    # Two pulses of a line in one cycle would be one.
    return {event: (np.sort(cycles) + np.arange(len(cycles))).tolist() for event, cycles in events.items()}


def simulate(parameters, phases, rng, *, latency=20, port_domain="sync", responses=None, memory_stalls=None, **options):
    """The runs of the phases, and the memory afterwards."""
    golden = Streamer(**parameters)
    patterns = {name: Pattern(cycles) for name, cycles in (memory_stalls or {}).items()}
    content = rng.integers(0, 256, MEMORY_BYTES, np.uint8)
    memory = ReadMemory(content, golden.beat_bytes, latency=latency, responses=responses, **patterns)
    phases = [
        phase
        if isinstance(phase, Phase)
        else Phase(commands=phase, n_words=len(golden.read(phase, content, responses)[0]))
        for phase in phases
    ]
    runs = run(TileStreamer(port_domain=port_domain, **parameters), phases, memory, **options)
    assert memory.most_outstanding <= golden.outstanding
    for phase, result in zip(phases, runs, strict=True):
        words, _, error = golden.read(phase.commands, content, responses)
        if phase.cycles is None:
            assert len(result.words) == len(words)
            assert result.error == error
        else:
            assert result.error in (None, error)
        np.testing.assert_array_equal(result.words, words[: len(result.words)])
    return runs, memory


def check(seed, parameters, *, n_commands=16, latency=20, stalls=(), memory_stalls=(), waits=0.0, **options):
    """Random commands without errors: the bursts and words of the golden model and, with one clock, its cycles."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    golden = Streamer(**parameters)
    commands = random_commands(rng, golden, n_commands, waits=waits)
    options |= {
        "stalls": random_stalls(rng, stalls),
        "events": random_events(rng, commands, 30 * n_commands),
        "memory_stalls": random_stalls(rng, memory_stalls),
    }
    (result,), memory = simulate(parameters, [commands], rng, latency=latency, **options)
    assert memory.bursts == [burst for command in commands for burst in golden.bursts(command)]
    if "port_domain" in options:
        return result, memory
    assert memory.waited == 0
    if not memory_stalls:
        source, sink = (Pattern(options["stalls"].get(name, ())) for name in ("commands", "words"))
        timing = golden.timing(commands, latency=latency, events=options["events"], source=source, sink=sink)
        np.testing.assert_array_equal(result.commands, timing.commands)
        np.testing.assert_array_equal(memory.address_cycles, timing.addresses)
        np.testing.assert_array_equal(memory.beat_cycles, timing.beats)
        np.testing.assert_array_equal(result.cycles, timing.words)
    return result, memory


@pytest.mark.parametrize(("data_width", "word_width"), WIDTHS)
def test_widths(data_width, word_width):
    check(1, sizes(data_width, word_width), stalls=("commands", "words"), waits=0.5)


@pytest.mark.parametrize(("data_width", "word_width"), [(128, 128), (128, 512), (512, 64)])
def test_memory_that_stalls(data_width, word_width):
    check(2, sizes(data_width, word_width), memory_stalls=("addresses", "beats"))
    check(3, sizes(data_width, word_width), memory_stalls=("addresses", "beats"), stalls=("words",))


@pytest.mark.parametrize(
    "sizing",
    [
        {"outstanding": 1, "queue": 1, "burst_beats": 1, "buffer_words": 1},
        {"outstanding": 1, "burst_beats": 64, "buffer_words": 75},
        {"outstanding": 16, "burst_beats": 2, "buffer_words": 5, "n_events": 1},
        {"outstanding": 3, "burst_beats": 4, "buffer_words": 9, "n_events": 7, "formats": ("int8",)},
    ],
)
def test_sizes(sizing):
    parameters = SMALL | {"data_width": 128, "word_width": 128} | sizing
    check(4, parameters, stalls=("words",), waits=0.3, n_commands=10)
    check(5, parameters, latency=1, n_commands=10)


@pytest.mark.parametrize("port_ps", [2222, 4000, 9100, 1000])
@pytest.mark.parametrize(("data_width", "word_width"), [(256, 512), (256, 256), (256, 64)])
def test_two_clocks(data_width, word_width, port_ps):
    core_ps = 4000
    parameters = sizes(data_width, word_width) | {"outstanding": 16, "buffer_words": 512}
    clocks = {"port_domain": "hbm", "periods_ps": (core_ps, port_ps)}
    beats_per_entry = max(1, word_width // data_width)
    # Only where beats can come faster than the core takes entries may the memory have to wait.
    may_wait = port_ps * beats_per_entry < core_ps
    _, memory = check(6, parameters, **clocks)
    assert may_wait or memory.waited == 0
    check(7, parameters, stalls=("words",), waits=0.3, **clocks)
    _, memory = check(8, parameters, memory_stalls=("addresses", "beats"), **clocks)
    assert may_wait or memory.waited == 0


def long_commands(golden, n, n_bytes):
    """Commands of `n_bytes` each, anywhere in the memory."""
    return [
        Command(address=(n * 5 * n_bytes + 3 * golden.entry_bytes) % MEMORY_BYTES, words=n_bytes // golden.word_bytes)
        for n in range(n)
    ]


@pytest.mark.parametrize(
    ("data_width", "word_width", "clocks"),
    [
        (128, 128, {}),
        (512, 512, {}),
        (128, 512, {}),
        (256, 512, {"port_domain": "hbm", "periods_ps": (4000, 2222)}),  # HBM2: 450 MHz into 250 MHz
    ],
)
def test_a_beat_each_port_cycle(data_width, word_width, clocks):
    """From the first to the last, across bursts that are cut at pages and across commands, at a latency of 100."""
    print("seed 9")
    parameters = {"data_width": data_width, "word_width": word_width, "outstanding": 16}
    golden = Streamer(**parameters)
    commands = long_commands(golden, 12, 8192)
    _, memory = simulate(parameters, [commands], np.random.default_rng(9), latency=100, **clocks)
    cycles = np.array(memory.beat_cycles)
    assert memory.waited == 0
    assert len(cycles) / (cycles[-1] - cycles[0] + 1) == 1


@pytest.mark.parametrize("word_width", [64, 256])
def test_words_are_the_limit_of_wide_beats(word_width):
    """A word each core cycle, at any number of words to a beat."""
    print("seed 10")
    parameters = {"data_width": 512, "word_width": word_width, "outstanding": 16}
    (result,), _ = simulate(
        parameters, [long_commands(Streamer(**parameters), 4, 4096)], np.random.default_rng(10), latency=30
    )
    np.testing.assert_array_equal(np.diff(result.cycles), 1)


def test_commands_of_one_beat():
    """A command each cycle."""
    print("seed 11")
    parameters = {"data_width": 512, "word_width": 512, "outstanding": 32}
    commands = [Command(address=n * 4096 % MEMORY_BYTES, words=1) for n in range(100)]
    (result,), memory = simulate(parameters, [commands], np.random.default_rng(11), latency=20)
    np.testing.assert_array_equal(result.commands, np.arange(100))
    np.testing.assert_array_equal(np.diff(memory.beat_cycles), 1)
    # The latencies of the docstring, by hand: 4 to the address, 20 in the memory, 3 to the word.
    assert (memory.address_cycles[0], memory.beat_cycles[0], result.cycles[0]) == (4, 24, 27)


@pytest.mark.parametrize("port_domain", ["sync", "hbm"])
def test_runs_ahead_as_far_as_there_is_space(port_domain):
    """While nobody takes words, as many are asked for as find room, over several commands, and none has to wait."""
    print("seed 12")
    parameters = SMALL | {"data_width": 128, "word_width": 128, "outstanding": 32, "queue": 16}
    commands = [Command(address=4096 * n, words=11) for n in range(8)]
    stalls = {"words": np.arange(600) > 400}
    (result,), memory = simulate(
        parameters, [commands], np.random.default_rng(12), port_domain=port_domain, stalls=stalls
    )
    before = [beats for (_, beats), cycle in zip(memory.bursts, memory.address_cycles, strict=True) if cycle <= 400]
    # 64 rows: bursts of 8 and 3, five commands and the first burst of the sixth.
    assert before == [8, 3] * 5 + [8]
    assert memory.waited == 0
    assert result.commands[-1] < 50


@pytest.mark.parametrize("port_ps", [1500, 2222, 3999, 4000, 9000])
def test_latency_of_two_clocks(port_ps):
    print("seed 21")
    core_ps = 4000
    parameters = {"data_width": 256, "word_width": 256}
    (result,), memory = simulate(
        parameters,
        [[Command(address=0, words=1)]],
        np.random.default_rng(21),
        port_domain="hbm",
        periods_ps=(core_ps, port_ps),
    )
    address, beat, word = (
        memory.address_cycles[0] * port_ps,
        memory.beat_cycles[0] * port_ps,
        result.cycles[0] * core_ps,
    )
    assert address <= 4 * core_ps + 3 * port_ps
    assert word - beat <= 6 * core_ps + 3 * port_ps


def test_outstanding_is_used_up():
    print("seed 13")
    parameters = SMALL | {"data_width": 128, "word_width": 128, "outstanding": 5}
    commands = [Command(address=0, words=64)]
    _, memory = simulate(parameters, [commands], np.random.default_rng(13), latency=100)
    assert memory.most_outstanding == 5


GOOD = Command(address=4096 - 64, words=12)
PARAMETERS = SMALL | {
    "data_width": 128,
    "word_width": 128,
    "n_events": 3,
    "formats": ("int4", "int8"),
    "memory_bytes": 8192,
}


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (Command(address=64, words=0), "EMPTY"),
        (Command(address=72, words=5), "MISALIGNED"),
        (Command(address=64, words=5, format="mxfp4"), "FORMAT"),
        (Command(address=8192 - 64, words=5), "RANGE"),
        (Command(address=2**64 - 16, words=1), "RANGE"),
        (Command(address=2**64 - 16, words=2**32 - 1), "RANGE"),
        (Command(address=64, words=5, wait=True, event=3), "NO_EVENT"),
        (Command(address=65, words=0, format="mxfp4", wait=True, event=3), "EMPTY"),
    ],
)
def test_refused_commands(bad, code):
    """What comes before is given, what comes after is not, and `clear` starts afresh, the number of commands too."""
    print("seed 14")
    rng = np.random.default_rng(14)
    for before in (0, 3):
        phases = [[GOOD] * before + [bad, GOOD, GOOD], [GOOD, GOOD], [GOOD, bad]]
        runs, _ = simulate(PARAMETERS, phases, rng, stalls=random_stalls(rng, ("commands", "words")))
        assert runs[0].error == Error(code=code, address=bad.address, command=before)
        assert runs[1].error is None
        assert runs[2].error.command == 1


def test_edges_that_are_legal():
    print("seed 15")
    rng = np.random.default_rng(15)
    simulate(PARAMETERS, [[Command(address=8192 - 80, words=5, format="int8")]], rng)
    everything = PARAMETERS | {"memory_bytes": None}
    simulate(everything, [[Command(address=2**64 - 80, words=5)]], rng)
    (result,), _ = simulate(everything, [[GOOD, Command(address=2**64 - 80, words=6)]], rng)
    assert result.error.code == "RANGE"


@pytest.mark.parametrize(("data_width", "word_width"), [(128, 128), (128, 512), (512, 128)])
@pytest.mark.parametrize("port_domain", ["sync", "hbm"])
@pytest.mark.parametrize("response", ["SLVERR", "DECERR"])
def test_bad_responses(data_width, word_width, port_domain, response):
    """All words before the bad entry are given, none after; what is outstanding is drained; `clear` starts afresh."""
    print("seed 16")
    rng = np.random.default_rng(16)
    parameters = sizes(data_width, word_width)
    golden = Streamer(**parameters)
    words = 20 * golden.entry_bytes // golden.word_bytes
    healthy = [Command(address=32768 + 4096 * n, words=20) for n in range(3)]
    for place in (0, 7, 19, 30):
        failing = [Command(address=4096 * n + 4096 - golden.entry_bytes, words=words) for n in range(5)]
        beats = [
            address + n * golden.beat_bytes
            for command in failing
            for address, n_beats in golden.bursts(command)
            for n in range(n_beats)
        ]
        # The first is told, and those that follow it change nothing; EXOKAY is no error.
        responses = {beats[place]: response, beats[place + 1]: "SLVERR", beats[-1]: "DECERR"}
        responses |= dict.fromkeys(beats[:place], "EXOKAY")
        runs, _ = simulate(
            parameters,
            [failing, healthy],
            rng,
            latency=30,
            responses=responses,
            port_domain=port_domain,
            stalls=random_stalls(rng, ("words",)),
            memory_stalls=random_stalls(rng, ("beats",)),
        )
        assert (runs[0].error.code, runs[0].error.response) == ("RESPONSE", response)
        assert runs[1].error is None


@pytest.mark.parametrize("port_domain", ["sync", "hbm"])
def test_clear_at_any_time(port_domain):
    print("seed 17")
    rng = np.random.default_rng(17)
    parameters = sizes(128, 512)
    commands = [Command(address=4096 * n + 4096 - 128, words=20) for n in range(4)]
    for cycles in [*range(2, 12, 2), *rng.integers(12, 200, 4).tolist()]:
        cut = Phase(commands=commands, n_words=0, cycles=cycles)
        stalls = random_stalls(rng, ("words",), share=0.3)
        runs, _ = simulate(parameters, [cut, cut, commands[1:]], rng, port_domain=port_domain, stalls=stalls)
        assert runs[2].error is None


def test_events_are_counted():
    """255 events ahead of the commands that wait for them are no error, one more is."""
    print("seed 18")
    rng = np.random.default_rng(18)
    parameters = SMALL | {"data_width": 128, "word_width": 128, "n_events": 2}
    commands = [Command(address=16 * n, words=1, wait=True, event=1) for n in range(300)]
    source = {"commands": np.arange(500) > 400}
    events = {1: [*range(300, 300 + 255), *range(600, 645)]}
    (result,), memory = simulate(parameters, [commands], rng, events=events, stalls=source)
    assert len(result.words) == 300
    with_one_more = {1: list(range(100, 100 + 256))}
    golden_error = Error(code="EVENT_OVERFLOW", command=0)
    memory = ReadMemory(np.zeros(4096, np.uint8), 16, latency=20)
    (result,) = run(
        TileStreamer(**parameters), [Phase(commands=commands, n_words=0)], memory, events=with_one_more, stalls=source
    )
    assert result.error == golden_error
    assert not memory.bursts


def test_a_command_waits_for_its_own_event():
    """And those behind it with it; an event in the very cycle in which another is taken counts too."""
    print("seed 19")
    rng = np.random.default_rng(19)
    parameters = SMALL | {"data_width": 128, "word_width": 128, "n_events": 2}
    commands = [
        Command(address=0, words=1),
        Command(address=16, words=1, wait=True, event=1),
        Command(address=32, words=1, wait=True, event=1),
        Command(address=48, words=1, wait=True, event=0),
        Command(address=64, words=1),
    ]
    (_,), memory = simulate(parameters, [commands], rng, events={0: [50], 1: [100, 101]})
    # An event lets its command go in the next cycle; two more to the address.
    assert memory.address_cycles == [4, 103, 104, 105, 106]


def test_bursts_by_hand():
    assert bursts(0, 100, 64) == [(0, 64), (64, 36)]
    assert bursts(4096 - 16, 64, 4096) == [(4080, 16), (4096, 48)]
    assert bursts(3, 5, 4096) == [(3, 5)]
    assert bursts(60, 8, 64) == [(60, 4), (64, 4)]
    assert bursts(0, 0, 64) == []


@pytest.mark.parametrize("burst_bytes", [4, 64, 512, 4096])
def test_bursts_cover_all_bytes_once(burst_bytes):
    print("seed 20")
    rng = np.random.default_rng(20)
    for _ in range(300):
        address, n_bytes = int(rng.integers(3 * 4096)), int(rng.integers(3 * 4096))
        pieces = bursts(address, n_bytes, burst_bytes)
        assert [byte for start, size in pieces for byte in range(start, start + size)] == list(
            range(address, address + n_bytes)
        )
        assert all(0 < size <= burst_bytes for _, size in pieces)
        assert all(start // 4096 == (start + size - 1) // 4096 for start, size in pieces)
        assert len(pieces) <= n_bytes // burst_bytes + 2


def test_axi_members():
    names = set(axi.Signature(data_width=64).members)
    assert names == {
        *("awid", "awaddr", "awlen", "awsize", "awburst", "awvalid", "awready", "wdata", "wstrb", "wlast", "wvalid"),
        *("wready", "bid", "bresp", "bvalid", "bready", "arid", "araddr", "arlen", "arsize", "arburst", "arvalid"),
        *("arready", "rid", "rdata", "rresp", "rlast", "rvalid", "rready"),
    }
    reads = set(axi.Signature(data_width=64, write=False).members)
    writes = set(axi.Signature(data_width=64, read=False).members)
    assert reads | writes == names
    assert not reads & writes


class TwoPorts(wiring.Component):
    """Two AXI ports in an array, in a second clock domain."""

    domains = ("sync", "hbm")

    def __init__(self):
        super().__init__(
            {
                "m_axi": Out(axi.Signature(data_width=32, read=False)).array(2),
                "s_axi": In(axi.Signature(data_width=32, write=False)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for port in self.m_axi:
            m.d.hbm += port.awaddr.eq(port.awaddr + 1)
        m.d.sync += self.s_axi.rdata.eq(self.s_axi.araddr)
        return m


def test_axi_ports_have_the_names_that_tools_know():
    component = TwoPorts()
    ports = {port["name"]: port["direction"] for port in describe_ports(component)}
    verilog = emit(component, "dut")
    assert set(ports) >= {"clk", "rst", "hbm_clk", "hbm_rst"}
    assert ports["m_axi_0_awaddr"] == ports["m_axi_1_wvalid"] == ports["s_axi_rdata"] == "output"
    assert ports["m_axi_1_awready"] == ports["s_axi_araddr"] == "input"
    assert "  output reg [63:0] m_axi_0_awaddr = 64'h" in verilog
    assert verilog.count("  input ") + verilog.count("  output ") == len(ports)


def test_undeclared_domain():
    component = TwoPorts()
    component.domains = ("sync",)
    with pytest.raises(ValueError, match=r"dut has ports that .* tell: \['hbm_clk', 'hbm_rst'\]"):
        emit(component, "dut")


@pytest.mark.parametrize("parameters", [{}, {"data_width": 512, "word_width": 64}, {"port_domain": "hbm"}])
def test_verilog_is_clean(parameters, tmp_path):
    source = tmp_path / "dut.v"
    source.write_text(emit(TileStreamer(**parameters), "dut"))
    warnings = [line for line in lint(source, "dut").splitlines() if line.startswith("%Warning")]
    # lib.fifo's AsyncFIFO resets its reading side asynchronously.
    assert all("SYNCASYNCNET" in line for line in warnings)
    assert "port_domain" in parameters or not warnings


def test_big_buffers_are_ultra_ram_without_content():
    small = emit(TileStreamer(data_width=64, word_width=64, buffer_words=1024), "dut")
    large = emit(TileStreamer(data_width=64, word_width=64, buffer_words=4096), "dut")
    assert "ram_style" not in small
    assert large.count('(* ram_style = "ultra" *)') == 1
    assert "  reg [63:0] storage [4095:0];" in large
    assert len(large) < 40_000


def test_golden_formats_are_the_table():
    assert Streamer().formats == tuple(FORMATS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"data_width": 48}, "data_width must be one of .* not 48"),
        ({"word_width": 32}, "word_width must be a power of two from 64 to 1024 bits, not 32"),
        ({"word_width": 96}, "word_width must be a power of two from 64 to 1024 bits, not 96"),
        ({"burst_beats": 512}, "burst_beats must be a power of two from 1 to 256, not 512"),
        ({"burst_beats": 24}, "burst_beats must be a power of two from 1 to 256, not 24"),
        ({"burst_beats": 1}, "burst_beats must be at least 2, a word of 512 bits in beats of 256, not 1"),
        ({"buffer_words": 7}, "buffer_words must be a multiple of 1 and at least a burst, 8 words, not 7"),
        ({"data_width": 512, "word_width": 64, "buffer_words": 516}, "buffer_words must be a multiple of 8 .* not 516"),
        ({"outstanding": 0}, "outstanding must be at least 1 burst, not 0"),
        ({"queue": 0}, "queue must be at least 1 command, not 0"),
        ({"n_events": 0}, "n_events must be at least 1, not 0"),
        ({"formats": ("int3",)}, "format must be one of 'int4', .*not 'int3'"),
        ({"memory_bytes": 0}, r"memory_bytes must be 1 to 2\*\*64, .* not 0"),
        ({"memory_bytes": 2**41, "address_width": 40}, r"memory_bytes must be 1 to 2\*\*40"),
        ({"address_width": 11}, "address_width must be 12 to 64 bits, not 11"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        TileStreamer(**parameters)


def test_bad_axi_parameters():
    with pytest.raises(ValueError, match="id_width must be 1 to 32 bits, not 0"):
        axi.Signature(data_width=32, id_width=0)
    with pytest.raises(ValueError, match="must have read or write channels"):
        axi.Signature(data_width=32, read=False, write=False)
