"""Boards: pins, what fits, the memory map, and scripts for Vivado, run by a stand-in for it."""

import ctypes
import importlib.util
import json
import random
import re
from functools import cache
from itertools import pairwise

import pytest
from amaranth.build import DiffPairs
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import io
from vivado_stub import StubError, Vivado

from edgeaccel.boards import BOARDS, MemoryMap, array_dsps, check_fit
from edgeaccel.boards.__main__ import main
from edgeaccel.boards.constraints import crossings, pin_table
from edgeaccel.boards.files import board_files
from edgeaccel.boards.placement import group_slrs
from edgeaccel.elaborate import describe_machine
from edgeaccel.machine import machine
from edgeaccel.memory.streamer import TileStreamer
from edgeaccel.soc.soc import SoC
from edgeaccel.verilated import build_library, lint
from edgeaccel.verilog import emit

needs_tcl = pytest.mark.skipif(
    importlib.util.find_spec("_tkinter") is None, reason="scripts are run by Python's own Tcl: install python3-tk"
)

TWO_CHANNELS = {"changes": {"groups": 2, "rows": 2}, "port_bytes": 1 << 30}
# (board, preset, sizes): presets as they are, vu9p for two channels (and with few rows, so that it is soon built), and
# small machines to begin with.
CASES = {
    "vcu128": ("vcu128", "vcu128", {}),
    "vcu1525": ("vcu1525", "vu9p", {}),
    "vcu118": ("vcu118", "vu9p", TWO_CHANNELS),
    "vcu118-tiny": ("vcu118", "tiny", {}),
    "vcu128-tiny": ("vcu128", "tiny", {"changes": {"port_mhz": 450}}),
    "vcu128-half": ("vcu128", "vcu128", {"changes": {"groups": 16, "rows": 1}, "port_bytes": 1 << 27}),
}


@cache
def made(case):
    """(board, machine, description, files) of a case."""
    board, preset, sizes = CASES[case]
    built = machine(preset, **sizes)
    description = json.loads(json.dumps(describe_machine(SoC(built), preset)))  # as elaborate writes it
    return BOARDS[board], built, description, board_files(BOARDS[board], built, description)


def memory_map(case):
    board, built, *_ = made(case)
    return MemoryMap(board=board, machine=built)


def write(case, folder, replace=()):
    """The files of a case, with texts in them replaced, and a machine without insides."""
    _, _, description, files = made(case)
    for name, text in files.items():
        for file, old, new in replace:
            if file == name:
                assert old in text
                text = text.replace(old, new)
        (folder / name).write_text(text)
    (folder / f"{description['module']}.v").write_text(empty_machine(description))


def empty_machine(description):
    """A Verilog module with the machine's ports, as the JSON has them."""
    ports = ",\n".join(f"  {p['direction']} wire [{p['width'] - 1}:0] {p['name']}" for p in description["ports"])
    return f"/* verilator lint_off UNDRIVEN */\nmodule {description['module']} (\n{ports}\n);\nendmodule\n"


def run(folder):
    """Both scripts; returns the Vivado that has the block design."""
    Vivado().run(folder / "package.tcl")
    vivado = Vivado()
    vivado.run(folder / "design.tcl")
    return vivado


# Platforms.


def pins_of(resource):
    for part in resource.ios:
        if hasattr(part, "ios"):
            yield from pins_of(part)
        elif isinstance(part, DiffPairs):
            yield from (*part.p.names, *part.n.names)
        else:
            yield from part.names


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_no_pin_twice(board):
    pins = [pin for resource in board.platform.resources for pin in pins_of(resource)]
    assert len(pins) == len(set(pins))
    assert all(re.fullmatch(r"[A-Y]{1,2}[0-9]{1,2}", pin) for pin in pins)
    lanes = {part.name: part for part in board.platform.resources[-1].ios}
    assert len(lanes["tx"].ios[0]) == len(lanes["rx"].ios[0]) == 16


class Blinky(Elaboratable):
    def elaborate(self, platform):
        m = Module()
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        count = Signal(4)
        m.d.sync += count.eq(count + 1)  # in the platform's default clock
        m.d.comb += led.o.eq(count[-1])
        return m


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_platform_builds(board):
    files = board.platform().build(Blinky(), do_build=False).files
    assert f"-part {board.vivado_part}" in files["top.tcl"]
    clock, led = (next(r for r in board.platform.resources if r.name == name) for name in (board.clock[0], "led"))
    for pin in (*pins_of(clock), *pins_of(led)):
        assert f"PACKAGE_PIN {pin}" in files["top.xdc"] or f"LOC {pin}" in files["top.xdc"]
    assert f"create_clock -name {board.clock[0]}" in files["top.xdc"]


