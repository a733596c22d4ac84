"""Cycle model of attention: when a command is through, from its shape and the memory."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, log2

from edgeaccel.golden.function import latency as function_latency
from edgeaccel.golden.pe import group_latency, scaled_accumulator_latency
from edgeaccel.golden.units import units

__all__ = ["AttentionPrediction", "predict"]

FIRST_READ = 33  # from a command to its first address: checks, the page, the unit, queues
UNIT_CYCLES = 8  # from a unit to the next
WORD_CYCLES = 3  # from a word's last beat to the word
CROSSING_CYCLES = 5  # more of them from the other clock
SUM_CYCLES = 16  # from a result of values to the vector


@dataclass(frozen=True, kw_only=True)
class AttentionPrediction:
    """Core cycles of a command, from the cycle in which it is taken.

    Attributes
    ----------
    last_result : int
    port_cycles : float
        In which the busiest port gives words, at the rate of its memory or of its group.
    chain_cycles : int
        In which activations go along the chain, or results come back, whichever is more.
    beats : int
        Of all ports together.
    """

    last_result: int
    port_cycles: float
    chain_cycles: int
    beats: int


def predict(config, layout, command, memory):
    """Cycles of one `Attend` on an `AttentionEngine`, its page table and queries in place.

    What takes the longest of all sets it: the words of the busiest port, the activations along the chain, or the
    results back. Before it comes the way of the first unit's words, behind it that of the last unit's weights and
    values: its own pass of keys is the last of all, so its weights are waited for, but for the passes of values before.

    Parameters
    ----------
    config : Config
    layout : CacheLayout
    command : edgeaccel.golden.units.Attend
    memory : edgeaccel.perf.matrix.PortMemory
        Of each port.
    """
    lanes, tile = config.vector_lanes, config.tile_channels
    n_pages = -(-(command.count + config.rows) // layout.page_positions)
    # Chunks are the same for every head and batch of queries.
    chunks = list(units(config, layout, replace(command, n_heads=1, batches=1), range(n_pages)))
    words, sent, given = Counter(), 0, 0
    of_set, value_tiles, spread = layout.of_set, layout.value_tiles, layout.value_spread
    for chunk in chunks:
        n_keys = -(-chunk.positions // tile)
        for head in range(command.first_head, command.first_head + command.n_heads):
            for group, count in _unit_words(layout, head, chunk.page_chunk, n_keys):
                words[group] += count * command.batches
        n_units = command.n_heads * command.batches
        sent += n_units * -(-n_keys // of_set) * -(-layout.head_dim // lanes)
        sent += n_units * -(-value_tiles // spread) * (config.block // lanes)
        given += n_units * (n_keys + value_tiles) * tile // lanes
    n_units = command.n_heads * command.batches * len(chunks)
    # Words a core cycle: of the memory, at most one.
    rate = min(1.0, config.port_data_width * config.port_mhz * memory.share / (config.word_bits * config.core_mhz))
    port_cycles, chain_cycles = max(words.values()) / rate, max(sent, given)

    port_ratio = config.core_mhz / config.port_mhz
    # The first unit of the last set is given behind those of the others, and its requests hop to its groups.
    start = FIRST_READ + UNIT_CYCLES * (min(n_units, layout.sets) - 1) + config.groups - layout.of_set
    start += memory.latency * port_ratio + WORD_CYCLES
    start += CROSSING_CYCLES if config.port_mhz != config.core_mhz else 0
    group = group_latency(config.lanes, config.formats) + scaled_accumulator_latency()
    last = min(n_units, layout.sets)  # units of a round
    # The first units have nothing to hide the way through the weights behind.
    softmax = log2(lanes) + 41 + config.block // lanes + function_latency({"exp2"})
    first_round = group + last * -(-min(config.block, chunks[0].positions) // lanes) + softmax
    between = max(0, first_round - (n_units - 1) // layout.sets * max(layout.k_words, layout.v_words))
    # The last passes of values end in all sets together, and their vectors drain one after the other, unless they began
    # as their weights came.
    end = group + (1 if between else last) * layout.value_tiles * tile // lanes + SUM_CYCLES
    longest = max(port_cycles, chain_cycles)
    beats = sum(words.values()) * config.word_bits // config.port_data_width
    return AttentionPrediction(
        last_result=ceil(start + longest + between + end),
        port_cycles=port_cycles,
        chain_cycles=chain_cycles,
        beats=beats,
    )


@cache
def _unit_words(layout, head, page_chunk, n_keys):
    """(group, words) of the tiles of a unit with so many tiles of keys."""
    words = Counter()
    for n in range(n_keys):
        words[layout.key_tile(head, page_chunk, n)[0]] += layout.k_words
    for n in range(layout.value_tiles):
        words[layout.value_tile(head, page_chunk, n)[0]] += layout.v_words
    return tuple(words.items())
