"""Where keys and values lie: pages of tiles, spread over the memory ports."""

from dataclasses import dataclass

import numpy as np

from edgeaccel.config import Config
from edgeaccel.formats import get_format
from edgeaccel.quantise import Quantised
from edgeaccel.tiles import pack

__all__ = ["CACHE_FORMATS", "MAX_HEAD_DIM", "CacheLayout", "group_sets"]

CACHE_FORMATS = ("int16", "int8", "int4")
MAX_HEAD_DIM = 256


def group_sets(config):
    """(groups of a set, sets): a set works on one chunk of positions of a head.

    A chunk's keys are `block / tile_channels` tiles, so more groups than that would have none.

    Raises
    ------
    ValueError
        If a block is not a power of two of positions, or not whole tiles of them, or if tiles or scales would not begin
        with a beat of a port.
    """
    if config.block & (config.block - 1) or config.block < config.tile_channels:
        raise ValueError(
            f"for attention, block must be a power of two of at least the {config.tile_channels} channels of a tile,"
            f" not {config.block}"
        )
    if config.port_data_width > min(config.word_bits, 16 * config.block):
        raise ValueError(
            f"for attention, port_data_width must be at most {min(config.word_bits, 16 * config.block)}, the bits of a"
            f" word or of a block's scales, not {config.port_data_width}"
        )
    of_set = min(config.block // config.tile_channels, config.groups)
    return of_set, config.groups // of_set


@dataclass(frozen=True, kw_only=True)
class CacheLayout:
    """The pages of one layer's cache.

    A *chunk* is `block` positions of a head, a *unit* the tiles of a chunk: its keys, whose output channels are
    positions, and its values, transposed, whose output channels are head dimensions. A *page* holds whole chunks of
    all heads: unit ``u = chunk * heads + head`` of a page is in the set of groups ``u mod sets``, as the set's
    ``u // sets``-th. A page's units fill all sets alike, so reads of any length are spread evenly over the ports.

    Key tile ``t`` is in the set's group ``t mod of_set``. Values may fill fewer groups than a set has; then units
    take turns with them, and ``2 ** share_bits`` units share a place.

    Words are the port's own. The scales of values are in a table apart, since they are multiplied into the
    probabilities before these are aligned.

    Parameters
    ----------
    config : Config
    heads : int
        Heads of keys and values.
    head_dim : int
        Even, up to 256; keys are padded to the word, values to the tile.
    format : str
        "int16", "int8" or "int4".
    page_bits : int
        A page has ``2 ** page_bits`` chunks; by default as few as fill all sets alike.

    Raises
    ------
    ValueError
        If a value is none that a build of `config` can do.
    """

    config: Config
    heads: int
    head_dim: int
    format: str = "int16"
    page_bits: int | None = None

    def __post_init__(self):
        if self.format not in CACHE_FORMATS or self.format not in self.config.formats:
            names = [name for name in CACHE_FORMATS if name in self.config.formats]
            raise ValueError(f"the cache's format must be one of {', '.join(names)}, not {self.format!r}")
        if not 1 <= self.heads <= MAX_HEAD_DIM:
            raise ValueError(f"heads of keys and values must be 1 to {MAX_HEAD_DIM}, not {self.heads!r}")
        if self.head_dim not in range(2, MAX_HEAD_DIM + 1, 2):
            raise ValueError(f"head_dim must be even and 2 to {MAX_HEAD_DIM}, not {self.head_dim!r}")
        least = max(0, (self.sets // np.gcd(self.sets, self.heads)).item().bit_length() - 1)
        if self.page_bits is None:
            object.__setattr__(self, "page_bits", least)
        elif not least <= self.page_bits <= 8:
            raise ValueError(
                f"page_bits must be {least} to 8, so that pages of {self.heads} heads fill {self.sets} sets of groups"
                f" alike, not {self.page_bits!r}"
            )

    @property
    def of_set(self):
        """Groups of a set."""
        return group_sets(self.config)[0]

    @property
    def sets(self):
        return group_sets(self.config)[1]

    @property
    def chunk(self):
        """Positions of a chunk."""
        return self.config.block

    @property
    def page_positions(self):
        return self.chunk << self.page_bits

    @property
    def key_tiles(self):
        """Tiles of positions of a chunk."""
        return self.chunk // self.config.tile_channels

    @property
    def value_tiles(self):
        """Tiles of head dimensions."""
        return -(-self.head_dim // self.config.tile_channels)

    @property
    def value_spread(self):
        """Groups that the values of a unit are spread over, a power of two."""
        return min(self.of_set, 1 << (self.value_tiles - 1).bit_length())

    @property
    def share_bits(self):
        return (self.of_set // self.value_spread).bit_length() - 1

    @property
    def k_words(self):
        """Words of a tile of keys."""
        return self.config.layout(self.format).row_words(self.head_dim)

    @property
    def v_words(self):
        """Words of a tile of values."""
        return self.config.layout(self.format).row_words(self.chunk)

    @property
    def k_stride(self):
        """Words of a unit's keys in each group."""
        return self.key_tiles // self.of_set * self.k_words

    @property
    def v_stride(self):
        """Words of a unit's values in each group that has any."""
        return -(-self.value_tiles // self.value_spread) * self.v_words

    @property
    def units(self):
        """Units of a page in each set."""
        return (self.heads << self.page_bits) // self.sets

    @property
    def v_region(self):
        """Word of a page where values begin."""
        return self.units * self.k_stride

    @property
    def page_words(self):
        """Words of a page in each port."""
        return self.v_region + -(-self.units >> self.share_bits) * self.v_stride

    @property
    def page_scale_bytes(self):
        """Bytes of a page in the table of the values' scales."""
        return (self.heads << self.page_bits) * self.chunk * 2

    def unit(self, head, chunk):
        """(set of groups, place in it) of a head's chunk of a page."""
        place, of = divmod(chunk * self.heads + head, self.sets)
        return of, place

    def key_tile(self, head, chunk, tile):
        """(group, word of the page) of a tile of keys."""
        of, place = self.unit(head, chunk)
        row, group = divmod(tile, self.of_set)
        return of * self.of_set + group, place * self.k_stride + row * self.k_words

    def value_tile(self, head, chunk, tile):
        """(group, word of the page) of a tile of values."""
        of, place = self.unit(head, chunk)
        row, group = divmod(tile, self.value_spread)
        place, turn = place >> self.share_bits, place & ((1 << self.share_bits) - 1)
        word = self.v_region + place * self.v_stride + row * self.v_words
        return of * self.of_set + turn * self.value_spread + group, word

    def check_attend(self, *, first_head=0, n_heads, batches=1, last_position, pages, slots):
        """What a program may ask of a build with so many slots, for a sequence of so many pages.

        Raises
        ------
        ValueError
            If there are no such heads, more queries than slots, or no such position.
        """
        if n_heads < 1 or first_head < 0 or first_head + n_heads > self.heads:
            raise ValueError(f"heads {first_head} to {first_head + n_heads - 1} must be among 0 to {self.heads - 1}")
        if batches < 1 or n_heads * batches > slots:
            raise ValueError(
                f"{n_heads} heads x {batches} batches of queries must be 1 to {slots}, the slots of the build;"
                f" split them into several commands"
            )
        self._check_position(last_position, pages)

    def check_append(self, *, position, rows, pages):
        """What a program may append to a sequence of so many pages.

        Raises
        ------
        ValueError
            If there is no such position, or the positions are not in one aligned group of the build's rows.
        """
        group = max(2, 1 << (self.config.rows - 1).bit_length())
        if not 1 <= rows <= self.config.rows or position % group + rows > group:
            raise ValueError(
                f"{rows} positions from {position} on must be at most {self.config.rows} within a multiple of {group}"
            )
        self._check_position(position + rows - 1, pages)

    def _check_position(self, position, pages):
        if not 0 <= position < pages * self.page_positions:
            raise ValueError(
                f"position {position} is past the {pages} pages of {self.page_positions} positions of the sequence"
            )

    def view(self, *, table=0, pages, n_pages, base=0, scales=0):
        """The fields of `edgeaccel.attention.command.cache_view`, as a dict.

        Parameters
        ----------
        table, pages : int
            First entry of the page table that the sequence has, and how many.
        n_pages : int
            Pages that there are.
        base : int
            Of page 0, in words of each port's memory.
        scales : int
            Of page 0's table of scales, in bytes; a multiple of the bytes that a chunk's scales take.
        """
        if scales % (2 * self.chunk):
            raise ValueError(f"scales must begin at a multiple of {2 * self.chunk} bytes, not at {scales}")
        own = ("page_bits", "heads", "format", "share_bits", "k_words", "k_stride", "v_region", "v_words", "v_stride")
        return {
            "table": table,
            "pages": pages,
            "n_pages": n_pages,
            "base": base,
            "scales": scales,
            "page_words": self.page_words,
            "page_scale_bytes": self.page_scale_bytes,
            "inputs": self.head_dim,
        } | {name: getattr(self, name) for name in own}

    def fill(self, ports, scales, pages, keys, values):
        """Write keys and values of whole sequences as tiles, for tests and benches that do not append them.

        Parameters
        ----------
        ports : uint8 [groups, bytes]
            The ports' memories; page `p` begins at word `p * page_words`.
        scales : uint8 [bytes]
            Table of the values' scales; page `p` begins at byte `p * page_scale_bytes`.
        pages : list of int
            Of the sequence, in order.
        keys, values : (codes int [positions, heads, head_dim], scales float16 [positions, heads])
            As many positions as are written; the rest of the last tiles becomes zeros.
        """
        n_positions = len(keys[0])
        spec, word_bytes = get_format(self.format), self.config.word_bytes
        for begin in range(0, n_positions, self.chunk):
            index, chunk = divmod(begin // self.chunk, 1 << self.page_bits)
            page = pages[index]
            for head in range(self.heads):
                parts = [part[begin : begin + self.chunk, head] for part in (*keys, *values)]
                k, k_scales, v, v_scales = parts
                n_blocks = -(-self.head_dim // self.config.block)
                matrix = self._matrix(spec, k, np.repeat(k_scales[:, None], n_blocks, axis=1))
                for n, tile in enumerate(pack(matrix, lanes=self.config.lanes)):
                    group, word = self.key_tile(head, chunk, n)
                    _put(ports[group], (page * self.page_words + word) * word_bytes, tile)
                whole = np.zeros((self.head_dim, self.chunk), spec.code_dtype)
                whole[:, : len(v)] = v.T
                padded = np.full((self.value_tiles * self.config.tile_channels, 1), 1.0, np.float16)
                for n, tile in enumerate(
                    pack(self._matrix(spec, whole, padded[: self.head_dim]), lanes=self.config.lanes)
                ):
                    group, word = self.value_tile(head, chunk, n)
                    _put(ports[group], (page * self.page_words + word) * word_bytes, tile)
                at = page * self.page_scale_bytes + (chunk * self.heads + head) * self.chunk * 2
                _put(scales, at, np.ascontiguousarray(v_scales, "<f2").view(np.uint8))

    def _matrix(self, spec, codes, scales):
        return Quantised(
            format=self.format,
            codes=np.ascontiguousarray(codes, spec.code_dtype),
            scales=np.ascontiguousarray(scales, np.float16),
            block=self.config.block,
        )


def _put(memory, at, data):
    memory[at : at + data.size] = data.reshape(-1)
