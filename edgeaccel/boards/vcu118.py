"""VCU118: XCVU9P with two channels of DDR4 of 2 GB (AMD UG1224, VCU118 Evaluation Board User Guide)."""

from amaranth.build import Attrs, Clock, DiffPairs, Pins, PinsN, Resource, Subsignal
from amaranth.vendor import XilinxPlatform

from edgeaccel.boards.board import VU9P, Board, Memory

__all__ = ["VCU118", "VCU118Platform"]


class VCU118Platform(XilinxPlatform):
    """Pins of a VCU118 that a machine has a use for, in the manner of `amaranth-boards`.

    Pins: AMD's board files, github.com/Xilinx/XilinxBoardStore, `boards/Xilinx/vcu118/2.4/part0_pins.xml`; those of
    clocks, LEDs, reset and UART are the same in LiteX-Boards (`litex_boards/platforms/xilinx_vcu118.py`).

    Not here: the DDR4's pins, which Vivado takes from its board files; the UART's flow control, since sources disagree
    on its direction.
    """

    device = "xcvu9p"
    package = "flga2104"
    speed = "2L-e"
    default_clk = "clk300"
    default_rst = "rst"
    resources = [
        Resource("clk300", 0, DiffPairs("G31", "F31", dir="i"), Clock(300e6), Attrs(IOSTANDARD="DIFF_SSTL12")),
        Resource("clk250", 0, DiffPairs("E12", "D12", dir="i"), Clock(250e6), Attrs(IOSTANDARD="DIFF_SSTL12")),
        Resource("clk250", 1, DiffPairs("AW26", "AW27", dir="i"), Clock(250e6), Attrs(IOSTANDARD="DIFF_SSTL12")),
        Resource("clk125", 0, DiffPairs("AY24", "AY23", dir="i"), Clock(125e6), Attrs(IOSTANDARD="LVDS")),
        Resource("rst", 0, Pins("L19", dir="i"), Attrs(IOSTANDARD="LVCMOS12")),
        *(
            Resource("led", n, Pins(pin, dir="o"), Attrs(IOSTANDARD="LVCMOS12"))
            for n, pin in enumerate(["AT32", "AV34", "AY30", "BB32", "BF32", "AU37", "AV36", "BA37"])
        ),
        Resource(
            "uart",
            0,
            Subsignal("tx", Pins("BB21", dir="o")),
            Subsignal("rx", Pins("AW25", dir="i")),
            Attrs(IOSTANDARD="LVCMOS18"),
        ),
        Resource(
            "pcie",
            0,
            Subsignal("perst", PinsN("AM17", dir="i"), Attrs(IOSTANDARD="LVCMOS18")),
            Subsignal("refclk", DiffPairs("AL9", "AL8", dir="i"), Clock(100e6)),
            Subsignal(
                "rx",
                DiffPairs(
                    "AA4 AB2 AC4 AD2 AE4 AF2 AG4 AH2 AJ4 AK2 AM2 AP2 AT2 AV2 AY2 BB2",
                    "AA3 AB1 AC3 AD1 AE3 AF1 AG3 AH1 AJ3 AK1 AM1 AP1 AT1 AV1 AY1 BB1",
                    dir="i",
                    assert_width=16,
                ),
            ),
            Subsignal(
                "tx",
                DiffPairs(
                    "Y7 AB7 AD7 AF7 AH7 AK7 AM7 AN5 AP7 AR5 AT7 AU5 AW5 BA5 BC5 BE5",
                    "Y6 AB6 AD6 AF6 AH6 AK6 AM6 AN4 AP6 AR4 AT6 AU4 AW4 BA4 BC4 BE4",
                    dir="o",
                    assert_width=16,
                ),
            ),
        ),
    ]
    connectors = []


VCU118 = Board(
    name="vcu118",
    title="AMD VCU118 evaluation board",
    part=VU9P,
    vivado_part="xcvu9p-flga2104-2L-e",
    board_part="xilinx.com:vcu118:part0:*",
    platform=VCU118Platform,
    ports=Memory(
        kind="ddr4",
        channels=2,
        channel_bytes=1 << 31,
        width=512,
        mhz=300,
        clocks=("default_250mhz_clk1", "default_250mhz_clk2"),
        interfaces=("ddr4_sdram_c1*", "ddr4_sdram_c2*"),  # with the speed of the memory parts behind it since 2.4
        clock_ps=4000,
        settings=("CONFIG.C0.DDR4_DataMask DM_NO_DBI",),  # keys and values are written a few bytes at a time
        source="XilinxBoardStore, vcu118/2.4/preset.xml: 31 address bits, 64 of the 80 bits of a channel, 833 ps",
    ),
    clock=("clk300", 0),
)
