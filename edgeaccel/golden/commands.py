"""The chain of the ports' commands in plain Python: who gets what, and when."""

import numpy as np

from edgeaccel.golden.array import Source, _Queue
from edgeaccel.golden.timing import Pattern

__all__ = ["chain", "chain_cycles"]

HOP_REQUESTS = 2


def chain(config, requests):
    """Of each group the (address in bytes, words, format) of the requests (address, words, format, skip, take)."""
    size = config.word_bytes
    return [
        [(address * size, words, format) for address, words, format, skip, take in requests if skip <= n < skip + take]
        for n in range(config.groups)
    ]


def chain_cycles(config, requests, stalls, *, max_cycles=10**6):
    """Cycles in which requests are taken, and those in which each group's commands are: dict by stream.

    A request is offered to a group's streamer and to the next group at the same time, and is given up in the cycle in
    which the last of the two takes it.
    """
    source = Source(len(requests), Pattern(stalls.get("i", ())))
    sinks = [Pattern(stalls.get(f"o__{n}", ())) for n in range(config.groups)]
    hops = [_Queue(HOP_REQUESTS) for _ in range(config.groups)]
    done = [[False, False] for _ in hops]
    taken = [[] for _ in hops]
    for cycle in range(max_cycles):
        for hop in hops:
            hop.begin()
        accepts = source.offers(cycle) and hops[0].has_room
        for n, hop in enumerate(hops):
            if hop.head is None:
                continue
            skip, take = hop.head
            here, goes_on = skip == 0, skip > 0 or take > 1
            if here and not done[n][0] and sinks[n].first(cycle) == cycle:
                done[n][0] = True
                taken[n].append(cycle)
            behind = hops[n + 1] if n + 1 < len(hops) else None
            if goes_on and not done[n][1] and (behind is None or behind.has_room):
                done[n][1] = True
                if behind is not None:
                    behind.put((max(skip - 1, 0), take - here))
            if (done[n][0] or not here) and (done[n][1] or not goes_on):
                hop.get()
                done[n] = [False, False]
        if accepts:
            hops[0].put(requests[len(source.taken)][3:])
            source.taken.append(cycle)
        if len(source.taken) == len(requests) and not any(hop.items for hop in hops):
            break
    cycles = {f"o__{n}": np.array(each, np.int64) for n, each in enumerate(taken)}
    return {"i": np.array(source.taken, np.int64)} | cycles
