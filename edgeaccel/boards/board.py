"""What is said of a board: its part, its memories, and which of its pins a machine uses."""

from dataclasses import dataclass

__all__ = ["VU9P", "VU37P", "Board", "Memory", "Part", "size_text"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """An FPGA.

    Attributes
    ----------
    name : str
    luts, dsps, brams, urams : int
        LUTs, DSP48E2, block RAMs of 36 Kb, UltraRAMs.
    slrs : int
        Super logic regions: dies side by side.
    core_mhz : float
        Clock that no design with DSP48E2 exceeds.
    """

    name: str
    luts: int
    dsps: int
    brams: int
    urams: int
    slrs: int
    core_mhz: float


# Totals: AMD DS890, UltraScale Architecture and Product Data Sheet, tables of the Virtex UltraScale+ FPGAs. Clock of a
# DSP48E2 with all registers, speed grade -2 at 0.85 V: AMD DS923, "DSP48 Slice Switching Characteristics".
VU37P = Part(name="XCVU37P", luts=1_303_680, dsps=9024, brams=2016, urams=960, slrs=3, core_mhz=775)
VU9P = Part(name="XCVU9P", luts=1_182_240, dsps=6840, brams=2160, urams=960, slrs=3, core_mhz=775)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Channels of memory, all alike, each with a controller of its own.

    Attributes
    ----------
    kind : str
        "hbm", whose controllers are AXI3 ports of one hard block, or "ddr4", a controller of logic for each channel.
    channels : int
    channel_bytes : int
        A power of two.
    width : int
        Bits of a channel's AXI port.
    mhz : float
        Clock of that port, at most.
    clocks, interfaces : tuple of str
        Of DDR4: names of Vivado's board interfaces for a channel's clock and pins; the latter may be patterns.
    clock_ps : int
        Of DDR4: period of the channel's input clock.
    settings : tuple of str
        Of DDR4: settings of Vivado's controller beside those of the board files.
    source : str
    """

    kind: str
    channels: int
    channel_bytes: int
    width: int
    mhz: float
    clocks: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    clock_ps: int = 0
    settings: tuple[str, ...] = ()
    source: str

    @property
    def bytes(self):
        return self.channels * self.channel_bytes

    @property
    def title(self):
        return {"hbm": "HBM pseudo-channel", "ddr4": "DDR4 channel"}[self.kind]


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board.

    Attributes
    ----------
    name, title : str
    part : Part
    vivado_part : str
    board_part : str
        Pattern of the names that Vivado's board files have.
    platform : type
        `XilinxPlatform` with the pins.
    ports : Memory
        What the machine's ports read: port `n` of the machine has channel `n`.
    data : Memory, optional
        What holds the rest. By default the channels of `ports` do, above the ports' parts.
    clock : tuple
        Name and number of the platform's resource that all of the machine's clocks are made of.
    """

    name: str
    title: str
    part: Part
    vivado_part: str
    board_part: str
    platform: type
    ports: Memory
    data: Memory | None = None
    clock: tuple[str, int]


def size_text(count):
    """So many bytes as a person reads them."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:g} {unit}"
    return f"{count} bytes"
