"""Commands of the attention engine, and why it refuses one."""

from amaranth.lib import data, enum

from edgeaccel.cache import MAX_HEAD_DIM
from edgeaccel.pe.digit import FormatCode
from edgeaccel.pe.float import FP32
from edgeaccel.systolic.commands import WORD_ADDRESS_WIDTH

__all__ = [
    "BYTE_ADDRESS_WIDTH",
    "COMMAND_NUMBER_WIDTH",
    "HEADS_WIDTH",
    "PAGE_WIDTH",
    "POSITION_WIDTH",
    "WORDS_WIDTH",
    "AttentionError",
    "AttentionErrorCode",
    "append",
    "attend",
    "cache_view",
]

BYTE_ADDRESS_WIDTH = 64
POSITION_WIDTH = 20
PAGE_WIDTH = 16
WORDS_WIDTH = 24
HEADS_WIDTH = MAX_HEAD_DIM.bit_length()
COMMAND_NUMBER_WIDTH = 16


def cache_view():
    """Where a sequence's keys and values of a layer lie; all but `table` and `pages` as `edgeaccel.cache.CacheLayout`.

    table, pages
        Entries of the page table that the sequence has.
    n_pages
        Pages that there are; one from this number on is out of range.
    base
        Of page 0, in words of each port's memory.
    scales
        Of page 0's table of the values' scales, in bytes.
    page_words, page_scale_bytes
        From page to page.
    page_bits, heads, format, share_bits
    inputs
        Dimensions of a head.
    k_words, k_stride, v_region, v_words, v_stride
        In words.
    """
    return data.StructLayout(
        {
            "table": PAGE_WIDTH,
            "pages": PAGE_WIDTH,
            "n_pages": PAGE_WIDTH,
            "base": WORD_ADDRESS_WIDTH,
            "scales": BYTE_ADDRESS_WIDTH,
            "page_words": WORDS_WIDTH,
            "page_scale_bytes": WORDS_WIDTH,
            "page_bits": 4,
            "heads": HEADS_WIDTH,
            "inputs": HEADS_WIDTH,
            "format": FormatCode,
            "k_words": WORDS_WIDTH,
            "k_stride": WORDS_WIDTH,
            "v_region": WORDS_WIDTH,
            "v_words": WORDS_WIDTH,
            "v_stride": WORDS_WIDTH,
            "share_bits": 2,
        }
    )


def attend(config):
    """Queries from the activation buffer to what they get from a cache.

    cache : `cache_view`
    first_head, n_heads
        Heads of keys and values.
    batches
        Queries of each head, `rows` at a time; `n_heads * batches` slots are needed.
    address, stride
        Of the first query in the buffer, in its words, and from query to query, all batches of a head, then the next
        head.
    count
        Positions that row 0 sees, from the first on.
    causal
        Each row sees one position more than the row before; else all see as many.
    rows
        Rows that are in use.
    window
        If not 0, a row sees only the last so many of its positions.
    factor
        FP32 code: log2(e), times what the scores are to be multiplied by.
    wait
        Wait for one event of appends first.
    """
    return data.StructLayout(
        {
            "cache": cache_view(),
            "first_head": HEADS_WIDTH,
            "n_heads": HEADS_WIDTH,
            "batches": HEADS_WIDTH,
            "address": range(config.buffer_words),
            "stride": range(config.buffer_words),
            "count": POSITION_WIDTH,
            "causal": 1,
            "rows": range(config.rows + 1),
            "window": POSITION_WIDTH,
            "factor": FP32.width,
            "wait": 1,
        }
    )


def append(config):
    """Keys or values of one position, or of several neighbours, into a cache.

    cache : `cache_view`
    values
        Values, not keys.
    position
        Of row 0.
    rows
        Positions, one after the other; more than one must lie in the same multiple of the build's rows.
    event
        Give an event once all is written.
    """
    return data.StructLayout(
        {
            "cache": cache_view(),
            "values": 1,
            "position": POSITION_WIDTH,
            "rows": range(config.rows + 1),
            "event": 1,
        }
    )


class AttentionErrorCode(enum.Enum, shape=3):
    """Why the engine has stopped."""

    SHAPE = 0
    """Heads, dimensions, rows, positions or a format that the build cannot do, or queries outside of the buffer."""
    POSITION = 1
    """A position past the pages of the sequence, or past the page table."""
    PAGE = 2
    """An entry of the page table that holds no page, or a page out of range."""
    FREED = 3
    """The page table was written where a command was using it."""
    WRITE = 4
    """The memory answered with SLVERR or DECERR when the cache was written."""
    SCALES = 5
    """The memory answered with SLVERR or DECERR when scales of values were read."""
    EVENT_OVERFLOW = 6
    """More events of appends came than can be counted before a command waits for them."""


class AttentionError(data.Struct):
    """The first error since reset or `clear`.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    code : AttentionErrorCode
    append : 1 bit
        Of an append; else of an attend.
    command : 16 bits
        Number of the command since reset or `clear`, from 0, modulo 2**16, counted for appends and attends apart.
    """

    valid: 1
    code: AttentionErrorCode
    append: 1
    command: COMMAND_NUMBER_WIDTH
