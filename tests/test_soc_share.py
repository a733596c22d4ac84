"""Who has the array when: requests, operators and results in the order of the program, under stalls.

What stands at the beginning serves all tests of parts of the machine: several of them are compiled together.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.machine import machine as named_machine
from edgeaccel.sim import system
from edgeaccel.sim.bench import random_stalls
from edgeaccel.sim.vectors import generator, random_codes
from edgeaccel.soc.command import fetch_job, multiply_job
from edgeaccel.soc.share import OPERATORS, OperatorShare, RequestShare, ResultShare, WeightRequests
from edgeaccel.systolic.commands import port_request
from edgeaccel.systolic.operator import operator
from edgeaccel.verilog import stream_members

SIZES = {"vector_inputs": 64, "max_channels": 64, "max_rotated": 8, "positions": 32, "instructions": 8}


def small_machine(rows=3, vector_lanes=2, groups=4, **sizes):
    """A tile is 8 channels."""
    changes = {"rows": rows, "vector_lanes": vector_lanes, "groups": groups}
    return named_machine("tiny", changes=changes, **SIZES | sizes)


class Bundle(wiring.Component):
    """Components side by side, which know nothing of each other: one build for all of them.

    Plain outputs of theirs can be watched: a cycle for each item of `i_cycles`, from the first cycle on.

    Parameters
    ----------
    parts : dict of str to wiring.Component
    watched : tuple of str
        Of plain outputs, as "part.output".
    """

    def __init__(self, parts, watched=()):
        self.parts, self.watched = parts, watched
        members = {name: Out(part.signature) for name, part in parts.items()}
        if watched:
            shape = data.StructLayout({name.replace(".", "_"): self._output(name).shape() for name in watched})
            members |= {"i_cycles": In(stream.Signature(1)), "o_watched": Out(stream.Signature(shape))}
        super().__init__(members)

    def _output(self, name):
        part, output = name.split(".")
        return getattr(self.parts[part], output)

    def elaborate(self, platform):
        m = Module()
        for name, part in self.parts.items():
            m.submodules[name] = part
            wiring.connect(m, wiring.flipped(getattr(self, name)), part)
        if self.watched:
            m.d.comb += [self.o_watched.valid.eq(self.i_cycles.valid), self.i_cycles.ready.eq(self.o_watched.ready)]
            for name in self.watched:
                m.d.comb += Value.cast(self.o_watched.p[name.replace(".", "_")]).eq(Value.cast(self._output(name)))
        return m


@dataclass(frozen=True)
class UnitRun:
    """What a part of a bundle gave: results and cycles by its streams' names, and what was watched in each cycle."""

    results: dict
    cycles: dict
    watched: dict
    ports: dict
    outputs: dict


def run(bundle, name, inputs, n_results, *, stalls=None, n_cycles=0, values=None, memories=None, **settings):
    """Drive one part of a bundle, by the names of its own streams; `stalls` too, `n_cycles` are watched.

    `values` are plain inputs, `memories` those of all parts.
    """
    part = bundle.parts[name]
    counts = n_results if isinstance(n_results, dict) else dict.fromkeys(stream_members(part)[1], n_results)
    streams = {f"{name}__{end}": items for end, items in inputs.items()}
    wanted = {f"{name}__{end}": count for end, count in counts.items()}
    if bundle.watched:
        streams["i_cycles"], wanted["o_watched"] = np.zeros(n_cycles, int), n_cycles
    patterns = {
        f"{name}_{end}" if end.startswith("m_axi") else f"{name}__{end}": pattern
        for end, pattern in (stalls or {}).items()
    }
    result = system.run(
        bundle,
        streams=streams,
        n_results=wanted,
        stalls=patterns,
        inputs={f"{name}__{end}": value for end, value in (values or {}).items()},
        memories=memories,
        **{"max_cycles": 100_000, "hang_cycles": 5000} | settings,
    )
    ends = [*inputs, *counts]
    return UnitRun(
        results={end: result.results[f"{name}__{end}"] for end in counts},
        cycles={end: result.cycles[f"{name}__{end}"] for end in ends},
        watched=result.results.get("o_watched", {}),
        ports=result.ports,
        outputs={
            output.removeprefix(f"{name}__"): value
            for output, value in result.outputs.items()
            if output.startswith(f"{name}__")
        },
    )


