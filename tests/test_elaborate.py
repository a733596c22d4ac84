"""The Verilog that users get: readable, deterministic, lint-clean; and the command that writes it."""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.component import public_components
from edgeaccel.config import preset
from edgeaccel.elaborate import build_machine, main, module_name
from edgeaccel.memory.command import Widths
from edgeaccel.pe import FP16, FP32, FloatConverter, GroupDatapath, IntToFloat, Scaler
from edgeaccel.soc.soc import SoC
from edgeaccel.verilated import lint
from edgeaccel.verilog import describe_ports, emit, stream_members

WIDTHS = {"address": 64, "beat": 128, "word": 128, "beats_per_burst": 16, "n_events": 1}
NEEDED = {
    "pe.FloatConverter": {"i_format": FP32, "o_format": FP16},
    "pe.IntToFloat": {"width": 39},
    "pe.Scaler": {"sum_width": 39},
    "pe.ScaledAccumulator": {"sum_width": 39},
    "attention.Attention": {"config": preset("tiny"), "slots": 4, "entries": 16},
    "attention.AttentionEngine": {"config": preset("tiny"), "slots": 4, "entries": 16},
    "attention.CacheWriter": {"config": preset("tiny"), "port_bytes": 1 << 16, "entries": 16},
    "attention.KVAppend": {"config": preset("tiny"), "port_bytes": 1 << 16},
    "attention.PageFinder": {"entries": 16, "block": 32},
    "attention.PageTable": {"entries": 16},
    "attention.ResultRouter": {"config": preset("tiny")},
    "attention.RowSerialiser": {"config": preset("tiny")},
    "attention.ScorePath": {"config": preset("tiny"), "slots": 4},
    "attention.UnitWalk": {"config": preset("tiny"), "slots": 4, "entries": 16, "end": 512},
    "attention.ValueAccumulator": {"config": preset("tiny"), "slots": 4},
    "memory.ScatterWriter": {"data_width": 128},
    "systolic.CommandChain": {"config": preset("tiny"), "commands": Widths(**WIDTHS).commands},
    "systolic.ActivationFeed": {"config": preset("tiny")},
    "systolic.Group": {"config": preset("tiny")},
    "systolic.GroupArray": {"config": preset("tiny")},
    "systolic.MatrixEngine": {"config": preset("tiny", port_mhz=450)},
    # Lanes are alike, and so are the levels of sums over beats: few of them show all there is.
    "vector.CodeMaker": {"lanes": 2},
    "vector.Epilogue": {"lanes": 2, "max_length": 8, "max_rotated": 8},
    "vector.GatedProduct": {"lanes": 2},
    "vector.KVQuantiser": {"lanes": 2},
    "vector.Norm": {"lanes": 2, "max_length": 8, "layer": True},
    "vector.NormApplier": {"lanes": 2, "layer": True},
    "vector.NormStatistics": {"lanes": 2, "max_length": 8, "layer": True},
    "vector.OnlineSoftmax": {"lanes": 2, "max_length": 8, "chunk": 4},
    "vector.ResultPath": {"config": preset("tiny"), "functions": ("silu",), "max_length": 8, "max_rotated": 8},
    "vector.Rotary": {"lanes": 2},
    "vector.Softmax": {"lanes": 2, "max_length": 8, "chunk": 4},
    "vector.TopK": {"lanes": 2, "k": 3},
    "vector.VectorFunction": {"lanes": 2},
    "vector.VectorMultiplier": {"lanes": 2},
    "vector.VectorScaler": {"lanes": 2},
    "vector.VectorSum": {"lanes": 2, "max_length": 8},
}


def elaborate(tmp_path, *arguments, name="x.v"):
    assert main(["--component", *arguments, "-o", str(tmp_path / name)]) == 0
    return (tmp_path / name).read_text(), json.loads((tmp_path / name).with_suffix(".json").read_text())


# Parts of a whole machine, which is linted too.
LARGE = ("vector.ResultPath", "vector.Epilogue", "vector.Norm", "vector.Softmax", "systolic.MatrixEngine")
LARGE += ("attention.Attention", "attention.AttentionEngine")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in public_components()]
)
def test_every_component_is_lint_clean(tmp_path, name):
    component = public_components()[name](**NEEDED.get(name, {}))
    source = tmp_path / "x.v"
    source.write_text(emit(component, module_name(name)))
    assert lint(source, module_name(name)) == ""


