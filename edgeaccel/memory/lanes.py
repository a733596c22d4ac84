"""Byte lanes of a beat: which ones, and moving between them."""

from amaranth.hdl import Cat, Const, Mux, Signal

__all__ = ["choose", "lanes_from", "lanes_to", "rotate"]


def lanes_from(first, n_lanes):
    """One bit a lane, set in those from `first` on."""
    return (Const((1 << n_lanes) - 1, n_lanes) << first)[:n_lanes]


def lanes_to(last, n_lanes):
    """One bit a lane, set in those up to `last`; `n_lanes` is a power of two, and `last` as wide as its logarithm."""
    return Const((1 << n_lanes) - 1, n_lanes) >> (~last)[: len(last)]


def choose(lanes, chosen, other):
    """Bytes of `chosen` in the lanes that are set, of `other` in the rest; all three are signals or constants."""
    return Cat(Mux(lane, chosen.word_select(n, 8), other.word_select(n, 8)) for n, lane in enumerate(lanes))


def rotate(m, value, lanes):
    """`value` with its bytes moved down by `lanes`, round the end."""
    for n, bit in enumerate(lanes):
        # A signal for each step: as one expression it would double with every step.
        rotated = Signal(len(value), name=f"rotated{n}")
        m.d.comb += rotated.eq(Mux(bit, value.rotate_right(8 << n), value))
        value = rotated
    return value
