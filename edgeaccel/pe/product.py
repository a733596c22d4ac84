"""Products of significands."""

__all__ = ["product"]

_WIDE, _NARROW = 26, 17  # bits of unsigned operands of a DSP48E2's multiplier (AMD UG579, chapter 1)


def product(a, b):
    """The product of unsigned values, with one DSP48E2 where `b` is some bits too wide for it.

    Two would multiply 24 x 24 bits. But DSP48E2 are what an array of many rows runs short of first, so the lowest bits
    of `b`, seven of them, are multiplied in LUTs.
    """
    low = len(b) - _NARROW
    if low <= 0 or len(a) > _WIDE:
        return a * b
    terms = [(a & b[n].replicate(len(a))) << n for n in range(low)]
    while len(terms) > 1:
        terms = [sum(terms[n + 1 : n + 2], terms[n]) for n in range(0, len(terms), 2)]
    return ((a * b[low:]) << low) + terms[0]
