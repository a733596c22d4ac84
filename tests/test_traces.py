"""Timelines and waveforms of a whole machine, as `python -m edgeaccel.run` writes them."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from test_mxfp4 import MACHINE
from test_reference import random_checkpoint
from test_run import PIECES, SHAPE

from edgeaccel.checkpoint.tokenizer import Tokenizer
from edgeaccel.compiler import compile_model
from edgeaccel.run import main

pytestmark = pytest.mark.slow  # builds of their own


@pytest.fixture
def run(tmp_path, capsys):
    checkpoint = random_checkpoint(SHAPE, np.random.default_rng(4))
    image = compile_model(checkpoint, MACHINE, tokenizer=Tokenizer(PIECES, [0.0] * len(PIECES)))
    image.save(tmp_path / "x.image")

    def run(*arguments):
        """(record, standard error)"""
        always = ("--image", tmp_path / "x.image", "--prompt", "ab", "--tokens", 2, "--json", tmp_path / "x.json")
        assert main([*map(str, (*always, *arguments))]) == 0
        return json.loads((tmp_path / "x.json").read_text()), capsys.readouterr().err

    return run


def test_timeline(run, tmp_path):
    """Every span has a name, its cycles, and its time in microseconds; those of a unit follow each other."""
    record, _ = run("--check", "--trace", tmp_path / "t.json")
    document = json.loads((tmp_path / "t.json").read_text())
    assert document["displayTimeUnit"] == "ns"
    names = {e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert {"running", "array", "words 0", "m_axi_0 reads", "m_axi_data reads"} <= {*names.values()}
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == {0}
    mhz = MACHINE.config.core_mhz
    for thread, name in names.items():
        own = [event for event in spans if event["tid"] == thread]
        assert {event["name"] for event in own} <= {name}
        places = [(event["args"]["cycle"], event["args"]["cycle"] + event["args"]["cycles"]) for event in own]
        assert all(begin < end for begin, end in places)
        assert all(before[1] <= after[0] for before, after in pairwise(places))
        assert [event["ts"] for event in own] == [begin / mhz for begin, _ in places]
        assert [event["dur"] for event in own] == pytest.approx([(end - begin) / mhz for begin, end in places])
        assert not places or places[-1][1] <= record["cycles"] + 100
        if name == "running":
            assert sum(end - begin for begin, end in places) == pytest.approx(record["cycles"], rel=0.02)
        if name == "array":
            assert len(places) > 50


def test_waveform(run, tmp_path):
    path = tmp_path / "x.vcd"
    _, said = run("--vcd", path, "--vcd-from", 3000, "--vcd-cycles", 200)
    assert "no waveform" not in said
    assert path.stat().st_size < 1 << 26
    text = path.read_text()
    assert re.search(r"\$timescale\s+1ps", text)
    for signal in ("m_axi_0_araddr", "m_axi_data_rdata", "s_axil_awvalid", "irq"):
        assert re.search(rf"\$var wire +\d+ \S+ {signal} ", text), signal
    times = [int(line[1:]) for line in text.splitlines() if line.startswith("#")]
    assert times == sorted(times)
    period = 1e6 / MACHINE.config.core_mhz  # in ps, which the files count
    assert 3000 * period - 1 <= times[0] <= times[-1] < 3200 * period
    assert len(times) > 300
    _, said = run("--vcd", path, "--vcd-from", 10**9)
    assert "no waveform: all was over after" in said
    assert not path.exists()
