"""The way from the array through the epilogue in NumPy: results as vectors, and the cycles of all that moves."""

import numpy as np

from edgeaccel.golden.elastic import Move, Source, queue, run
from edgeaccel.golden.epilogue import OPERANDS, steps_net

__all__ = ["cut", "path_cycles"]

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
    streams = {name: Source(patterns[name]) for name in ("i", "i_steps", *OPERANDS)}
    beats = queue(BEATS)
    scaler, moves = steps_net(
        flags,
        roles,
        streams,
        patterns,
        functions=functions,
        lanes=lanes,
        max_length=max_length,
        max_rotated=max_rotated,
        layer=layer,
    )
    cutter = Move([streams["i"], (streams["i_steps"], ends)], [(beats, kept)], turns=len(kept))
    entry = Move([beats], [scaler], choices=[(streams["i_bias"], flags["bias"])])
    cycles = run([cutter, entry, *moves])
    taken = {name: np.array(source.takes, np.int64) for name, source in streams.items()}
    return taken | {"o": cycles[-2], "o_statistics": cycles[-1]}