def test_lint_finds_something(tmp_path):
    source = tmp_path / "x.v"
    source.write_text("module x(input wire [3:0] a, output wire [1:0] o);\n  assign o = a;\nendmodule\n")
    assert "WIDTHTRUNC" in lint(source, "x")


def test_same_bytes_twice_and_no_paths(tmp_path):
    arguments = ["pe.GroupDatapath", "--set", "lanes=32", "--set", "block=64", "--set", "formats=int4,mxfp4"]
    first, _ = elaborate(tmp_path, *arguments)
    second, _ = elaborate(tmp_path, *arguments, name="y.v")
    assert first == second
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()
    assert str(tmp_path) not in first
    assert not re.search(r"\.py|/tmp|/home|/usr|20\d\d", first)


def test_readable(tmp_path):
    text, description = elaborate(tmp_path, "pe.GroupDatapath", "--set", "lanes=16", "--set", "block=16")
    assert text.startswith("// pe.GroupDatapath: lanes=16, mantissa_bits=16,")
    assert "// sum[row][channel] = " in text
    assert "\\" not in text  # no escaped names
    assert "(*" not in text  # no attributes
    assert re.search(r"\{\d+\{\w+", text)  # signs are extended by repetition
    assert not re.search(r"[{,] ([\w\[\]]+), \1, \1[, ]", text)
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == [
        "edgeaccel_pe_group_datapath",
        "edgeaccel_pe_group_datapath_digits",
        "edgeaccel_pe_group_datapath_results",
        "edgeaccel_pe_group_datapath_row_sums",
    ]
    header = text[text.index("module edgeaccel_pe_group_datapath (") : text.index(");")]
    ports = re.findall(r"^  (input|output) (?:wire|reg) (?:\[(\d+):0\] )?(\w+)", header, re.MULTILINE)
    assert [(name, direction, int(msb or 0) + 1) for direction, msb, name in ports] == [
        (port["name"], port["direction"], port["width"]) for port in description["ports"]
    ]


def test_json(tmp_path):
    _, description = elaborate(
        tmp_path, "pe.GroupDatapath", "--set", "lanes=32", "--set", "rows=2", "--set", "block=64"
    )
    group = GroupDatapath(lanes=32, rows=2, block=64)
    assert description["component"] == "pe.GroupDatapath"
    assert description["parameters"]["lanes"] == 32
    assert description["parameters"]["formats"] == ["int4", "int8", "int16"]
    assert description["latency_cycles"] == group.latency
    activations = next(port for port in description["ports"] if port["name"] == "i_activations__payload")
    mantissas, format, last = activations["fields"]
    assert (mantissas["offset"], mantissas["length"], mantissas["element"]["length"]) == (0, 2, 16)
    assert (format["offset"], format["values"]["INT16"]) == (512, 2)
    assert (last["offset"], last["width"]) == (514, 1)
    _, converter = elaborate(tmp_path, "pe.FloatConverter", "--set", "i_format=FP32", "--set", "o_format=FP16")
    assert converter["parameters"]["o_format"] == "FP16"


class Keyword(wiring.Component):
    """Names that are awkward in Verilog: a keyword, and one that becomes another's when its dot goes."""

    i: In(4)
    o: Out(4)

    def elaborate(self, platform):
        m = Module()
        keyword, dotted, plain = Signal(4, name="release"), Signal(4, name="a.b"), Signal(4, name="a_b")
        m.d.sync += [keyword.eq(self.i), dotted.eq(keyword + 1), plain.eq(dotted ^ keyword)]
        m.d.comb += self.o.eq(plain)
        return m


def test_awkward_names(tmp_path):
    source = tmp_path / "x.v"
    source.write_text(emit(Keyword(), "x"))
    assert lint(source, "x") == ""
    assert re.findall(r"reg \[3:0\] (\w+)", source.read_text())[:1]
    assert {"release_", "a_b", "a_b_"} & set(re.findall(r"\w+", source.read_text())) >= {"release_"}


def test_streams_of_a_component():
    assert stream_members(GroupDatapath()) == (["i_words", "i_activations"], ["o"])
    assert [port["name"] for port in describe_ports(Scaler(39))][:3] == ["clk", "rst", "i__payload"]
    assert describe_ports(IntToFloat(39))[2]["signed"]
    assert not describe_ports(FloatConverter(FP32, FP16))[2]["signed"]