# What fits.


@pytest.mark.parametrize(
    ("board", "preset", "sizes", "message"),
    [
        ("vcu118", "vu9p", {}, r"4 groups x 1 port = 4 DDR4 channels, but vcu118 has 2: set groups=2"),
        ("vcu118", "vu9p", {}, r"2 x 4 GiB = 8 GiB .* has 2 GiB: set port_bytes to at most 1073741824"),
        (
            "vcu128",
            "vcu128",
            {"changes": {"rows": 5}},
            r"32 groups x 5 rows x \(128 lanes / 2 \+ 1 scalers\) = 10400 DSP48E2 .* XCVU37P has 9024: .* at most 4",
        ),
        ("vcu1525", "vcu128", {}, r"32 groups x 1 port = 32 DDR4 channels, but vcu1525 has 4"),
        ("vcu1525", "vu9p", {"changes": {"rows": 27}}, r"= 7020 DSP48E2 .* XCVU9P has 6840: .* at most 26"),
        ("vcu128", "vcu128", {"port_bytes": 1 << 29}, r"1 x 512 MiB = 512 MiB .* has 256 MiB"),
        ("vcu128", "vu9p", {}, r"512 bits, but each HBM pseudo-channel of vcu128 has 256: set port_data_width=256"),
        (
            "vcu128",
            "vcu128",
            {"changes": {"port_mhz": 500}},
            r"256 bits x 500 MHz = 16.0 GB/s, but each .* 256 bits x 450 MHz = 14.4 GB/s: set port_mhz to at most 450",
        ),
        ("vcu128", "vcu128", {"changes": {"core_mhz": 800}}, r"the core's 800 MHz, .* faster than 775 MHz"),
    ],
)
def test_refused(board, preset, sizes, message):
    with pytest.raises(ValueError, match=message):
        check_fit(BOARDS[board], machine(preset, **sizes))


def test_presets_fit():
    for case in CASES:
        board, built, *_ = made(case)
        check_fit(board, built)
        assert array_dsps(built.config) < board.part.dsps


def test_groups_fill_slrs():
    board, built, *_ = made("vcu128")
    slrs = group_slrs(board, built)
    assert slrs == sorted(slrs)
    assert [slrs.count(n) for n in range(3)] == [10, 11, 11]
    of_group = array_dsps(built.config) // 32
    assert max(slrs.count(n) for n in range(3)) * of_group <= 9024 // 3
    assert set(group_slrs(*made("vcu128-tiny")[:2])) == {0}
    too_large = machine("vu9p", changes={"rows": 24})  # 1560 DSP48E2 a group: one in each of three SLRs
    assert group_slrs(BOARDS["vcu1525"], too_large) is None


# The memory map.


@pytest.mark.parametrize("case", CASES)
def test_memory_map(case):
    _, built, description, files = made(case)
    layout = memory_map(case)
    regions = layout.regions
    assert [region.base for region in regions[: built.config.groups]] == [
        entry["base"] for entry in description["address_map"][:-1]
    ]
    assert regions[built.config.groups].base == built.data_base == description["address_map"][-1]["base"]
    for before, after in pairwise(regions):
        assert before.base + before.bytes == after.base  # without a gap
    spans = sorted((region.card, region.card + region.bytes) for region in regions)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert json.loads(files["board.json"])["regions"][-1]["card"] == regions[-1].card
    for region in regions:
        assert f"| {region.name} | {region.base:#x} | {region.bytes:#x} |" in files["memory_map.md"]


def expected_card(layout, address):
    for region in layout.regions:
        if region.base <= address < region.base + region.bytes:
            return region.card + address - region.base
    return None


