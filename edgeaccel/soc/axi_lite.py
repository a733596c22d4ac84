"""AXI4-Lite as an Amaranth signature (Arm IHI 0022, part B): AXI4 without bursts and identifiers."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.memory import axi

__all__ = ["Signature"]


class Signature(axi.Signature):
    """An AXI4-Lite interface of 32 bits, seen from the master.

    In emitted Verilog a member `s_axil` of a component becomes the ports `s_axil_awaddr` and so on.

    Parameters
    ----------
    address_width : int
        Of awaddr and araddr.
    """

    def __init__(self, *, address_width):
        self.address_width, self.data_width, self.id_width = address_width, 32, 0
        self.read = self.write = True
        channels = {
            "aw": (Out, {"addr": address_width, "prot": 3}),
            "w": (Out, {"data": 32, "strb": 4}),
            "b": (In, {"resp": axi.Response}),
            "ar": (Out, {"addr": address_width, "prot": 3}),
            "r": (In, {"data": 32, "resp": axi.Response}),
        }
        members = {}
        for channel, (flow, fields) in channels.items():
            ready = In if flow is Out else Out
            members |= {channel + name: flow(shape) for name, shape in fields.items()}
            members |= {f"{channel}valid": flow(1), f"{channel}ready": ready(1)}
        wiring.Signature.__init__(self, members)  # not that of AXI4, which has more members

    def __repr__(self):
        return f"axi_lite.Signature(address_width={self.address_width})"
