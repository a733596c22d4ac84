"""The array of a machine: tiles that are asked for, and the matrices that are multiplied with them."""

from collections import deque

import numpy as np

from edgeaccel.golden import batch
from edgeaccel.golden.formats import twice_e2m1
from edgeaccel.golden.machine.error import Fault
from edgeaccel.tiles import unpack

__all__ = ["Array"]

KEPT_BYTES = 1 << 29


class Array:
    """What `fetch` and `multiply` do.

    Matrices that were unpacked are kept, and used again if their tiles are still the same.

    Parameters
    ----------
    state : State
    """

    def __init__(self, state):
        self.state = state
        self._kept, self._kept_bytes = {}, 0
        self.begin()

    def begin(self):
        """Forget what was asked for."""
        self._asked = [deque() for _ in range(self.state.config.groups)]

    def left(self):
        """Words that were asked for and never used."""
        return sum(words for port in self._asked for _, words, _ in port)

    def fetch(self, f):
        address = f["address"] + f["stride"] * self.state.layer
        self._check_format(f["format"])
        if f["long"] > len(self._asked):
            raise Fault("shape", f"{f['long']} ports cannot have a tile more: there are {len(self._asked)}")
        for port, asked in enumerate(self._asked):
            words = f["long_words"] if port < f["long"] else f["words"]
            if words:
                self.state.memory.check_words(port, address, words)
                asked.append((address, words, f["format"]))

    def multiply(self, f):
        """Results of a matrix for all rows of the build, put to the state's queue of each set."""
        state, config = self.state, self.state.config
        self._check_format(f["format"])
        inputs, n_tiles = f["inputs"], f["channel_tiles"]
        if not inputs or not n_tiles:
            raise Fault("shape", f"a matrix of {n_tiles} tiles of {inputs} inputs has nothing to multiply")
        if f["wait"]:
            state.wait_load()
        matrix, scales = self._matrix(inputs, n_tiles, f["format"])
        for which in range(state.sets - 1 if f["last"] else 0, state.sets):
            word = f["address"] + which * config.set_words
            first = word * config.vector_lanes
            if first + inputs > config.buffer_inputs:
                raise Fault("buffer", f"{inputs} inputs from word {word} on are outside of the activation buffer")
            x = state.buffer[:, first : first + inputs]
            results = batch.product(config, x, matrix, scales, e8m0=f["format"] == "mxfp4")
            state.results[which].put(results.T)

    def _matrix(self, inputs, n_tiles, format):
        """(float64 [inputs, channels], codes of scales [blocks, channels]) of the next tiles.

        The last tile of MXFP4 is always whole; what fills it is part of the matrix.
        """
        config = self.state.config
        n_words = config.layout(format).row_words(inputs)
        ports = range(min(config.groups, n_tiles))
        places = [self._take(port, len(range(port, n_tiles, config.groups)) * n_words, format) for port in ports]
        tiles = np.empty((n_tiles, n_words, config.word_bytes), np.uint8)
        for port, own in enumerate(places):
            words = np.concatenate([self.state.memory.words(port, *place) for place in own])
            tiles[port :: config.groups] = words.reshape(-1, n_words, config.word_bytes)
        self.state.tile_words += n_tiles * n_words
        key = inputs, n_tiles, format, tuple(places[0])
        if key in self._kept and np.array_equal(self._kept[key][0], tiles):
            return self._kept[key][1:]
        is_mxfp4 = format == "mxfp4"
        stored = -(-inputs // (2 * batch.MX_BLOCK)) * 2 * batch.MX_BLOCK if is_mxfp4 else inputs
        block, shape = batch.MX_BLOCK if is_mxfp4 else config.block, (n_tiles * config.tile_channels, stored)
        unpacked = unpack(tiles, format=format, shape=shape, block=block, lanes=config.lanes)
        elements = twice_e2m1(unpacked.codes) if is_mxfp4 else unpacked.codes
        matrix = elements.T.astype(np.float64)
        scales = unpacked.scales.T if is_mxfp4 else unpacked.scales.T.view(np.uint16)
        size = tiles.nbytes + matrix.nbytes + scales.nbytes
        if key in self._kept or self._kept_bytes + size <= KEPT_BYTES:
            self._kept_bytes += 0 if key in self._kept else size
            self._kept[key] = tiles, matrix, scales
        return matrix, scales

    def _take(self, port, count, format):
        """Places (address, words) of a port's next words."""
        asked, places = self._asked[port], []
        while count:
            if not asked:
                raise Fault("fetch", f"{count} more words are wanted of port {port} than were asked for")
            address, words, of = asked.popleft()
            if of != format:
                raise Fault("fetch", f"tiles in {of} were asked for, not {format}", address)
            taken = min(words, count)
            places.append((address, taken))
            if words > taken:
                asked.appendleft((address + taken, words - taken, of))
            count -= taken
        return places

    def _check_format(self, format):
        if format not in self.state.config.formats:
            raise Fault("shape", f"the build has no {format}; it has {', '.join(self.state.config.formats)}")
