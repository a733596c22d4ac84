"""Units of an attend, their passes and what everyone is told of them, against the golden order."""

import functools
import re

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from edgeaccel.attention.command import AttentionErrorCode
from edgeaccel.attention.passes import PassIssue
from edgeaccel.attention.table import PageTable
from edgeaccel.attention.walk import UnitWalk
from edgeaccel.cache import CacheLayout
from edgeaccel.config import preset
from edgeaccel.golden import units as golden
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory.command import Widths
from edgeaccel.sim.bench import random_stalls
from edgeaccel.sim.system import run

STREAMS = ("operators", "requests", "routes", "scores", "scales", "values")
CODES = {"int4": 0, "int8": 1, "int16": 2}


class Passes(wiring.Component):
    """Page table, walk and passes; values count as read when their operator is taken."""

    def __init__(self, config, *, slots=8, lookahead=3, entries=64, ring=512):
        self.table = PageTable(entries=entries, readers=1)
        self.walk = UnitWalk(config, slots=slots, entries=entries, end=ring)
        widths = Widths(
            address=64, beat=config.port_data_width, word=16 * config.vector_lanes, beats_per_burst=16, n_events=1
        )
        self.passes = PassIssue(config, slots=slots, lookahead=lookahead, ring=ring, scale_commands=widths.commands)
        outputs = {f"o_{name}": self.passes.signature.members[f"o_{name}"] for name in STREAMS}
        inputs = {"i": self.walk.signature.members["i"], "i_pages": self.table.signature.members["i"]}
        plain = {name: self.walk.signature.members[name] for name in ("appended", "failed", "code", "command")}
        super().__init__(inputs | outputs | plain | {"in_flight": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.table, m.submodules.walk, m.submodules.passes = self.table, self.walk, self.passes
        walk, passes, table = self.walk, self.passes, self.table
        wiring.connect(m, wiring.flipped(self.i), walk.i)
        wiring.connect(m, wiring.flipped(self.i_pages), table.i)
        wiring.connect(m, walk.o, passes.i)
        wiring.connect(m, walk.lookup, table.lookups[0])
        for name in STREAMS:
            wiring.connect(m, getattr(passes, f"o_{name}"), wiring.flipped(getattr(self, f"o_{name}")))
        operators = passes.o_operators
        m.d.comb += [
            passes.more.eq(walk.more),
            walk.in_flight.eq(passes.in_flight),
            walk.appended.eq(self.appended),
            passes.read.eq(operators.valid & operators.ready & operators.p.wait),
            *(getattr(self, name).eq(getattr(walk, name)) for name in ("failed", "code", "command")),
            self.in_flight.eq(passes.in_flight),
        ]
        return m


passes_of = functools.cache(Passes)  # whose Verilog is emitted once


def fields(command, view, **changes):
    """A command of the engine, as `encode` takes it."""
    own = {name: getattr(command, name) for name in vars(command)}
    cache = view | {"format": CODES[view["format"]]}
    return own | {"cache": cache} | changes


def rows_of(items):
    """Dicts, nested perhaps, as a dict of arrays."""
    first = items[0]
    return {
        name: rows_of([item[name] for item in items])
        if isinstance(first[name], dict)
        else np.array([item[name] for item in items])
        for name in first
    }


def pages_of(pages, table):
    n = np.arange(len(pages))
    return {"index": table + n, "page": np.array(pages), "valid": np.ones(len(pages), int)}


CASES = [
    # preset, heads, head_dim, format, window, causal, rows, count, batches
    ("tiny", 1, 8, "int16", 0, False, 1, 1, 1),
    ("tiny", 4, 8, "int16", 0, False, 2, 33, 2),
    ("tiny", 3, 64, "int8", 0, True, 2, 127, 1),
    ("tiny", 2, 10, "int4", 40, True, 2, 200, 2),
    ("vcu128", 8, 128, "int16", 0, True, 4, 1000, 1),
    ("vcu128", 2, 64, "int8", 300, False, 4, 1025, 4),
    ("vcu128", 3, 256, "int4", 0, False, 1, 129, 2),
    ("vcu128", 5, 80, "int16", 0, True, 3, 384, 1),
    ("vu9p", 2, 32, "int16", 0, False, 1, 700, 1),
]


def check_order(rng, config, layout, command, *, table, pages, n_pages, stalled):
    """What everyone is told of a command is what the golden order says; gives the run."""
    view = layout.view(table=table, pages=len(pages), n_pages=n_pages, base=1000, scales=1 << 16)
    component = passes_of(config)
    every = golden.units(config, layout, command, pages)
    expected = golden.passes(config, layout, every, lookahead=3, ring=512, view=view, factor=command.factor)
    stalls = random_stalls(rng, component, 20_000) if stalled else {}
    # The table must be written before the command comes.
    stalls["i"] = np.arange(100) > 80
    stalls.pop("i_pages", None)
    result = run(
        component,
        streams={"i": rows_of([fields(command, view)]), "i_pages": pages_of(pages, table)},
        n_results={f"o_{stream}": len(items) for stream, items in expected.items()},
        until=("in_flight", 0),
        stalls=stalls,
    )
    assert result.outputs["failed"] == 0
    for stream, items in expected.items():
        given = result.results[f"o_{stream}"]
        for field, values in rows_of(items).items():
            np.testing.assert_array_equal(given[field], values, err_msg=f"{stream}.{field}")
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
@pytest.mark.parametrize("stalled", [False, True])
def test_order(case, stalled):
    name, heads, head_dim, format, window, causal, rows, count, batches = case
    config = preset(name)
    rng = np.random.default_rng(seed := sum(map(ord, str(case))))
    print("seed", seed)
    layout = CacheLayout(config=config, heads=heads, head_dim=head_dim, format=format)
    n_pages = -(-(count + rows) // layout.page_positions)
    first_head = int(rng.integers(0, heads)) if heads * batches > 8 else 0
    command = golden.Attend(
        n_heads=min(heads - first_head, 8 // batches),
        first_head=first_head,
        count=count,
        factor=0x3F800000,
        address=3,
        stride=-(-head_dim // config.vector_lanes),
        batches=batches,
        causal=causal,
        rows=rows,
        window=window,
    )
    pages = rng.permutation(n_pages + 3)[:n_pages].tolist()
    table = int(rng.integers(0, 64 - n_pages))
    place = {"table": table, "pages": pages, "n_pages": n_pages + 3}
    result = check_order(rng, config, layout, command, stalled=stalled, **place)
    if not stalled and batches == 1:
        # Two requests for the keys of a unit take a cycle more than the walk.
        cycles = result.cycles["o_scores"]
        assert len(cycles) < 3 or np.diff(cycles).max() <= 9 + 12


@pytest.mark.parametrize("count", [32_768, 300_000, (1 << 19) - 1])
def test_far_positions(count):
    """The end of long sequences, through a window."""
    config = preset("tiny")
    rng = np.random.default_rng(count)
    layout = CacheLayout(config=config, heads=2, head_dim=8, page_bits=8)
    pages = rng.permutation(64)[: -(-count // layout.page_positions)].tolist()
    command = golden.Attend(n_heads=2, count=count, factor=0, stride=2, window=100)
    check_order(rng, config, layout, command, table=0, pages=pages, n_pages=64, stalled=False)


class Walk(wiring.Component):
    """Page table and walk."""

    def __init__(self, config):
        self.table = PageTable(entries=64, readers=1)
        self.walk = UnitWalk(config, slots=8, entries=64, end=512)
        inputs = {"i": self.walk.signature.members["i"], "i_pages": self.table.signature.members["i"]}
        super().__init__(inputs | {"o": self.walk.signature.members["o"]})

    def elaborate(self, platform):
        m = Module()
        m.submodules.table, m.submodules.walk = self.table, self.walk
        wiring.connect(m, wiring.flipped(self.i), self.walk.i)
        wiring.connect(m, wiring.flipped(self.i_pages), self.table.i)
        wiring.connect(m, self.walk.o, wiring.flipped(self.o))
        wiring.connect(m, self.walk.lookup, self.table.lookups[0])
        return m


@pytest.mark.parametrize("seed", range(3))
def test_cycles_of_the_walk(seed):
    """Commands behind each other: every unit in its cycle, with and without stalls."""
    print("seed", seed)
    rng = np.random.default_rng(seed)
    config = preset("tiny")
    layout = CacheLayout(config=config, heads=3, head_dim=8, page_bits=1)
    pages = rng.permutation(8).tolist()
    view = layout.view(pages=8, n_pages=8)
    commands = [
        golden.Attend(
            n_heads=int(rng.integers(1, 4)),
            batches=int(rng.integers(1, 3)),
            count=int(rng.integers(1, 500)),
            factor=0,
            stride=2,
            window=int(rng.choice([0, 50])),
        )
        for _ in range(6)
    ]
    every = [list(golden.units(config, layout, command, pages)) for command in commands]
    walk = Walk(config)
    stalls = random_stalls(rng, walk, 3000) if seed else {}
    stalls.pop("i_pages", None)
    stalls["i"] = np.concatenate([np.zeros(20, bool), stalls.get("i", np.ones(1, bool))])
    result = run(
        walk,
        streams={"i": rows_of([fields(command, view) for command in commands]), "i_pages": pages_of(pages, 0)},
        n_results=sum(map(len, every)),
        stalls=stalls,
    )
    took, taken = golden.unit_cycles(every, Pattern(stalls["i"]), Pattern(stalls.get("o", ())))
    np.testing.assert_array_equal(result.cycles["i"], took)
    np.testing.assert_array_equal(result.cycles["o"], taken)
    np.testing.assert_array_equal(result.results["o"]["slot"], [unit.slot for units in every for unit in units])


VIEW = {"pages": 2, "n_pages": 4}
REFUSALS = [
    ("SHAPE", {"count": 0}, {}),
    ("SHAPE", {"n_heads": 0}, {}),
    ("SHAPE", {"first_head": 2}, {}),
    ("SHAPE", {"batches": 5}, {}),
    ("SHAPE", {"rows": 0}, {}),
    ("SHAPE", {"rows": 3}, {}),
    ("SHAPE", {"address": 511}, {}),
    ("SHAPE", {"address": 500, "stride": 12}, {}),
    ("SHAPE", {"count": (1 << 20) - 1, "causal": True, "rows": 2}, {}),
    ("SHAPE", {}, {"inputs": 0}),
    ("SHAPE", {}, {"inputs": 7}),
    ("SHAPE", {}, {"inputs": 258}),
    ("SHAPE", {}, {"format": 3}),
    ("POSITION", {"count": 65}, {}),
    ("POSITION", {"count": 64, "causal": True, "rows": 2}, {}),
    ("POSITION", {}, {"table": 63, "pages": 5}),
    ("PAGE", {}, {"table": 20}),
    ("PAGE", {"count": 33}, {"n_pages": 2}),
]


@pytest.mark.parametrize(("code", "changes", "view_changes"), REFUSALS)
def test_refusals(code, changes, view_changes):
    """The second of three commands cannot be done: the first is, nothing of the others."""
    config = preset("tiny")
    layout = CacheLayout(config=config, heads=2, head_dim=8, format="int16", page_bits=0)
    good = golden.Attend(n_heads=2, count=33, factor=0, stride=2, rows=2)
    view = layout.view(**VIEW)
    bad_view = view | {"table": 0} | view_changes
    if code == "POSITION" and "table" in view_changes:
        changes = {"count": 65}
    bad = fields(golden.Attend(**(vars(good) | changes)), view)
    bad["cache"] = bad["cache"] | {name: value for name, value in bad_view.items() if name != "format"}
    bad["cache"] |= {"format": view_changes.get("format", 2)}
    result = run(
        passes_of(config),
        streams={"i": rows_of([fields(good, view), bad]), "i_pages": pages_of([1, 3], 0)},
        n_results={"o_operators": 8, "o_requests": 10, "o_routes": 8, "o_scores": 4, "o_scales": 4, "o_values": 4}
        if not (code == "PAGE" and "n_pages" in view_changes)
        else {"o_operators": 12, "o_requests": 16, "o_routes": 12, "o_scores": 6, "o_scales": 6, "o_values": 6},
        until=("failed", 1),
        stalls={"i": np.arange(100) > 80},
    )
    assert AttentionErrorCode(result.outputs["code"]).name == code
    assert result.outputs["command"] == 1


def test_too_many_events():
    """Appends that no command waits for: one more than can be counted."""
    for n, failed in ((255, 0), (256, 1)):
        result = run(
            passes_of(preset("tiny")),
            inputs={"appended": {0: 0, 10: 1, 10 + n: 0}},
            streams={"i_pages": pages_of([0], 0)},
            stalls={"i_pages": np.arange(500) > 400},
            until=("failed", failed),
        )
        code = AttentionErrorCode(result.outputs["code"])
        assert not failed or code is AttentionErrorCode.EVENT_OVERFLOW


def test_layout_refusals():
    config = preset("tiny")
    good = {"config": config, "heads": 2, "head_dim": 8}
    for changes, message in (
        ({"head_dim": 7}, "head_dim must be even and 2 to 256, not 7"),
        ({"head_dim": 258}, "head_dim must be even and 2 to 256, not 258"),
        ({"heads": 0}, "heads of keys and values must be 1 to 256, not 0"),
        ({"format": "mxfp4"}, "the cache's format must be one of int16, int8, int4, not 'mxfp4'"),
        ({"config": preset("vcu128"), "heads": 3, "page_bits": 1}, "page_bits must be 3 to 8"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            CacheLayout(**(good | changes))


def test_programs_are_checked():
    layout = CacheLayout(config=preset("tiny"), heads=4, head_dim=8, page_bits=1)
    layout.check_attend(first_head=1, n_heads=3, batches=2, last_position=127, pages=2, slots=6)
    layout.check_append(position=126, rows=2, pages=2)
    for check, message in (
        (
            lambda: layout.check_attend(first_head=2, n_heads=3, last_position=1, pages=1, slots=8),
            "heads 2 to 4 must be",
        ),
        (lambda: layout.check_attend(n_heads=4, batches=3, last_position=1, pages=1, slots=8), "4 heads x 3 batches"),
        (
            lambda: layout.check_attend(n_heads=4, last_position=128, pages=2, slots=8),
            "position 128 is past the 2 pages",
        ),
        (lambda: layout.check_append(position=128, rows=1, pages=2), "position 128 is past the 2 pages of 64"),
        (lambda: layout.check_append(position=1, rows=2, pages=2), "2 positions from 1 on must be at most 2"),
        (lambda: layout.check_append(position=0, rows=3, pages=2), "3 positions from 0 on"),
    ):
        with pytest.raises(ValueError, match=message):
            check()
