"""The scatter writer against its golden model, in memories of any timing: content, order, errors, `clear`, cycles."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from edgeaccel.golden.elastic import Move, Source, run
from edgeaccel.golden.scatter import Item, Scatter, apply, merged
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory.scatter import InFlight, ScatterError, ScatterWriter
from edgeaccel.sim import system
from edgeaccel.sim.memory import HBM2, IDEAL
from edgeaccel.sim.vectors import generator
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit

MEMORY_BYTES = 1 << 14
CHANNELS = ("ar", "r", "aw", "w", "b")


def _item(n_bytes):
    """`scatter_item` in parts that `edgeaccel.sim.payload` takes."""
    parts = {"data": data.ArrayLayout(8, n_bytes), "nibbles": data.ArrayLayout(1, 2 * n_bytes)}
    return data.StructLayout({"address": 64, **parts, "last": 1})


class Bench(wiring.Component):
    """A scatter writer whose pulses of `done` are counted, and given as a stream."""

    def __init__(self, **parameters):
        self.writer = ScatterWriter(**parameters)
        width = parameters["data_width"]
        super().__init__(
            {
                "m_axi": Out(self.writer.m_axi.signature),
                "i": In(stream.Signature(_item(width // 8))),
                "o_done": Out(stream.Signature(16)),
                "n_done": Out(16),
                "idle": Out(1),
                "clear": In(1),
                "error": Out(ScatterError),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.writer = writer = self.writer
        wiring.connect(m, wiring.flipped(self.m_axi), writer.m_axi)
        i = self.i
        m.d.comb += [writer.i.valid.eq(i.valid), i.ready.eq(writer.i.ready)]
        m.d.comb += [writer.i.p[name].eq(i.p[name]) for name in ("address", "data", "nibbles", "last")]
        m.d.comb += [self.idle.eq(writer.idle), self.error.eq(writer.error), writer.clear.eq(self.clear)]
        m.d.comb += [self.o_done.valid.eq(writer.done), self.o_done.p.eq(self.n_done)]
        m.d.sync += self.n_done.eq(self.n_done + writer.done)
        return m


@pytest.fixture(scope="module", params=[128, 256])
def bench(request):
    return Bench(data_width=request.param, outstanding=16, reads=4)


def random_items(rng, n, beat_bytes, *, partial=0.4, beats=12):
    """Items for a few beats, so that they meet."""
    items = []
    places = rng.choice(MEMORY_BYTES // beat_bytes, beats, replace=False)
    for _ in range(n):
        pairs = rng.choice([0, 3], beat_bytes, p=[0.3, 0.7])
        if rng.random() < partial:
            pairs = rng.choice([pairs, rng.integers(0, 4, beat_bytes), np.full(beat_bytes, rng.integers(4))])
        nibbles = sum(int(pair) << 2 * n for n, pair in enumerate(pairs))
        items.append(Item(int(rng.choice(places)) * beat_bytes, rng.bytes(beat_bytes), nibbles))
    return items


def as_stream(items, lasts):
    """Items as the stream of the bench takes them."""
    beat_bytes = len(items[0].data)
    return {
        "address": np.array([item.address for item in items]),
        "data": np.array([list(item.data) for item in items]),
        "nibbles": np.array([[item.nibbles >> n & 1 for n in range(2 * beat_bytes)] for item in items]),
        "last": np.array(lasts, int),
    }


def random_patterns(rng, n_cycles=3000):
    """Stalls of all AXI channels and of the items, each of its own share."""
    names = ["i", *(f"m_axi_{name}" for name in CHANNELS)]
    return {name: rng.random(n_cycles) < rng.choice([0.2, 0.5, 0.9, 1]) for name in names}


def simulate(bench, items, lasts, content, **options):
    model = options.pop("model", IDEAL.with_latency(12))
    model = replace(model, data_width=bench.writer.data_width)
    memory = system.Memory(model=model, content=content, errors=options.pop("errors", []))
    options = {"n_results": {"o_done": sum(lasts)}, "until": ("idle", 1)} | options
    return system.run(bench, streams={"i": as_stream(items, lasts)}, memories={"m_axi": memory}, **options)


def beat_bytes_of(bench):
    return bench.writer.data_width // 8


@pytest.mark.parametrize("seed", range(300, 308))
def test_content(bench, seed):
    """As if the items were applied one after the other, in any memory; all other bytes are kept."""
    rng = generator(seed)
    n_bytes = beat_bytes_of(bench)
    items = random_items(rng, 150, n_bytes, partial=float(rng.choice([0, 0.4, 1])))
    lasts = rng.random(len(items)) < 0.3
    lasts[-1] = True
    content = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    expected = content.copy()
    apply(items, expected)
    model = rng.choice([IDEAL.with_latency(int(rng.integers(1, 60))), HBM2])
    result = simulate(bench, items, lasts, content, model=model, stalls=random_patterns(rng) if seed % 4 else {})
    np.testing.assert_array_equal(content, expected)
    assert result.outputs["n_done"] == lasts.sum()
    assert not result.outputs["error"]["valid"]
    port = result.ports["m_axi"]
    np.testing.assert_array_equal(port.writes.bursts["address"], [item.address for item in items])
    np.testing.assert_array_equal(port.writes.bursts["beats"], 1)
    np.testing.assert_array_equal(port.reads.bursts["address"], [item.address for item in items if item.is_partial])
    np.testing.assert_array_equal(result.cycles["o_done"], port.writes.cycles[lasts])


@pytest.mark.parametrize("seed", range(310, 316))
def test_cycles(bench, seed):
    rng = generator(seed)
    n_bytes = beat_bytes_of(bench)
    items = [item for item in random_items(rng, 400, n_bytes) if not item.is_partial]
    lasts = np.zeros(len(items), bool)
    latency = int(rng.integers(1, 40))
    stalls = random_patterns(rng) if seed % 3 else {}
    content = np.zeros(MEMORY_BYTES, np.uint8)
    result = simulate(bench, items, lasts, content, model=IDEAL.with_latency(latency), stalls=stalls)
    patterns = {name: Pattern(stalls.get(f"m_axi_{name}", ())) for name in ("aw", "w", "b")}
    net = Scatter(outstanding=16, reads=4, latency=latency, **patterns)
    give = Move([Source(Pattern(stalls.get("i", ())))], [net.entry], turns=len(items))
    cycles = run([give, *net.moves])
    np.testing.assert_array_equal(result.cycles["i"], cycles[0])
    np.testing.assert_array_equal(result.ports["m_axi"].writes.cycles, cycles[-1])
    # The log tells when the data came.
    np.testing.assert_array_equal(result.ports["m_axi"].writes.bursts["cycle"], cycles[-2])


def test_an_item_a_cycle(bench):
    n_bytes = beat_bytes_of(bench)
    items = [
        Item(n_bytes * n, bytes((n + k) % 256 for k in range(n_bytes)), (1 << 2 * n_bytes) - 1) for n in range(200)
    ]
    content = np.zeros(MEMORY_BYTES, np.uint8)
    result = simulate(bench, items, [0] * 199 + [1], content, model=IDEAL.with_latency(bench.writer.outstanding - 4))
    np.testing.assert_array_equal(result.cycles["i"], np.arange(200))
    # The address 3 cycles after the item, its data a cycle later.
    np.testing.assert_array_equal(result.ports["m_axi"].writes.bursts["cycle"], np.arange(200) + 4)


def test_reads_overlap(bench):
    """Half bytes of many beats: a read is on its way for each of the items that wait."""
    n_bytes, latency = beat_bytes_of(bench), 20
    items = [Item(n_bytes * n, bytes([n]) * n_bytes, int("10" * n_bytes, 2)) for n in range(96)]
    content = np.zeros(MEMORY_BYTES, np.uint8)
    result = simulate(bench, items, [0] * 95 + [1], content, model=IDEAL.with_latency(latency))
    # A round of `reads` items takes a read's latency and 3 cycles.
    assert result.cycles["o_done"][0] < 96 / bench.writer.reads * (latency + 4) + 2 * latency + 10


@pytest.mark.parametrize("seed", range(320, 326))
def test_bad_responses(bench, seed):
    """The first bad answer is shown; what is written then is the first so many items, but for those answered so."""
    rng = generator(seed)
    n_bytes = beat_bytes_of(bench)
    items = random_items(rng, 80, n_bytes, beats=30)
    places = sorted({item.address for item in items})
    bad = {int(place): rng.choice(["SLVERR", "DECERR"]) for place in rng.choice(places, 2, replace=False)}
    errors = [(place, place + 1, str(response)) for place, response in bad.items()]
    content = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    before = content.copy()
    first = next(n for n, item in enumerate(items) if item.address in bad)
    lasts = np.ones(len(items), bool)
    with pytest.raises(AssertionError, match="nothing moves any more"):
        simulate(bench, items, lasts, content, errors=errors, hang_cycles=300, stalls=random_patterns(rng))
    wrong = []
    for n_written in range(first, len(items) + 1):
        expected = before.copy()
        apply([item for item in items[:n_written] if item.address not in bad], expected)
        wrong.append((expected != content).any())
    assert not all(wrong)


@pytest.mark.parametrize("with_error", [False, True])
@pytest.mark.parametrize("seed", range(330, 334))
def test_clear(bench, seed, with_error):
    """`clear` at any cycle, or after an error: only items that were taken before it are dropped."""
    rng = generator(seed)
    items = random_items(rng, 100, beat_bytes_of(bench), beats=40)
    errors = [(items[20].address, items[20].address + 1, "SLVERR")] if with_error else []
    if with_error:  # by this item alone
        items = [item for n, item in enumerate(items) if n == 20 or item.address != items[20].address]
        n_good = next(n for n, item in enumerate(items) if item.address == errors[0][0])
    cycle = 2000 if with_error else int(rng.integers(1, 250))
    content = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    expected = content.copy()
    result = simulate(
        bench,
        items,
        [0] * len(items),
        content,
        errors=errors,
        stalls={} if with_error else random_patterns(rng),
        inputs={"clear": {0: 0, cycle: 1, cycle + 1: 0}},
    )
    assert not result.outputs["error"]["valid"]
    taken, addresses = result.cycles["i"], result.ports["m_axi"].writes.bursts["address"]
    n_after = int((taken > cycle).sum())
    n_before = len(addresses) - n_after
    assert 0 <= n_before <= len(items) - n_after
    kept = [*items[:n_before], *items[len(items) - n_after :]]
    if with_error:
        kept = [item for item in kept if item.address != errors[0][0]]
        assert n_good <= n_before
    else:
        np.testing.assert_array_equal(addresses, [item.address for item in kept])
    apply(kept, expected)
    np.testing.assert_array_equal(content, expected)


def test_in_flight():
    """Put, found, taken; full and empty."""
    rng = generator(340)
    unit = InFlight(4)
    held = []

    async def bench(ctx):
        for _ in range(400):
            address = int(rng.integers(6))
            put, take = bool(rng.random() < 0.5 and len(held) < 4), bool(rng.random() < 0.5 and held)
            for signal, value in ((unit.address, address), (unit.put, put), (unit.take, take)):
                ctx.set(signal, value)
            assert ctx.get(unit.is_hit) == (address in held)
            assert ctx.get(unit.is_full) == (len(held) == 4)
            assert ctx.get(unit.is_empty) == (not held)
            await ctx.tick()
            held[:] = held[take:] + [address] * put

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_golden_by_hand():
    item = Item(0, bytes([0x12, 0x34, 0x56, 0x78]), 0b11_10_01_00)
    assert merged(item, bytes([0xAB, 0xCD, 0xEF, 0x99])) == bytes([0xAB, 0xC4, 0x5F, 0x78])
    assert item.is_partial
    assert not Item(0, bytes(2), 0b1100).is_partial


def test_verilog(tmp_path):
    path = tmp_path / "dut.v"
    path.write_text(emit(ScatterWriter(data_width=512, outstanding=2, reads=2, address_width=33), "dut"))
    assert lint(path, "dut") == ""


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"outstanding": 12}, "outstanding must be a power of two of at least 2 items, not 12"),
        ({"outstanding": 1}, "outstanding must be a power of two of at least 2 items, not 1"),
        ({"reads": 1}, "reads must be at least 2 items, not 1"),
        ({"data_width": 48}, "data_width must be one of .* not 48"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        ScatterWriter(**parameters)
