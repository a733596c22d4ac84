"""Memory controllers of a block design: where the machine's ports go, and what addresses they have there."""

from edgeaccel.boards.script import Script

__all__ = ["Controllers", "reset_of"]


def reset_of(clock):
    """The reset, active low, that belongs to a clock of the design."""
    return f"{clock}_reset/peripheral_aresetn"


class Controllers:
    """The controllers of a board that a machine uses.

    Parameters
    ----------
    memory_map : MemoryMap
    port_clock : str
        Clock of the machine's ports, which an HBM's ports take too.

    Attributes
    ----------
    clocks : dict
        Pins of the clocks that controllers make, by name.
    """

    def __init__(self, memory_map, port_clock):
        self.map, self.board, self.port_clock = memory_map, memory_map.board, port_clock
        self.groups = memory_map.machine.config.groups
        self.is_hbm = self.board.ports.kind == "hbm"
        self._ddr4 = [] if self.is_hbm else [(f"ddr4_{n}", self.board.ports, n) for n in range(self.groups)]
        if self.board.data:
            self._ddr4.append(("ddr4_data", self.board.data, 0))
        self.clocks = {cell: f"{cell}/c0_ddr4_ui_clk" for cell, _, _ in self._ddr4}

    @property
    def joined(self):
        """Ports whose channel has to be reached by others too: of DDR4 all, of HBM the last one if none is free."""
        if not self.is_hbm:
            return range(self.groups)
        return [self.groups - 1] if self.groups == self.board.ports.channels else []

    @property
    def free(self):
        """The interface of an HBM's port that no port of the machine has."""
        return self.slave(self.board.ports.channels - 1)

    def slave(self, channel):
        """Interface of a channel."""
        return f"hbm/SAXI_{channel:02d}" if self.is_hbm else f"ddr4_{channel}/C0_DDR4_S_AXI"

    def clock(self, channel):
        return self.port_clock if self.is_hbm else f"ddr4_{channel}"

    def cells(self, clocks):
        """Lines that make the controllers; `clocks` are the pins of all clocks, by name."""
        script = Script()
        if self.is_hbm:
            self._hbm_cell(script, clocks)
        if self._ddr4:
            script.section("DDR4: pins and settings from the board files; a reset for each channel's clock.")
            script.ip("xlconstant", "zero", ["CONFIG.CONST_WIDTH 1", "CONFIG.CONST_VAL 0"])
        for cell, memory, n in self._ddr4:
            self._ddr4_cell(script, cell, memory, n)
        return script.lines

    def _hbm_cell(self, script, clocks):
        memory, mhz = self.board.ports, f"{self.map.machine.config.port_mhz:g}"
        script.section("HBM: every port sees all of it, through the switch.")
        script.ip(
            "hbm",
            "hbm",
            [
                f"CONFIG.USER_HBM_DENSITY {memory.bytes >> 30}GB",
                "CONFIG.USER_HBM_STACK 2",
                f"CONFIG.USER_MEMORY_DISPLAY {memory.bytes >> 20}",
                "CONFIG.USER_AUTO_POPULATE yes",
                "CONFIG.USER_APB_EN false",
                "CONFIG.USER_SWITCH_ENABLE_00 TRUE",
                "CONFIG.USER_SWITCH_ENABLE_01 TRUE",
                "CONFIG.USER_HBM_REF_CLK_0 100",
                "CONFIG.USER_HBM_REF_CLK_1 100",
                f"CONFIG.USER_AXI_INPUT_CLK_FREQ {mhz}",
                f"CONFIG.USER_AXI_INPUT_CLK1_FREQ {mhz}",
                "CONFIG.USER_CLK_SEL_LIST0 AXI_00_ACLK",
                f"CONFIG.USER_CLK_SEL_LIST1 AXI_{memory.channels // 2:02d}_ACLK",
            ],
        )
        pins = ("HBM_REF_CLK_0", "HBM_REF_CLK_1", "APB_0_PCLK", "APB_1_PCLK")
        script.pins(clocks["reference"], *(f"hbm/{pin}" for pin in pins))
        script.pins(reset_of("reference"), "hbm/APB_0_PRESET_N", "hbm/APB_1_PRESET_N")
        script.loop(
            f"for {{set n 0}} {{$n < {memory.channels}}} {{incr n}}",
            "set port [format hbm/AXI_%02d $n]",
            f"connect_pins {clocks[self.port_clock]} ${{port}}_ACLK",
            f"connect_pins {reset_of(self.port_clock)} ${{port}}_ARESET_N",
        )

    def _ddr4_cell(self, script, cell, memory, n):
        script.differential_clock(f"{cell}_clock", 1e6 / memory.clock_ps)
        script.lines.append(f"create_bd_intf_port -mode Master -vlnv xilinx.com:interface:ddr4_rtl:1.0 {cell}_pins")
        script.ip(
            "ddr4",
            cell,
            [
                f"CONFIG.C0_CLOCK_BOARD_INTERFACE {memory.clocks[n]}",
                f"CONFIG.C0_DDR4_BOARD_INTERFACE [board_interface {memory.interfaces[n]}]",
                *memory.settings,
            ],
        )
        script.from_port(f"{cell}_clock", f"{cell}/C0_SYS_CLK")
        script.from_port(f"{cell}_pins", f"{cell}/C0_DDR4")
        script.pins("zero/dout", f"{cell}/sys_rst")
        script.ip("proc_sys_reset", f"{cell}_reset", ["CONFIG.C_EXT_RESET_HIGH 1"])
        script.pins(self.clocks[cell], f"{cell}_reset/slowest_sync_clk")
        script.pins(f"{cell}/c0_ddr4_ui_clk_sync_rst", f"{cell}_reset/ext_reset_in")
        script.pins(reset_of(cell), f"{cell}/c0_ddr4_aresetn")

    def segments(self, spaces):
        """Lines that give ports their channel, and `spaces`, address spaces of other masters, all memory."""
        script, size = Script(), self.board.ports.channel_bytes
        if not self.is_hbm:
            for n in range(self.groups):
                for space in (f"machine/m_axi_{n}", *spaces):
                    script.lines.append(f"assign_segment {space} {_block(f'ddr4_{n}')} {n * size:#x} {size:#x}")
            return script.lines
        channels = range(self.board.ports.channels)
        through = max(self.joined, default=channels[-1])
        each = f"for {{set n 0}} {{$n < {len(channels)}}} {{incr n}} {{"
        script.loop(
            f"foreach space {{{' '.join(spaces)}}}",
            each,
            f"  set segment [format hbm/SAXI_{through:02d}/HBM_MEM%02d $n]",
            f"  assign_segment $space $segment [expr {{$n * {size:#x}}}] {size:#x}",
            "}",
            f"assign_segment $space {_block('ddr4_data')} {self.map.data_card:#x} {self.board.data.bytes:#x}",
        )
        script.loop(
            f"for {{set port 0}} {{$port < {self.groups}}} {{incr port}}",
            each,
            "  set segment [format hbm/SAXI_%02d/HBM_MEM%02d $port $n]",
            "  if {$n == $port} {",
            f"    assign_segment machine/m_axi_$port $segment [expr {{$n * {size:#x}}}] {size:#x}",
            "  } else {",
            "    hide_segment machine/m_axi_$port $segment",
            "  }",
            "}",
        )
        return script.lines


def _block(cell):
    return f"{cell}/C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK"
