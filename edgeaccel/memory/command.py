"""What the parts of the tile streamer tell each other: commands, bursts, entries and errors."""

from dataclasses import dataclass

from amaranth.lib import data, enum

from edgeaccel.memory import axi
from edgeaccel.pe.digit import FormatCode

__all__ = ["COMMAND_NUMBER_WIDTH", "WORDS_WIDTH", "ErrorCode", "StreamerError", "Widths"]

WORDS_WIDTH = 32
COMMAND_NUMBER_WIDTH = 16


class ErrorCode(enum.Enum, shape=3):
    """Why a streamer has stopped."""

    EMPTY = 0
    """A command of no words."""
    MISALIGNED = 1
    """A command's address is no multiple of an entry's bytes."""
    FORMAT = 2
    """A command's format is not in the build."""
    RANGE = 3
    """A command goes past the end of the memory."""
    NO_EVENT = 4
    """A command waits for an event that the build does not have."""
    EVENT_OVERFLOW = 5
    """More events came than can be counted before a command waits for them."""
    RESPONSE = 6
    """The memory answered with SLVERR or DECERR."""


class StreamerError(data.Struct):
    """The first error since reset or `clear`.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    code : ErrorCode
    response : axi.Response
        For `RESPONSE`: what the memory answered, to the first bad beat of the entry.
    address : 64 bits
        In bytes. For `RESPONSE`: of the entry (the word, or the beat if that is wider) that was answered so; for
        `EVENT_OVERFLOW` 0; else of the refused command.
    command : 16 bits
        Number of the command since reset or `clear`, from 0, modulo 2**16; of the next one for `EVENT_OVERFLOW`.
    """

    valid: 1
    code: ErrorCode
    response: axi.Response
    address: 64
    command: COMMAND_NUMBER_WIDTH


@dataclass(frozen=True, kw_only=True)
class Widths:
    """Bits of a beat and of a word, and the payloads that depend on them.

    An *entry* is what the buffer holds in a row: a word made of beats, or a beat that holds words. Commands start at
    multiples of an entry, so no word lies across two bursts.

    Attributes
    ----------
    address : int
        Bits of a byte address, 12 to 64.
    beat : int
        Bits of a beat, as `axi.Signature` takes them.
    word : int
        Bits of a word, a power of two from 64 to 1024.
    beats_per_burst : int
        Most beats of a burst.
    n_events : int
        Events that a command may wait for.

    Raises
    ------
    ValueError
        If a word is of no such size, a burst does not hold one, or there is no event.
    """

    address: int
    beat: int
    word: int
    beats_per_burst: int
    n_events: int

    def __post_init__(self):
        if self.word not in (64, 128, 256, 512, 1024):
            raise ValueError(f"word_width must be a power of two from 64 to 1024 bits, not {self.word!r}")
        if self.beats_per_burst < self.beats_per_entry:
            raise ValueError(
                f"burst_beats must be at least {self.beats_per_entry}, a word of {self.word} bits in beats of"
                f" {self.beat}, not {self.beats_per_burst!r}"
            )
        if self.n_events < 1:
            raise ValueError(f"n_events must be at least 1, not {self.n_events!r}")

    @property
    def entry(self):
        return max(self.beat, self.word)

    @property
    def entry_bytes(self):
        return self.entry // 8

    @property
    def word_bytes(self):
        return self.word // 8

    @property
    def beats_per_entry(self):
        return self.entry // self.beat

    @property
    def words_per_entry(self):
        return self.entry // self.word

    @property
    def entries_per_burst(self):
        return self.beats_per_burst // self.beats_per_entry

    @property
    def commands(self):
        """A command: `words` of them from `address` on, after one event of index `event` if `wait`."""
        return data.StructLayout(
            {
                "address": self.address,
                "words": WORDS_WIDTH,
                "format": FormatCode,
                "wait": 1,
                "event": range(self.n_events) if self.n_events > 1 else 1,
            }
        )

    @property
    def spans(self):
        """An admitted command: entries, the words in the last of them less one, and the command's number."""
        return data.StructLayout(
            {
                "address": self.address,
                "entries": WORDS_WIDTH,
                "last_word": range(self.words_per_entry),
                "command": COMMAND_NUMBER_WIDTH,
            }
        )

    @property
    def bursts(self):
        """A burst: what the memory is asked for, and what is kept until it has answered."""
        return data.StructLayout(
            {
                "address": self.address,
                "entries": range(self.entries_per_burst + 1),
                "last_word": range(self.words_per_entry),
                "command": COMMAND_NUMBER_WIDTH,
            }
        )

    @property
    def requests(self):
        """What the AR channel carries: the address and AxLEN."""
        return data.StructLayout({"address": self.address, "length": 8})

    @property
    def beats(self):
        """What the R channel carries."""
        return data.StructLayout({"data": self.beat, "response": axi.Response, "last": 1})

    @property
    def answers(self):
        """An entry's beats: the data, the first bad response, whether the burst ends with it."""
        return data.StructLayout({"data": self.entry, "response": axi.Response, "last": 1})

    @property
    def entries(self):
        """A row of the buffer: the data, and how many words it holds less one."""
        return data.StructLayout({"data": self.entry, "last_word": range(self.words_per_entry)})
