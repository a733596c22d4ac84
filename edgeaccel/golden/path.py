"""The way from the array through the epilogue in NumPy: results as vectors, and the cycles of all that moves."""

import numpy as np

from edgeaccel.golden import function, norm, rotary
from edgeaccel.golden.elastic import Move, Source, pipe, queue, run

__all__ = ["cut", "path_cycles"]

ADDER, MULTIPLIER = 5, 5  # register stages
BEATS = 2  # that wait in front of the epilogue


def cut(results, lengths, tile_channels):
    """Results [channels, rows] as vectors [rows, length], each from the beginning of a tile.

    Raises
    ------
    ValueError
        If the tiles of the vectors are not all the results.
    """
    ends = np.cumsum([-(-length // tile_channels) * tile_channels for length in lengths])
    if ends[-1] != len(results):
        raise ValueError(f"vectors of {ends[-1]} channels with their padding must be all {len(results)} results")
    begins = np.append(0, ends[:-1])
    return [results[begin : begin + length].T for begin, length in zip(begins, lengths, strict=True)]


def path_cycles(lengths, flags, roles, patterns, config, *, functions, max_length, max_rotated, layer=False):
    """Cycles of `edgeaccel.vector.path.ResultPath`.

    Parameters
    ----------
    lengths : int array
        Channels of each vector.
    flags : dict of bool arrays, an entry for each beat of a vector
        bias, factors, residual, statistics, last.
    roles : what `rotary.beat_roles` gives
    patterns : dict of Pattern
        Of the streams by name.

    Returns
    -------
    dict of int64 arrays, by the names of the streams
    """
    lanes = config.vector_lanes
    of_tile = config.tile_channels // lanes
    kept, ends = [], []
    for n_beats in -(-np.asarray(lengths) // lanes):
        place = np.arange(-(-n_beats // of_tile) * of_tile)
        kept.append(place < n_beats)
        ends.append(place == place[-1])
    kept, ends = np.concatenate(kept), np.concatenate(ends)
    inputs = ("i", "i_steps", "i_bias", "i_table", "i_factors", "i_residual")
    streams = {name: Source(patterns[name]) for name in inputs}
    beats = queue(BEATS)
    scaler = pipe(MULTIPLIER + 1 + ADDER + 1)
    finisher = pipe(function.latency(functions) + 1 + MULTIPLIER + 1 + ADDER)
    statistics = pipe(norm.statistics_latency(lanes, max_length, layer=layer))
    turning = rotary.Stage(roles, streams["i_table"], lanes=lanes, max_rotated=max_rotated)
    wanted = flags["statistics"] & flags["last"]
    operands = [(streams[f"i_{name}"], flags[name]) for name in ("factors", "residual")]
    cycles = run(
        [
            Move([streams["i"], (streams["i_steps"], ends)], [(beats, kept)], turns=len(kept)),
            Move([beats], [scaler], choices=[(streams["i_bias"], flags["bias"])]),
            Move([scaler], turning.entry),
            *turning.moves,
            Move([turning.exit], [finisher], choices=operands),
            Move([finisher], [(statistics, wanted)], turns=len(wanted), sink=patterns["o"]),
            Move([statistics], [], turns=int(wanted.sum()), sink=patterns["o_statistics"]),
        ]
    )
    taken = {name: np.array(source.takes, np.int64) for name, source in streams.items()}
    return taken | {"o": cycles[-2], "o_statistics": cycles[-1]}
