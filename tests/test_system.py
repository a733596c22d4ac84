"""The fast bench: its memories against a model in Python, its streams and clocks on small components and a streamer."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.golden.memory import Command, Streamer
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory import TileStreamer, axi
from edgeaccel.pe.digit import FormatCode
from edgeaccel.sim.bench import StreamError
from edgeaccel.sim.memory import HBM2, IDEAL, Access, Channel, MemoryModel
from edgeaccel.sim.system import Memory, run

BEAT = 8
MEMORY_BYTES = 1 << 14
BUSY = MemoryModel(
    name="busy",
    data_width=8 * BEAT,
    mhz=100,
    read_hit=9,
    read_closed=13,
    read_miss=16,
    row_bit=10,
    bank_bits=(3, 7),
    group_bits=(3,),
    row_cycles=25,
    group_cycles=2,
    read_to_write=5,
    write_to_read=7,
    refresh_interval=300,
    refresh_cycles=30,
    outstanding=6,
    in_order=True,
)


class Fault(enum.Enum, shape=2):
    """How a master breaks the rules of its AR and AW channels."""

    NONE = 0
    NARROW = 1
    CHANGES = 2
    WAITS = 3


class Channels(wiring.Component):
    """Two AXI masters whose channels are streams, and so are driven by the bench."""

    def __init__(self):
        address = data.StructLayout({"id": 4, "addr": 32, "len": 8})
        signatures = {
            "i_ar": In(stream.Signature(address)),
            "o_r": Out(stream.Signature(data.StructLayout({"id": 4, "data": 64, "resp": axi.Response, "last": 1}))),
            "i_aw": In(stream.Signature(address)),
            "i_w": In(stream.Signature(data.StructLayout({"data": 64, "strb": 8, "last": 1}))),
            "o_b": Out(stream.Signature(data.StructLayout({"id": 4, "resp": axi.Response}))),
            "m_axi": Out(axi.Signature(address_width=32, data_width=64, id_width=4)),
        }
        arrays = {name: member.array(2) for name, member in signatures.items()}
        super().__init__(arrays | {"fault": In(Fault), "cycles": Out(32)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.cycles.eq(self.cycles + 1)
        for n, bus in enumerate(self.m_axi):
            for name in ("ar", "aw", "w"):
                self._give(m, name, getattr(self, f"i_{name}")[n], bus)
            for name in ("r", "b"):
                self._take(m, name, getattr(self, f"o_{name}")[n], bus)
            for name in ("ar", "aw"):
                valid, size, length = (getattr(bus, name + part) for part in ("valid", "size", "len"))
                m.d.comb += [getattr(bus, f"{name}burst").eq(axi.Burst.INCR), size.eq(3)]
                with m.Switch(self.fault):
                    with m.Case(Fault.NARROW):
                        m.d.comb += size.eq(2)
                    with m.Case(Fault.CHANGES):
                        m.d.comb += length.eq(self.cycles)
                    with m.Case(Fault.WAITS):
                        m.d.comb += valid.eq(getattr(self, f"i_{name}")[n].valid & getattr(bus, f"{name}ready"))
        return m

    def _give(self, m, name, channel, bus):
        m.d.comb += [getattr(bus, name + field).eq(channel.p[field]) for field, _ in channel.p.shape()]
        m.d.comb += [getattr(bus, f"{name}valid").eq(channel.valid), channel.ready.eq(getattr(bus, f"{name}ready"))]

    def _take(self, m, name, channel, bus):
        m.d.comb += [channel.p[field].eq(getattr(bus, name + field)) for field, _ in channel.p.shape()]
        m.d.comb += [channel.valid.eq(getattr(bus, f"{name}valid")), getattr(bus, f"{name}ready").eq(channel.ready)]


@functools.cache
def channels():
    return Channels()


def zeros():
    return Memory(model=BUSY, content=np.zeros(MEMORY_BYTES, np.uint8))


def random_bursts(rng, n, *, n_ids=3):
    """Addresses near to each other, some past the end, none across 4 KiB; the items of an address stream."""
    places = rng.integers(0, MEMORY_BYTES + 512, n)
    places[1::2] = rng.integers(0, 512, len(places[1::2]))
    room = (4096 - places % 4096 // BEAT * BEAT) // BEAT
    return {
        "id": rng.integers(0, n_ids, n),
        "addr": places,
        "len": np.minimum(rng.choice([0, 1, 7, 15, 60], n), room - 1),
    }


def random_beats(rng, bursts):
    """The items of a W stream for the items of an AW stream."""
    counts = bursts["len"] + 1
    return {
        "data": rng.integers(0, 1 << 64, counts.sum(), dtype=np.uint64),
        "strb": rng.choice([0xFF, 0x00, 0x5A, 0x80], counts.sum()),
        "last": np.isin(np.arange(counts.sum()), counts.cumsum() - 1).astype(int),
    }


def patterns(rng, names, n_cycles=6000, *, share=0.6):
    return {name: np.repeat(rng.random(n_cycles // 4) < share, 4) for name in names}


STREAMS = ("i_ar__0", "o_r__0", "i_aw__0", "i_w__0", "o_b__0")
AXI_CHANNELS = tuple(f"m_axi_0_{name}" for name in ("ar", "r", "aw", "w", "b"))


def drive(rng, model, n=60, *, stalls=None, errors=(), first_refresh=None, n_ids=3):
    """Random reads and writes at once; returns what went in, the memory before and after, and the run."""
    reads, writes = random_bursts(rng, n, n_ids=n_ids), random_bursts(rng, n, n_ids=n_ids)
    beats = random_beats(rng, writes)
    before = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    memory = Memory(model=model, content=before.copy(), errors=list(errors), first_refresh=first_refresh)
    result = run(
        channels(),
        streams={"i_ar__0": reads, "i_aw__0": writes, "i_w__0": beats},
        n_results={"o_r__0": int((reads["len"] + 1).sum()), "o_b__0": n},
        memories={"m_axi_0": memory, "m_axi_1": zeros()},
        stalls=stalls,
        record=True,
    )
    return reads, writes, beats, before, memory, result


def response(memory, address):
    for start, stop, name in memory.errors:
        if start < address + BEAT and address < stop:
            return axi.Response[name].value
    return 0 if address < MEMORY_BYTES else axi.Response.DECERR.value


def check_content(reads, writes, beats, before, memory, result):
    """Reads see the writes that were answered before they were asked for, and errors are where they belong."""
    traffic = result.ports["m_axi_0"]
    log, answers = traffic.reads.bursts, traffic.writes.cycles
    np.testing.assert_array_equal(log["address"], reads["addr"])
    np.testing.assert_array_equal(traffic.writes.bursts["address"], writes["addr"])
    ends = (writes["len"] + 1).cumsum()
    content, applied = before.copy(), 0
    in_time = np.argsort(answers, kind="stable")
    read_beats, past_end = [], 0
    for cycle, address, n_beats, _ in [*log.tolist(), (1 << 60, 0, 0, 0)]:
        while applied < len(in_time) and answers[in_time[applied]] < cycle:
            n = in_time[applied]
            start = int(writes["addr"][n]) // BEAT * BEAT
            for k, beat in enumerate(range(ends[n] - writes["len"][n] - 1, ends[n])):
                place = start + k * BEAT
                past_end += place >= MEMORY_BYTES
                if response(memory, place) == 0:
                    lanes = int(beats["strb"][beat]) >> np.arange(BEAT) & 1 == 1
                    content[place : place + BEAT][lanes] = beats["data"][beat : beat + 1].view(np.uint8)[lanes]
            applied += 1
        for k in range(n_beats):
            place = address // BEAT * BEAT + k * BEAT
            past_end += place >= MEMORY_BYTES
            resp = response(memory, place)
            value = None if resp else content[place : place + BEAT].view(np.uint64)[0]
            read_beats.append((value, resp, k == n_beats - 1))
    assert traffic.past_end == past_end
    np.testing.assert_array_equal(memory.content, content)

    given = result.results["o_r__0"]
    ids = np.repeat(reads["id"], reads["len"] + 1)
    for place, n in enumerate(np.argsort(traffic.reads.cycles)):
        value, resp, last = read_beats[n]
        assert (given["id"][place], given["resp"][place], given["last"][place]) == (ids[n], resp, last)
        assert value is None or given["data"][place] == value
    worst = [
        max(response(memory, address // BEAT * BEAT + k * BEAT) for k in range(n + 1))
        for address, n in zip(writes["addr"].tolist(), writes["len"].tolist(), strict=True)
    ]
    assert result.results["o_b__0"]["resp"].tolist() == [worst[n] for n in in_time]
    assert result.results["o_b__0"]["id"].tolist() == writes["id"][in_time].tolist()


def served(traffic, model, first_refresh=None):
    """When the beats of reads and the answers of writes were possible, by the reference."""
    bursts = [Access(*map(int, burst)) for side in (traffic.reads, traffic.writes) for burst in side.bursts.tolist()]
    order = sorted(range(len(bursts)), key=lambda n: (bursts[n].cycle, bursts[n].write))
    channel = Channel(model, first_refresh=first_refresh)
    cycles = dict(sorted((n, channel.serve(*bursts[n])) for n in order))
    n_reads = len(traffic.reads.bursts)
    beats = [cycle for n in range(n_reads) for cycle in cycles[n]]
    return beats, [cycles[n][-1] for n in range(n_reads, len(bursts))]


def taken(possible, offers, takes):
    """Cycles of the transfers of what is possible from some cycle on."""
    cycles = [-1]
    for cycle in possible:
        cycles.append(takes.first(offers.first(max(cycle, cycles[-1] + 1))))
    return cycles[1:]


@pytest.mark.parametrize("seed", range(6))
def test_memory(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    stalls = patterns(rng, STREAMS + AXI_CHANNELS) if seed % 3 else {}
    errors = [(1000, 1001, "SLVERR"), (5000, 5100, "DECERR")] if seed % 2 else []
    first_refresh = int(rng.integers(1, 200))
    made = drive(rng, BUSY, stalls=stalls, errors=errors, first_refresh=first_refresh)
    check_content(*made)
    result = made[-1]
    traffic = result.ports["m_axi_0"]
    beats, answers = served(traffic, BUSY, first_refresh)
    pattern = {name: Pattern(stalls.get(name, ())) for name in STREAMS + AXI_CHANNELS}
    assert traffic.reads.cycles.tolist() == taken(beats, pattern["m_axi_0_r"], pattern["o_r__0"])
    assert traffic.writes.cycles.tolist() == taken(answers, pattern["m_axi_0_b"], pattern["o_b__0"])
    np.testing.assert_array_equal(traffic.reads.cycles, result.cycles["o_r__0"])
    assert (traffic.reads.first, traffic.reads.last) == (traffic.reads.cycles[0], traffic.reads.cycles[-1])
    assert (traffic.reads.beats, traffic.writes.beats) == (len(beats), len(result.cycles["i_w__0"]))
    done = traffic.reads.cycles[traffic.reads.bursts["beats"].cumsum().astype(int) - 1]
    asked = traffic.reads.bursts["cycle"]
    assert np.all(asked[BUSY.outstanding :] > done[: -BUSY.outstanding])
    if not stalls:
        assert traffic.reads.stalls == 0
        assert np.any(asked[BUSY.outstanding :] == done[: -BUSY.outstanding] + 1)
    else:
        assert min(traffic.reads.stalls, traffic.writes.stalls, traffic.reads.address_stalls) > 0
    reads = [Access(*map(int, burst)) for burst in traffic.reads.bursts.tolist()]
    window = traffic.reads.first, traffic.reads.last
    assert traffic.deliverable == BUSY.deliverable(reads, *window, first_refresh=first_refresh)
    assert traffic.beat_share == traffic.reads.beats / traffic.deliverable <= 1


@pytest.mark.parametrize("seed", range(3))
def test_memory_out_of_order(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    stalls = {name: np.repeat(rng.random(200) < 0.3, 150) for name in ("o_r__0", "o_b__0")}
    made = drive(rng, replace(BUSY, in_order=False), stalls=stalls)
    check_content(*made)
    reads, writes, *_, result = made
    traffic = result.ports["m_axi_0"]
    order = np.argsort(traffic.reads.cycles)
    burst_of = np.repeat(np.arange(len(reads["id"])), reads["len"] + 1)[order]
    first_of = burst_of[np.flatnonzero(np.diff(burst_of, prepend=-1))]
    for bursts, ids in ((first_of, reads["id"]), (np.argsort(traffic.writes.cycles), writes["id"])):
        assert sorted(bursts) == list(range(len(ids)))  # not interleaved
        assert np.any(np.diff(bursts) < 0)
        for name in set(ids):
            assert np.all(np.diff(bursts[ids[bursts] == name]) > 0)
    one_id = drive(np.random.default_rng(seed), replace(BUSY, in_order=False), n_ids=1)[-1].ports["m_axi_0"]
    in_order = drive(np.random.default_rng(seed), BUSY, n_ids=1)[-1].ports["m_axi_0"]
    np.testing.assert_array_equal(one_id.reads.cycles, in_order.reads.cycles)


def test_shared_memory_and_base():
    """One port writes what the other reads; a read that is asked for before the answer sees nothing of it."""
    content = np.zeros(64, np.uint8)
    base = 0x10000
    model = replace(IDEAL, data_width=8 * BEAT)
    memories = {f"m_axi_{n}": Memory(model=model, content=content, base=base) for n in range(2)}
    write = {"i_aw__0": {"id": [1], "addr": [base + 8], "len": [0]}}
    write |= {"i_w__0": {"data": [0x1122334455667788], "strb": [0xFF], "last": [1]}}
    seen = {}
    for cycle in (20, 21):
        content[:] = 0
        result = run(
            channels(),
            streams=write | {"i_ar__1": {"id": [2], "addr": [base + 8], "len": [0]}},
            n_results={"o_b__0": 1, "o_r__1": 1},
            memories=memories,
            stalls={"i_ar__1": np.arange(100) >= cycle + 1},
        )
        assert result.ports["m_axi_0"].writes.bursts["cycle"] == [1]
        assert result.cycles["o_b__0"] == [21]
        assert result.ports["m_axi_1"].reads.bursts["cycle"] == [cycle + 1]
        seen[cycle] = int(result.results["o_r__1"]["data"][0])
        assert content[8:16].tolist() == [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
    assert seen == {20: 0, 21: 0x1122334455667788}
    for address in (base - 8, base + 64, 0):
        streams = {"i_ar__0": {"id": [0], "addr": [address], "len": [0]}}
        result = run(channels(), streams=streams, n_results={"o_r__0": 1}, memories=memories)
        assert result.results["o_r__0"]["resp"] == [axi.Response.DECERR.value]
        assert result.ports["m_axi_0"].past_end == 1


BROKEN = [
    ("NONE", "ar", (0, 4096 - 16, 2), "m_axi_0 asked for a burst that is not INCR, .*or crosses 4 KiB"),
    ("NONE", "aw", (0, 4096 - 16, 2), "m_axi_0 asked for a burst that is not INCR, .*or crosses 4 KiB"),
    ("NARROW", "ar", (0, 0, 0), "m_axi_0 asked for a burst"),
    ("NARROW", "aw", (0, 0, 0), "m_axi_0 asked for a burst"),
    ("CHANGES", "ar", (0, 0, 0), "cycle 2: m_axi_0_ar changed what it offered before it was taken"),
    ("CHANGES", "aw", (0, 0, 0), "cycle 2: m_axi_0_aw changed what it offered before it was taken"),
    ("WAITS", "ar", (0, 0, 0), "cycle 3: valid of m_axi_0_ar waits for ready"),
    ("WAITS", "aw", (0, 0, 0), "cycle 3: valid of m_axi_0_aw waits for ready"),
]


@pytest.mark.parametrize(("fault", "channel", "burst", "message"), BROKEN)
def test_broken_contracts(fault, channel, burst, message):
    stream_name = f"i_{channel}__0"
    with pytest.raises(StreamError, match=message):
        run(
            channels(),
            streams={stream_name: {name: [value] for name, value in zip(("id", "addr", "len"), burst, strict=True)}},
            memories={"m_axi_0": zeros(), "m_axi_1": zeros()},
            inputs={"fault": Fault[fault].value},
            stalls={f"m_axi_0_{channel}": [False] * 3, stream_name: [False]},
        )


@pytest.mark.parametrize("last", [[1, 1], [0, 0]])
def test_wrong_last(last):
    streams = {"i_aw__0": {"id": [0], "addr": [0], "len": [1]}}
    streams |= {"i_w__0": {"data": [0, 0], "strb": [0, 0], "last": last}}
    with pytest.raises(StreamError, match="m_axi_0 marked the wrong beat of a write as the last"):
        run(channels(), streams=streams, n_results={"o_b__0": 1}, memories={"m_axi_0": zeros(), "m_axi_1": zeros()})


def test_limits():
    streams = {"i_ar__0": {"id": [0], "addr": [0], "len": [0]}}
    memories = {"m_axi_0": zeros(), "m_axi_1": zeros()}
    with pytest.raises(StreamError, match=r"nothing moves any more after 3\d\d cycles: .*o_r__0 1 of 2.*1 beats read"):
        run(channels(), streams=streams, n_results={"o_r__0": 2}, memories=memories, hang_cycles=300)
    with pytest.raises(StreamError, match="not finished after 9 cycles: i_ar__0 1 of 1"):
        run(channels(), streams=streams, n_results={"o_r__0": 1}, memories=memories, max_cycles=10)
    with pytest.raises(StreamError, match="o_r__0 gave more than the 0 results expected"):
        run(channels(), streams=streams, memories=memories)


MEMORY = Memory(model=BUSY, content=np.zeros(64, np.uint8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memories": {"m_axi_0": MEMORY}}, "no memory for m_axi_1"),
        ({"memories": {"m_axi": MEMORY}}, "memories has no m_axi; there are: m_axi_0, m_axi_1"),
        ({"streams": {"i": {}}}, "streams has no i; there are: i_ar__0, i_ar__1, i_aw__0"),
        ({"n_results": {"i_ar__0": 1}}, "n_results has no i_ar__0; there are: o_r__0, o_r__1"),
        ({"inputs": {"x": 1}}, "inputs has no x; there are: fault"),
        ({"until": ("x", 1)}, "until has no x; there are: cycles"),
        ({"clocks": {"x": 1}}, "clocks has no x; there are: sync"),
        ({"domains": {"m_axi_0": "x"}}, "no clock domain x; there are: sync"),
        ({"stalls": {"m_axi_0": []}}, "stalls has no m_axi_0"),
        ({"memory": replace(MEMORY, model=HBM2)}, "m_axi_0 has 64 bits, and its memory 256"),
        ({"memory": replace(MEMORY, content=np.zeros(60, np.uint8))}, "at whole beats of 8 bytes"),
        ({"memory": replace(MEMORY, base=4)}, "at whole beats of 8 bytes"),
        ({"memory": replace(MEMORY, content=np.zeros(8))}, "contiguous array of bytes"),
        ({"memory": replace(MEMORY, content=np.zeros((8, 8), np.uint8)[:, 0])}, "contiguous array of bytes"),
    ],
)
def test_bad_arguments(arguments, message):
    memories = {"m_axi_0": arguments.pop("memory", MEMORY), "m_axi_1": MEMORY}
    with pytest.raises(ValueError, match=message):
        run(channels(), **({"memories": memories} | arguments))


class Clocks(wiring.Component):
    """Counters in two domains; `sum` adds up its input."""

    domains = ("sync", "fast")

    def __init__(self):
        layout = data.StructLayout({"slow": 16, "fast": 16})
        super().__init__({"step": In(4), "counts": Out(layout), "sum": Out(40), "late": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.counts.slow.eq(self.counts.slow + 1)
        m.d.fast += self.counts.fast.eq(self.counts.fast + 1)
        m.d.sync += self.sum.eq(self.sum + self.step)
        m.d.comb += self.late.eq(self.counts.slow >= 1000)
        return m


@pytest.mark.parametrize(("slow", "fast"), [(250, 450), (450, 250), (1, 1), (3, 7)])
def test_clocks(slow, fast):
    result = run(Clocks(), clocks={"sync": slow, "fast": fast}, until=("late", 1), hang_cycles=2000)
    n_slow, n_fast = result.n_cycles["sync"], result.n_cycles["fast"]
    assert result.outputs["counts"] == {"slow": n_slow, "fast": n_fast}
    assert n_slow == 1000
    # Both have their first edge at once; of the n-th slow one on, so many fast ones came before.
    assert n_fast == -(-n_slow * fast // slow)


def test_plain_ports():
    component = Clocks()
    result = run(component, inputs={"step": {0: 3, 10: 0, 20: 15, 21: 0}}, until=("late", 1))
    assert result.outputs["sum"] == 3 * 10 + 15
    result = run(component, inputs={"step": 2}, until=("late", 1))
    assert result.outputs["sum"] == 2 * result.n_cycles["sync"]
    with pytest.raises(StreamError, match="nothing moves any more after"):
        run(component, until=("sum", 1), hang_cycles=1100)


PARAMETERS = {"data_width": 256, "word_width": 512, "buffer_words": 256}


def to_items(commands):
    return {
        "address": np.array([command.address for command in commands], np.uint64),
        "words": np.array([command.words for command in commands]),
        "format": np.array([FormatCode[command.format.upper()].value for command in commands]),
        "wait": np.zeros(len(commands), int),
        "event": np.zeros(len(commands), int),
    }


def stream_tiles(component, commands, memory, **options):
    n_words = sum(command.words for command in commands)
    return run(
        component, streams={"i_commands": to_items(commands)}, n_results=n_words, memories={"m_axi": memory}, **options
    )


def random_commands(rng, n, *, most=120):
    return [Command(address=64 * int(rng.integers(1 << 13)), words=int(rng.integers(1, most))) for _ in range(n)]


def words_of(commands, content):
    return np.concatenate([content[c.address : c.address + 64 * c.words].reshape(-1, 64) for c in commands])


@pytest.fixture(scope="module")
def streamers():
    return {domain: TileStreamer(**PARAMETERS, port_domain=domain) for domain in ("sync", "hbm")}


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(5).integers(0, 256, 1 << 20, dtype=np.uint8)


@pytest.mark.parametrize("seed", range(3))
def test_streamer_as_in_its_golden_model(streamers, content, seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    commands = random_commands(rng, 60)
    stalls = patterns(rng, ("i_commands", "o_words")) if seed else {}
    golden = Streamer(**PARAMETERS)
    latency = int(rng.integers(1, 60))
    memory = Memory(model=IDEAL.with_latency(latency), content=content)
    result = stream_tiles(streamers["sync"], commands, memory, stalls=stalls, record=True)
    source, sink = (Pattern(stalls.get(name, ())) for name in ("i_commands", "o_words"))
    timing = golden.timing(commands, latency=latency, source=source, sink=sink)
    np.testing.assert_array_equal(result.cycles["i_commands"], timing.commands)
    np.testing.assert_array_equal(result.ports["m_axi"].reads.bursts["cycle"], timing.addresses)
    np.testing.assert_array_equal(result.ports["m_axi"].reads.cycles, timing.beats)
    np.testing.assert_array_equal(result.cycles["o_words"], timing.words)
    np.testing.assert_array_equal(result.results["o_words"], words_of(commands, content))


@pytest.mark.parametrize(("domain", "check"), [("sync", True), ("hbm", True), ("hbm", False)])
def test_streamer_at_line_rate(streamers, content, domain, check):
    """Of what HBM2 can deliver nothing is left over, with one clock and with 450 and 250 MHz."""
    commands = [Command(address=0, words=8000)] * 8
    memory = Memory(model=HBM2, content=content, first_refresh=1000)
    clocks = {"sync": 250, "hbm": 450} if domain == "hbm" else None
    result = stream_tiles(streamers[domain], commands, memory, clocks=clocks, check=check)
    np.testing.assert_array_equal(result.results["o_words"], words_of(commands, content))
    traffic = result.ports["m_axi"]
    share = traffic.reads.beats / (traffic.reads.last - traffic.reads.first + 1)
    print(f"{share:.4f} of the peak; {result.n_cycles['sync'] / result.seconds:.0f} cycles a second")
    assert traffic.reads.beats == 2 * 64000
    assert traffic.reads.stalls == 0
    assert traffic.beat_share > 0.999
    assert 0.90 <= share <= 0.94
    assert result.n_cycles["sync"] / result.seconds > 20_000


def test_streamer_stops_at_an_error(streamers, content):
    commands = [Command(address=0, words=40)]
    for memory, response, address in (
        (Memory(model=HBM2, content=content, errors=[(640, 650, "SLVERR")]), "SLVERR", 640),
        (Memory(model=HBM2, content=content[: 20 * 64]), "DECERR", 20 * 64),
    ):
        result = run(
            streamers["sync"],
            streams={"i_commands": to_items(commands)},
            n_results=address // 64,
            memories={"m_axi": memory},
        )
        expected = {"valid": 1, "code": 6, "response": axi.Response[response].value, "address": address, "command": 0}
        assert result.outputs["error"] == expected
        assert result.ports["m_axi"].past_end == (40 if response == "DECERR" else 0)
        np.testing.assert_array_equal(result.results["o_words"], words_of(commands, content)[: address // 64])


def test_streamer_waits_for_an_event(streamers, content):
    items = to_items([Command(address=0, words=3)]) | {"wait": np.array([1]), "event": np.array([2])}
    result = run(
        streamers["sync"],
        streams={"i_commands": items},
        n_results=3,
        memories={"m_axi": Memory(model=IDEAL, content=content)},
        inputs={"events": {100: 1 << 2, 101: 0}},
    )
    golden = Streamer(**PARAMETERS)
    timing = golden.timing([Command(address=0, words=3, wait=True, event=2)], latency=20, events={2: [100]})
    np.testing.assert_array_equal(result.cycles["o_words"], timing.words)