def test_list(capsys):
    assert main(["--list"]) == 0
    out = capsys.readouterr().out
    assert "pe.FloatAdder: format=FP32, depth=" in out
    assert "pe.Scaler: sum_width, scales=('fp16',)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--component", "pe.Nothing", "-o", "x.v"], "no public component 'pe.Nothing'; there are: .*pe.GroupDatapath"),
        (["--component", "pe.LanePair", "--set", "lanes=3", "-o", "x.v"], "unknown parameter 'lanes'; .*mantissa_bits"),
        (["--component", "pe.GroupDatapath", "--set", "lanes=12", "-o", "x.v"], "lanes must be a power of two"),
        (["--component", "pe.LanePair", "-o", "absent/x.v"], "absent/x.v"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_usage_errors(capsys):
    for arguments in ([], ["--component", "pe.LanePair"], ["--component", "pe.LanePair", "-o", "x.vhd"]):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    assert "examples:" in capsys.readouterr().out


# As small as a machine gets; two clocks, as large ones have.
SMALL = ["groups=1", "rows=1", "formats=int8", "max_channels=64", "vector_inputs=256", "max_rotated=8", "port_mhz=300"]
COMMAND = ["--preset", "tiny", *(word for setting in SMALL for word in ("--set", setting))]


@pytest.fixture(scope="module")
def machine_folders(tmp_path_factory):
    """The same machine twice, made by two processes whose sets and dictionaries are ordered differently."""
    folders = [tmp_path_factory.mktemp("machine") / "of" / "a board" for _ in range(2)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "edgeaccel.elaborate", *COMMAND, "--out", str(folder)],
            env=os.environ | {"PYTHONHASHSEED": str(seed)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed, folder in enumerate(folders)
    ]
    messages = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], messages
    for message, folder in zip(messages, folders, strict=True):  # and no warning of parts that nothing uses
        assert re.fullmatch(rf"elaborating tiny \(1 groups, 32 lanes, 1 rows\).*\nwrote .* to {folder}\n", message)
    return folders


@pytest.fixture(scope="module")
def soc():
    return SoC(build_machine("tiny", SMALL))


def test_machine_is_the_same_twice_and_has_no_paths(machine_folders):
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in machine_folders)
    assert sorted(first) == [
        "edgeaccel_tiny.h",
        "edgeaccel_tiny.json",
        "edgeaccel_tiny.svg",
        "edgeaccel_tiny.v",
        "instructions.md",
        "registers.md",
    ]
    assert first == second
    for name, text in first.items():
        assert not re.search(rb"/tmp|/home|/usr|\b20[23]\d-", text), name
    assert [path.name for path in machine_folders[0].parent.iterdir()] == ["a board"]


def test_machine_is_lint_clean(machine_folders):
    source = machine_folders[0] / "edgeaccel_tiny.v"
    text = source.read_text()
    assert lint(source, "edgeaccel_tiny") == ""
    assert text.startswith("// tiny, a whole machine: vector_inputs=256, max_channels=64, max_rotated=8,")
    assert "\\" not in text
    assert text.count("\nmodule edgeaccel_tiny (") == 1


def test_description_of_a_machine(machine_folders, soc):
    text = (machine_folders[0] / "edgeaccel_tiny.v").read_text()
    description = json.loads((machine_folders[0] / "edgeaccel_tiny.json").read_text())
    assert description["ports"] == json.loads(json.dumps(describe_ports(soc)))
    header = text[text.index("module edgeaccel_tiny (") : text.index(");")]
    ports = re.findall(r"^  (input|output) (?:wire|reg) (?:\[(\d+):0\] )?(\w+)", header, re.MULTILINE)
    assert [(name, direction, int(msb or 0) + 1) for direction, msb, name in ports] == [
        (port["name"], port["direction"], port["width"]) for port in description["ports"]
    ]
    assert description["machine"]["max_channels"] == 64
    assert description["config"]["formats"] == ["int8"]
    assert description["clock_domains"] == [
        {"name": "sync", "mhz": 250, "clock": "clk", "reset": "rst"},
        {"name": "port", "mhz": 300, "clock": "port_clk", "reset": "port_rst"},
    ]
    domains = {each["name"]: each["clock_domain"] for each in description["interfaces"]}
    assert domains == {
        "s_axil": "sync",
        "m_axi_0": "port",
        "m_axi_scales": "port",
        "m_axi_cache": "sync",
        "m_axi_data": "sync",
        "m_axi_program": "sync",
    }
    widths = {name: int(msb or 0) + 1 for _, msb, name in ports}
    for interface in description["interfaces"]:
        channels = {"read": "ar", "write": "aw"}
        for way, channel in channels.items():
            name = f"{interface['name']}_{channel}addr"
            assert (way in interface["channels"]) == (name in widths)
            assert widths.get(name, interface["address_width"]) == interface["address_width"]
        assert widths.get(f"{interface['name']}_rdata", interface["data_width"]) == interface["data_width"]
    assert description["address_map"] == [
        {"name": "port 0", "base": 0, "bytes": 1 << 24},
        {"name": "data", "base": 1 << 24, "bytes": None},
    ]
    registers = {register["name"]: register for register in description["registers"]["registers"]}
    assert registers["rows"]["value"] == 1
    assert registers["control"]["fields"][1]["name"] == "stop"
    assert {name: registers[name]["offset"] for name in registers} == {
        register.name: register.offset for register in soc.map.registers
    }
    assert len(description["bit_names"]["activity"]) == widths["activity"]


