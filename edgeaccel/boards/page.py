"""What a person or a driver has to know of a machine on a board: a page, and the same as JSON."""

from edgeaccel.boards.board import size_text
from edgeaccel.boards.constraints import pin_table
from edgeaccel.boards.fit import array_dsps
from edgeaccel.boards.placement import group_slrs

__all__ = ["describe_board", "memory_page"]


def describe_board(description, memory_map):
    """As JSON: board, clocks, regions of memory, what the host uses for what."""
    board, machine = memory_map.board, memory_map.machine
    return {
        "generator": description["generator"],
        "board": board.name,
        "part": board.vivado_part,
        "module": description["module"],
        "clocks": {domain["name"]: domain["mhz"] for domain in description["clock_domains"]},
        "data_base": machine.data_base,
        "data_bytes": memory_map.data_bytes,
        "host_addresses_are_the_machines": True,
        "regions": [
            {name: getattr(region, name) for name in ("name", "base", "bytes", "memory", "channel", "offset", "card")}
            for region in memory_map.regions
        ],
        "registers": {"bar": "AXI-Lite, user", "offset": 0, "interrupt": 0},
        "leds": description["bit_names"]["activity"][: _leds(board)],
        "group_slrs": group_slrs(board, machine),
        "dsp": {"array": array_dsps(machine.config), "part": board.part.dsps},
    }


def memory_page(description, memory_map):
    """The page, in Markdown."""
    board, machine, config = memory_map.board, memory_map.machine, memory_map.machine.config
    used, most = array_dsps(config), board.part.dsps
    lines = [
        f"# {description['module']} on {board.title}",
        "",
        f"Made by {description['generator']} for {board.vivado_part}. Never run in Vivado, nor on the board: see "
        "`docs/boards.md`.",
        "",
        "## Memory",
        "",
        "The host's DMA (`/dev/xdma0_h2c_0`, `/dev/xdma0_c2h_0`) uses the machine's addresses, as images do.",
        "",
        "| region | machine's address | bytes | memory | in its channel from | card's address |",
        "|---|---|---|---|---|---|",
    ]
    for region in memory_map.regions:
        memory = board.ports if region.memory == "ports" else board.data
        lines.append(
            f"| {region.name} | {region.base:#x} | {region.bytes:#x} | {memory.title} {region.channel}"
            f" | {region.offset:#x} | {region.card:#x} |"
        )
    total = sum(region.bytes for region in memory_map.regions)
    lines += [
        "",
        f"In all {size_text(total)}, of which {size_text(memory_map.data_bytes)} for data: program, parameters, tables,"
        " scales of values, logits. What lies behind answers with an error.",
    ]
    if not memory_map.is_identity:
        lines += [
            "",
            f"Card addresses are those of the block design's interconnect. `{description['module']}_ip.v` makes them of"
            f" the machine's, `{description['module']}_host.v` of the host's.",
        ]
    lines += ["", "## Sources of the sizes", "", f"- {board.ports.title}s: {board.ports.source}."]
    lines += [f"- {board.data.title}: {board.data.source}."] if board.data else []
    lines += [
        "",
        "## Registers and interrupt",
        "",
        "The registers of `registers.md` begin at offset 0 of the XDMA's AXI-Lite BAR (`/dev/xdma0_user`); the"
        " interrupt is user interrupt 0 (`/dev/xdma0_events_0`).",
        "",
        "## Clocks",
        "",
        "| clock | MHz | what |",
        "|---|---|---|",
    ]
    what = {"sync": "the machine", "port": "its memory ports"}
    lines += [f"| `{d['clock']}` | {d['mhz']:g} | {what[d['name']]} |" for d in description["clock_domains"]]
    lines += [
        "| `host_clk` | 250 | the XDMA; the interrupt goes there |",
        "",
        "## Device",
        "",
        f"The array takes {used} of the {most} DSP48E2 of the {board.part.name} ({100 * used / most:.0f}%), counted"
        f" from the configuration; {most - used} are left for all else.",
    ]
    slrs = group_slrs(board, machine)
    if slrs:
        parts = [f"SLR {slr}: {_span([n for n, at in enumerate(slrs) if at == slr])}" for slr in sorted(set(slrs))]
        lines += ["", f"Groups, as a hint to the placer: {', '.join(parts)}."]
    lines += ["", "## LEDs", ""]
    names = description["bit_names"]["activity"][: _leds(board)]
    lines += [f"{', '.join(f'{n} {name}' for n, name in enumerate(names))}: at work."]
    return "\n".join([*lines, ""])


def _span(numbers):
    return f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])


def _leds(board):
    return sum(port.startswith("leds[") for port, *_ in pin_table(board))