def test_verilog_addresses(tmp_path):
    """The emitted functions, compiled, against the regions."""
    layouts = {case: memory_map(case) for case in CASES}
    last_ports = [layout.machine.config.groups - 1 for layout in layouts.values()]
    ports = ["input wire [63:0] address", *(f"output wire [63:0] o{n}" for n in range(2 * len(layouts)))]
    lines = [f"module maps ({', '.join(ports)});"]
    for n, (layout, port) in enumerate(zip(layouts.values(), last_ports, strict=True)):
        lines += layout.verilog_function(f"card{n}")
        lines += [
            f"assign o{2 * n} = {{{64 - layout.card_bits}'d0, card{n}(address)}};",
            f"assign o{2 * n + 1} = {{{64 - layout.port_bits}'d0, {layout.port_address(port, 'address')}}};",
        ]
    source = "\n".join([*lines, "endmodule", ""])
    outputs = "".join(f"out[{n}] = top.o{n};" for n in range(2 * len(layouts)))
    harness = f"""
#include "Vtop.h"
extern "C" void evaluate(uint64_t address, uint64_t *out) {{
    static VerilatedContext context;
    static Vtop top{{&context}};
    top.address = address;
    top.eval();
    {outputs}
}}
"""
    library = ctypes.CDLL(str(build_library(source, "maps", harness, "build/verilated")))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    choice, out = random.Random(seed), (ctypes.c_uint64 * (2 * len(layouts)))()
    for n, layout in enumerate(layouts.values()):
        addresses = [choice.getrandbits(choice.randrange(1, 65)) for _ in range(300)]
        for region in layout.regions:
            last = region.base + region.bytes - 1
            addresses += [region.base, last, last + 1, region.base + choice.randrange(region.bytes)]
        for address in addresses:
            library.evaluate(ctypes.c_uint64(address), out)
            card, of_port = out[2 * n], out[2 * n + 1]
            own = layout.regions[last_ports[n]]
            assert of_port == own.card + address % own.bytes, (n, hex(address))
            expected = expected_card(layout, address)
            if expected is None:  # there must be nothing either
                spans = [(region.card, region.card + region.bytes) for region in layout.regions]
                assert not any(begin <= card < end for begin, end in spans), (n, hex(address))
                assert card >> (layout.card_bits - 1) or layout.is_identity
            else:
                assert card == expected, (n, hex(address))


# Verilog round the machine.


@pytest.mark.parametrize("case", CASES)
def test_wrapper_is_lint_clean(case, tmp_path):
    _, _, description, files = made(case)
    source = tmp_path / "ip.v"
    source.write_text(files[f"{description['module']}_ip.v"] + empty_machine(description))
    assert lint(source, f"{description['module']}_ip") == ""
    host = f"{description['module']}_host.v"
    assert (host in files) == (not memory_map(case).is_identity)
    if host in files:
        (tmp_path / host).write_text(files[host])
        assert lint(tmp_path / host, f"{description['module']}_host") == ""


def test_only_the_full_machine_has_the_cards_addresses():
    assert {case for case in CASES if memory_map(case).is_identity} == {"vcu128"}


# Scripts.


@needs_tcl
@pytest.mark.parametrize("case", CASES)
def test_scripts(case, tmp_path):
    board, built, description, _ = made(case)
    write(case, tmp_path)
    vivado = run(tmp_path)
    assert (vivado.part, vivado.validated) == (board.vivado_part, True)
    masters = [each["name"] for each in description["interfaces"] if each["role"] == "master"]
    assert sorted(master for master, _ in vivado.buses if master.startswith("machine/")) == sorted(
        f"machine/{name}" for name in masters
    )
    layout = memory_map(case)
    host = "host/M_AXI" if layout.is_identity else "host_view/m_axi"
    for region in layout.regions:
        for space in (host, *(f"machine/{name}" for name in masters if not name.removeprefix("m_axi_").isdecimal())):
            assert_holds(vivado, space, region, board)
        if region.name.startswith("port "):
            assert_holds(vivado, f"machine/m_axi_{region.channel}", region, board)
    for n in range(built.config.groups):  # and nothing else
        assert len(vivado.assigned[f"machine/m_axi_{n}"]) == 1
    assert vivado.assigned["host/M_AXI_LITE"] == {
        "machine/s_axil/reg0": (0, 1 << description["registers"]["address_width"])
    }
    assert vivado.nets["host/usr_irq_req"] == "machine/irq"
    assert vivado.nets["leds"] == "machine/leds"


