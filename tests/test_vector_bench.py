"""Figures of the vector unit: rates, and its share of a layer."""

from types import SimpleNamespace

import pytest

from edgeaccel.bench import vector as bench
from edgeaccel.config import preset


@pytest.fixture(scope="module")
def config():
    return preset("vcu128")


def test_every_operator_works_at_line_rate():
    for name, (rate, latency) in bench.rates(8, 256).items():
        assert rate == 8, name
        assert latency > 0, name
    # Where the last beat is not full, it counts as a cycle all the same.
    assert bench.rates(8, 252)["add"][0] == pytest.approx(8 * 252 / 256)


@pytest.mark.parametrize(("name", "n_weights"), [("llama2-7b", 202_375_168), ("qwen2-7b", 233_046_016)])
def test_weight_stream(config, name, n_weights):
    """INT4 costs 4.125 bits a weight; the ports give 460.8 GB/s, the array runs at 250 MHz."""
    layer = bench.MODELS[name]
    assert sum(outputs * inputs for phase in layer.matrices.values() for outputs, inputs in phase) == n_weights
    assert bench.weight_cycles(layer, config) == pytest.approx(n_weights * 4.125 / 8 / 460.8e9 * 250e6)


@pytest.mark.parametrize("name", bench.MODELS)
def test_vector_unit_hides_behind_the_weights(config, name):
    cycles = bench.layer_cycles(bench.MODELS[name], config)
    assert sum(cycles.values()) < 0.25 * bench.weight_cycles(bench.MODELS[name], config)
    # No phase is shorter than what goes through it: here the gate and up results.
    assert cycles["gate_up"] > 2 * bench.MODELS[name].inner / 8


def test_records_and_plot(monkeypatch):
    from matplotlib.figure import Figure

    def synthesise(text, top):
        assert text.startswith("\nmodule dut")
        return SimpleNamespace(luts=800, ff=1, dsp=2, levels=3)

    monkeypatch.setattr(bench, "synthesise", synthesise)
    monkeypatch.setattr(bench, "emit", lambda unit, name: f"\nmodule {name}")
    progress = SimpleNamespace(add_task=lambda *_, **__: 0, advance=lambda _: None)
    records = {record.name: record for record in bench.measure(progress)}
    for name in bench.MODELS:
        assert 0 < records[f"vector.{name}.stream_share"].value < 0.25
    assert records["vector.softmax.lut_per_lane"].value == 400
    axes = Figure().subplots()
    bench.plot(list(records.values()), axes)
    assert len(axes.patches) == 5 * len(bench.MODELS)
