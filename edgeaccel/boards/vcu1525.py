"""VCU1525: XCVU9P with four DDR4-2400 DIMMs of 16 GB (AMD UG1268, VCU1525 Reconfigurable Acceleration Platform)."""

from amaranth.build import Attrs, Clock, DiffPairs, Pins, PinsN, Resource, Subsignal
from amaranth.vendor import XilinxPlatform

from edgeaccel.boards.board import VU9P, Board, Memory

__all__ = ["VCU1525", "VCU1525Platform"]


class VCU1525Platform(XilinxPlatform):
    """Pins of a VCU1525 that a machine has a use for, in the manner of `amaranth-boards`.

    Pins of the memories' clocks and the LEDs: AMD's board files, github.com/Xilinx/XilinxBoardStore, `boards/Xilinx/
    vcu1525/1.3/part0_pins.xml`. Those of `clk156`, which a Si570 makes 156.25 MHz at power-up, and of PCIe:
    github.com/alexforencich/verilog-ethernet, constraints of its example for this board, which agree with the board
    files on all that is in both.

    Not here: the DIMMs' pins, which Vivado takes from its board files; the UART, since sources disagree on which of its
    pins is which; the reset button, whose polarity was not found.
    """

    device = "xcvu9p"
    package = "fsgd2104"
    speed = "2L-e"
    default_clk = "clk156"
    resources = [
        Resource("clk156", 0, DiffPairs("AU19", "AV19", dir="i"), Clock(156.25e6), Attrs(IOSTANDARD="LVDS")),
        *(
            Resource("clk300", n, DiffPairs(p, minus, dir="i"), Clock(300e6), Attrs(IOSTANDARD="LVDS"))
            for n, (p, minus) in enumerate([("AY37", "AY38"), ("AW20", "AW19"), ("F32", "E32"), ("J16", "H16")])
        ),
        *(
            Resource("led", n, Pins(pin, dir="o"), Attrs(IOSTANDARD="LVCMOS12"))
            for n, pin in enumerate(["BC21", "BB21", "BA20"])
        ),
        Resource(
            "pcie",
            0,
            Subsignal("perst", PinsN("BD21", dir="i"), Attrs(IOSTANDARD="LVCMOS12")),
            Subsignal("refclk", DiffPairs("AM11", "AM10", dir="i"), Clock(100e6)),
            Subsignal(
                "rx",
                DiffPairs(
                    "AF2 AG4 AH2 AJ4 AK2 AL4 AM2 AN4 AP2 AR4 AT2 AU4 AV2 AW4 BA2 BC2",
                    "AF1 AG3 AH1 AJ3 AK1 AL3 AM1 AN3 AP1 AR3 AT1 AU3 AV1 AW3 BA1 BC1",
                    dir="i",
                    assert_width=16,
                ),
            ),
            Subsignal(
                "tx",
                DiffPairs(
                    "AF7 AG9 AH7 AJ9 AK7 AL9 AM7 AN9 AP7 AR9 AT7 AU9 AV7 BB5 BD5 BF5",
                    "AF6 AG8 AH6 AJ8 AK6 AL8 AM6 AN8 AP6 AR8 AT6 AU8 AV6 BB4 BD4 BF4",
                    dir="o",
                    assert_width=16,
                ),
            ),
        ),
    ]
    connectors = []


VCU1525 = Board(
    name="vcu1525",
    title="AMD VCU1525 acceleration card",
    part=VU9P,
    vivado_part="xcvu9p-fsgd2104-2L-e",
    board_part="xilinx.com:vcu1525:part0:*",
    platform=VCU1525Platform,
    ports=Memory(
        kind="ddr4",
        channels=4,
        channel_bytes=1 << 34,
        width=512,
        mhz=300,
        clocks=tuple(f"default_300mhz_clk{n}" for n in range(4)),
        interfaces=tuple(f"ddr4_sdram_c{n}" for n in range(4)),
        clock_ps=3332,
        source="XilinxBoardStore, vcu1525/1.3/preset.xml: 34 address bits, 72 bits with ECC, 833 ps",
    ),
    clock=("clk156", 0),
)