def assert_holds(vivado, space, region, board):
    """The segment at a region's card address is the region's channel."""
    found = [
        (segment, offset)
        for segment, (offset, size) in vivado.assigned[space].items()
        if offset <= region.card and region.card + region.bytes <= offset + size
    ]
    assert len(found) == 1, (space, region)
    segment, offset = found[0]
    assert region.card - offset == region.offset
    if region.memory == "data":
        assert segment.startswith("ddr4_data/")
    elif board.ports.kind == "hbm":
        assert segment.endswith(f"/HBM_MEM{region.channel:02d}")
    else:
        assert segment.startswith(f"ddr4_{region.channel}/")


@needs_tcl
def test_clocks_have_their_frequencies(tmp_path):
    write("vcu128", tmp_path)
    vivado = run(tmp_path)
    settings = vivado.cells["clocks"].settings
    made_of = {
        vivado.nets["machine/clk"]: 250,
        vivado.nets["machine/port_clk"]: 450,
        vivado.nets["hbm/APB_0_PCLK"]: 100,
    }
    assert len(made_of) == 3
    for pin, mhz in made_of.items():
        n = pin.removeprefix("clocks/clk_out")
        assert float(settings[f"CLKOUT{n}_REQUESTED_OUT_FREQ"]) == mhz
    assert vivado.nets["hbm/AXI_31_ACLK"] == vivado.nets["machine/port_clk"]
    crossed = {cell for cell, model in vivado.cells.items() if model.kind == "axi_register_slice"}
    slrs = group_slrs(*made("vcu128")[:2])
    assert crossed == {f"slice_{n}" for n, slr in enumerate(slrs) if slr}
    assert all(
        vivado.cells[f"slice_{n}"].settings["NUM_SLR_CROSSINGS"] == str(slr) for n, slr in enumerate(slrs) if slr
    )


@needs_tcl
@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("design.tcl", "connect_pins clocks/clk_out1 machine/clk", "", "nothing drives machine/clk"),
        ("design.tcl", "machine/m_axi_cache shared", "machine/m_axi_data shared", "connected twice"),
        ("design.tcl", "connect_buses machine/m_axi_program shared/S04_AXI", "", "does not reach|is not connected"),
        ("design.tcl", "clocks/clk_out2 ${port}_ACLK", "clocks/clk_out1 ${port}_ACLK", "different clocks"),
        ("design.tcl", "port_reset/peripheral_reset", "core_reset/peripheral_reset", "reset in the clock"),
        ("design.tcl", "port_reset/peripheral_reset", "port_reset/peripheral_aresetn", "wrong polarity"),
        ("design.tcl", "CONFIG.USER_HBM_STACK 2", "CONFIG.USER_HBM_STACKS 2", "no setting USER_HBM_STACKS"),
        ("design.tcl", "{$n * 0x10000000}", "{$n * 0x20000000}", "is at 0x10000000"),
        ("design.tcl", "0x200000000 0x100000000", "0x100000000 0x100000000", "overlap"),
        ("design.tcl", "hide_segment machine", "# hide_segment machine", "has no address for"),
        ("design.tcl", "add_ip xdma host", "add_ip xmda host", "no IP"),
        ("design.tcl", "save_bd_design", "save_design", "invalid command name"),
        ("package.tcl", "m_axi_7 port_clk", "m_axi_7 clk", "another clock"),
        ("package.tcl", "m_axi_7 port_clk", "m_axi_77 port_clk", "found no interface m_axi_77"),
        ("edgeaccel_vcu128_ip.v", "PROTOCOL AXI3", "PROTOCOL AXI4", "different protocols"),
    ],
)
def test_stub_finds_mistakes(file, old, new, message, tmp_path):
    """The scripts' test is worth something only if it fails."""
    write("vcu128", tmp_path, [(file, old, new)])
    with pytest.raises(StubError, match=message):
        run(tmp_path)


# Constraints.


def names_below(elaboratable, deep):
    """Paths of submodules, down to those of names in `deep` at every level."""
    while hasattr(elaboratable, "_elaboratable_"):
        elaboratable = elaboratable._elaboratable_
    module = elaboratable if isinstance(elaboratable, Module) else elaboratable.elaborate(None)
    for name, part in getattr(module, "_named_submodules", {}).items():
        yield name
        if re.fullmatch(deep[0], name) if deep else False:
            yield from (
                f"{name}/{below}" for below in names_below(part[0] if isinstance(part, tuple) else part, deep[1:])
            )


