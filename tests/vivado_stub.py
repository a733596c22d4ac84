"""A stand-in for Vivado: a Tcl interpreter with the commands that our scripts use, which knows what they may do.

It knows the IP that we use, with their pins, interfaces and settings, from AMD's product guides and public scripts. A
command, an object or a setting that it does not know is an error; so is whatever a design is not: a pin that nothing
or two things drive, an interface that is not connected, clocks that differ across a bus, addresses that overlap.
"""

import fnmatch
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["StubError", "Vivado"]


class StubError(Exception):
    """What Vivado would not accept."""


@dataclass
class Model:
    """A cell: pins {name: "in" or "out"}, interfaces {name: (mode, clock pin or None, width or None, protocol)}."""

    kind: str
    pins: dict = field(default_factory=dict)
    interfaces: dict = field(default_factory=dict)
    needed: set = field(default_factory=set)  # input pins that must be driven
    settings: dict = field(default_factory=dict)
    segments: dict = field(default_factory=dict)  # of slaves: {interface: {segment: (offset or None, bytes)}}


_SETTINGS = {
    "clk_wiz": r"PRIM_SOURCE|PRIM_IN_FREQ|NUM_OUT_CLKS|USE_RESET|USE_LOCKED|CLKOUT[1-7]_(USED|REQUESTED_OUT_FREQ)",
    "proc_sys_reset": r"C_EXT_RESET_HIGH|C_AUX_RESET_HIGH",
    "util_ds_buf": r"C_BUF_TYPE|C_SIZE",
    "xlconstant": r"CONST_WIDTH|CONST_VAL",
    "smartconnect": r"NUM_SI|NUM_MI|NUM_CLKS",
    "axi_register_slice": r"REG_(AW|AR|W|R|B)|NUM_SLR_CROSSINGS|PIPELINES_\w+",
    "xdma": r"PCIE_BOARD_INTERFACE|mode_selection|pl_link_cap_max_link_(width|speed)|xdma_axi_intf_mm|axi_data_width"
    r"|axisten_freq|axilite_master_(en|scale|size)|xdma_[rw]num_chnl|xdma_num_usr_irq",
    "hbm": r"USER_(HBM_DENSITY|HBM_STACK|MEMORY_DISPLAY|AUTO_POPULATE|APB_EN|SWITCH_ENABLE_0[01]|HBM_REF_CLK_[01]"
    r"|AXI_INPUT_CLK1?_FREQ|CLK_SEL_LIST[01]|SAXI_[0-3]\d)",
    "ddr4": r"C0_CLOCK_BOARD_INTERFACE|C0_DDR4_BOARD_INTERFACE|C0\.DDR4_DataMask",
}
_PASSING = ("smartconnect", "axi_register_slice")  # through which masters see slaves
_PORT_SETTINGS = r"FREQ_HZ|POLARITY"
_BOARD_INTERFACES = {
    "xilinx.com:vcu128:part0:1.0": ["ddr4_sdram", "default_100mhz_clk", "pci_express_x16"],
    "xilinx.com:vcu118:part0:2.4": [
        *("ddr4_sdram_c1_062", "ddr4_sdram_c1_083", "ddr4_sdram_c2_062", "ddr4_sdram_c2_083"),
        *("default_250mhz_clk1", "default_250mhz_clk2", "pci_express_x16"),
    ],
    "xilinx.com:vcu1525:part0:1.3": [
        *(f"ddr4_sdram_c{n}" for n in range(4)),
        *(f"default_300mhz_clk{n}" for n in range(4)),
        "pci_express_x16",
    ],
}
_DDR4_BYTES = {"vcu128": 1 << 32, "vcu118": 1 << 31, "vcu1525": 1 << 34}  # address widths of the board files' presets
# fmt: off
_COMMANDS = (
    "create_project", "current_project", "get_board_parts", "get_board_part_interfaces", "set_property",
    "update_ip_catalog", "add_files", "get_files", "current_fileset", "update_compile_order", "close_project",
    "make_wrapper", "ipx::package_project", "ipx::current_core", "ipx::get_bus_interfaces",
    "ipx::associate_bus_interfaces", "ipx::create_xgui_files", "ipx::update_checksums", "ipx::check_integrity",
    "ipx::save_core", "create_bd_design", "create_bd_cell", "create_bd_port", "create_bd_intf_port", "get_bd_cells",
    "get_bd_pins", "get_bd_intf_pins", "get_bd_ports", "get_bd_intf_ports", "get_bd_addr_spaces", "get_bd_addr_segs",
    "connect_bd_net", "connect_bd_intf_net", "assign_bd_address", "exclude_bd_addr_seg", "validate_bd_design",
    "save_bd_design", "get_ports", "get_cells", "get_pins", "get_clocks", "get_pblocks", "create_clock",
    "set_max_delay", "set_bus_skew", "set_false_path", "create_pblock", "resize_pblock", "add_cells_to_pblock",
)
# fmt: on


