"""Whether a machine fits on a board: what can be told before synthesis, with the arithmetic."""

from edgeaccel.boards.board import size_text

__all__ = ["array_dsps", "check_fit"]


def array_dsps(config):
    """DSP48E2 of the array: a multiplier for two lanes, and one for each scaler, in every row of every group."""
    return config.multipliers + config.groups * config.rows * config.scalers


def check_fit(board, machine):
    """What does not fit is refused.

    DSP48E2 of the array, memory ports, what a port asks of its channel, addresses, clocks. LUTs, registers and memories
    on chip, and the DSP48E2 of the units beside the array, are known only after synthesis
    (`python -m edgeaccel.cost`).

    Raises
    ------
    ValueError
        With a line for each thing that does not fit.
    """
    problems = [
        problem
        for check in (_dsps, _ports, _bandwidth, _addresses, _clocks)
        for problem in check(board, machine, machine.config)
    ]
    if problems:
        raise ValueError("\n  ".join([f"the machine does not fit on {board.name}:", *problems]))


def _dsps(board, machine, config):
    used, most = array_dsps(config), board.part.dsps
    if used > most:
        row = used // config.rows
        yield (
            f"DSP: {config.groups} groups x {config.rows} rows x ({config.lanes} lanes / 2 + {config.scalers} scalers)"
            f" = {used} DSP48E2 in the array alone, but {board.part.name} has {most}:"
            f" set rows to less than {config.rows}, at most {most // row}"
        )


def _ports(board, machine, config):
    memory = board.ports
    if config.groups > memory.channels:
        yield (
            f"memory ports: {config.groups} groups x 1 port = {config.groups} {memory.title}s, but {board.name} has"
            f" {memory.channels}: set groups={memory.channels}, or take a board with more channels"
        )


def _bandwidth(board, machine, config):
    memory = board.ports
    asked, given = config.port_data_width * config.port_mhz, memory.width * memory.mhz
    if config.port_data_width > memory.width:
        yield (
            f"memory ports: {config.port_data_width} bits, but each {memory.title} of {board.name} has {memory.width}:"
            f" set port_data_width={memory.width}"
        )
    elif asked > given * 1.001:  # a controller's clock is off by the rounding of its period to picoseconds
        yield (
            f"clock: a port of {config.port_data_width} bits x {config.port_mhz:g} MHz = {asked / 8000:.1f} GB/s, but"
            f" each {memory.title} of {board.name} gives {memory.width} bits x {memory.mhz:g} MHz ="
            f" {given / 8000:.1f} GB/s: set port_mhz to at most {given / config.port_data_width:g}"
        )


def _addresses(board, machine, config):
    memory, parts = board.ports, 1 if board.data else 2
    asked = parts * machine.port_bytes
    if asked > memory.channel_bytes:
        what = "a port" if board.data else "a port and as much for data"
        yield (
            f"address range: {parts} x {size_text(machine.port_bytes)} = {size_text(asked)} for {what}, but each"
            f" {memory.title} of {board.name} has {size_text(memory.channel_bytes)}: set port_bytes to at most"
            f" {memory.channel_bytes // parts}"
        )


def _clocks(board, machine, config):
    part = board.part
    if config.core_mhz > part.core_mhz:
        yield (
            f"clock: the core's {config.core_mhz:g} MHz, but no DSP48E2 of {part.name} is faster than"
            f" {part.core_mhz:g} MHz: set core_mhz to less"
        )