@cache
def machine_cells(groups):
    """Cells that a two-clock machine really has, from its own elaboration: {path}."""
    soc = SoC(machine("tiny", changes={"groups": groups, "port_mhz": 450}))
    ways = [
        ["processor", "core", "engine", r"port\d+|array", "port", "requests|answers"],
        ["processor", "core", "attention", "streamer", "port", "requests|answers"],
    ]
    return {f"soc/{path}" for way in ways for path in names_below(soc, way)}


@cache
def queue_registers():
    """Registers of a queue between two clocks, from emitted Verilog: {path below the queue: width}."""
    text = emit(
        TileStreamer(data_width=64, word_width=64, buffer_words=16, burst_beats=2, outstanding=2, port_domain="port"),
        "ts",
    )
    found = {}
    for module, body in re.findall(r"^module (\w+) \((.*?)^endmodule", text, re.DOTALL | re.MULTILINE):
        if match := re.fullmatch(r"ts_port_(requests|answers)(?:_(\w+_cdc))?", module):
            for width, name in re.findall(r"reg (?:\[(\d+):0\] )?(\w+) = ", body):
                found[f"{match[1]}/{match[2] + '/' if match[2] else ''}{name}_reg"] = int(width or 0) + 1
        elif {"port_clk", "clk"} <= set(re.findall(r"posedge (\w+)", body)):
            raise AssertionError(f"{module} has both clocks, and no constraint knows it")
    return found


def netlist(groups):
    cells = set(machine_cells(groups)) | {"irq_stages_reg[0]", "irq_stages_reg[1]"}
    for queue in [cell for cell in cells if re.search(r"/port/(requests|answers)$", cell)]:
        kind = queue.rsplit("/", 1)[1]
        for name, width in queue_registers().items():
            if name.startswith(f"{kind}/"):
                path = f"{queue}/{name.removeprefix(f'{kind}/')}"
                cells |= {f"{path}[{n}]" for n in range(width)} if width > 1 else {path}
    return cells


@needs_tcl
def test_crossings_are_constrained(tmp_path):
    """Every queue's counters, by names that elaboration gives; nothing in the file that is not there."""
    _, built, description, files = made("vcu128-tiny")
    cells = netlist(built.config.groups)
    ports = [port["name"] for port in description["ports"]]
    vivado = Vivado(netlist=cells, clock_ports={"clk", "port_clk"}, ports=ports)
    path = tmp_path / "ip.xdc"
    path.write_text(files["edgeaccel_tiny_ip.xdc"])
    vivado.run(path)
    queues = {cell for cell in cells if re.search(r"/port/(requests|answers)$", cell)}
    assert queues == {f"soc/{cell}" for cell in crossings(description)}
    assert len(queues) == 2 * (built.config.groups + 1)
    skews = [options for command, options in vivado.constraints if command == "set_bus_skew"]
    assert len(skews) == 2 * len(queues)
    for options in skews:
        source, sink = options["-from"].split(), options["-to"].split()
        assert len(source) == len(sink) > 1
        assert source[0].rsplit("/", 1)[0] == sink[0].rsplit("/", 2)[0]  # of one queue
    data = {
        (o["-from"], o["-to"]): o["value"] for c, o in vivado.constraints if c == "set_max_delay" and ":" in o["-to"]
    }
    assert data == {("clock:clk", "clock:port_clk"): ["2.222"], ("clock:port_clk", "clock:clk"): ["4.000"]}
    synchronisers = {cell for cell in cells if "_cdc/stage" in cell}
    assert {target for target, name, _ in vivado.properties if name == "ASYNC_REG"} == synchronisers
    assert all(any(cell.startswith(f"{queue}/produce_cdc/stage0") for cell in synchronisers) for queue in queues)


@needs_tcl
def test_one_clock_needs_no_crossings(tmp_path):
    _, _, description, files = made("vcu118-tiny")
    assert crossings(description) == {}
    path = tmp_path / "ip.xdc"
    path.write_text(files["edgeaccel_tiny_ip.xdc"])
    vivado = Vivado(netlist={"irq_stages_reg[0]"})
    vivado.run(path)
    assert [command for command, _ in vivado.constraints] == ["set_false_path"]


