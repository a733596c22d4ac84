"""Where a machine's memory lies in the memories of a board.

A machine sees the memory of port `n` from ``n * port_bytes`` on, and from `data_base` on all that is no tile
(`edgeaccel.machine.Machine`); so does the host. A board's channels lie behind each other in the *card's* addresses,
which its interconnect decodes. One becomes the other by moving bits: everything is a power of two.
"""

from dataclasses import dataclass

from edgeaccel.boards.board import Board
from edgeaccel.machine import Machine

__all__ = ["MemoryMap", "Region"]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A piece of the machine's memory in one channel.

    Attributes
    ----------
    name : str
    base, bytes : int
        In the machine's addresses.
    memory : str
        "ports" or "data", a `Memory` of the board.
    channel : int
    offset : int
        In the channel.
    card : int
        In the card's addresses.
    """

    name: str
    base: int
    bytes: int
    memory: str
    channel: int
    offset: int
    card: int


@dataclass(frozen=True, kw_only=True)
class MemoryMap:
    """The map of a machine on a board that it fits on (`edgeaccel.boards.fit`).

    Port `n` has the first `port_bytes` of channel `n`. Data has the board's memory for it, or else the next
    `port_bytes` of each port's channel; it is at most as large as all ports' memories.
    """

    board: Board
    machine: Machine

    @property
    def data_bytes(self):
        """Bytes that there are from `data_base` on."""
        return min(self.machine.data_base, self.board.data.bytes) if self.board.data else self.machine.data_base

    @property
    def data_card(self):
        """Card address of the memory for data alone."""
        step = self.board.data.bytes
        return -(-self.board.ports.bytes // step) * step

    @property
    def card_bits(self):
        """Bits of a card address; the highest is set where there is nothing, so that the interconnect answers so."""
        end = self.data_card + self.board.data.bytes if self.board.data else self.board.ports.bytes
        return (end - 1).bit_length() + 1

    @property
    def regions(self):
        """Regions by their machine addresses."""
        size, channel_bytes = self.machine.port_bytes, self.board.ports.channel_bytes
        ports = range(self.machine.config.groups)
        of_ports = [
            Region(
                name=f"port {n}",
                base=n * size,
                bytes=size,
                memory="ports",
                channel=n,
                offset=0,
                card=n * channel_bytes,
            )
            for n in ports
        ]
        base = self.machine.data_base
        if self.board.data:
            data = [
                Region(
                    name="data",
                    base=base,
                    bytes=self.data_bytes,
                    memory="data",
                    channel=0,
                    offset=0,
                    card=self.data_card,
                )
            ]
        else:
            data = [
                Region(
                    name=f"data {n}",
                    base=base + n * size,
                    bytes=size,
                    memory="ports",
                    channel=n,
                    offset=size,
                    card=n * channel_bytes + size,
                )
                for n in ports
            ]
        return [*of_ports, *data]

    @property
    def is_identity(self):
        """Whether machine and card addresses are the same, as far as there is memory."""
        return all(region.base == region.card for region in self.regions)

    def verilog_function(self, name):
        """A Verilog-2005 function from a machine address of 64 bits to a card address, line by line."""
        offset, channel = self._bits(self.machine.port_bytes), self._bits(self.machine.config.groups)
        step = self._bits(self.board.ports.channel_bytes)
        width, data = self.card_bits, offset + channel
        ports = _concatenation(width - 1, {0: (offset - 1, 0), step: (data - 1, offset)})
        if self.board.data:
            window = self._bits(self.data_bytes)
            beyond = f"|address[63:{data + 1}]"
            if window < data:
                beyond += f" | (address[{data}] & |{_slice(data - 1, window)})"
            base = f"{width - 1}'h{self.data_card:x} | {_concatenation(width - 1, {0: (window - 1, 0)})}"
            value = f"address[{data}] ? {base} : {ports}"
        else:
            beyond = f"|address[63:{data + 1}]"
            value = _concatenation(width - 1, {0: (offset - 1, 0), offset: (data, data), step: (data - 1, offset)})
        return [
            f"function [{width - 1}:0] {name};",
            "  input [63:0] address;",
            f"  {name} = {{{beyond}, {value}}};",
            "endfunction",
        ]

    def port_address(self, port, signal):
        """Verilog expression for the card address of an address of a port's own memory."""
        offset, step = self._bits(self.machine.port_bytes), self._bits(self.board.ports.channel_bytes)
        bits = self._bits(self.board.ports.bytes)
        parts = [f"{bits - step}'d{port}"] if bits > step else []
        parts += [f"{step - offset}'d0"] if step > offset else []
        return f"{{{', '.join([*parts, f'{signal}[{offset - 1}:0]'])}}}"

    @property
    def port_bits(self):
        """Bits of a card address of the ports' memories."""
        return self._bits(self.board.ports.bytes)

    @staticmethod
    def _bits(value):
        return value.bit_length() - 1


def _concatenation(width, fields):
    """Bits of `address`, by where they go: {first bit: (high, low)}, zeros between, for so many bits."""
    parts, at = [], 0
    for first, (high, low) in sorted(fields.items()):
        if high < low:
            continue
        if first > at:
            parts.append(f"{first - at}'d0")
        parts.append(_slice(high, low))
        at = first + high - low + 1
    if at < width:
        parts.append(f"{width - at}'d0")
    return "{" + ", ".join(reversed(parts)) + "}"


def _slice(high, low):
    return f"address[{high}:{low}]" if high > low else f"address[{high}]"
