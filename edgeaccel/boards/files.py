"""All files for Vivado, by their names."""

import json

from edgeaccel.boards.constraints import board_xdc, ip_xdc, pin_table
from edgeaccel.boards.design import design_tcl
from edgeaccel.boards.fit import check_fit
from edgeaccel.boards.memory_map import MemoryMap
from edgeaccel.boards.package import package_tcl
from edgeaccel.boards.page import describe_board, memory_page
from edgeaccel.boards.wrapper import host_verilog, ip_verilog

__all__ = ["board_files"]


def board_files(board, machine, description):
    """Texts by the names of their files.

    Parameters
    ----------
    board : Board
    machine : Machine
    description : dict
        Of the machine, by `edgeaccel.elaborate.describe_machine`.

    Raises
    ------
    ValueError
        If the machine does not fit on the board.
    """
    check_fit(board, machine)
    memory_map = MemoryMap(board=board, machine=machine)
    module = description["module"]
    leds = sum(port.startswith("leds[") for port, *_ in pin_table(board))
    files = {
        f"{module}_ip.v": ip_verilog(description, memory_map, leds),
        f"{module}_ip.xdc": ip_xdc(description),
        "package.tcl": package_tcl(description, memory_map),
        "design.tcl": design_tcl(description, memory_map),
        f"{board.name}.xdc": board_xdc(description, memory_map),
        "memory_map.md": memory_page(description, memory_map),
        "board.json": json.dumps(describe_board(description, memory_map), indent=2) + "\n",
    }
    if not memory_map.is_identity:
        files[f"{module}_host.v"] = host_verilog(description, memory_map)
    return files
