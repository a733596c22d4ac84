"""Weights on their way into memory: chosen, permuted, padded, quantised and packed, a few rounds of tiles at a time."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from edgeaccel.checkpoint import CheckpointError
from edgeaccel.config import Config
from edgeaccel.golden.float import encode
from edgeaccel.image import Lazy
from edgeaccel.quantise import quantise
from edgeaccel.tiles import pack

__all__ = ["Matrix", "Packer", "fp32", "head_places"]

PART_ELEMENTS = 1 << 22  # weights that are worked on at a time, if a round of tiles has no more


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """A matrix as the array sees it: rows and columns of a tensor, with zeros between them.

    Attributes
    ----------
    config : Config
    format : str
    rows : int array [channels]
        The tensor's row of each output channel, or -1 for zeros.
    columns : int array [inputs]
        The tensor's column of each input, or -1 for zeros.
    """

    config: Config
    format: str
    rows: np.ndarray = field(repr=False)
    columns: np.ndarray = field(repr=False)

    @property
    def inputs(self):
        return len(self.columns)

    @property
    def tiles(self):
        """Channel tiles."""
        return -(-len(self.rows) // self.config.tile_channels)

    @property
    def row_words(self):
        """Words of a channel tile."""
        return self.config.layout(self.format).row_words(self.inputs)

    @property
    def long(self):
        """Ports that have a tile more than the others."""
        return self.tiles % self.config.groups

    @property
    def words(self):
        """Words in each of the other ports."""
        return self.tiles // self.config.groups * self.row_words

    @property
    def port_words(self):
        """Words in the port that has the most."""
        return -(-self.tiles // self.config.groups) * self.row_words


class Packer:
    """Makes segments of matrices and vectors of a checkpoint, each when it is asked for.

    A part of a matrix - some rounds of tiles over all ports - is packed once for the segments of all ports, if these
    are asked for one after the other.
    """

    def __init__(self, checkpoint, machine):
        self._checkpoint, self._machine = checkpoint, machine
        self._key, self._tiles = None, None

    def matrix(self, name, matrix, word):
        """Segments (address, `Lazy`) of a tensor that lies from a word of each port on."""
        config, segments = self._machine.config, []
        groups, word_bytes = config.groups, config.word_bytes
        rounds = max(1, PART_ELEMENTS // (groups * config.tile_channels * matrix.inputs))
        for first in range(0, matrix.tiles, rounds * groups):
            last = min(first + rounds * groups, matrix.tiles)
            at = (word + first // groups * matrix.row_words) * word_bytes
            for port in range(min(groups, last - first)):
                n_bytes = -(-(last - first - port) // groups) * matrix.row_words * word_bytes
                make = partial(self._port, name, matrix, first, last, port)
                segments.append((port * self._machine.port_bytes + at, Lazy(n_bytes, make)))
        return segments

    def vectors(self, name, address, stride):
        """Segments of the rows of a tensor, in FP32, each `stride` bytes from the one before."""
        n_rows = self._checkpoint.shape.tensors()[name][0]
        step = max(1, PART_ELEMENTS // (stride // 4))
        return [
            (
                address + first * stride,
                Lazy(
                    (min(first + step, n_rows) - first) * stride,
                    partial(self._vectors, name, first, min(first + step, n_rows), stride // 4),
                ),
            )
            for first in range(0, n_rows, step)
        ]

    def vector(self, name):
        """A tensor of one dimension, in FP32 codes."""
        return self._fp32(name, self._checkpoint.tensor(name), 0)

    def _port(self, name, matrix, first, last, port):
        key = name, first
        if self._key != key:
            # The old tiles go before the new ones are made.
            self._key = self._tiles = None
            self._tiles, self._key = self._pack(name, matrix, first, last), key
        return np.ascontiguousarray(self._tiles[port :: self._machine.config.groups]).reshape(-1)

    def _pack(self, name, matrix, first, last):
        config = self._machine.config
        rows = matrix.rows[first * config.tile_channels : last * config.tile_channels]
        used = rows[rows >= 0]
        begin, end = (int(used.min()), int(used.max()) + 1) if used.size else (0, 1)
        weights = self._checkpoint.tensor(name, slice(begin, end))
        weights = _take(_take(weights, np.where(rows < 0, -1, rows - begin), 0), matrix.columns, 1)
        try:
            quantised = quantise(weights, matrix.format, block=config.block_of(matrix.format))
        except ValueError as error:
            raise CheckpointError(
                f"{self._checkpoint.origin}: {name}, rows {begin} to {end - 1}: {error}; get the file anew"
            ) from None
        return pack(quantised, lanes=config.lanes)

    def _vectors(self, name, first, last, width):
        rows = self._fp32(name, self._checkpoint.tensor(name, slice(first, last)), first)
        padded = np.zeros((last - first, width), "<u4")
        padded[:, : rows.shape[1]] = rows
        return padded.reshape(-1).view(np.uint8)

    def _fp32(self, name, numbers, first):
        if not np.isfinite(numbers).all():
            place = np.argwhere(~np.isfinite(numbers))[0]
            number = numbers[tuple(place)]
            place[0] += first
            raise CheckpointError(
                f"{self._checkpoint.origin}: {name}[{', '.join(map(str, place))}] is {number}, but must be finite; get"
                " the file anew"
            )
        return fp32(numbers)


def fp32(numbers):
    """FP32 codes, little endian."""
    return encode(np.asarray(numbers, np.float64)).astype("<u4")


def head_places(heads, head_dim, whole, *, halves=0):
    """Rows of a matrix of heads, or columns, each head padded to a whole tile, or word: -1 where it is padded.

    With `halves`, the first so many dimensions of a head are put in another order, so that what was dimension i and
    i + halves / 2 become neighbours: 2 i and 2 i + 1.
    """
    order = np.arange(head_dim)
    order[:halves] = order[:halves].reshape(2, -1).T.reshape(-1)
    padded = np.full((heads, -(-head_dim // whole) * whole), -1)
    padded[:, :head_dim] = np.arange(heads)[:, None] * head_dim + order
    return padded.reshape(-1)


def _take(array, places, axis):
    """Rows or columns of a matrix, zeros where the place is -1."""
    if len(places) == array.shape[axis] and np.array_equal(places, np.arange(len(places))):
        return array
    taken = np.take(array, np.maximum(places, 0), axis=axis)
    shape = [1, 1]
    shape[axis] = -1
    return np.where(places.reshape(shape) < 0, 0, taken).astype(array.dtype, copy=False)
