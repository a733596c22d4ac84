"""AXI4 as an Amaranth signature (Arm IHI 0022, AMBA AXI and ACE protocol specification, part A).

Signals are those that every slave needs. Locks, caches, protection, QoS and user signals are left out: they are
optional in the specification, and tools tie them to their defaults.
"""

from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["BOUNDARY_BYTES", "Burst", "Response", "Signature", "beats_per_burst"]

BOUNDARY_BYTES = 4096
"""No burst crosses a multiple of this (A3.4.1)."""

_DATA_WIDTHS = (32, 64, 128, 256, 512, 1024)


class Burst(enum.Enum, shape=2):
    """AxBURST: how the address goes on from beat to beat (A3.4.1)."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(enum.Enum, shape=2):
    """RRESP and BRESP (A3.4.4). The upper bit tells an error."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def beats_per_burst(limit, data_width):
    """Most beats of a burst that starts aligned and stays within 4 KiB: `limit`, or less if the beats are wide.

    Raises
    ------
    ValueError
        If `limit` is not a power of two up to 256, the longest INCR burst.
    """
    if limit not in (1 << n for n in range(9)):
        raise ValueError(f"burst_beats must be a power of two from 1 to 256, not {limit!r}")
    return min(limit, 8 * BOUNDARY_BYTES // data_width)


class Signature(wiring.Signature):
    """An AXI4 interface, seen from the master.

    Members have the specification's names in lower case. In emitted Verilog a member `m_axi` of a component becomes the
    ports `m_axi_araddr` and so on.

    Parameters
    ----------
    address_width : int
        Of araddr and awaddr, 12 to 64 bits.
    data_width : int
        Of rdata and wdata: 32, 64, 128, 256, 512 or 1024 bits.
    id_width : int
        Of the transaction identifiers, 1 to 32 bits.
    read, write : bool
        Which channels there are: AR and R, or AW, W and B, or all.

    Raises
    ------
    ValueError
        If a width is out of its range, or there is no channel.
    """

    def __init__(self, *, address_width=64, data_width, id_width=1, read=True, write=True):
        if address_width not in range(12, 65):
            raise ValueError(f"address_width must be 12 to 64 bits, not {address_width!r}")
        if data_width not in _DATA_WIDTHS:
            raise ValueError(f"data_width must be one of {_DATA_WIDTHS} bits, not {data_width!r}")
        if id_width not in range(1, 33):
            raise ValueError(f"id_width must be 1 to 32 bits, not {id_width!r}")
        if not (read or write):
            raise ValueError("an AXI interface must have read or write channels")
        self.address_width = address_width
        self.data_width = data_width
        self.id_width = id_width
        self.read = read
        self.write = write

        def address_channel(prefix):
            return _channel(prefix, Out, {"id": id_width, "addr": address_width, "len": 8, "size": 3, "burst": Burst})

        members = {}
        if write:
            members |= address_channel("aw")
            members |= _channel("w", Out, {"data": data_width, "strb": data_width // 8, "last": 1})
            members |= _channel("b", In, {"id": id_width, "resp": Response})
        if read:
            members |= address_channel("ar")
            members |= _channel("r", In, {"id": id_width, "data": data_width, "resp": Response, "last": 1})
        super().__init__(members)

    @property
    def beat_bytes(self):
        return self.data_width // 8

    def __repr__(self):
        return (
            f"axi.Signature(address_width={self.address_width}, data_width={self.data_width},"
            f" id_width={self.id_width}, read={self.read}, write={self.write})"
        )


def _channel(prefix, flow, fields):
    ready = In if flow is Out else Out
    members = {prefix + name: flow(shape) for name, shape in (fields | {"valid": 1}).items()}
    return members | {prefix + "ready": ready(1)}
