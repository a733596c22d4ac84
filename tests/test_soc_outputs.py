"""What goes into the activation buffer: results of attention, and vectors times the gain of a norm."""

from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from test_soc_share import (
    MACHINES,
    STALLED,
    Bundle,
    assert_items,
    closed,
    columns,
    run,
    small_machine,
    stalls_of,
)

from edgeaccel import verilated
from edgeaccel.golden import float as golden_float
from edgeaccel.golden import vector as golden_vector
from edgeaccel.golden.timing import Pattern, pipeline_cycles
from edgeaccel.pe.float_multiply import FloatMultiplier
from edgeaccel.sim.vectors import codes, generator, random_codes
from edgeaccel.soc.loads import GainLoader
from edgeaccel.soc.outputs import AttentionOutput


@pytest.fixture(autouse=True)
def _bits_made_from_others(monkeypatch):
    """Verilator takes it for a loop that in the Verilog some bits of a port are made from other bits of it."""
    monkeypatch.setattr(verilated, "_VERILATE", [*verilated._VERILATE, "-Wno-UNOPTFLAT"])


class Outputs(wiring.Component):
    """`AttentionOutput`, with zeros in rows that are not marked: there the elements mean nothing, and may change."""

    def __init__(self, config):
        self._part = AttentionOutput(config)
        super().__init__(self._part.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self._part
        wiring.connect(m, wiring.flipped(self.i_jobs), part.i_jobs)
        wiring.connect(m, wiring.flipped(self.i), part.i)
        m.d.comb += [self.o.valid.eq(part.o.valid), self.o.p.eq(part.o.p), part.o.ready.eq(self.o.ready)]
        for row, elements in enumerate(self.o.p.elements):
            m.d.comb += elements.eq(Mux(part.o.p.rows[row], part.o.p.elements[row].as_value(), 0))
        return m


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    parts = {"output": Outputs(machine.config), "loader": GainLoader(machine.config)}
    return machine, Bundle(parts)


class Attends:
    """Of some jobs: the beats that attention gives, and the loads that come of them, in NumPy.

    `whose` are the numbers of the jobs of the loads; `elements` those of row 0 if a load is of row 0 alone.
    """

    def __init__(self, rng, machine, jobs):
        self.config = machine.config
        self.beats, self.loads, self.elements, self.whose = [], [], [], []
        self.taken = np.zeros(len(jobs), int)  # beats of each job
        for number, job in enumerate(jobs):
            self._attend(rng, number, job)
        self.whose = np.array(self.whose)

    def _attend(self, rng, number, job):
        rows, place = self.config.rows, 0
        for head in range(job["heads"]):
            if job["spread"]:  # a query of each row, as many as there are
                batches = [min(rows, job["ratio"] - first) for first in range(0, job["ratio"], rows)]
            else:  # a query of all rows
                batches = job["ratio"] * [rows]
            for batch, count in enumerate(batches):
                vectors = random_codes(rng, rows * job["length"]).reshape(rows, -1)
                beats = self._beats(rng, vectors)
                self.beats += beats
                self.taken[number] += len(beats)
                for row in range(count if job["spread"] else 1):
                    is_last = head == job["heads"] - 1 and batch == len(batches) - 1
                    is_last &= not job["spread"] or row == count - 1
                    self._load(number, job, place, row, beats, is_last)
                    place += 1

    def _beats(self, rng, vectors):
        by_row = [golden_vector.beats([row], self.config.vector_lanes, 256) for row in vectors]
        return [
            {
                "elements": np.stack([one["elements"][n] for one in by_row]),
                "keep": int(by_row[0]["keep"][n]),
                "last": int(by_row[0]["last"][n]),
            }
            for n in range(len(by_row[0]["last"]))
        ]

    def _load(self, number, job, place, row, beats, is_last):
        for n, beat in enumerate(beats):
            self.whose.append(number)
            self.elements.append(beat["elements"][row : row + 1] if job["spread"] else beat["elements"])
            self.loads.append(
                {
                    "address": (job["address"] + place * job["stride"] + n) % self.config.buffer_words,
                    "rows": 1 if job["spread"] else (1 << self.config.rows) - 1,
                    "event": int(job["event"] and is_last and n == len(beats) - 1),
                }
            )


def random_attends(rng, machine, n, **given):
    """Heads whose vectors end within a beat or not; of fewer queries than rows, as many, or more."""
    lanes = machine.config.vector_lanes
    return [
        {
            "address": int(rng.integers(0, machine.config.buffer_words)),
            "stride": int(rng.integers(0, machine.config.buffer_words)),
            "heads": int(rng.integers(1, 4)),
            "ratio": int(rng.integers(1, 8)),
            "spread": int(rng.integers(0, 2)),
            "event": int(rng.integers(0, 2)),
            "length": int(rng.choice([1, lanes, lanes + 1, 3 * lanes - 1, 16])),
        }
        | given
        for _ in range(n)
    ]


def attend(units, rng, machine, jobs, stalls):
    attends = Attends(rng, machine, jobs)
    given = columns([{name: value for name, value in job.items() if name != "length"} for job in jobs])
    inputs = {"i_jobs": given, "i": columns(attends.beats)}
    result = run(units, "output", inputs, len(attends.loads), stalls=stalls)
    loads = result.results["o"]
    assert_items(loads, columns(attends.loads))
    for got, elements in zip(loads["elements"], attends.elements, strict=True):
        np.testing.assert_array_equal(got[: len(elements)], elements)
        assert not got[len(elements) :].any()
    return attends, result


@MACHINES
@STALLED
def test_outputs(sizes, stalled):
    """The next attend's results may come while rows of the last one are still given."""
    machine, units = bundle(**sizes)
    rng = generator([530, stalled])
    jobs = random_attends(rng, machine, 40)
    attends, result = attend(units, rng, machine, jobs, stalls_of(rng, units, "output") if stalled else {})
    if not stalled:
        # Tokens side by side go through as they come; of heads one row a cycle is given.
        whose = np.repeat(np.arange(len(jobs)), attends.taken)
        for number, job in enumerate(jobs):
            given, taken = result.cycles["o"][attends.whose == number], result.cycles["i"][whose == number]
            if job["spread"]:
                np.testing.assert_array_equal(np.diff(given), 1)
            else:
                np.testing.assert_array_equal(given, taken)


def test_attends_of_one_kind():
    """Many in a row, with results that come slowly or are taken slowly."""
    machine, units = bundle()
    rng = generator(531)
    for spread in (0, 1):
        for name in ("i_jobs", "i", "o"):
            jobs = random_attends(rng, machine, 12, spread=spread, event=1)
            attend(units, rng, machine, jobs, {name: np.repeat(rng.random(300) < 0.2, 5)})


def random_loads(rng, machine, n, *, gained=0.5):
    config = machine.config
    shape = (n, config.rows, config.vector_lanes)
    load = {
        "address": rng.integers(0, config.buffer_words, n),
        "elements": random_codes(rng, np.prod(shape), special=0.1).reshape(shape),
        "rows": rng.integers(0, 1 << config.rows, n),
        "event": rng.integers(0, 2, n),
    }
    return {"load": load, "gain": (rng.random(n) < gained).astype(int)}


def gain(units, loads, gains, stalls):
    """Check loads and cycles; returns the cycles."""
    given, asked = loads["load"], loads["gain"] != 0
    elements = given["elements"].astype(np.uint32)
    products = golden_float.multiply(elements[asked], gains[:, None])
    elements[asked] = products
    result = run(units, "loader", {"i": loads, "i_gain": gains}, len(asked), stalls=stalls)
    assert_items(result.results["o"], given | {"elements": elements})
    # A beat of gains with each load that asks for it, in the same cycle.
    np.testing.assert_array_equal(result.cycles["i_gain"], result.cycles["i"][asked])
    return result.cycles


@MACHINES
@STALLED
def test_gain(sizes, stalled):
    """What does not ask is untouched, NaNs and -0 included; one load a cycle."""
    machine, units = bundle(**sizes)
    rng = generator([532, stalled])
    loads = random_loads(rng, machine, 300)
    gains = random_codes(rng, loads["gain"].sum() * machine.config.vector_lanes, special=0.1)
    stalls = stalls_of(rng, units, "loader") if stalled else {}
    cycles = gain(units, loads, gains.reshape(-1, machine.config.vector_lanes), stalls)
    if not stalled:
        np.testing.assert_array_equal(cycles["i"], np.arange(300))
        np.testing.assert_array_equal(cycles["o"] - cycles["i"], FloatMultiplier().latency)


def test_gain_of_all_loads():
    """With an operand for every load the cycles are those of the credit pipeline, under any stalls."""
    machine, units = bundle()
    rng = generator(533)
    loads = random_loads(rng, machine, 200, gained=2)
    gains = random_codes(rng, 200 * machine.config.vector_lanes).reshape(200, -1)
    stalls = stalls_of(rng, units, "loader")
    cycles = gain(units, loads, gains, stalls)
    latency = FloatMultiplier().latency
    sources, sink = [Pattern(stalls[name]) for name in ("i", "i_gain")], Pattern(stalls["o"])
    take, taken = pipeline_cycles(200, sources, sink, latency=latency, credits=latency + 1)
    np.testing.assert_array_equal(cycles["i"], take)
    np.testing.assert_array_equal(cycles["o"], taken)


def test_loads_without_gain_do_not_wait_for_it():
    machine, units = bundle()
    rng = generator(534)
    loads = random_loads(rng, machine, 20, gained=0)
    loads["gain"][12] = 1
    gains = codes(np.full((1, machine.config.vector_lanes), 2.0))
    cycles = gain(units, loads, gains, {"i_gain": closed(100)})
    np.testing.assert_array_equal(cycles["i"], [*range(12), *range(100, 108)])
