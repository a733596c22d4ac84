"""Constraints for Vivado: those of the IP, which go with it, and those of a board.

An XDC file has no loops, so every queue and pin has lines of its own.
"""

from amaranth.build import DiffPairs

from edgeaccel.boards.placement import group_slrs

__all__ = ["board_xdc", "crossings", "ip_xdc", "pin_table"]

_GROUPS = "processor/core/engine"
_SCALES = "processor/core/attention/streamer"


def crossings(description):
    """Queues of a machine with one clock on each end, by their cells: {cell: (writing, reading clock domain)}.

    They are those of `edgeaccel.memory.port.ReadPort`; nothing else crosses.
    """
    if len(description["clock_domains"]) == 1:
        return {}
    ports = [f"{_GROUPS}/port{n}" for n in range(description["config"]["groups"])]
    return {
        f"{port}/port/{queue}": domains
        for port in [*ports, _SCALES]
        for queue, domains in (("requests", ("sync", "port")), ("answers", ("port", "sync")))
    }


def ip_xdc(description):
    """Constraints in the scope of the IP: crossings between its clocks.

    A queue's counters are Gray codes: their bits must come within a period of each other. What it stores is read when
    its counter has passed two registers, so a period of the reading clock is enough for it.
    """
    module = description["module"]
    lines = [f"# Crossings between the clocks of {module}_ip, in its scope.", f"# {description['generator']}.", ""]
    lines += [
        "# The interrupt goes into the host's clock through two registers.",
        "set_false_path -to [get_cells {irq_stages_reg[0]}]",
    ]
    queues = crossings(description)
    if not queues:
        return "\n".join([*lines, "", "# All else has one clock.", ""])
    periods = {domain["name"]: _nanoseconds(domain["mhz"]) for domain in description["clock_domains"]}
    least = min(periods.values(), key=float)
    lines += ["", "# Whatever else goes from one clock to the other is what queues store."]
    for domain in description["clock_domains"]:
        lines.append(f"set {domain['name']}_clock [get_clocks -of_objects [get_ports {{{domain['clock']}}}]]")
    for source, sink in (("sync", "port"), ("port", "sync")):
        lines.append(f"set_max_delay -datapath_only -from ${source}_clock -to ${sink}_clock {periods[sink]}")
    lines += [
        "",
        "# Resets set the first registers of a queue's other side asynchronously.",
        "set_false_path -to [get_pins -hierarchical -filter {NAME =~ */rst_cdc/stage*_reg/PRE}]",
        "set_property ASYNC_REG TRUE [get_cells -hierarchical -filter {NAME =~ *_cdc/stage*_reg*}]",
    ]
    for queue, (writing, reading) in queues.items():
        lines += ["", f"# {queue}: {writing} to {reading}."]
        for source, sink in (("produce_w_gry_reg[*]", "produce_cdc"), ("consume_r_gry_reg[*]", "consume_cdc")):
            cells = f"-from [get_cells {{soc/{queue}/{source}}}] -to [get_cells {{soc/{queue}/{sink}/stage0_reg[*]}}]"
            lines += [f"set_max_delay -datapath_only {cells} {least}", f"set_bus_skew {cells} {least}"]
    return "\n".join([*lines, ""])


def board_xdc(description, memory_map):
    """Constraints of a board: pins that no board interface has, and hints for the placement."""
    board, machine = memory_map.board, memory_map.machine
    lines = [f"# {board.title} with {description['module']}.", f"# {description['generator']}.", ""]
    lines += ["# Pins; those of PCIe's lanes and of memories are in Vivado's board files."]
    for port, pin, attributes, mhz in pin_table(board):
        properties = " ".join([f"PACKAGE_PIN {pin}", *(f"{key} {value}" for key, value in attributes.items())])
        lines.append(f"set_property -dict {{{properties}}} [get_ports {{{port}}}]")
        if port.startswith("pcie_refclk_clk_p"):  # the clocking wizard and the DDR4 controllers have their own
            lines.append(f"create_clock -name pcie_refclk -period {_nanoseconds(mhz)} [get_ports {{{port}}}]")
    lines += ["", "set_false_path -to [get_ports {leds[*]}]", "set_false_path -from [get_ports {pcie_perst}]", ""]
    slrs = group_slrs(board, machine)
    if slrs is None:
        lines.append("# No hints for the placement: an SLR has too few DSP48E2 for whole groups.")
        return "\n".join([*lines, ""])
    lines += ["# Hints: groups with their ports, neighbours together. Whatever else there is goes where it likes."]
    for slr in sorted(set(slrs)):
        lines += [
            "",
            f"create_pblock groups_slr{slr}",
            f"resize_pblock [get_pblocks groups_slr{slr}] -add {{SLR{slr}:SLR{slr}}}",
            f"set_property IS_SOFT TRUE [get_pblocks groups_slr{slr}]",
        ]
        for group in (n for n, place in enumerate(slrs) if place == slr):
            for cell in (f"{_GROUPS}/array/group{group}", f"{_GROUPS}/port{group}"):
                pattern = f"NAME =~ */machine/inst/soc/{cell}"
                lines.append(
                    f"add_cells_to_pblock [get_pblocks groups_slr{slr}] [get_cells -hierarchical -filter {{{pattern}}}]"
                )
    return "\n".join([*lines, ""])


def pin_table(board):
    """(port of the block design, pin, attributes, MHz of a clock or None) of all pins that it names itself."""
    resources = {(resource.name, resource.number): resource for resource in board.platform.resources}
    rows = _rows("clock_clk", resources[board.clock])
    leds = sorted(number for name, number in resources if name == "led")
    for number in leds:
        rows += [(f"leds[{number}]", *row[1:]) for row in _rows("leds", resources["led", number])]
    subsignals = {part.name: part for part in resources["pcie", 0].ios}
    return rows + _rows("pcie_refclk_clk", subsignals["refclk"], suffix="*") + _rows("pcie_perst", subsignals["perst"])


def _rows(port, resource, suffix=""):
    (pins,) = resource.ios
    mhz = resource.clock.frequency / 1e6 if resource.clock else None
    if not isinstance(pins, DiffPairs):
        return [(port, pins.names[0], resource.attrs, mhz)]
    return [(f"{port}_{end}{suffix}", getattr(pins, end).names[0], resource.attrs, mhz) for end in "pn"]


def _nanoseconds(mhz):
    return f"{1000 / mhz:.3f}"