def stalls_of(rng, bundle, name, n_cycles=2000, **shares):
    return random_stalls(rng, bundle.parts[name], n_cycles, **shares)


def closed(n_cycles):
    """A stall pattern that opens after so many cycles."""
    return np.zeros(n_cycles, bool)


def columns(rows):
    """Items of a stream from a list of dicts, which may have dicts inside."""
    if isinstance(rows[0], dict):
        return {name: columns([row[name] for row in rows]) for name in rows[0]}
    return np.array(rows, np.uint64).view(np.int64)


def assert_items(given, expected):
    """The fields of items are those of `expected`, which need not have all."""
    for name, values in expected.items():
        if isinstance(values, dict):
            assert_items(given[name], values)
        else:
            whole = given[name].view(np.int64)  # of 64 bits they come without a sign
            np.testing.assert_array_equal(whole, np.asarray(values, np.int64), err_msg=name)


def random_fields(rng, layout, **given):
    """Any values of a layout's fields, but those that are given."""
    fields = {}
    for name, shape in layout.members.items():
        width = Shape.cast(shape).width
        fields[name] = given[name] if name in given else int(rng.integers(0, 1 << width, dtype=np.uint64))
    return fields


class Requests(wiring.Component):
    """`RequestShare` as it is used: one job after the other, and attention says which of its requests is the last."""

    def __init__(self, machine):
        self._share = RequestShare(machine)
        job = data.StructLayout({"attend": 1, "fetch": fetch_job(machine)})
        request = data.StructLayout({"request": port_request(machine.config), "ends": 1})
        super().__init__(
            {
                "i_jobs": In(stream.Signature(job)),
                "i": In(stream.Signature(request)),
                "o": Out(stream.Signature(port_request(machine.config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.share = share = self._share
        give_jobs(m, self.i_jobs, share.i_fetches, share.i_attends)
        wiring.connect(m, share.o, wiring.flipped(self.o))
        m.d.comb += [
            share.i_fetches.p.eq(self.i_jobs.p.fetch),
            share.i.valid.eq(self.i.valid),
            share.i.p.eq(self.i.p.request),
            share.ends.eq(self.i.p.ends),
            self.i.ready.eq(share.i.ready),
        ]
        return m


class Operators(wiring.Component):
    """`OperatorShare` as it is used; `i_done` ends the oldest operator that was given, `o_read` tells `read` then."""

    def __init__(self, machine):
        self._share = OperatorShare(machine)
        job = data.StructLayout({"attend": 1, "load": 1, "multiply": multiply_job(machine)})
        given = data.StructLayout({"operator": operator(machine.config), "ends": 1})
        super().__init__(
            {
                "i_jobs": In(stream.Signature(job)),
                "i": In(stream.Signature(given)),
                "i_done": In(stream.Signature(1)),
                "o": Out(stream.Signature(operator(machine.config))),
                "o_routes": self._share.signature.members["o_routes"],
                "o_read": Out(stream.Signature(1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.share = share = self._share
        give_jobs(m, self.i_jobs, share.i_multiplies, share.i_attends)
        wiring.connect(m, share.o, wiring.flipped(self.o))
        wiring.connect(m, share.o_routes, wiring.flipped(self.o_routes))
        under_way = Signal(8)
        m.d.comb += [
            share.i_multiplies.p.eq(self.i_jobs.p.multiply),
            share.i_attends.payload.eq(self.i_jobs.p.load),
            share.i.valid.eq(self.i.valid),
            share.i.p.eq(self.i.p.operator),
            share.ends.eq(self.i.p.ends),
            self.i.ready.eq(share.i.ready),
            self.i_done.ready.eq(under_way != 0),
            share.done.eq(self.i_done.valid & self.i_done.ready),
            self.o_read.valid.eq(share.done),
            self.o_read.payload.eq(share.read),
        ]
        m.d.sync += under_way.eq(under_way + (self.o.valid & self.o.ready) - share.done)
        return m


def give_jobs(m, jobs, own, attends):
    """Jobs to the one or the other of two streams, never to both."""
    m.d.comb += [
        own.valid.eq(jobs.valid & ~jobs.p.attend),
        attends.valid.eq(jobs.valid & jobs.p.attend),
        jobs.ready.eq(Mux(jobs.p.attend, attends.ready, own.ready)),
    ]


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    parts = {
        "weights": WeightRequests(machine),
        "requests": Requests(machine),
        "operators": Operators(machine),
        "results": ResultShare(machine),
    }
    return machine, Bundle(parts)


SIZES_OF_MACHINES = [
    pytest.param({}, id="rows3"),
    pytest.param({"rows": 1, "vector_lanes": 8, "groups": 1}, id="rows1", marks=pytest.mark.slow),
    pytest.param({"rows": 4, "vector_lanes": 4, "groups": 32}, id="rows4", marks=pytest.mark.slow),
]
STALLED = pytest.mark.parametrize("stalled", [True, False], ids=["stalled", "free"])
MACHINES = pytest.mark.parametrize("sizes", SIZES_OF_MACHINES)


def random_fetch(rng, machine):
    """A matrix's tiles: all ports have as many, or some one more; none at all now and then."""
    groups = machine.config.groups
    long = int(rng.choice([0, groups, rng.integers(0, groups + 1)]))
    long_words, words = rng.integers(1, 1 << 24, 2).tolist()
    layout = fetch_job(machine)
    return random_fields(
        rng,
        layout,
        long=long,
        long_words=long_words,
        words=0 if rng.random() < 0.3 else words,
        format=int(rng.integers(0, 3)),
    )


def requests_of(machine, fetch):
    """What the ports are asked for, with one tile more and without."""
    groups, long = machine.config.groups, fetch["long"]
    common = {"address": fetch["address"], "format": fetch["format"]}
    requests = []
    if long:
        requests.append(common | {"words": fetch["long_words"], "skip": 0, "take": long})
    if fetch["words"] and long < groups:
        requests.append(common | {"words": fetch["words"], "skip": long, "take": groups - long})
    return requests


def random_request(rng, machine):
    return random_fields(rng, port_request(machine.config), format=int(rng.integers(0, 3)))


@MACHINES
@STALLED
def test_weight_requests(sizes, stalled):
    """Without stalls a request in each cycle; a fetch of nothing takes a cycle as well."""
    machine, units = bundle(**sizes)
    rng = generator([500, stalled])
    fetches = [random_fetch(rng, machine) for _ in range(80)]
    expected = [requests_of(machine, fetch) for fetch in fetches]
    flat = [request for requests in expected for request in requests]
    stalls = stalls_of(rng, units, "weights") if stalled else {}
    result = run(units, "weights", {"i": columns(fetches)}, len(flat), stalls=stalls)
    assert_items(result.results["o"], columns(flat))
    if not stalled:
        turns = np.array([max(1, len(requests)) for requests in expected])
        np.testing.assert_array_equal(result.cycles["i"], turns.cumsum() - 1)
        starts = turns.cumsum() - turns
        asked = [start + n for start, requests in zip(starts, expected, strict=True) for n in range(len(requests))]
        np.testing.assert_array_equal(result.cycles["o"], asked)


@MACHINES
@STALLED
def test_request_share(sizes, stalled):
    """Attention has its turn until the last request of an attend; nobody's requests go past the other's."""
    machine, units = bundle(**sizes)
    rng = generator([501, stalled])
    jobs, others, expected = [], [], []
    for _ in range(60):
        attend = int(rng.random() < 0.5)
        fetch = random_fetch(rng, machine)
        if not stalled:  # always something to give
            fetch |= {"long": 1, "long_words": 7}
        jobs.append({"attend": attend, "fetch": fetch})
        if attend:
            requests = [random_request(rng, machine) for _ in range(int(rng.integers(1, 6)))]
            others += [{"request": request, "ends": int(n == len(requests) - 1)} for n, request in enumerate(requests)]
            expected += requests
        else:
            expected += requests_of(machine, fetch)
    stalls = stalls_of(rng, units, "requests") if stalled else {}
    result = run(units, "requests", {"i_jobs": columns(jobs), "i": columns(others)}, len(expected), stalls=stalls)
    assert_items(result.results["o"], columns(expected))
    if not stalled:
        np.testing.assert_array_equal(result.cycles["o"], 1 + np.arange(len(expected)))


def random_operator(rng, machine):
    return random_fields(rng, operator(machine.config), format=int(rng.integers(0, 3)))


def random_turns(rng, machine, n):
    """Jobs, what attention gives for them, and the operators, routes and marks of values that come of it."""
    config = machine.config
    jobs, others, operators, routes, reads = [], [], [], [], []
    for _ in range(n):
        attend, load = rng.integers(0, 2, 2).tolist()
        multiply = random_fields(
            rng,
            multiply_job(machine),
            address=int(rng.integers(0, config.buffer_words)),
            inputs=int(rng.integers(1, config.buffer_inputs + 1)),
            format=int(rng.integers(0, 3)),
        )
        jobs.append({"attend": attend, "load": load, "multiply": multiply})
        if not attend:
            names = ("address", "inputs", "channel_tiles", "format", "wait", "more_sets")
            own = {name: multiply[name] for name in names}
            operators.append(own | {"first_group": 0, "n_groups": config.groups, "whole": 0})
            routes.append({"attend": 0, "tiles": multiply["channel_tiles"]})
            reads.append(0)
            continue
        count = int(rng.integers(1, 6))
        for k in range(count):
            own = random_operator(rng, machine)
            others.append({"operator": own, "ends": int(k == count - 1)})
            operators.append(own | {"wait": own["wait"] | (load and k == 0)})
            routes.append({"attend": 1, "tiles": own["channel_tiles"]})
            reads.append(own["wait"])
    return jobs, others, operators, routes, reads


@MACHINES
@STALLED
def test_operator_share(sizes, stalled):
    """The first of an attend that needs a load waits for it, and does not count as one of values for that."""
    machine, units = bundle(**sizes)
    rng = generator([502, stalled])
    jobs, others, operators, routes, reads = random_turns(rng, machine, 60)
    stalls = stalls_of(rng, units, "operators") if stalled else {}
    stalls.pop("o_read", None)  # a pulse
    inputs = {"i_jobs": columns(jobs), "i": columns(others), "i_done": np.zeros(len(operators), int)}
    result = run(units, "operators", inputs, len(operators), stalls=stalls)
    assert_items(result.results["o"], columns(operators))
    assert_items(result.results["o_routes"], columns(routes))
    np.testing.assert_array_equal(result.results["o_read"], reads)
    assert (result.cycles["o_routes"] > result.cycles["o"]).all()
    if not stalled:
        np.testing.assert_array_equal(result.cycles["o"], 1 + np.arange(len(operators)))


@pytest.mark.parametrize("what", ["o_routes", "i_done"])
def test_operators_that_are_not_through(what):
    """No more than there is room for are given: the next goes when results of the first have found their way."""
    machine, units = bundle()
    rng = generator(503)
    jobs, others, operators, routes, reads = random_turns(rng, machine, 30)
    inputs = {"i_jobs": columns(jobs), "i": columns(others), "i_done": np.zeros(len(operators), int)}
    result = run(units, "operators", inputs, len(operators), stalls={what: closed(300)})
    assert (result.cycles["o"] < 300).sum() == OPERATORS
    assert_items(result.results["o"], columns(operators))
    assert_items(result.results["o_routes"], columns(routes))
    np.testing.assert_array_equal(result.results["o_read"], reads)


@MACHINES
@STALLED
def test_result_share(sizes, stalled):
    """A beat is given in the cycle in which it is taken, and a route is taken with the operator's last beat."""
    machine, units = bundle(**sizes)
    config = machine.config
    rng = generator([504, stalled])
    routes = {"attend": rng.integers(0, 2, 40), "tiles": rng.integers(1, 5, 40)}
    routes["tiles"][7] = 40
    n_beats = routes["tiles"] * (config.tile_channels // config.vector_lanes)
    total = n_beats.sum()
    values = random_codes(rng, total * config.rows * config.vector_lanes)
    beats = {
        "values": values.reshape(total, config.rows, config.vector_lanes),
        "last": rng.integers(0, 2, total),  # of a pass: means nothing here
    }
    whose = np.repeat(routes["attend"], n_beats)
    stalls = stalls_of(rng, units, "results") if stalled else {}
    counts = {"o_vectors": int((whose == 0).sum()), "o_attention": int(whose.sum())}
    result = run(units, "results", {"i": beats, "i_routes": routes}, counts, stalls=stalls)
    for number, name in enumerate(("o_vectors", "o_attention")):
        its = whose == number
        assert_items(result.results[name], {field: items[its] for field, items in beats.items()})
        np.testing.assert_array_equal(result.cycles[name], result.cycles["i"][its])
    np.testing.assert_array_equal(result.cycles["i_routes"], result.cycles["i"][n_beats.cumsum() - 1])
    if not stalled:
        np.testing.assert_array_equal(result.cycles["i"], np.arange(total))
