"""Scattered writes in NumPy: what they leave in memory, and in which cycles they go."""

from dataclasses import dataclass

from edgeaccel.golden.elastic import Move, Store, queue

__all__ = ["Item", "Scatter", "apply", "merged"]

ARRIVALS, DATA_BEATS = 2, 4


@dataclass(frozen=True)
class Item:
    """Half bytes of a beat: bit `n` of `nibbles` for the half `n % 2` of byte `n // 2`, the low half first."""

    address: int
    data: bytes
    nibbles: int

    @property
    def is_partial(self):
        """Whether of a byte only one half is written."""
        return any(self.nibbles >> 2 * n & 3 in (1, 2) for n in range(len(self.data)))


def merged(item, before):
    """Bytes of a beat after an item, from those before."""
    masks = [(0, 0x0F, 0xF0, 0xFF)[item.nibbles >> 2 * n & 3] for n in range(len(item.data))]
    return bytes(new & mask | old & ~mask for new, old, mask in zip(item.data, before, masks, strict=True))


def apply(items, memory, base=0):
    """Write items, in their order, to a uint8 array that begins at an address `base`."""
    for item in items:
        place = slice(item.address - base, item.address - base + len(item.data))
        memory[place] = list(merged(item, memory[place].tobytes()))


class Scatter:
    """The stores and moves of `edgeaccel.memory.scatter.ScatterWriter`, for items that need no read.

    The memory takes an address and a beat where the stall patterns let it, a beat no earlier than a cycle after its
    address, and answers `latency` cycles after the beat; that is `sim.system` with `sim.memory.IDEAL`.

    Parameters
    ----------
    outstanding, reads : int
        As of the writer.
    latency : int
        Of the memory.
    aw, w, b : Pattern
        Stalls of its channels.

    Members
    -------
    entry : Store
        What a move into the writer puts to.
    moves : list of Move
        Those inside; the last three are addresses, beats and answers.
    """

    def __init__(self, *, outstanding, latency, aw, w, b, reads=8):
        self.entry = queue(ARRIVALS)
        in_flight, waiting = Store(1, outstanding), queue(reads)
        address, beat = Store(1, 1, refund=0), queue(DATA_BEATS)
        asked, written = Store(1, 1 << 30), Store(latency, 1 << 30)
        self.moves = [
            Move([self.entry], [waiting, in_flight]),
            Move([waiting], [address, beat]),
            Move([address], [asked], sink=aw),
            Move([beat, asked], [written], sink=w),
            Move([written, in_flight], [], sink=b),
        ]
