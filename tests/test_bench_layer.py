"""Layers and whole tokens on whole machines: a small model on `tiny`; a byte that is not the golden one is found."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from edgeaccel.bench import layer, whole
from edgeaccel.bench.layer import Case, fill_cache, random_image
from edgeaccel.bench.token import LARGE
from edgeaccel.checkpoint import Rope
from edgeaccel.machine import machine
from edgeaccel.perf.shapes import SHAPES
from edgeaccel.runtime.golden import GoldenDevice
from edgeaccel.runtime.rtl import RtlDevice
from edgeaccel.sim.memory import IDEAL

TINY = machine("tiny")
SMALL = replace(LARGE, dim=96, hidden_dim=160, n_heads=6, n_kv_heads=2, head_dim=16, rope=Rope(rotated=16))
DECODE = Case(preset="tiny", shape="small", weights="int4", memory="ideal", rows=2, context=40, vocabulary=80)
PREFILL = replace(DECODE, context=0, prompt=12, weights="int8")
POLL = 128  # cycles from a start or an end of a batch to the mark, at most

run = partial(layer.run, checks=True, data_bytes=1 << 24)  # the build of the other tests of this machine


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(SHAPES, "small", SMALL)


def exact(case):
    """Last cycles of the batches of a case, and the image, by the exact cycle model."""
    shape = replace(SMALL, n_layers=case.n_layers, vocab_size=case.vocabulary)
    image = random_image(shape, TINY, weights=case.weights, positions=max(case.context, case.prompt) + 1)
    golden = GoldenDevice(TINY, timing=IDEAL.with_width(TINY.config.port_data_width))
    golden.load(image)
    prompt = case.prompt or case.first + 1
    golden.write_tokens(0, np.random.default_rng(7).integers(0, case.vocabulary, prompt).tolist())
    fill_cache(image, [golden], case.first)
    golden.run(case.first, prompt, case.prompt or case.context)
    return [cycle for cycle, _, _ in golden.exact.batches]


def test_decode():
    """The second of two tokens is what is measured."""
    result, ends = run(DECODE), exact(DECODE)
    assert len(ends) == 2
    assert abs(result.cycles - (ends[1] - ends[0])) <= POLL
    assert 0.2 < result.busy_share < result.beat_share < 1  # words of scales, and of keys and values, are beats too
    assert abs(result.model_error) < 0.05


def test_prefill():
    """All batches are measured, from the start on."""
    result, ends = run(PREFILL), exact(PREFILL)
    assert len(ends) == PREFILL.prompt // TINY.config.rows
    assert abs(result.cycles - ends[-1]) <= POLL
    assert 0.2 < result.busy_share < result.beat_share < 1


@pytest.mark.parametrize("place", ["cache", "logits"])
def test_one_wrong_bit(monkeypatch, place):
    def settle(device):
        settled(device)
        image = device._image
        begin = image.manifest["logits"] if place == "logits" else image.manifest["regions"]["layers.0.cache"][0]
        device.memory[begin + 3] ^= 1

    settled = RtlDevice.settle
    monkeypatch.setattr(RtlDevice, "settle", settle)
    with pytest.raises(RuntimeError, match=f"the Verilog is not the golden machine: .*{place}"):
        run(DECODE)


def test_whole_token(monkeypatch):
    """All layers and the classifier, as often as the case says."""
    case = replace(DECODE, follows=False, n_layers=3)
    told = []
    progress = SimpleNamespace(
        add_task=lambda *_, **__: 0, advance=lambda _: None, update=lambda _, description: told.append(description)
    )
    monkeypatch.setattr(whole, "CASE", case)
    monkeypatch.setattr(whole, "run", run)
    records = {record.name: record for record in whole.measure(progress)}
    assert records.keys() == {f"whole.llama2-7b.{name}" for name in ("beat_share", "model_error", "cycles", "minutes")}
    (end,) = exact(case)
    assert abs(records["whole.llama2-7b.cycles"].value - end) <= POLL
    assert records["whole.llama2-7b.minutes"].kind == "measured"
    assert "simulating" in told