def test_c_header_of_a_machine(machine_folders):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    description = json.loads((machine_folders[0] / "edgeaccel_tiny.json").read_text())
    checks = ""
    for register in description["registers"]["registers"]:
        name = f"EDGEACCEL_{register['name'].upper()}"
        checks += f"static_assert({name} == {register['offset']});\n"
        if "value" in register:
            checks += f"static_assert({name}_VALUE == {register['value']}u);\n"
    assert "EDGEACCEL_COUNTER_STARVED0" in checks
    source = f'#include "edgeaccel_tiny.h"\n#include "edgeaccel_tiny.h"\n{checks}'
    run = subprocess.run(
        [compiler, "-fsyntax-only", "-Wall", "-Werror", "-std=c++17", "-x", "c++", "-I", machine_folders[0], "-"],
        input=source,
        capture_output=True,
        text=True,
    )
    assert run.stderr == ""


def test_pages_and_picture_of_a_machine(machine_folders):
    folder = machine_folders[0]
    assert "`counter_words0`" in (folder / "registers.md").read_text()
    assert "## `multiply`" in (folder / "instructions.md").read_text()
    root = ElementTree.parse(folder / "edgeaccel_tiny.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "Activation feed" in "".join(root.itertext())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "preset must be one of tiny, vcu128, vu9p, not 'huge'"),
        (["--preset", "tiny", "--set", "rows=0"], "rows must be a positive whole number, not 0"),
        (["--preset", "tiny", "--set", "rows"], "a setting is NAME=VALUE, not 'rows'"),
        (
            ["--preset", "tiny", "--set", "row=1"],
            "unknown parameter 'row'; a machine has the sizes: .*groups, lanes, rows",
        ),
        (["--preset", "tiny", "--set", "pages=3"], "pages must be a power of two from 2 to 65536, not 3"),
        (["--preset", "tiny", "--set", "core_mhz=fast"], "tiny cannot be built with core_mhz='fast': "),
        (["--preset", "tiny", "--set", "formats=int5"], "format must be one of 'int4', 'int8'"),
        (["--preset", "tiny", "--set", "buffer_inputs=64"], "buffer_inputs must be more than 320 for the weights of"),
        (["--preset", "tiny", "--set", "vector_lanes=2"], "vector_lanes must be 4 to 64 for attention, not 2"),
    ],
)
def test_machines_that_cannot_be(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "machine")]) == 2
    err = capsys.readouterr().err
    assert re.search(f"^error: {message}", err)
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_refusal_is_one_line(tmp_path):
    """And there is no warning of parts that were made before."""
    command = [sys.executable, "-m", "edgeaccel.elaborate", "--preset", "tiny", "--set", "buffer_inputs=64", "--out"]
    run = subprocess.run([*command, tmp_path / "machine"], capture_output=True, text=True)
    assert run.returncode == 2
    assert re.fullmatch("error: buffer_inputs must be more than 320 .*\n", run.stderr)


def test_folders_that_cannot_be(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/below"):
        assert main(["--preset", "tiny", "--out", str(tmp_path / folder)]) == 2
        err = capsys.readouterr().err
        assert re.search(f"^error: --out must be a folder that can be made and written, not .*{folder}: ", err)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", "tiny"],
        ["--preset", "tiny", "--out", "x", "-o", "x.v"],
        ["--preset", "tiny", "-o", "x.v"],
        ["--component", "pe.Scaler", "--out", "x"],
        ["--component", "pe.Scaler", "-o", "x.v", "--out", "x"],
        ["--preset", "tiny", "--component", "pe.Scaler", "--out", "x"],
    ],
)
def test_usage_of_outputs(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err
