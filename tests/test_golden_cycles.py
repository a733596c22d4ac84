"""The whole machine cycle by cycle, against the emitted Verilog: every burst, every word, every token."""

import os
from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator
from test_golden_machine import SHAPES
from test_reference import random_checkpoint
from test_streamer import random_commands, sizes

from edgeaccel import isa
from edgeaccel.checkpoint import example
from edgeaccel.compiler import compile_model
from edgeaccel.golden import blocks
from edgeaccel.golden.cycles import fetcher as cycles_fetcher
from edgeaccel.golden.cycles.machine import CycleMachine, masters
from edgeaccel.golden.cycles.memory import Memory
from edgeaccel.golden.cycles.reader import BlockReader
from edgeaccel.golden.cycles.writer import BlockWriter
from edgeaccel.golden.memory import Streamer, ideal_memory
from edgeaccel.golden.timing import Pattern
from edgeaccel.machine import machine
from edgeaccel.memory import TileStreamer
from edgeaccel.runtime.check import compare_all
from edgeaccel.runtime.device import StopReason
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL, Channel
from edgeaccel.sim.streamer_bench import Phase, ReadMemory, _Core, _slave

TINY = machine("tiny")
DATA_BYTES = 1 << 24


@pytest.fixture
def rng():
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")  # pytest shows it with a failure
    return np.random.default_rng(seed)


def odd(name, rng, **changes):
    return random_checkpoint(replace(SHAPES[name], eos=(), bos=None, **changes), rng)


def altered(image, change):
    """The image with other instructions: `change` gives (name, fields) for each, or None to leave it out."""
    size = isa.INSTRUCTION_BYTES
    old = [isa.decode(image.program[n : n + size]) for n in range(0, len(image.program), size)]
    new = [change(name, {"when": when, **fields}) for name, when, fields in old]
    places = np.cumsum([0] + [each is not None for each in new])
    for name, fields in filter(None, new):
        if name in ("again", "next"):
            fields["target"] = int(places[fields["target"]])
    return replace(image, program=isa.assemble(filter(None, new)))


def without_attention(name, fields):
    if name in ("append", "attend"):
        return None
    return name, fields | ({"to_cache": 0} if name == "vector" else {})


def check(image, tokens, limit, model=IDEAL, built=TINY):
    """Run both: all that moves at the masters, all words of tiles, and the end must come in the same cycles."""
    model = model.with_width(built.config.port_data_width)
    rtl = RtlDevice(built, data_bytes=DATA_BYTES, checks=True, watch=True, memory=model)
    rtl.load(image)
    rtl.write_tokens(0, tokens)
    stop = rtl.run(0, len(tokens), limit)
    assert stop.reason is StopReason.LIMIT, stop.message
    up = rtl.simulation.intervals()
    # The last bits of `SoC.activity`: running, then for each group whether it takes a word.
    groups = built.config.groups
    running, *words = [up[f"activity.{n}"] for n in range(len(up))][-1 - groups :]
    start = running[0][0] - 1
    memories = {name: Memory(Channel(model), model.outstanding) for name in masters(built)}
    text = rtl.read_tokens(0, limit + 1)
    golden = CycleMachine(built, image, text, 0, len(tokens), limit, memories, start=start)
    ends = []
    while not golden.sequencer.done:
        ends.append(golden.run(to_batch=True))
    bursts = rtl.simulation.bursts(gap=1)  # each one alone
    core, port = built.config.core_mhz, built.config.port_mhz
    for name, memory in memories.items():
        is_port = name[6:].isdigit() or name == "m_axi_scales"
        for side, known in (("reads", memory.reads), ("writes", memory.writes)):
            cycles = [first for first, _ in bursts.get(f"{name} {side}", [])]
            known = [int(cycle * core // port) if is_port else cycle for cycle, _, _ in known]
            assert known == cycles, f"{name} {side}"
    for n, spans in enumerate(words):
        assert golden.words[n] == [cycle for span in spans for cycle in range(*span)], f"words of group {n}"
    assert golden.run() == stop.cycles
    rows = [rows for _, _, rows in golden.batches]
    assert sum(rows) == limit
    assert [cycle + 1 - start for cycle, _, _ in golden.batches] == ends[: len(rows)]
    return golden


@pytest.mark.parametrize(
    ("name", "weights", "cache", "model", "changes"),
    [
        ("llama", "int8", "int16", IDEAL, {"n_layers": 2}),
        ("qwen2", "int4", "int8", IDEAL.with_latency(70), {}),
        ("mistral", "int16", "int4", HBM2, {}),
        ("chatglm2", "int4", "int16", DDR4_2400, {}),
        ("one head", "int8", "int8", IDEAL, {}),
    ],
)
def test_shapes(name, weights, cache, model, changes, rng):
    """Given tokens in batches and alone, then decoding: odd sizes, biases, windows, all formats, several memories."""
    image = compile_model(odd(name, rng, **{"n_layers": 1} | changes), TINY, weights=weights, cache=cache)
    n_given = int(rng.integers(2, 6))
    golden = check(image, rng.integers(0, 300, n_given).tolist(), n_given + 2, model)
    assert [rows for _, _, rows in golden.batches[-2:]] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("model", [IDEAL, IDEAL.with_latency(5), HBM2, DDR4_2400])
def test_more_shapes(name, model, rng):
    """All formats in turn, over the end of a chunk of positions."""
    weights, cache = (str(rng.choice(["int4", "int8", "int16"])) for _ in range(2))
    print(weights, cache)
    image = compile_model(odd(name, rng, n_layers=1), TINY, weights=weights, cache=cache)
    n_given = int(rng.integers(28, 40))
    check(image, rng.integers(0, 300, n_given).tolist(), n_given + 4, model)


@pytest.mark.slow  # two builds
@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 64, "vector_lanes": 8, "groups": 1, "rows": 1},  # words of two beats, streams of wider ones
        {"lanes": 64, "port_data_width": 256, "rows": 3},  # streams of narrower ones
    ],
)
def test_other_machines(changes, rng):
    """Beats of other widths than those of words and streams, one group, one row, three rows."""
    built = machine("tiny", changes=changes, vector_inputs=1024, max_channels=256, slots=8, pages=16, positions=256)
    image = compile_model(odd("qwen2", rng, n_layers=1), built, weights="int8", cache="int4")
    check(image, rng.integers(0, 300, 7).tolist(), 10, HBM2, built=built)


