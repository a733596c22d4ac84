"""Tcl that makes an IP of a machine (AMD UG1118, Creating and Packaging Custom IP)."""

from edgeaccel.boards.wrapper import ip_interfaces

__all__ = ["package_tcl"]


def package_tcl(description, memory_map):
    """Script for `vivado -mode batch -source package.tcl`: the IP goes to `build/ip` beside the script."""
    module, board = description["module"], memory_map.board
    clocks = [(domain["clock"], domain["reset"]) for domain in description["clock_domains"]]
    interfaces = ip_interfaces(description, memory_map)
    return "\n".join(
        [
            f"# Makes an IP of {module}: vivado -mode batch -source package.tcl",
            f"# {description['generator']}.",
            "",
            "set here [file dirname [file normalize [info script]]]",
            f"set sources [list $here/{module}.v $here/{module}_ip.v]",
            "foreach source $sources {",
            "  if {![file exists $source]} {",
            '    error "$source is missing: edgeaccel.elaborate writes the machine, edgeaccel.boards the rest"',
            "  }",
            "}",
            f"create_project -force {module}_ip $here/build/ip_project -part {board.vivado_part}",
            "add_files -norecurse $sources",
            f"add_files -fileset constrs_1 -norecurse $here/{module}_ip.xdc",
            f"set_property top {module}_ip [current_fileset]",
            f"set constraints [get_files {module}_ip.xdc]",
            "set_property USED_IN {implementation} $constraints",
            "set_property PROCESSING_ORDER LATE $constraints",
            "update_compile_order -fileset sources_1",
            "",
            "# Attributes in the Verilog tell the interfaces; what must be there is asked for.",
            "ipx::package_project -root_dir $here/build/ip -vendor edgeaccel -library user -taxonomy /UserIP"
            " -import_files -force",
            "set core [ipx::current_core]",
            f"set_property name {module}_ip $core",
            f"set_property display_name {{{module}}} $core",
            f"set_property version {_version(description['generator'])} $core",
            "foreach {interface clock} {",
            *(f"  {interface.name} {interface.clock}" for interface in interfaces),
            "} {",
            '  if {[ipx::get_bus_interfaces $interface -of_objects $core] eq ""} {',
            '    error "the packager found no interface $interface"',
            "  }",
            "  ipx::associate_bus_interfaces -busif $interface -clock $clock $core",
            "}",
            *(f"ipx::associate_bus_interfaces -clock {clock} -reset {reset} $core" for clock, reset in clocks),
            'if {[ipx::get_bus_interfaces irq -of_objects $core] eq ""} {',
            '  error "the packager found no interrupt"',
            "}",
            "ipx::create_xgui_files $core",
            "ipx::update_checksums $core",
            "ipx::check_integrity $core",
            "ipx::save_core $core",
            "close_project",
            "",
        ]
    )


def _version(generator):
    """Major and minor number, as the packager wants them, of "edgeaccel 0.1.0"."""
    return ".".join(generator.split()[-1].split(".")[:2])