class Vivado:
    """One run of it.

    Parameters
    ----------
    cells : set of str
        Of the netlist, for constraints: names in the scope that they are read in.
    clock_ports : set of str
        Of the netlist: ports that have a clock.

    Attributes
    ----------
    cells, nets, buses, assigned, excluded
        The block design: models by name; {input pin: driver}; [(master, slave)]; {space: {segment: (offset, bytes)}};
        {space: set of segments}.
    properties : list of (object, name, value)
    constraints : list of (command, arguments)
    """

    def __init__(self, *, netlist=(), clock_ports=(), ports=()):
        import tkinter

        self.netlist, self.clock_ports = sorted(netlist), set(clock_ports)
        self.cells, self.nets, self.buses = {}, {}, []
        self._reached = {}
        self.ports, self.interface_ports = {}, {}
        self.port_nets = {}
        self.assigned, self.excluded = defaultdict(dict), defaultdict(set)
        self.properties, self.constraints, self.pblocks = [], [], {}
        self.netlist_ports = set(ports)
        self.files, self.part, self.board_part, self.validated = [], None, None, False
        self.packaged, self.associated = None, {}
        self._interpreter = tkinter.Tcl()
        self._interpreter.createcommand("python", self._call)
        for name in _COMMANDS:
            if "::" in name:
                self._interpreter.eval(f"namespace eval {name.split('::')[0]} {{}}")
            self._interpreter.eval(
                f"proc {name} {{args}} {{ lassign [python {name} {{*}}$args] state value;"
                " if {$state eq {error}} { return -code error $value }; return $value }"
            )
        self._interpreter.eval("rename unknown {}; rename exec {}; rename open {}")

    def _call(self, name, *arguments):
        try:
            value = getattr(self, "do_" + name.replace("::", "_"))(*map(str, arguments))
        except StubError as error:
            return ("error", str(error))
        except (TypeError, KeyError) as error:
            return ("error", f"{name} {' '.join(map(str, arguments))}: {error!r}")
        return ("ok", "" if value is None else value)

    def run(self, path):
        """Source a script; StubError with what it stopped at."""
        import tkinter

        try:
            self._interpreter.eval(f"source {{{path}}}")
        except tkinter.TclError as error:
            raise StubError(f"{error}; {self._interpreter.eval('set ::errorInfo')}") from None

    # The project.

    def do_create_project(self, *arguments):
        options, _ = _options(arguments, {"-part"}, {"-force"})
        self.part = options["-part"]

    def do_current_project(self):
        return "project"

    def do_get_board_parts(self, *arguments):
        _, (pattern,) = _options(arguments, (), {"-quiet"})
        return tuple(fnmatch.filter(_BOARD_INTERFACES, pattern))

    def do_get_board_part_interfaces(self, pattern):
        if self.board_part is None:
            raise StubError("there is no board part")
        return tuple(fnmatch.filter(_BOARD_INTERFACES[self.board_part], pattern))

    def do_update_ip_catalog(self):
        pass

    def do_add_files(self, *arguments):
        _, names = _options(arguments, {"-fileset"}, {"-norecurse"})
        for name in names:
            for each in self._interpreter.splitlist(name):
                if not Path(each).exists():
                    raise StubError(f"there is no file {each}")
                self.files.append(Path(each))

    def do_get_files(self, name):
        if name == "edgeaccel.bd" or any(path.name == name for path in self.files):
            return name
        raise StubError(f"the project has no file {name}")

    def do_current_fileset(self):
        return "sources_1"

    def do_update_compile_order(self, *arguments):
        _options(arguments, {"-fileset"}, ())

    def do_close_project(self):
        self.files = []

    def do_make_wrapper(self, *arguments):
        options, _ = _options(arguments, {"-files"}, {"-top"})
        if not self.validated or options["-files"] != "edgeaccel.bd":
            raise StubError("a wrapper is made of a design that is valid")
        path = self.folder / "edgeaccel_wrapper.v"
        path.write_text("")
        return str(path)

    def do_set_property(self, *arguments):
        pairs, rest = [], list(arguments)
        if rest[0] == "-dict":
            values = self._interpreter.splitlist(rest[1])
            if len(values) % 2:
                raise StubError(f"set_property -dict takes names and values, not {rest[1]}")
            pairs, rest = list(zip(values[::2], values[1::2], strict=True)), rest[2:]
        else:
            pairs, rest = [(rest[0], rest[1])], rest[2:]
        targets = self._interpreter.splitlist(rest[0]) if len(rest) == 1 else ()
        if not targets:
            raise StubError(f"set_property {' '.join(arguments)}: of what?")
        for target in targets:
            for name, value in pairs:
                self._set(target, name, value)

    def _set(self, target, name, value):
        self.properties.append((target, name, value))
        if name == "board_part":
            self.board_part = value
        if not name.startswith("CONFIG."):
            return
        name = name.removeprefix("CONFIG.")
        if target in self.cells:
            model = self.cells[target]
            if not re.fullmatch(_SETTINGS[model.kind], name):
                raise StubError(f"{model.kind} has no setting {name}")
            if "BOARD_INTERFACE" in name and value not in _BOARD_INTERFACES[self.board_part]:
                raise StubError(f"the board has no interface {value}")
            model.settings[name] = value
            self._build(target, model)
        elif not re.fullmatch(_PORT_SETTINGS, name):
            raise StubError(f"a port has no setting {name}")

    # Packaging.

    def do_ipx_package_project(self, *arguments):
        options, _ = _options(arguments, {"-root_dir", "-vendor", "-library", "-taxonomy"}, {"-import_files", "-force"})
        self.root = Path(options["-root_dir"])
        tops = [value for target, name, value in self.properties if name == "top"]
        source = next(path for path in self.files if path.name == f"{tops[-1]}.v")
        self.packaged = _read_module(source.read_text())
        for name, (mode, clock, *_) in self.packaged.interfaces.items():
            if mode in ("master", "slave") and clock is None:
                raise StubError(f"{name} has no clock")

    def do_ipx_current_core(self):
        return "core"

    def do_ipx_get_bus_interfaces(self, name, *arguments):
        return name if name in self.packaged.interfaces or name in ("irq", *self.packaged.pins) else ""

    def do_ipx_associate_bus_interfaces(self, *arguments):
        options, _ = _options(arguments, {"-busif", "-clock", "-reset"}, ())
        if "-busif" in options:
            if self.packaged.interfaces[options["-busif"]][1] != options["-clock"]:
                raise StubError(f"{options['-busif']} has another clock than {options['-clock']}")
            self.associated[options["-busif"]] = options["-clock"]
        elif self.packaged.pins.get(options["-reset"]) != "in" or self.packaged.pins.get(options["-clock"]) != "in":
            raise StubError(f"there are no {options['-clock']} and {options['-reset']}")

    def do_ipx_create_xgui_files(self, core):
        pass

    do_ipx_update_checksums = do_ipx_check_integrity = do_ipx_create_xgui_files

    def do_ipx_save_core(self, core):
        masters = {name for name, (mode, *_) in self.packaged.interfaces.items() if mode in ("master", "slave")}
        if masters != set(self.associated):
            raise StubError(f"without a clock: {sorted(masters - set(self.associated))}")
        self.root.mkdir(parents=True)
        (self.root / "component.xml").write_text(self.packaged.kind)

    # The block design.

    def do_create_bd_design(self, name):
        self.folder = self.files[0].parent if self.files else Path(self._interpreter.eval("set ::here"))

    def do_create_bd_cell(self, *arguments):
        options, (name,) = _options(arguments, {"-type", "-vlnv", "-reference"}, ())
        if name in self.cells:
            raise StubError(f"there is a cell {name} already")
        if options["-type"] == "module":
            source = next((path for path in self.files if path.name == options["-reference"] + ".v"), None)
            if source is None:
                raise StubError(f"the project has no module {options['-reference']}")
            model = _read_module(source.read_text())
        elif options["-vlnv"].startswith("xilinx.com:ip:"):
            kind = options["-vlnv"].split(":")[2]
            if kind not in _SETTINGS:
                raise StubError(f"there is no IP {options['-vlnv']}")
            model = Model(kind)
        else:
            kind = options["-vlnv"].split(":")[2]
            model = _read_module((self.folder / f"{kind}.v").read_text())
        self.cells[name] = model
        self._build(name, model)
        return name

    def _build(self, name, model):
        """Pins and interfaces of an IP, as its settings make them."""
        build = getattr(self, f"_build_{model.kind}", None)
        if build:
            model.pins, model.interfaces, model.needed, model.segments = {}, {}, set(), {}
            build(model, model.settings)

    def _build_clk_wiz(self, model, settings):
        count = int(settings.get("NUM_OUT_CLKS", 1))
        model.pins = {f"clk_out{n}": "out" for n in range(1, count + 1)}
        if settings.get("USE_LOCKED", "true") == "true":
            model.pins["locked"] = "out"
        if settings.get("USE_RESET", "true") == "true":
            model.pins["reset"] = "in"
            model.needed = {"reset"}
        model.interfaces = {"CLK_IN1_D": ("port", None, None, "diff_clock")}

    def _build_proc_sys_reset(self, model, settings):
        inputs = ("slowest_sync_clk", "ext_reset_in", "aux_reset_in", "mb_debug_sys_rst", "dcm_locked")
        outputs = (
            *("mb_reset", "bus_struct_reset", "peripheral_reset"),
            *("interconnect_aresetn", "peripheral_aresetn"),
        )
        model.pins = dict.fromkeys(inputs, "in") | dict.fromkeys(outputs, "out")
        model.needed = {"slowest_sync_clk", "ext_reset_in"}

    def _build_util_ds_buf(self, model, settings):
        model.pins = {"IBUF_OUT": "out"}
        if settings.get("C_BUF_TYPE") == "IBUFDSGTE":
            model.pins["IBUF_DS_ODIV2"] = "out"
        model.interfaces = {"CLK_IN_D": ("port", None, None, "diff_clock")}

    def _build_xlconstant(self, model, settings):
        model.pins = {"dout": "out"}

    def _build_smartconnect(self, model, settings):
        clocks = [f"aclk{n or ''}" for n in range(int(settings.get("NUM_CLKS", 1)))]
        model.pins = dict.fromkeys([*clocks, "aresetn"], "in")
        model.needed = set(model.pins)
        for n in range(int(settings.get("NUM_SI", 16))):
            model.interfaces[f"S{n:02d}_AXI"] = ("slave", None, None, None)
        for n in range(int(settings.get("NUM_MI", 1))):
            model.interfaces[f"M{n:02d}_AXI"] = ("master", None, None, None)

    def _build_axi_register_slice(self, model, settings):
        model.pins = {"aclk": "in", "aresetn": "in"}
        model.needed = set(model.pins)
        model.interfaces = {"S_AXI": ("slave", "aclk", None, None), "M_AXI": ("master", "aclk", None, None)}

    def _build_xdma(self, model, settings):
        model.pins = dict.fromkeys(("sys_clk", "sys_clk_gt", "sys_rst_n", "usr_irq_req"), "in")
        model.needed = set(model.pins)
        model.pins |= dict.fromkeys(("axi_aclk", "axi_aresetn", "usr_irq_ack", "user_lnk_up"), "out")
        model.interfaces = {"pcie_mgt": ("port", None, None, "pcie_7x_mgt")}
        if settings.get("xdma_axi_intf_mm", "AXI_Memory_Mapped") == "AXI_Memory_Mapped":
            width = int(settings.get("axi_data_width", "64_bit").removesuffix("_bit"))
            model.interfaces["M_AXI"] = ("master", "axi_aclk", width, "AXI4")
        if settings.get("axilite_master_en") == "true":
            model.interfaces["M_AXI_LITE"] = ("master", "axi_aclk", 32, "AXI4LITE")

    def _build_hbm(self, model, settings):
        ports = [f"{n:02d}" for n in range(16 * int(settings.get("USER_HBM_STACK", 1)))]
        sides = range(len(ports) // 16)
        for side in sides:
            for pin in (f"HBM_REF_CLK_{side}", f"APB_{side}_PCLK", f"APB_{side}_PRESET_N"):
                model.pins[pin] = "in"
        for port in ports:
            model.pins |= {f"AXI_{port}_ACLK": "in", f"AXI_{port}_ARESET_N": "in"}
            model.interfaces[f"SAXI_{port}"] = ("slave", f"AXI_{port}_ACLK", 256, "AXI3")
            model.segments[f"SAXI_{port}"] = {f"HBM_MEM{n}": (int(n) << 28, 1 << 28) for n in ports}
        model.needed = set(model.pins)

    def _build_ddr4(self, model, settings):
        model.pins = {"sys_rst": "in", "c0_ddr4_aresetn": "in", "c0_ddr4_ui_clk": "out"}
        model.pins |= {"c0_ddr4_ui_clk_sync_rst": "out", "c0_init_calib_complete": "out"}
        model.needed = {"sys_rst", "c0_ddr4_aresetn"}
        model.interfaces = {
            "C0_SYS_CLK": ("port", None, None, "diff_clock"),
            "C0_DDR4": ("port", None, None, "ddr4"),
            "C0_DDR4_S_AXI": ("slave", "c0_ddr4_ui_clk", 512, "AXI4"),
        }
        size = _DDR4_BYTES[self.board_part.split(":")[1]]
        model.segments = {"C0_DDR4_S_AXI": {"C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK": (None, size)}}

    def do_create_bd_port(self, *arguments):
        options, (name,) = _options(arguments, {"-dir", "-type", "-from", "-to"}, ())
        self.ports[name] = {"I": "out", "O": "in"}[options["-dir"]]  # as the design sees it

    def do_create_bd_intf_port(self, *arguments):
        options, (name,) = _options(arguments, {"-mode", "-vlnv"}, ())
        self.interface_ports[name] = options["-vlnv"].split(":")[2].removesuffix("_rtl")

    def do_get_bd_cells(self, name):
        return _known(name, self.cells)

    def do_get_bd_pins(self, name):
        cell, _, pin = name.partition("/")
        if cell not in self.cells or pin not in self.cells[cell].pins:
            raise StubError(f"there is no pin {name}")
        return name

    def do_get_bd_intf_pins(self, name):
        cell, _, interface = name.partition("/")
        if cell not in self.cells or interface not in self.cells[cell].interfaces:
            raise StubError(f"there is no interface {name}")
        return name

    def do_get_bd_ports(self, name):
        return _known(name, self.ports)

    def do_get_bd_intf_ports(self, name):
        return _known(name, self.interface_ports)

    def _direction(self, name):
        if name in self.ports:
            return self.ports[name]
        cell, pin = name.split("/")
        return self.cells[cell].pins[pin]

    def do_connect_bd_net(self, first, second):
        pins = sorted((first, second), key=lambda name: self._direction(name) == "in")
        if [self._direction(name) for name in pins] != ["out", "in"]:
            raise StubError(f"{first} and {second} do not make a net")
        source, sink = pins
        if sink in self.nets:
            raise StubError(f"{sink} has two drivers, {self.nets[sink]} and {source}")
        self.nets[sink] = source

    def _interface(self, name):
        cell, interface = name.split("/")
        return self.cells[cell].interfaces[interface]

    def do_connect_bd_intf_net(self, first, second):
        if first in self.interface_ports:
            mode, _, _, protocol = self._interface(second)
            if mode != "port" or protocol != self.interface_ports[first] or second in self.port_nets.values():
                raise StubError(f"{first} and {second} do not go together")
            self.port_nets[first] = second
            return
        if (self._interface(first)[0], self._interface(second)[0]) != ("master", "slave"):
            raise StubError(f"{first} must be a master and {second} a slave")
        for name in (first, second):
            if any(name in bus for bus in self.buses):
                raise StubError(f"{name} is connected twice")
        self.buses.append((first, second))
        self._reached = {}

    def do_get_bd_addr_spaces(self, name):
        cell = self.cells[self.do_get_bd_intf_pins(name).split("/")[0]]
        if self._interface(name)[0] != "master" or cell.kind in _PASSING:
            raise StubError(f"{name} is no address space")
        return name

    def _segment(self, name):
        """(interface, preset offset or None, bytes) of a segment."""
        cell, rest = name.split("/", 1)
        for interface, segments in self.cells[cell].segments.items():
            for segment, (offset, size) in segments.items():
                if rest == segment or rest == f"{interface}/{segment}":
                    return f"{cell}/{interface}", offset, size
        raise StubError(f"there is no segment {name}")

    def do_get_bd_addr_segs(self, name):
        self._segment(name)
        return name

    def do_assign_bd_address(self, *arguments):
        options, (segment,) = _options(arguments, {"-offset", "-range", "-target_address_space"}, {"-force"})
        space, offset, size = options["-target_address_space"], int(options["-offset"], 0), int(options["-range"], 0)
        interface, preset, most = self._segment(segment)
        if size & (size - 1) or offset % size or size > most:
            raise StubError(f"{segment}: {size:#x} bytes from {offset:#x} on cannot be decoded")
        if preset is not None and preset != offset:
            raise StubError(f"{segment} is at {preset:#x}, not at {offset:#x}")
        if interface not in self._slaves(space):
            raise StubError(f"{space} does not reach {interface}")
        for other, (begin, length) in self.assigned[space].items():
            if begin < offset + size and offset < begin + length:
                raise StubError(f"{segment} and {other} overlap in {space}")
        self.assigned[space][segment] = (offset, size)

    def do_exclude_bd_addr_seg(self, *arguments):
        options, (segment,) = _options(arguments, {"-target_address_space"}, ())
        space = options["-target_address_space"]
        if self._segment(segment)[0] not in self._slaves(space):
            raise StubError(f"{space} does not reach {segment}")
        self.excluded[space].add(segment)

    def _slaves(self, master):
        """Interfaces with segments that a master reaches."""
        if master in self._reached:
            return self._reached[master]
        sinks = [sink for source, sink in self.buses if source == master]
        found = set()
        for sink in sinks:
            cell = sink.split("/")[0]
            model = self.cells[cell]
            if model.kind in _PASSING:
                for interface, (mode, *_) in model.interfaces.items():
                    if mode == "master":
                        found |= self._slaves(f"{cell}/{interface}")
            else:
                found.add(sink)
        self._reached[master] = found
        return found

    def do_validate_bd_design(self):
        for cell, model in self.cells.items():
            for pin in model.needed:
                if f"{cell}/{pin}" not in self.nets:
                    raise StubError(f"nothing drives {cell}/{pin}")
            for interface, (mode, *_) in model.interfaces.items():
                self._validate_interface(f"{cell}/{interface}", mode, model)
        for port, direction in self.ports.items():
            if port not in (self.nets if direction == "in" else self.nets.values()):
                raise StubError(f"the port {port} is not connected")
        if missing := set(self.interface_ports) - set(self.port_nets):
            raise StubError(f"the ports {sorted(missing)} are not connected")
        for master, slave in self.buses:
            self._validate_bus(master, slave)
        self._validate_resets()
        self._validate_addresses()
        self.validated = True

    def _validate_interface(self, name, mode, model):
        ends = {"master": 0, "slave": 1}
        if mode == "port":
            if name not in self.port_nets.values():
                raise StubError(f"{name} is not connected")
        elif model.kind != "hbm" and name not in (bus[ends[mode]] for bus in self.buses):
            raise StubError(f"{name} is not connected")

    def clock_of(self, interface):
        """Pins that the clock of an interface comes from: of a SmartConnect all of its clocks."""
        cell = interface.split("/")[0]
        _, pin, _, _ = self._interface(interface)
        pins = [pin] if pin else [each for each in self.cells[cell].pins if each.startswith("aclk")]
        return {self.nets.get(f"{cell}/{each}", f"{cell}/{each}") for each in pins}

    def _validate_bus(self, master, slave):
        if not self.clock_of(master) & self.clock_of(slave):
            raise StubError(f"{master} and {slave} have different clocks")
        if "smartconnect" in (self.cells[name.split("/")[0]].kind for name in (master, slave)):
            return
        for what, n in (("widths", 2), ("protocols", 3)):
            ends = {self._interface(name)[n] for name in (master, slave)} - {None}
            if len(ends) > 1:
                raise StubError(f"{master} and {slave} have different {what}: {ends}")

    def _validate_resets(self):
        """What resets a cell must be of the cell's own clock."""
        pairs = {"rst": "clk", "port_rst": "port_clk", "resetn": "clk", "c0_ddr4_aresetn": "c0_ddr4_ui_clk"}
        for cell, model in self.cells.items():
            for pin in model.pins:
                clock = pairs.get(pin) or (pin.replace("ARESET_N", "ACLK") if pin.endswith("_ARESET_N") else None)
                clock = clock or (pin.replace("PRESET_N", "PCLK") if pin.endswith("_PRESET_N") else None)
                if clock is None or model.pins[pin] != "in":
                    continue
                source = self.nets[f"{cell}/{pin}"]
                of = source.split("/")[0]
                own = self.nets.get(f"{cell}/{clock}", f"{cell}/{clock}")
                made = self.nets.get(f"{of}/slowest_sync_clk", f"{of}/axi_aclk")
                if own != made:
                    raise StubError(f"{cell}/{pin} is reset in the clock {made}, but its clock is {own}")
                high = source.endswith("peripheral_reset")
                if high != (pin in ("rst", "port_rst")):
                    raise StubError(f"{cell}/{pin} has a reset of the wrong polarity")

    def _validate_addresses(self):
        for cell, model in self.cells.items():
            if model.kind in _PASSING:
                continue
            for interface, (mode, *_) in model.interfaces.items():
                space = f"{cell}/{interface}"
                if mode != "master":
                    continue
                for slave in self._slaves(space):
                    owner, name = slave.split("/")
                    for segment in self.cells[owner].segments[name]:
                        names = {f"{owner}/{segment}", f"{slave}/{segment}"}
                        if not names & (set(self.assigned[space]) | self.excluded[space]):
                            raise StubError(f"{space} has no address for {slave}/{segment}")

    def do_save_bd_design(self):
        pass

    # Constraints.

    def do_get_ports(self, pattern):
        return self._matching(pattern, self.netlist_ports, "port")

    def do_get_clocks(self, *arguments):
        options, _ = _options(arguments, {"-of_objects"}, ())
        if options["-of_objects"] not in self.clock_ports:
            raise StubError(f"there is no clock at {options['-of_objects']}")
        return "clock:" + options["-of_objects"]

    def do_get_cells(self, *arguments):
        return self._find(arguments, self.netlist)

    def do_get_pins(self, *arguments):
        return self._find(arguments, [f"{name}/PRE" for name in self.netlist if "/rst_cdc/" in name])

    def _find(self, arguments, names):
        options, patterns = _options(arguments, {"-filter"}, {"-hierarchical"})
        if "-filter" in options:
            match = re.fullmatch(r"NAME =~ (\S+)", options["-filter"])
            if not match or patterns:
                raise StubError(f"a filter that is not known: {options['-filter']}")
            patterns = [match[1]]
        return self._matching(patterns[0], names, "cell or pin")

    def _matching(self, pattern, names, what):
        glob = re.sub(r"\[(.*?)\]", r"[[]\1]", pattern)  # brackets are part of a name
        if not (found := fnmatch.filter(names, glob)):
            raise StubError(f"no {what} is called {pattern}")
        return tuple(sorted(found))

    def do_create_clock(self, *arguments):
        options, objects = _options(arguments, {"-name", "-period"}, ())
        self.constraints.append(("create_clock", options | {"objects": objects}))

    def _between(self, command, arguments, flags):
        options, rest = _options(arguments, {"-from", "-to"}, flags)
        if "" in options.values() or ("-from" not in options and "-to" not in options):
            raise StubError(f"{command} from nothing, or to nothing")
        self.constraints.append((command, options | {"value": rest}))

    def do_set_max_delay(self, *arguments):
        self._between("set_max_delay", arguments, {"-datapath_only"})

    def do_set_bus_skew(self, *arguments):
        self._between("set_bus_skew", arguments, ())

    def do_set_false_path(self, *arguments):
        self._between("set_false_path", arguments, ())

    def do_create_pblock(self, name):
        self.pblocks[name] = (set(), set())

    def do_get_pblocks(self, name):
        return _known(name, self.pblocks)

    def do_resize_pblock(self, *arguments):
        options, (name,) = _options(arguments, {"-add"}, ())
        if not re.fullmatch(r"SLR[0-2]:SLR[0-2]", options["-add"]):
            raise StubError(f"the device has no {options['-add']}")
        self.pblocks[name][0].add(options["-add"])

    def do_add_cells_to_pblock(self, name, cells):
        for cell in self._interpreter.splitlist(cells):
            if any(cell in own for _, own in self.pblocks.values()):
                raise StubError(f"{cell} is in two pblocks")
            self.pblocks[name][1].add(cell)


def _options(arguments, valued, flags):
    """({option: value}, the rest); an option that is not known is an error."""
    options, rest, arguments = {}, [], list(arguments)
    while arguments:
        word = arguments.pop(0)
        if word in valued:
            options[word] = arguments.pop(0)
        elif word in flags:
            options[word] = True
        elif re.match(r"-[a-z]", word):
            raise StubError(f"there is no option {word}")
        else:
            rest.append(word)
    return options, rest


def _known(name, names):
    if name not in names:
        raise StubError(f"there is no {name}")
    return name


def _read_module(text):
    """Model of a Verilog module from its X_INTERFACE attributes."""
    name = re.search(r"^module (\w+) \(", text, re.MULTILINE)[1]
    head = text[text.index(f"module {name} (") : text.index("\n);")]
    model = Model(name)
    parameters, clocks, roles = {}, {}, {}
    for attributes, direction, port in re.findall(
        r"(?:\(\* (.*?) \*\)\n)?  (input|output) wire (?:\[\d+:0\] )?(\w+)", head
    ):
        info = re.search(r'X_INTERFACE_INFO = "(\S+) (\S+) (\S+)"', attributes)
        values = re.search(r'X_INTERFACE_PARAMETER = "(.*?)"', attributes)
        given = dict(pair.split(" ", 1) for pair in values[1].split(", ")) if values else {}
        if info is None or not info[1].startswith("xilinx.com:interface:aximm:"):
            model.pins[port] = {"input": "in", "output": "out"}[direction]
            if direction == "input":
                model.needed.add(port)
            for interface in given.get("ASSOCIATED_BUSIF", "").split(":"):
                clocks[interface] = port
            if given.get("ASSOCIATED_RESET", port) not in (port, *re.findall(r"\w+", head)):
                raise StubError(f"{port} has no reset {given['ASSOCIATED_RESET']}")
            continue
        parameters.setdefault(info[2], {}).update(given)
        if info[3] in ("ARVALID", "AWVALID"):
            roles[info[2]] = {"output": "master", "input": "slave"}[direction]
    for interface, given in parameters.items():
        if given["XIL_INTERFACENAME"] != interface:
            raise StubError(f"{interface} is called {given['XIL_INTERFACENAME']}")
        role = roles[interface]
        model.interfaces[interface] = (role, clocks.get(interface), int(given["DATA_WIDTH"]), given["PROTOCOL"])
        if role == "slave":
            model.segments[interface] = {"reg0": (None, 1 << int(given["ADDR_WIDTH"]))}
    return model
