"""Tcl that builds a block design: machine, memory controllers, PCIe, clocks, and the ways between them.

Names of IP, pins and settings: AMD PG276 (HBM), PG150 (DDR4), PG195 (XDMA), PG247 (SmartConnect), PG065 (clocking
wizard), PG164 (resets), PG373 (AXI register slice); commands: UG835 and UG994.
"""

from edgeaccel.boards.constraints import pin_table
from edgeaccel.boards.controllers import Controllers, reset_of
from edgeaccel.boards.placement import group_slrs
from edgeaccel.boards.script import PROCEDURES, Script
from edgeaccel.boards.wrapper import ip_interfaces

__all__ = ["design_tcl"]

_NETS = {"clk": "core", "port_clk": "port", "host_clk": "host"}
"""Clocks of the design, by the machine's port."""


def design_tcl(description, memory_map):
    """Script for `vivado -mode batch -source design.tcl`: a project in `build/project` beside the script."""
    return _Design(description, memory_map).text()


class _Design(Script):
    def __init__(self, description, memory_map):
        super().__init__()
        self.description, self.map, self.board = description, memory_map, memory_map.board
        self.module, self.config = description["module"], memory_map.machine.config
        self.interfaces = ip_interfaces(description, memory_map)
        two_clocks = len(description["clock_domains"]) > 1
        self.controllers = Controllers(memory_map, port_clock="port" if two_clocks else "core")
        self.made = {"core": self.config.core_mhz}  # MHz of the clocks that the wizard makes
        self.made |= {"port": self.config.port_mhz} if two_clocks else {}
        self.made |= {"reference": 100} if self.controllers.is_hbm else {}
        # The pin that each clock comes from.
        self.clocks = {name: f"clocks/clk_out{n}" for n, name in enumerate(self.made, 1)}
        self.clocks |= {"host": "host/axi_aclk"} | self.controllers.clocks

    def text(self):
        self._project()
        self._clocking()
        self._host()
        self.lines += self.controllers.cells(self.clocks)
        self._machine()
        view = self._host_view()
        self._ways(view)
        self._addresses(view)
        self._end()
        return "\n".join(self.lines)

    def _project(self):
        board, has_view = self.board, not self.map.is_identity
        view = [f"add_files -norecurse $here/{self.module}_host.v", "update_compile_order -fileset sources_1"]
        self.lines += [
            f"# Block design of {self.module} on {board.title}: vivado -mode batch -source design.tcl",
            f"# {self.description['generator']}.",
            "",
            *PROCEDURES.splitlines(),
            "",
            f"create_project -force {self.module} $here/build/project -part {board.vivado_part}",
            f"set board_parts [get_board_parts -quiet {board.board_part}]",
            "if {[llength $board_parts] == 0} {",
            f'  error "Vivado has no board files {board.board_part}: install them, Tools, Vivado Store"',
            "}",
            "set_property board_part [lindex [lsort -dictionary $board_parts] end] [current_project]",
            "set_property ip_repo_paths [list $here/build/ip] [current_project]",
            "update_ip_catalog",
            *(view if has_view else []),
            "create_bd_design edgeaccel",
        ]

    def _clocking(self):
        mhz = pin_table(self.board)[0][-1]
        self.section("Clocks, and a reset for each until they are there.")
        self.differential_clock("clock", mhz)
        settings = [
            "CONFIG.PRIM_SOURCE Differential_clock_capable_pin",
            f"CONFIG.PRIM_IN_FREQ {mhz:.3f}",
            f"CONFIG.NUM_OUT_CLKS {len(self.made)}",
            "CONFIG.USE_RESET false",
            "CONFIG.USE_LOCKED true",
        ]
        for n, out_mhz in enumerate(self.made.values(), 1):
            settings += [f"CONFIG.CLKOUT{n}_USED true", f"CONFIG.CLKOUT{n}_REQUESTED_OUT_FREQ {out_mhz:.3f}"]
        self.ip("clk_wiz", "clocks", settings)
        self.from_port("clock", "clocks/CLK_IN1_D")
        for name in self.made:
            self.ip("proc_sys_reset", f"{name}_reset", ["CONFIG.C_EXT_RESET_HIGH 0"])
            self.pins(self.clocks[name], f"{name}_reset/slowest_sync_clk")
            self.pins("clocks/locked", f"{name}_reset/ext_reset_in", f"{name}_reset/dcm_locked")

    def _host(self):
        megabytes = max(1, (1 << self.description["registers"]["address_width"]) >> 20)
        self.section("PCIe: memory through the master, registers through the lite master, an interrupt.")
        self.differential_clock("pcie_refclk", 100)
        self.lines += [
            "create_bd_port -dir I -type rst pcie_perst",
            "set_property CONFIG.POLARITY ACTIVE_LOW [get_bd_ports pcie_perst]",
            "create_bd_intf_port -mode Master -vlnv xilinx.com:interface:pcie_7x_mgt_rtl:1.0 pcie",
        ]
        self.ip("util_ds_buf", "pcie_clock", ["CONFIG.C_BUF_TYPE IBUFDSGTE"])
        self.ip(
            "xdma",
            "host",
            [
                "CONFIG.PCIE_BOARD_INTERFACE pci_express_x16",
                "CONFIG.mode_selection Advanced",
                "CONFIG.pl_link_cap_max_link_width X16",
                "CONFIG.pl_link_cap_max_link_speed 8.0_GT/s",
                "CONFIG.xdma_axi_intf_mm AXI_Memory_Mapped",
                "CONFIG.axi_data_width 512_bit",
                "CONFIG.axisten_freq 250",
                "CONFIG.axilite_master_en true",
                "CONFIG.axilite_master_scale Megabytes",
                f"CONFIG.axilite_master_size {megabytes}",
                "CONFIG.xdma_rnum_chnl 1",
                "CONFIG.xdma_wnum_chnl 1",
                "CONFIG.xdma_num_usr_irq 1",
            ],
        )
        self.from_port("pcie_refclk", "pcie_clock/CLK_IN_D")
        self.from_port("pcie", "host/pcie_mgt")
        self.lines.append("connect_bd_net [get_bd_ports pcie_perst] [get_bd_pins host/sys_rst_n]")
        self.pins("pcie_clock/IBUF_DS_ODIV2", "host/sys_clk")
        self.pins("pcie_clock/IBUF_OUT", "host/sys_clk_gt")

    def _machine(self):
        self.section("The machine. Its clocks' resets are active high.")
        self.lines.append(f"create_bd_cell -type ip -vlnv edgeaccel:user:{self.module}_ip machine")
        for domain in self.description["clock_domains"]:
            name = _NETS[domain["clock"]]
            self.pins(self.clocks[name], f"machine/{domain['clock']}")
            self.pins(f"{name}_reset/peripheral_reset", f"machine/{domain['reset']}")
        self.pins(self.clocks["host"], "machine/host_clk")
        self.pins("machine/irq", "host/usr_irq_req")
        leds = sum(port.startswith("leds[") for port, *_ in pin_table(self.board))
        self.lines += [
            f"create_bd_port -dir O -from {leds - 1} -to 0 leds",
            "connect_bd_net [get_bd_pins machine/leds] [get_bd_ports leds]",
        ]

    def _host_view(self):
        """Interface through which the host sees all memory."""
        if self.map.is_identity:
            return "host/M_AXI"
        self.section("The host's addresses are the machine's.")
        self.lines.append(f"create_bd_cell -type module -reference {self.module}_host host_view")
        self.pins(self.clocks["host"], "host_view/clk")
        self.pins("host/axi_aresetn", "host_view/resetn")
        self.buses("host/M_AXI", "host_view/s_axi")
        return "host_view/m_axi"

    def _ways(self, view):
        controllers, clock = self.controllers, self.controllers.port_clock
        self.section("Registers.")
        self._smartconnect("registers", [("host/M_AXI_LITE", "host")], [("machine/s_axil", "core")])

        self.section("Channels that others reach too, or that are wider than their port.")
        sinks = {}
        for each in (each for each in self.interfaces if each.port is not None):
            n, is_joined = each.port, each.port in controllers.joined
            sinks[n] = controllers.slave(n)
            if is_joined or each.data_width != self.board.ports.width:
                sources = [(None, _NETS[each.clock])] + ([(None, clock)] if is_joined else [])
                self._smartconnect(f"port_{n}", sources, [(sinks[n], controllers.clock(n))])
                sinks[n] = f"port_{n}/S00_AXI"
        self._ports(sinks)

        self.section("What sees all memory.")
        sources = [(view, "host"), *((f"machine/{each.name}", _NETS[each.clock]) for each in self._shared())]
        sinks = [(f"port_{n}/S01_AXI", clock) for n in controllers.joined] or [(controllers.free, clock)]
        sinks += [("ddr4_data/C0_DDR4_S_AXI", "ddr4_data")] if self.board.data else []
        self._smartconnect("shared", sources, sinks)

    def _ports(self, sinks):
        """The machine's ports to the interfaces `sinks`; to HBM from another SLR, which has none, through registers."""
        slrs = group_slrs(self.board, self.map.machine) if self.controllers.is_hbm else None
        far = {n: slr for n, slr in enumerate(slrs or []) if slr}
        clock = self.controllers.port_clock
        self.section("The ports; those of groups in other SLRs than the HBM's through register slices.")
        self.loop(
            f"foreach {{port sink}} {{{'  '.join(f'{n} {sink}' for n, sink in sinks.items() if n not in far)}}}",
            "connect_buses machine/m_axi_$port $sink",
        )
        if not far:
            return
        self.loop(
            f"foreach {{port crossings sink}} {{{'  '.join(f'{n} {slr} {sinks[n]}' for n, slr in far.items())}}}",
            "add_ip axi_register_slice slice_$port \\",
            "  CONFIG.REG_AR 15 CONFIG.REG_R 15 CONFIG.NUM_SLR_CROSSINGS $crossings",
            f"connect_pins {self.clocks[clock]} slice_$port/aclk",
            f"connect_pins {reset_of(clock)} slice_$port/aresetn",
            "connect_buses machine/m_axi_$port slice_$port/S_AXI",
            "connect_buses slice_$port/M_AXI $sink",
        )

    def _addresses(self, view):
        registers = max(self.description["registers"]["address_width"], 12)
        self.section("Addresses: those of the card; a port sees its channel, the others all.")
        self.lines.append(f"assign_segment host/M_AXI_LITE machine/s_axil/reg0 0x0 {1 << registers:#x}")
        if view != "host/M_AXI":
            end = 1 << (self.map.machine.data_base + self.map.data_bytes - 1).bit_length()
            self.lines.append(f"assign_segment host/M_AXI host_view/s_axi/reg0 0x0 {end:#x}")
        self.lines += self.controllers.segments([*(f"machine/{each.name}" for each in self._shared()), view])

    def _end(self):
        xdc = f"{self.board.name}.xdc"
        self.section("A top for it, and its constraints.")
        self.lines += [
            "validate_bd_design",
            "save_bd_design",
            "set wrapper [make_wrapper -files [get_files edgeaccel.bd] -top]",
            "add_files -norecurse $wrapper",
            f"add_files -fileset constrs_1 -norecurse $here/{xdc}",
            f"set_property USED_IN {{implementation}} [get_files {xdc}]",
            "set_property top edgeaccel_wrapper [current_fileset]",
            "update_compile_order -fileset sources_1",
            "",
        ]

    def _shared(self):
        """Masters of the machine that see all memory."""
        return [each for each in self.interfaces if each.role == "master" and each.port is None]

    def _smartconnect(self, name, slaves, masters):
        """A SmartConnect from and to (interface, clock); without an interface another line connects it."""
        clocks = list(dict.fromkeys(clock for _, clock in [*slaves, *masters]))
        counts = {"NUM_SI": len(slaves), "NUM_MI": len(masters), "NUM_CLKS": len(clocks)}
        self.ip("smartconnect", name, [f"CONFIG.{key} {count}" for key, count in counts.items()])
        for n, clock in enumerate(clocks):
            self.pins(self.clocks[clock], f"{name}/aclk{n or ''}")
        self.pins(reset_of(next(clock for clock in clocks if clock in self.made)), f"{name}/aresetn")
        for n, (interface, _) in enumerate(slaves):
            if interface:
                self.buses(interface, f"{name}/S{n:02d}_AXI")
        for n, (interface, _) in enumerate(masters):
            self.buses(f"{name}/M{n:02d}_AXI", interface)
