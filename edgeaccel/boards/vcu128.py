"""VCU128: XCVU37P with 8 GB of HBM2, and 4 GB of DDR4 (AMD UG1302, VCU128 Evaluation Board User Guide)."""

from amaranth.build import Attrs, Clock, DiffPairs, Pins, PinsN, Resource, Subsignal
from amaranth.vendor import XilinxPlatform

from edgeaccel.boards.board import VU37P, Board, Memory

__all__ = ["VCU128", "VCU128Platform"]


class VCU128Platform(XilinxPlatform):
    """Pins of a VCU128 that a machine has a use for, in the manner of `amaranth-boards`.

    Pins, except those of `clk100`: AMD's board files, github.com/Xilinx/XilinxBoardStore, `boards/Xilinx/vcu128/
    production/1.0/part0_pins.xml`, and the reset's polarity `board.xml` there. The clock is that of the QDR-IV memory,
    which a machine does not use; its pins are in LiteX-Boards (`litex_boards/platforms/xilinx_vcu128.py`) and CoreScore
    (`vcu128.xdc`), and the standard is the latter's, which is that of the DDR4's clock too.

    Not here: the DDR4's pins, which Vivado takes from its board files; the UARTs' flow control, since sources disagree
    on its direction.
    """

    device = "xcvu37p"
    package = "fsvh2892"
    speed = "2L-e"
    default_clk = "clk100"
    default_rst = "rst"
    resources = [
        Resource("clk100", 0, DiffPairs("BJ4", "BK3", dir="i"), Clock(100e6), Attrs(IOSTANDARD="DIFF_SSTL12")),
        Resource("rst", 0, Pins("BM29", dir="i"), Attrs(IOSTANDARD="LVCMOS12")),
        *(
            Resource("led", n, Pins(pin, dir="o"), Attrs(IOSTANDARD="LVCMOS18"))
            for n, pin in enumerate(["BH24", "BG24", "BG25", "BF25", "BF26", "BF27", "BG27", "BG28"])
        ),
        *(
            Resource(
                "uart",
                n,
                Subsignal("tx", Pins(tx, dir="o")),
                Subsignal("rx", Pins(rx, dir="i")),
                Attrs(IOSTANDARD="LVCMOS18"),
            )
            for n, (tx, rx) in enumerate([("BN26", "BP26"), ("BJ28", "BK28")])
        ),
        Resource(
            "pcie",
            0,
            Subsignal("perst", PinsN("BF41", dir="i"), Attrs(IOSTANDARD="LVCMOS12")),
            Subsignal("refclk", DiffPairs("AR15", "AR14", dir="i"), Clock(100e6)),
            Subsignal(
                "rx",
                DiffPairs(
                    "AL2 AM4 AN6 AN2 AP4 AR2 AT4 AU2 AV4 AW6 AW2 AY4 BA6 BA2 BB4 BC2",
                    "AL1 AM3 AN5 AN1 AP3 AR1 AT3 AU1 AV3 AW5 AW1 AY3 BA5 BA1 BB3 BC1",
                    dir="i",
                    assert_width=16,
                ),
            ),
            Subsignal(
                "tx",
                DiffPairs(
                    "AL11 AM9 AN11 AP9 AR11 AR7 AT9 AU11 AU7 AV9 AW11 AY9 BA11 BB9 BC11 BC7",
                    "AL10 AM8 AN10 AP8 AR10 AR6 AT8 AU10 AU6 AV8 AW10 AY8 BA10 BB8 BC10 BC6",
                    dir="o",
                    assert_width=16,
                ),
            ),
        ),
    ]
    connectors = []


VCU128 = Board(
    name="vcu128",
    title="AMD VCU128 evaluation board",
    part=VU37P,
    vivado_part="xcvu37p-fsvh2892-2L-e",
    board_part="xilinx.com:vcu128:part0:*",
    platform=VCU128Platform,
    ports=Memory(
        kind="hbm",
        channels=32,
        channel_bytes=1 << 28,
        width=256,
        mhz=450,
        source="AMD PG276, AXI High Bandwidth Memory Controller: two stacks of 4 GB, 16 pseudo-channels each, AXI3 of"
        " 256 bits at a quarter of the memory's 1800 Mb/s",
    ),
    data=Memory(
        kind="ddr4",
        channels=1,
        channel_bytes=1 << 32,
        width=512,
        mhz=333.25,
        clocks=("default_100mhz_clk",),
        interfaces=("ddr4_sdram",),
        clock_ps=10000,
        source="XilinxBoardStore, vcu128/production/1.0/preset.xml: 32 address bits, 72 bits with ECC, 750 ps",
    ),
    clock=("clk100", 0),
)
