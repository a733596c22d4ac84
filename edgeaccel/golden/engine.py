"""Matrix engine in NumPy: what its operators give, and when, with memories of any timing."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.golden.array import Array, operator_results, result_beats
from edgeaccel.golden.feed import Feed, aligned_tiles
from edgeaccel.golden.memory import Command, Streamer, StreamerTiming, following
from edgeaccel.golden.timing import Pattern

__all__ = ["EngineTiming", "engine_cycles", "engine_results", "port_commands", "port_words"]


@dataclass(frozen=True)
class EngineTiming:
    """Cycles, counted from the first after reset, those of `ports` by group."""

    operators: np.ndarray
    results: np.ndarray
    ports: list


def port_words(config, operator):
    """Words that an operator takes from the port of each group."""
    n_groups = operator.groups(config)
    words = config.layout(operator.format).row_words(operator.stored_inputs(config))
    tiles = [len(range(n, operator.channel_tiles, n_groups)) for n in range(n_groups)]
    before, behind = operator.first_group, config.groups - operator.first_group - n_groups
    return [0] * before + [words * n for n in tiles] + [0] * behind


def port_commands(config, operators, addresses):
    """Commands of each port for operators in a row: the words of operator `n` lie from `addresses[n]` on."""
    counts = [port_words(config, operator) for operator in operators]
    return [
        [
            Command(address=address, words=words[group], format=operator.format)
            for operator, address, words in zip(operators, addresses, counts, strict=True)
            if words[group]
        ]
        for group in range(config.groups)
    ]


def engine_results(config, operators, matrices, buffer):
    """Result beats [beats, rows, vector_lanes] of operators in a row, FP32 codes; `matrices` are their packed tiles."""
    parts = []
    for operator, tiles in zip(operators, matrices, strict=True):
        results = operator_results(config, tiles, operator.format, *aligned_tiles(config, operator, buffer))
        parts.append(result_beats(config, results, n_groups=operator.groups(config)))
    return np.concatenate(parts)


def engine_cycles(
    config,
    operators,
    commands,
    memories,
    *,
    streamer=None,
    stalls=None,
    events=(),
    periods=(1, 1),
    max_cycles=10**7,
    progress=None,
):
    """Cycles of a `MatrixEngine`.

    Parameters
    ----------
    config : Config
    operators : list of edgeaccel.golden.feed.Operator
    commands : list of list of Command
        Of each port.
    memories : list of callables
        As `Streamer.word_offers` takes them, one for each port.
    streamer : Streamer
        The default's but for the widths.
    stalls : dict of str to bool array
        Stall patterns of "i_operators", "i_commands__0" and so on, and "o".
    events : list of int
        Cycles of loads with an event.
    periods : (int, int)
        Of the core's clock and the ports'.
    progress : callable
        Called now and then with the number of results so far.

    Returns
    -------
    EngineTiming
    """
    stalls = stalls or {}
    streamer = streamer or Streamer(data_width=config.port_data_width, word_width=config.word_bits)
    array = Array(config)
    feed = Feed(config, operators, Pattern(stalls.get("i_operators", ())), events)
    sink = Pattern(stalls.get("o", ()))
    timings = [StreamerTiming(*([] for _ in range(4))) for _ in commands]
    ports = [
        streamer.word_offers(port, memory, timing, source=Pattern(stalls.get(f"i_commands__{n}", ())), periods=periods)
        for n, (port, memory, timing) in enumerate(zip(commands, memories, timings, strict=True))
    ]
    never = max_cycles
    offers = [next(port, never) for port in ports]
    n_tiles = sum(operator.channel_tiles * (operator.more_sets + 1) for operator in operators)
    n_results = n_tiles * config.tile_channels // config.vector_lanes
    first_hop = array.groups[0].hop
    results = []
    for cycle in range(max_cycles):
        array.begin(cycle)
        feed.begin(cycle)
        taken, given = array.step(cycle, [offer <= cycle for offer in offers], sink.first(cycle) == cycle)
        if (beat := feed.step(cycle, first_hop.has_room)) is not None:
            first_hop.put(beat)
        for n, how in enumerate(taken):
            if how:
                offers[n] = following(ports[n], (cycle, how), never)
        if given:
            results.append(cycle)
            if progress and len(results) % 1024 == 0:
                progress(len(results))
            if len(results) == n_results:
                break
    return EngineTiming(
        np.array(feed.source.taken),
        np.array(results),
        [StreamerTiming(*(np.array(cycles, np.int64) for cycles in vars(timing).values())) for timing in timings],
    )
