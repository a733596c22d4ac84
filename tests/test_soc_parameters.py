"""Parameters from memory on their way to who needs them: beats, their order, errors and what follows `clear`."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from test_soc_share import MACHINES, STALLED, Bundle, assert_items, closed, columns, run, small_machine, stalls_of

from edgeaccel import isa
from edgeaccel.golden.blocks import Command, Reader
from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockErrorCode
from edgeaccel.sim.memory import IDEAL
from edgeaccel.sim.system import Memory
from edgeaccel.sim.vectors import generator
from edgeaccel.soc.logits import Logits
from edgeaccel.soc.parameters import BUFFER_BEATS, JOBS, ParameterReader

MEMORY_BYTES = 1 << 14
MODEL = replace(IDEAL, data_width=128)
N_CYCLES = 4000
STREAMS = {"bias": "o_bias", "gain": "o_gain", "vector": "o_vectors", "table": "o_tables"}


@cache
def bundle(**sizes):
    """Both that move blocks, so that they are built once."""
    machine = small_machine(**sizes)
    parts = {"parameters": ParameterReader(machine), "logits": Logits(machine)}
    return machine, Bundle(parts, ("parameters.idle", "logits.idle"))


def memories(**own):
    """Memories of both; `own` takes the place of those that have nothing in them."""
    return {
        f"{name}_m_axi": own.get(name) or Memory(model=MODEL, content=np.zeros(16, np.uint8))
        for name in ("parameters", "logits")
    }


def random_reads(rng, machine, n):
    """Reads from any multiple of 4 bytes on; those of vectors and tables end with a whole number of them."""
    reads = []
    for _ in range(n):
        target = str(rng.choice(isa.TARGETS))
        lanes, beats = machine.config.vector_lanes, int(rng.integers(1, 9))
        room = machine.vector_words
        if target == "table":
            beats = 2 * int(rng.integers(1, machine.table_beats + 1))
        elements = beats * lanes - (int(rng.integers(0, lanes)) if target in ("bias", "gain", "vector") else 0)
        reads.append(
            {
                "address": 4 * int(rng.integers(0, MEMORY_BYTES // 4 - elements)),
                "bytes": 4 * elements,
                "target": isa.TARGETS.index(target),
                "vector": int(rng.integers(0, room)),
                "rows": int(rng.integers(0, 1 << machine.config.rows)),
            }
        )
    return reads


class Expected:
    """What reads give, by stream, and the stream of each beat in the order of the reads."""

    def __init__(self, machine, reads, content, responses=None):
        lanes = machine.config.vector_lanes
        self.items = {name: [] for name in STREAMS.values()}
        self.order, self.ends = [], []  # and whether a beat is its read's last
        reader = Reader(data_width=128, stream_bytes=4 * lanes, buffer_beats=BUFFER_BEATS, queue=JOBS)
        commands = [Command(address=read["address"], bytes=read["bytes"]) for read in reads]
        beats, _, self.error = reader.read(commands, content, responses)
        beats = iter(beats)
        for read in reads:
            stream = STREAMS[isa.TARGETS[read["target"]]]
            for beat, given in zip(range(-(-read["bytes"] // (4 * lanes))), beats, strict=False):
                elements = np.frombuffer(given.data, np.uint32)
                own = {
                    "o_vectors": {"address": (read["vector"] + beat) % machine.vector_words, "rows": read["rows"]},
                    "o_tables": {"beat": beat // 2, "is_sine": beat % 2, "rows": read["rows"]},
                }
                self.items[stream].append(own[stream] | {"elements": elements} if stream in own else elements)
                self.order.append(stream)
                self.ends.append(given.last)

    def check(self, result):
        for name, items in self.items.items():
            if items and isinstance(items[0], dict):
                assert_items(result.results[name], columns(items))
            elif items:
                np.testing.assert_array_equal(result.results[name], items)
        own = {name: iter(result.cycles[name].tolist()) for name in self.items}
        self.cycles = np.array([next(own[name]) for name in self.order])
        assert (np.diff(self.cycles) > 0).all()  # one after the other, in the order of the reads

    @property
    def counts(self):
        return {name: len(items) for name, items in self.items.items()}


def read(units, machine, reads, expected, content, *, stalls=None, errors=(), values=None):
    given = memories(parameters=Memory(model=MODEL, content=content, errors=list(errors)))
    result = run(
        units,
        "parameters",
        {"i": columns(reads)},
        expected.counts,
        stalls=stalls,
        values=values,
        memories=given,
        n_cycles=N_CYCLES,
    )
    expected.check(result)
    return result


def random_content(rng):
    return rng.integers(0, 256, MEMORY_BYTES, np.uint8)


@MACHINES
@STALLED
def test_reads(sizes, stalled):
    """To each what it is for; `idle` while no read for vectors or tables is under way."""
    machine, units = bundle(**sizes)
    rng = generator([550, stalled])
    reads, content = random_reads(rng, machine, 60), random_content(rng)
    stalls = {}
    if stalled:
        stalls = stalls_of(rng, units, "parameters")
        stalls |= {f"m_axi_{name}": np.repeat(rng.random(500) < 0.7, 4) for name in ("ar", "r")}
    expected = Expected(machine, reads, content)
    result = read(units, machine, reads, expected, content, stalls=stalls)
    assert expected.cycles[-1] < N_CYCLES
    kept = np.isin([read["target"] for read in reads], [isa.TARGETS.index(name) for name in ("vector", "table")])
    under_way = np.zeros(N_CYCLES + 1, int)
    np.add.at(under_way, result.cycles["i"][kept] + 1, 1)
    np.add.at(under_way, expected.cycles[np.array(expected.ends)][kept] + 1, -1)
    np.testing.assert_array_equal(result.watched["parameters_idle"], under_way.cumsum()[:N_CYCLES] == 0)


@pytest.mark.parametrize("target", isa.TARGETS)
def test_a_beat_a_cycle(target):
    """Within a read that begins with a beat of the memory, and from read to read."""
    machine, units = bundle()
    rng = generator(551)
    read_of = {"bytes": 256, "target": isa.TARGETS.index(target), "vector": 0, "rows": 1}
    reads = [read_of | {"address": 256 * n} for n in range(8)]
    if target == "table":  # not longer than one
        reads = [read_of | {"address": 64 * n, "bytes": 64} for n in range(8)]
    content = random_content(rng)
    expected = Expected(machine, reads, content)
    read(units, machine, reads, expected, content)
    np.testing.assert_array_equal(np.diff(expected.cycles), 1)


def test_the_first_in_the_line_holds_up_the_others():
    machine, units = bundle()
    rng = generator(552)
    reads, content = random_reads(rng, machine, 20), random_content(rng)
    reads[4]["target"] = isa.TARGETS.index("gain")
    for number in (0, 1, 2, 3):
        reads[number]["target"] = isa.TARGETS.index("bias")
    expected = Expected(machine, reads, content)
    result = read(units, machine, reads, expected, content, stalls={"o_gain": closed(500)})
    place = expected.order.index("o_gain")
    assert expected.cycles[place - 1] < 500 == expected.cycles[place]
    # So many are known beside those that the reader has taken on.
    assert JOBS < (result.cycles["i"] < 500).sum() <= 2 * JOBS


@pytest.mark.parametrize("bad", ["SLVERR", "DECERR"])
def test_bad_response(bad):
    """What came before is given, and nothing after; `clear` makes all as at first."""
    machine, units = bundle()
    rng = generator([553, bad == "SLVERR"])
    reads, content = random_reads(rng, machine, 10), random_content(rng)
    for number, one in enumerate(reads):  # none of the others touches what is answered so
        one |= {"address": 512 * number, "bytes": max(48, one["bytes"])}
        one["target"] = isa.TARGETS.index("vector") if number == 4 else one["target"]
    address = reads[4]["address"] + 32
    errors, responses = [(address, address + 1, bad)], {address: bad}
    first = Expected(machine, reads, content, responses)
    result = read(units, machine, reads, first, content, errors=errors)
    error = result.outputs["error"]
    assert error == {
        "valid": 1,
        "code": BlockErrorCode.RESPONSE.value,
        "response": axi.Response[bad].value,
        "address": address,
        "command": 4,
    }
    assert not result.outputs["idle"]  # it does not come to its end

    more = random_reads(rng, machine, 12)
    for one in more:
        one |= {"address": 512 * 12 + one["address"] % 4096}
    second = Expected(machine, more, content)
    for name, items in second.items.items():
        first.items[name] += items
    first.order += second.order
    stalls = {"i": np.append(np.ones(result.cycles["i"][-1] + 1, bool), closed(1000))}
    result = read(
        units, machine, reads + more, first, content, errors=errors, stalls=stalls, values={"clear": {800: 1, 801: 0}}
    )
    assert not result.outputs["error"]["valid"]
    idle = result.watched["parameters_idle"]
    assert not idle[500:801].any()
    assert idle[801:1000].all()
    assert result.outputs["idle"]


@pytest.mark.parametrize("clear", [40, 70])
def test_clear_in_the_middle(clear):
    """What is given in the cycle of the pulse is the last of what was asked for before."""
    machine, units = bundle()
    rng = generator([554, clear])
    content = random_content(rng)
    target = isa.TARGETS.index("vector")
    reads = [{"address": 1024 * n, "bytes": 512, "target": target, "vector": 5, "rows": 7} for n in range(2)]
    before, behind = [Expected(machine, [one], content) for one in reads]
    cycles = read(units, machine, reads[:1], before, content).cycles["o_vectors"]
    n_given = int((cycles <= clear).sum())
    assert 0 < n_given < len(cycles)
    before.items["o_vectors"] = before.items["o_vectors"][:n_given] + behind.items["o_vectors"]
    before.order = len(before.items["o_vectors"]) * ["o_vectors"]
    values, stalls = {"clear": {clear: 1, clear + 1: 0}}, {"i": np.append(True, closed(300))}
    result = read(units, machine, reads, before, content, stalls=stalls, values=values)
    assert result.cycles["o_vectors"][n_given] > 300
    idle = result.watched["parameters_idle"]
    assert not idle[5 : clear + 1].any()
    assert idle[clear + 1 : 300].all()