SETS = machine(
    "tiny", changes={"sets": 2}, vector_inputs=2048, max_channels=48, max_rotated=48, slots=16, pages=64, positions=256
)


@pytest.mark.slow  # a build
@pytest.mark.parametrize("model", [IDEAL, HBM2])
@pytest.mark.parametrize("name", ["llama", "qwen2", "mistral", "one head"])
def test_sets(name, model, rng):
    """Prompts of any number of tokens up to those of three batches; vectors are cut; memories are equal at the end."""
    weights, cache = (str(rng.choice(["int4", "int8", "int16"])) for _ in range(2))
    print(weights, cache)
    image = compile_model(odd(name, rng, n_layers=2), SETS, weights=weights, cache=cache)
    for n_given in (1, int(rng.integers(2, 5)), int(rng.integers(5, 13))):
        tokens = rng.integers(0, 300, n_given).tolist()
        devices = RtlDevice(SETS, data_bytes=DATA_BYTES, memory=model), GoldenDevice(SETS)
        for device in devices:
            device.load(image)
            device.write_tokens(0, tokens)
            assert device.run(0, n_given, n_given + 2).reason is StopReason.LIMIT
        devices[0].settle()
        assert compare_all(image, *devices) is None
        devices[0].close()
        golden = check(image, tokens, n_given + 2, model, built=SETS)
        assert golden.batches[0][2] == min(n_given, 4)


class Ideal:
    """A channel as `Memory` takes it."""

    def __init__(self, latency):
        self.serve = ideal_memory(latency)


@pytest.mark.parametrize("port_ps", [2222, 4000, 5000, 1000])
@pytest.mark.parametrize(("data_width", "word_width"), [(128, 128), (256, 512), (256, 64)])
def test_streamer(data_width, word_width, port_ps, rng):
    """Ports with a clock of their own, also where the core cannot keep up with them, and words that have to wait."""
    golden = Streamer(**sizes(data_width, word_width) | {"outstanding": 16, "buffer_words": 512})
    commands = random_commands(rng, golden, 12)
    stalls = {name: np.repeat(rng.random(3000) < share, 4) for name, share in (("commands", 0.6), ("words", 0.8))}
    model = TileStreamer(port_domain="sync" if port_ps == 4000 else "port", **vars(golden))
    bus = ReadMemory(np.zeros(1 << 16, np.uint8), golden.beat_bytes, latency=20)
    core = _Core(model, [Phase(commands=commands, n_words=sum(c.words for c in commands))], stalls, {})
    simulator = Simulator(model)
    for domain, period in zip(model.domains, (4000, port_ps), strict=False):
        simulator.add_clock(period * 1e-12, phase=1e-9, domain=domain)  # the first edges are the same
    simulator.add_testbench(core.drive)
    simulator.add_testbench(_slave(model, bus), background=True)
    simulator.run()

    memory = Memory(Ideal(20), 1 << 16)
    streamer = cycles_fetcher.TileStreamer(golden, memory, (4000, port_ps))
    source, sink = (Pattern(stalls[name]) for name in ("commands", "words"))
    accepted, words, left, cycle, offers_from = [], [], list(commands), 0, 0
    while len(words) < len(core.runs[0].cycles):
        streamer.begin(cycle)
        if left and source.first(offers_from) <= cycle and streamer.commands.has_room:
            streamer.commands.put(left.pop(0))
            accepted.append(cycle)
            offers_from = cycle + 1
        if streamer.head is not None and sink.first(cycle) == cycle:
            streamer.get()
            words.append(cycle)
        streamer.step(cycle)
        cycle += 1
    assert accepted == core.runs[0].commands
    assert [each[0] for each in memory.reads] == bus.address_cycles
    assert words == core.runs[0].cycles


