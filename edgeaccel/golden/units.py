"""The order of attention in plain Python: units of an attend, and the passes that they become."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.golden.attention import bounds

__all__ = ["Attend", "Unit", "passes", "unit_cycles", "units"]

FIRST_CYCLES, FIND_CYCLES, UNIT_CYCLES = 8, 12, 7  # the checks; a page; two products


@dataclass(frozen=True, kw_only=True)
class Attend:
    """What the engine is told, but for the cache; `edgeaccel.attention.command.attend` says what it means."""

    n_heads: int
    count: int
    factor: int
    address: int = 0
    stride: int = 0
    first_head: int = 0
    batches: int = 1
    causal: bool = False
    rows: int = 1
    window: int = 0
    wait: bool = False

    def counts(self, config):
        """Positions that each row of the build sees, in use or not."""
        return self.count + (np.arange(config.rows) if self.causal else np.zeros(config.rows, int))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A chunk of a head for one batch of queries.

    Attributes
    ----------
    chunk : int
        Of the sequence.
    head, batch, slot : int
    first, last : bool
    address : int
    page, page_chunk : int
        The chunk's place in the cache.
    positions : int
        Of the chunk, that are there.
    lo, hi : int arrays [rows]
    """

    chunk: int
    head: int
    batch: int
    slot: int
    first: bool
    last: bool
    address: int
    page: int
    page_chunk: int
    positions: int
    lo: np.ndarray
    hi: np.ndarray


def units(config, layout, command, pages):
    """The units of an `Attend` in order; `pages` are those of the sequence."""
    counts = command.counts(config)
    lo, hi = bounds(counts, command.window)
    most = command.count + (command.rows - 1 if command.causal else 0)
    first, last = max(command.count - command.window, 0) if command.window else 0, most - 1
    chunks = range(first // config.block, last // config.block + 1)
    for chunk in chunks:
        begin = chunk * config.block
        index, page_chunk = divmod(chunk, 1 << layout.page_bits)
        for n in range(command.n_heads * command.batches):
            head, batch = divmod(n, command.batches)
            yield Unit(
                chunk=chunk,
                head=command.first_head + head,
                batch=batch,
                slot=n,
                first=chunk == chunks[0],
                last=chunk == chunks[-1],
                address=command.address + n * command.stride,
                page=pages[index],
                page_chunk=page_chunk,
                positions=min(most - begin, config.block),
                lo=np.clip(lo - begin, 0, config.block),
                hi=np.clip(hi - begin, 0, config.block),
            )


def unit_cycles(commands, source, sink):
    """(cycles in which commands are taken, in which units are): `commands` has the units of each, none that waits.

    Parameters
    ----------
    commands : list of lists of Unit
    source, sink : Pattern
    """
    took, taken = [], []
    cycle = -1
    for every in commands:
        cycle = max(source.first(took[-1] + 1 if took else 0), cycle + 1)
        took.append(cycle)
        cycle += FIRST_CYCLES
        before = None
        for unit in every:
            cycle += 1
            if before is None or unit.chunk != before.chunk:
                cycle += FIND_CYCLES
            if before is None or (unit.chunk, unit.head) != (before.chunk, before.head):
                cycle += UNIT_CYCLES
            cycle = sink.first(cycle)
            taken.append(cycle)
            before = unit
    return np.array(took, np.int64), np.array(taken, np.int64)


def passes(config, layout, units, *, lookahead, ring, view, factor):
    """What the passes of all units of one attend are, in order, by the streams of `PassIssue`, as lists of dicts."""
    streams = {name: [] for name in ("operators", "requests", "routes", "scores", "scales", "values")}
    units, lanes = list(units), config.vector_lanes
    code = {"int4": 0, "int8": 1, "int16": 2}[layout.format]

    def place(number):
        return ring + number % (lookahead + 4) * (config.block // lanes)

    def request(tiles, words, spread):
        """Rows of tiles that lie in the same word of neighbouring groups."""
        for row in range(0, len(tiles), spread):
            (group, word), n = tiles[row], len(tiles[row : row + spread])
            page = view["base"] + unit.page * layout.page_words
            item = {"address": page + word, "words": words, "format": code, "skip": group, "take": n}
            streams["requests"].append(item)

    order = []
    for n in range(len(units)):
        order.append((False, n))
        if n + 1 >= lookahead:
            order.append((True, n + 1 - lookahead))
    n_left = max(0, len(units) - lookahead + 1)
    order += [(True, n) for n in range(n_left, len(units))]
    for is_values, n in order:
        unit = units[n]
        n_keys = -(-unit.positions // config.tile_channels)
        of_slot = {"slot": unit.slot, "first": unit.first, "last": unit.last}
        if is_values:
            tiles = [layout.value_tile(unit.head, unit.page_chunk, t) for t in range(layout.value_tiles)]
            request(tiles, layout.v_words, layout.value_spread)
            operator = {"address": place(n), "inputs": unit.positions, "n_groups": layout.value_spread}
            streams["values"].append(of_slot | {"channels": layout.head_dim, "tag": n == len(units) - 1})
        else:
            tiles = [layout.key_tile(unit.head, unit.page_chunk, t) for t in range(n_keys)]
            request(tiles, layout.k_words, layout.of_set)
            operator = {"address": unit.address, "inputs": layout.head_dim, "n_groups": layout.of_set}
            beats = n_keys * config.tile_channels // lanes
            bound = {"lo": list(unit.lo), "hi": list(unit.hi)}
            streams["scores"].append(of_slot | bound | {"beats": beats, "factor": factor, "address": place(n)})
            index = unit.page_chunk * layout.heads + unit.head
            at = view["scales"] + unit.page * layout.page_scale_bytes + index * layout.chunk * 2
            streams["scales"].append({"address": at, "words": beats, "format": code, "wait": 0, "event": 0})
        shared = {
            "channel_tiles": len(tiles),
            "first_group": tiles[0][0],
            "format": code,
            "wait": is_values,
            "whole": is_values,
        }
        streams["operators"].append(operator | shared)
        streams["routes"].append({"is_values": is_values, "tiles": len(tiles)})
    return streams