@needs_tcl
@pytest.mark.parametrize("case", CASES)
def test_board_constraints(case, tmp_path):
    board, built, _, files = made(case)
    groups = built.config.groups
    engine = "processor/core/engine"
    cells = [f"{engine}/{part}{n}" for n in range(groups) for part in ("array/group", "port")]
    if groups <= 4:
        assert {f"soc/{cell}" for cell in cells} <= machine_cells(groups)
    ports = {"clock_clk_p", "clock_clk_n", "pcie_refclk_clk_p[0]", "pcie_refclk_clk_n[0]", "pcie_perst"}
    ports |= {f"leds[{n}]" for n in range(sum(name.startswith("leds") for name, *_ in pin_table(board)))}
    vivado = Vivado(netlist={f"edgeaccel_i/machine/inst/soc/{cell}" for cell in cells}, ports=ports)
    path = tmp_path / "board.xdc"
    path.write_text(files[f"{board.name}.xdc"])
    vivado.run(path)
    placed = {target for target, name, _ in vivado.properties if name == "PACKAGE_PIN"}
    assert placed == ports
    assert {name for _, name, _ in vivado.properties} == {"PACKAGE_PIN", "IOSTANDARD", "IS_SOFT"}
    assert sum(len(own) for _, own in vivado.pblocks.values()) == 2 * groups
    clocks = [options["-period"] for command, options in vivado.constraints if command == "create_clock"]
    assert clocks == ["10.000"]


# The command.


def test_command(tmp_path, capsys):
    arguments = ["--board", "vcu118", "--preset", "tiny"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert f"python -m edgeaccel.elaborate --preset tiny --out {tmp_path / 'a'}" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "b"), "--json"]) == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {
        *("edgeaccel_tiny_ip.v", "edgeaccel_tiny_ip.xdc", "edgeaccel_tiny_host.v", "package.tcl", "design.tcl"),
        *("vcu118.xdc", "memory_map.md", "board.json"),
    }
    for name in names:
        text = (tmp_path / "a" / name).read_text()
        assert text == (tmp_path / "b" / name).read_text()
        assert text.isascii() or name.endswith(".md")
        assert not re.search(r"/work|/home|/tmp|20[23]\d-\d\d-\d\d", text)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "a/board.json").read_text())


def test_other_configuration_other_script(tmp_path):
    assert made("vcu128")[3]["design.tcl"] != made("vcu128-half")[3]["design.tcl"]
    assert "{0 hbm/SAXI_00" in made("vcu128-half")[3]["design.tcl"]
    assert "shared/M00_AXI hbm/SAXI_31" in made("vcu128-half")[3]["design.tcl"]  # a port that is free


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--board", "vcu118", "--preset", "vu9p"], "4 groups x 1 port = 4 DDR4 channels, but vcu118 has 2"),
        (["--board", "vcu128", "--preset", "vcu129"], "preset must be one of"),
        (["--board", "vcu128", "--preset", "vcu128", "--set", "rows=5"], "= 10400 DSP48E2"),
    ],
)
def test_command_refuses(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "o")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_folder_of_another_machine(tmp_path, capsys):
    """Wrapper and machine in one folder are of the same settings."""
    _, _, description, _ = made("vcu118-tiny")
    path = tmp_path / "edgeaccel_tiny.json"
    path.write_text(json.dumps(description))
    arguments = ["--board", "vcu118", "--preset", "tiny", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert "missing" not in capsys.readouterr().err
    assert main([*arguments, "--set", "rows=1", "--set", "pages=32"]) == 2
    assert "is of another machine, with pages=64, rows=2: elaborate it again" in capsys.readouterr().err
    for text in ("", "[]", '{"machine": 1}'):
        path.write_text(text)
        assert main(arguments) == 2
        assert "is no description of a machine" in capsys.readouterr().err


def test_command_needs_something_to_do(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--board", "vcu128", "--preset", "vcu128"])
    assert exit_.value.code == 2
    assert "--out DIR or --json" in capsys.readouterr().err


@needs_tcl
def test_scripts_need_what_comes_first(tmp_path):
    write("vcu118-tiny", tmp_path)
    with pytest.raises(StubError, match="there is no IP in"):
        Vivado().run(tmp_path / "design.tcl")
    (tmp_path / "edgeaccel_tiny.v").unlink()
    with pytest.raises(StubError, match=r"edgeaccel_tiny.v is missing: edgeaccel.elaborate writes"):
        Vivado().run(tmp_path / "package.tcl")