WIDTHS = [(128, 16), (128, 32), (128, 64), (256, 16), (256, 4)]  # bits of the memory's beats, bytes of the stream's


def random_blocks(rng, n):
    """Commands of `n` blocks at any byte."""
    lengths = rng.choice([1, 5, 33, 64, 100, 300, 700], n) + rng.integers(0, 16, n)
    return [
        blocks.Command(address=int(address), bytes=int(n_bytes))
        for address, n_bytes in zip(rng.integers(0, 1 << 16, n), lengths, strict=True)
    ]


@pytest.mark.parametrize(("data_width", "stream_bytes"), WIDTHS)
def test_reader(data_width, stream_bytes, rng):
    """Cycle by cycle as by recurrence."""
    sizes = {"data_width": data_width, "stream_bytes": stream_bytes, "buffer_beats": 24, "outstanding": 3, "queue": 2}
    commands = random_blocks(rng, 20)
    source, sink = (Pattern(np.repeat(rng.random(4000) < share, 3)) for share in (0.4, 0.7))
    expected = blocks.Reader(**sizes).timing(commands, latency=9, source=source, sink=sink)
    memory = Memory(Ideal(9), 1 << 16)
    reader = BlockReader(memory, **sizes)
    accepted, taken, left, offers_from = [], [], list(commands), 0
    for cycle in range(expected.taken[-1] + 50):
        reader.begin(cycle)
        if left and source.first(offers_from) <= cycle and reader.commands.has_room:
            reader.commands.put(left.pop(0))
            accepted.append(cycle)
            offers_from = cycle + 1
        if reader.head is not None and sink.first(cycle) == cycle:
            taken.append((cycle, reader.get()))
        reader.step(cycle)
    assert accepted == expected.commands.tolist()
    assert [each[0] for each in memory.reads] == expected.addresses.tolist()
    assert [each[0] for each in taken] == expected.taken.tolist()
    assert [each[1] for each in taken].count("last") == len(commands)


class OpenMemory(Memory):
    """Takes a burst's data together with its address, or later."""

    def __init__(self, latency):
        super().__init__(self, 1 << 16)
        self.latency = latency

    def begin(self, cycle):
        super().begin(cycle)
        self.takes_data = True

    def serve(self, cycle, address, beats, write):
        return [cycle + self.latency]


@pytest.mark.parametrize(("data_width", "stream_bytes"), WIDTHS)
def test_writer(data_width, stream_bytes, rng):
    """Cycle by cycle as by recurrence."""
    sizes = {"data_width": data_width, "stream_bytes": stream_bytes, "buffer_beats": 40, "outstanding": 3, "queue": 2}
    commands = random_blocks(rng, 20)
    source, sink = (Pattern(np.repeat(rng.random(4000) < share, 3)) for share in (0.4, 0.7))
    expected = blocks.Writer(**sizes).timing(commands, latency=9, source=source, blocks=sink)
    memory = OpenMemory(9)
    writer = BlockWriter(memory, **sizes)
    beats = [
        (n_bytes <= stream_bytes, min(n_bytes, stream_bytes))
        for command in commands
        for n_bytes in range(command.bytes, 0, -stream_bytes)
    ]
    accepted, taken, done, left = [], [], [], list(commands)
    offers_command = offers_beat = 0
    for cycle in range(expected.done[-1] + 50):
        writer.begin(cycle)
        memory.begin(cycle)
        if writer.done:
            done.append(cycle)
        if left and source.first(offers_command) <= cycle and writer.commands.has_room:
            writer.commands.put(left.pop(0))
            accepted.append(cycle)
            offers_command = cycle + 1
        if beats and sink.first(offers_beat) <= cycle and writer.offer(*beats[0]):
            taken.append(cycle)
            beats.pop(0)
            offers_beat = cycle + 1
        writer.step(cycle)
    assert accepted == expected.commands.tolist()
    assert taken == expected.taken.tolist()
    assert done == expected.done.tolist()


