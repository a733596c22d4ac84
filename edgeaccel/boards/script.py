"""Lines of Tcl for a block design: the procedures that it is written with, and Python's side of them."""

__all__ = ["PROCEDURES", "Script"]

PROCEDURES = """\
set here [file dirname [file normalize [info script]]]
if {![file exists $here/build/ip/component.xml]} {
  error "there is no IP in $here/build/ip: vivado -mode batch -source package.tcl makes it"
}

# An IP of Vivado's, of the newest version that there is, with settings: name value ...
proc add_ip {kind name args} {
  create_bd_cell -type ip -vlnv xilinx.com:ip:$kind $name
  if {[llength $args] > 0} {
    set_property -dict $args [get_bd_cells $name]
  }
}

# One pin to others.
proc connect_pins {source args} {
  foreach sink $args {
    connect_bd_net [get_bd_pins $source] [get_bd_pins $sink]
  }
}

# A master to a slave.
proc connect_buses {master slave} {
  connect_bd_intf_net [get_bd_intf_pins $master] [get_bd_intf_pins $slave]
}

# A slave's segment in the address space of a master.
proc assign_segment {space segment offset bytes} {
  assign_bd_address -offset $offset -range $bytes \\
    -target_address_space [get_bd_addr_spaces $space] [get_bd_addr_segs $segment] -force
}

# A slave's segment that a master does not see.
proc hide_segment {space segment} {
  exclude_bd_addr_seg -target_address_space [get_bd_addr_spaces $space] [get_bd_addr_segs $segment]
}

# The board's interface for a memory's pins. Where there are several, for boards with other memory parts, the first:
# see the board's revision, and name another one here if it is not the right one.
proc board_interface {pattern} {
  set found [lsort [get_board_part_interfaces $pattern]]
  if {[llength $found] == 0} {
    error "the board files have no interface $pattern"
  }
  return [lindex $found 0]
}
"""


class Script:
    """Lines of Tcl that call `PROCEDURES`."""

    def __init__(self):
        self.lines = []

    def section(self, title):
        self.lines += ["", f"# {title}"]

    def ip(self, kind, name, settings=()):
        """An IP of Vivado's with settings, each "CONFIG.NAME value"."""
        self.lines.append(" \\\n  ".join([f"add_ip {kind} {name}", *settings]))

    def pins(self, source, *sinks):
        self.lines.append(" ".join(["connect_pins", source, *sinks]))

    def buses(self, master, slave):
        self.lines.append(f"connect_buses {master} {slave}")

    def differential_clock(self, port, mhz):
        """A port of the design for a clock of two wires."""
        self.lines += [
            f"create_bd_intf_port -mode Slave -vlnv xilinx.com:interface:diff_clock_rtl:1.0 {port}",
            f"set_property CONFIG.FREQ_HZ {round(mhz * 1e6)} [get_bd_intf_ports {port}]",
        ]

    def from_port(self, port, pin):
        """A port of the design, an interface, to the pin of a cell."""
        self.lines.append(f"connect_bd_intf_net [get_bd_intf_ports {port}] [get_bd_intf_pins {pin}]")

    def loop(self, head, *body):
        self.lines += [head + " {", *(f"  {line}" for line in body), "}"]
