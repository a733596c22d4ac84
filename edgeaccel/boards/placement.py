"""Where on the device groups go."""

from edgeaccel.boards.fit import array_dsps

__all__ = ["group_slrs"]


def group_slrs(board, machine):
    """The SLR of each group, or None where whole groups do not fit.

    As few SLRs as leave a fifth of their DSP48E2 to others, or all. Groups of an SLR are neighbours in the chain, so
    few of its hops cross from one to the next. SLR 0, which has the HBM and the PCIe block of an XCVU37P, gets no more
    than the others: what is no group finds room there.
    """
    config = machine.config
    of_group, of_slr = array_dsps(config) // config.groups, board.part.dsps // board.part.slrs
    counts = []
    for slrs in range(1, board.part.slrs + 1):
        least, more = divmod(config.groups, slrs)
        counts = [least + (n >= slrs - more) for n in range(slrs)]
        if max(counts) * of_group <= 0.8 * of_slr:
            break
    if max(counts) * of_group > of_slr:
        return None
    return [slr for slr, count in enumerate(counts) for _ in range(count)]