@pytest.mark.slow  # two builds
@pytest.mark.parametrize("port_mhz", [450.0, 200.0])
def test_two_clocks(port_mhz, rng):
    """Ports that are faster than the core, and slower ones."""
    built = machine("tiny", changes={"port_mhz": port_mhz})
    image = compile_model(odd("llama", rng, n_layers=1), built, weights="int4", cache="int8")
    check(image, rng.integers(0, 300, 9).tolist(), 12, HBM2, built=built)


def test_without_attention(rng):
    """What has neither keys nor values; parameters and logits begin at any multiple of four bytes."""

    def change(name, fields):
        if name == "read":
            fields["address"] += 4 * int(rng.integers(0, 8))
        elif name == "vector" and fields["to_logits"]:
            fields["logits"] += 4 * int(rng.integers(1, 4))
        return without_attention(name, fields)

    image = altered(compile_model(odd("qwen2", rng, n_layers=1), TINY, weights="int4", cache="int8"), change)
    tokens = rng.integers(0, 300, 3).tolist()
    golden = check(image, tokens, 5)
    assert not golden.memories["m_axi_cache"].writes


def test_instructions(rng):
    """What the sequencer does itself: waiting, loops, jumps, the page table; vectors of zeros."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int8", cache="int8")
    base, logits = image.manifest["regions"]["table"][0], image.manifest["logits"]
    zeros = {"zeros": 1, "vectors": 3, "channels": 20, "stride": 5}
    biased = {"zeros": 1, "vectors": 1, "channels": 33, "bias": 1}
    bias = {"address": base, "bytes": 144, "target": "bias"}
    program = [
        ("pages", {"first": 1, "count": 5, "page": 2}),
        ("loop", {"layers": 3}),
        ("read", {"address": base, "stride": 12, "index": "layer", "bytes": 84, "target": "vector"}),
        ("vector", zeros | {"to_vector": 1}),
        ("again", {"target": 2}),
        ("sync", {}),
        ("read", {"address": base, "stride": 64, "index": "position", "bytes": 52, "target": "vector", "vector": 9}),
        ("read", bias | {"stride": 4, "index": "token", "when": "single"}),
        ("read", bias | {"when": "several"}),
        ("sync", {}),
        ("vector", zeros | {"when": "several", "residual": 1, "to_vector": 1, "vector": 15}),
        ("vector", biased | {"when": "last", "to_logits": 1, "logits": logits + 4, "starts": 1, "ends": 1}),
        ("vector", biased | {"when": "unfollowed"}),
        ("next", {"target": 5}),
    ]
    golden = check(replace(image, program=isa.assemble(program)), rng.integers(0, 300, 5).tolist(), 7)
    assert {number for _, number, _ in golden.issues} == set(range(len(program)))


def test_device(rng):
    """The golden device's cycles, where it is asked for exact ones, are those of the Verilog, run after run."""
    image = compile_model(odd("llama", rng, n_layers=1), TINY, weights="int4", cache="int4")
    model = IDEAL.with_width(TINY.config.port_data_width)
    devices = RtlDevice(TINY, data_bytes=DATA_BYTES, checks=True), GoldenDevice(TINY, timing=model)
    tokens = rng.integers(0, 300, 3).tolist()
    stops, spent = [], []
    for device in devices:
        device.load(image)
        device.write_tokens(0, tokens)
        stops += [[device.run(0, 3, 4), device.run(4, 5, 6)]]
        spent.append(sum(stop.cycles for stop in stops[-1]))
    assert stops[0] == stops[1]
    assert devices[1].counters()["cycles"] == spent[0]
    assert devices[1].exact.batches[-1][1:] == (5, 1)
    modelled = GoldenDevice(TINY)
    modelled.load(image)
    modelled.write_tokens(0, tokens)
    assert modelled.run(0, 3, 4).cycles != stops[0][0].cycles
    assert modelled.exact is None


def test_device_refuses():
    with pytest.raises(ValueError, match="timing must be of beats of 128 bits, not 256"):
        GoldenDevice(TINY, timing=IDEAL)
    image = compile_model(odd("llama", np.random.default_rng(0), n_layers=1), TINY, weights="int4", cache="int4")
    with pytest.raises(ValueError, match="for another machine"):
        CycleMachine(replace(TINY, slots=16), image, [], 0, 1, 2, {})


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "cache", "model"), [("int8", "int16", IDEAL), ("int4", "int8", HBM2)])
def test_story(weights, cache, model):
    """A real model, over the end of several chunks of positions."""
    try:
        checkpoint, _ = example.load()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    check(compile_model(checkpoint, TINY, weights=weights, cache=cache), [1, 403, 407], 70, model)
