"""Vectors on the chip: the vector memory between results and operands, and the tables of rotations, under stalls."""

from functools import cache

import numpy as np
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In
from test_soc_share import MACHINES, STALLED, Bundle, assert_items, closed, columns, run, small_machine, stalls_of

from edgeaccel.sim.vectors import generator, random_codes
from edgeaccel.soc.vectors import BEATS, RotaryTable, VectorMemory, vector_write


class PathAndMemory(wiring.Component):
    """`VectorMemory` as it is used: a result comes once the operands are taken that it is made of.

    `needs` of a result are the operands, counted from the beginning, in 16 bits.
    """

    def __init__(self, machine):
        self._memory = VectorMemory(machine)
        members = dict(self._memory.signature.members)
        write = data.StructLayout({"write": vector_write(machine), "needs": 16})
        super().__init__(members | {"i_results": In(stream.Signature(write))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        for name in ("i_parameters", "i_jobs"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(memory, name))
        taken = Signal(16)
        outs = []
        for name in ("o_factors", "o_residual"):
            o = getattr(self, name)
            wiring.connect(m, getattr(memory, name), wiring.flipped(o))
            outs.append(o.valid & o.ready)
        m.d.sync += taken.eq(taken + outs[0] + outs[1])
        m.d.comb += [
            memory.i_results.p.eq(self.i_results.p.write),
            memory.i_results.valid.eq(self.i_results.valid & (taken >= self.i_results.p.needs)),
            self.i_results.ready.eq(memory.i_results.ready & (taken >= self.i_results.p.needs)),
        ]
        return m


class LoadsAndTable(wiring.Component):
    """`RotaryTable` as it is used: no load while a table is read, and no reading before the loads are done.

    `needs` of a load are the beats that were given, those of a job the loads, counted from the beginning in 16 bits.
    """

    def __init__(self, machine):
        self._table = RotaryTable(machine)
        loads, jobs = self._table.i_loads.p.shape(), self._table.i_jobs.p.shape()
        super().__init__(
            {
                "i_loads": In(stream.Signature(data.StructLayout({"load": loads, "needs": 16}))),
                "i_jobs": In(stream.Signature(data.StructLayout({"job": jobs, "needs": 16}))),
                "o": self._table.signature.members["o"],
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.table = table = self._table
        wiring.connect(m, table.o, wiring.flipped(self.o))
        given, loaded = Signal(16), Signal(16)
        m.d.sync += given.eq(given + (self.o.valid & self.o.ready))
        m.d.sync += loaded.eq(loaded + (self.i_loads.valid & self.i_loads.ready))
        for name, field, count in (("i_loads", "load", given), ("i_jobs", "job", loaded)):
            own, inner = getattr(self, name), getattr(table, name)
            m.d.comb += [
                inner.p.eq(own.p[field]),
                inner.valid.eq(own.valid & (count >= own.p.needs)),
                own.ready.eq(inner.ready & (count >= own.p.needs)),
            ]
        return m


@cache
def bundle(**sizes):
    machine = small_machine(**sizes)
    return machine, Bundle({"memory": PathAndMemory(machine), "table": LoadsAndTable(machine)})


class Instructions:
    """Of some instructions in a row: operand jobs, results, and what the memory gives, in NumPy.

    An instruction reads, writes, or does both; then it writes where it has read, or where it has not.
    """

    def __init__(self, rng, machine, content, n, *, one_kind=None):
        self.content, self.lanes = content, machine.config.vector_lanes
        self.jobs, self.results, self.operands, self.of_factors, self.whose = [], [], [], [], []
        self.writes = 0
        for _ in range(n):
            kind = one_kind or str(rng.choice(["read", "write", "in place", "elsewhere"]))
            self._add(rng, len(content), kind)

    def _places(self, rng, words):
        """Words of vectors: side by side, with gaps between them, or all the same."""
        vectors, beats = int(rng.integers(1, 5)), int(rng.integers(1, 5))
        address, stride = int(rng.integers(0, words)), int(rng.choice([0, beats, rng.integers(0, words)]))
        places = [(address + vector * stride + beat) % words for vector in range(vectors) for beat in range(beats)]
        return {"address": address, "stride": stride, "vectors": vectors, "beats": beats}, places

    def _add(self, rng, words, kind):
        job, places = self._places(rng, words)
        reads, writes = kind != "write", kind != "read"
        if kind == "in place":
            while len(set(places)) < len(places):  # a word that is written is not read any more
                job, places = self._places(rng, words)
        if kind == "elsewhere":
            while len(set(places)) == words:
                job, places = self._places(rng, words)
            free = [word for word in range(words) if word not in places]
            targets = rng.choice(free, len(places)).tolist()
        else:
            targets = places if reads else [place for place in places for _ in range(2)]
        if reads:
            factors = int(rng.integers(0, 2))
            self.jobs.append(job | {"factors": factors, "writes": self.writes % 256})
        for n, place in enumerate(places if reads else []):
            self.operands.append(self.content[place].copy())
            self.of_factors.append(factors)
            self.whose.append(len(self.jobs) - 1)
            if writes:
                self._write(rng, targets[n], n == len(targets) - 1)
        for n, target in enumerate(targets if writes and not reads else []):
            self._write(rng, target, n == len(targets) - 1)
        self.writes += writes

    def _write(self, rng, place, is_last):
        elements = random_codes(rng, self.content[place].size).reshape(self.content[place].shape)
        self.content[place] = elements
        write = {"address": place, "elements": elements, "last": int(is_last)}
        self.results.append({"write": write, "needs": len(self.operands)})

    def check(self, result):
        of_factors = np.array(self.of_factors) != 0
        operands = np.array(self.operands)
        for name, its in (("o_factors", of_factors), ("o_residual", ~of_factors)):
            np.testing.assert_array_equal(result.results[name], operands[its])
        self.cycles = np.zeros(len(operands), int)
        self.cycles[of_factors], self.cycles[~of_factors] = result.cycles["o_factors"], result.cycles["o_residual"]
        assert (np.diff(self.cycles) > 0).all()  # in the order of the program

    @property
    def counts(self):
        return {"o_factors": sum(self.of_factors), "o_residual": len(self.of_factors) - sum(self.of_factors)}


def random_parameters(rng, machine):
    """Loads that fill the memory, of all rows at once or of some, and the content that they leave."""
    rows, lanes, words = machine.config.rows, machine.config.vector_lanes, machine.vector_words
    content = np.zeros((words, rows, lanes), np.int64)
    loads = []
    for mask in ((1 << rows) - 1, *rng.integers(0, 1 << rows, 3).tolist()):
        for word in rng.permutation(words).tolist():
            elements = random_codes(rng, lanes)
            loads.append({"address": word, "elements": elements, "rows": mask})
            content[word, np.arange(rows)[mask >> np.arange(rows) & 1 == 1]] = elements
    return loads, content


@MACHINES
@STALLED
def test_memory(sizes, stalled):
    """Operands are what the instructions before have written, whenever they are asked for."""
    machine, units = bundle(**sizes)
    rng = generator([540, stalled])
    loads, content = random_parameters(rng, machine)
    instructions = Instructions(rng, machine, content, 300)  # more writes than are counted
    assert instructions.writes > 200
    later = closed(2 * len(loads))
    stalls = {"i_results": later, "i_jobs": later}
    if stalled:
        patterns = stalls_of(rng, units, "memory", 5000)
        stalls = patterns | {name: np.append(later, patterns[name]) for name in stalls}
    inputs = {
        "i_parameters": columns(loads),
        "i_jobs": columns(instructions.jobs),
        "i_results": columns(instructions.results),
    }
    result = run(units, "memory", inputs, instructions.counts, stalls=stalls)
    assert result.cycles["i_parameters"][-1] < len(later)
    instructions.check(result)
    if not stalled:
        # A beat each cycle within a job.
        whose = np.array(instructions.whose)
        np.testing.assert_array_equal(np.diff(instructions.cycles)[np.diff(whose) == 0], 1)


def test_memory_behind_many_writes():
    """The count of instructions goes round."""
    machine, units = bundle()
    rng = generator(541)
    content = np.zeros((machine.vector_words, 3, 2), np.int64)
    first = Instructions(rng, machine, content, 32, one_kind="write")
    places = {result["write"]["address"] for result in first.results}
    assert len(places) == machine.vector_words
    for kind, n in (("in place", 4), ("write", 250), ("read", 3), ("in place", 8)):
        for _ in range(n):
            first._add(rng, machine.vector_words, kind)
    assert first.writes > 256
    result = run(units, "memory", {"i_jobs": columns(first.jobs), "i_results": columns(first.results)}, first.counts)
    first.check(result)


def test_results_go_before_parameters():
    """In the same cycle: the result is written at once, the parameter in the next without one. Neither is lost."""
    machine, units = bundle()
    rng = generator(542)
    words, lanes = machine.vector_words, machine.config.vector_lanes
    half = words // 2
    loads = [{"address": word, "elements": random_codes(rng, lanes), "rows": 7} for word in range(half)]
    elements = random_codes(rng, half * 3 * lanes).reshape(half, 3, lanes)
    results = [
        {"write": {"address": half + n, "elements": elements[n], "last": int(n == half - 1)}, "needs": 0}
        for n in range(half)
    ]
    jobs = [{"address": 0, "stride": 0, "vectors": 1, "beats": words, "factors": 1, "writes": 1}]
    offered = rng.random(400) < 0.5
    offered[[0, 1]] = False, True
    inputs = {"i_parameters": columns(loads), "i_results": columns(results), "i_jobs": columns(jobs)}
    stalls = {"i_results": offered, "i_jobs": closed(300)}
    result = run(units, "memory", inputs, {"o_factors": words, "o_residual": 0}, stalls=stalls)
    written, loaded = result.cycles["i_results"], result.cycles["i_parameters"]
    np.testing.assert_array_equal(written, np.nonzero(offered)[0][:half])
    np.testing.assert_array_equal(loaded, np.setdiff1d(np.arange(400), written)[:half])
    expected = np.concatenate([np.repeat([[load["elements"]] for load in loads], 3, axis=1), elements])
    np.testing.assert_array_equal(result.results["o_factors"], expected)


def test_operands_in_advance():
    """Operands that are not taken wait in a queue, and the other kind behind them."""
    machine, units = bundle()
    rng = generator(543)
    loads, content = random_parameters(rng, machine)
    jobs = [
        {"address": 3, "stride": 0, "vectors": 1, "beats": 5, "factors": factors, "writes": 0} for factors in (1, 0)
    ]
    inputs = {"i_parameters": columns(loads), "i_jobs": columns(jobs)}
    stalls = {"i_jobs": closed(200), "o_factors": closed(300)}
    result = run(units, "memory", inputs, 5, stalls=stalls)
    for name in ("o_factors", "o_residual"):
        np.testing.assert_array_equal(result.results[name], content[3:8])
    np.testing.assert_array_equal(result.cycles["o_factors"], np.arange(300, 305))
    assert result.cycles["o_residual"][0] > 304
    assert BEATS == 4  # so one of the five was not asked for before


def random_tables(rng, machine):
    """Loads of all beats, for all rows at once or for some, and the table [cos or sin, beat, row, lane] they leave."""
    rows, lanes, beats = machine.config.rows, machine.config.vector_lanes, machine.table_beats
    table = np.zeros((2, beats, rows, lanes), np.int64)
    loads = []
    for mask in ((1 << rows) - 1, *rng.integers(0, 1 << rows, 4).tolist()):
        for place in rng.permutation(2 * beats).tolist():
            is_sine, beat = divmod(place, beats)
            elements = random_codes(rng, lanes)
            loads.append({"beat": beat, "is_sine": is_sine, "elements": elements, "rows": mask})
            table[is_sine, beat, np.arange(rows)[mask >> np.arange(rows) & 1 == 1]] = elements
    return loads, table


@MACHINES
@STALLED
def test_table(sizes, stalled):
    """Given anew for each vector, a beat a cycle; new loads count for what is asked for behind them."""
    machine, units = bundle(**sizes)
    rng = generator([544, stalled])
    loads, jobs, expected, ends = [], [], [], []
    for _ in range(3):
        more, table = random_tables(rng, machine)
        loads += [{"load": load, "needs": len(expected)} for load in more]
        for _ in range(8):
            job = {"vectors": int(rng.integers(1, 5)), "beats": int(rng.integers(1, machine.table_beats + 1))}
            jobs.append({"job": job, "needs": len(loads)})
            expected += job["vectors"] * [table[:, beat] for beat in range(job["beats"])]
        ends.append(len(expected))
    stalls = stalls_of(rng, units, "table") if stalled else {}
    result = run(units, "table", {"i_loads": columns(loads), "i_jobs": columns(jobs)}, len(expected), stalls=stalls)
    expected = np.array(expected)
    assert_items(result.results["o"], {"cos": expected[:, 0], "sin": expected[:, 1]})
    if not stalled:
        for part in np.split(result.cycles["o"], ends[:-1]):
            np.testing.assert_array_equal(np.diff(part), 1)
        np.testing.assert_array_equal(result.cycles["i_loads"][: len(more)], np.arange(len(more)))
