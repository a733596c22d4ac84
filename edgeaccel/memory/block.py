"""What the parts of the block movers tell each other: commands, beats, bursts and errors."""

from dataclasses import dataclass

from amaranth.lib import data, enum
from amaranth.utils import exact_log2

from edgeaccel.memory import axi, command
from edgeaccel.memory.command import COMMAND_NUMBER_WIDTH

__all__ = ["BYTES_WIDTH", "BlockError", "BlockErrorCode", "BlockWidths", "block_beats"]

BYTES_WIDTH = 32

_STREAM_BYTES = (4, 8, 16, 32, 64, 128)


class BlockErrorCode(enum.Enum, shape=3):
    """Why a block mover has stopped; the numbers are those of `command.ErrorCode` where the reasons are."""

    EMPTY = command.ErrorCode.EMPTY.value
    """A command of no bytes."""
    RANGE = command.ErrorCode.RANGE.value
    """A command goes past the end of the memory."""
    RESPONSE = command.ErrorCode.RESPONSE.value
    """The memory answered with SLVERR or DECERR."""
    LENGTH = 7
    """A block to be written is shorter or longer than its command says."""


class BlockError(data.Struct):
    """The first error since reset or `clear`.

    Members
    -------
    valid : 1 bit
        There was one; the rest means nothing before.
    code : BlockErrorCode
    response : axi.Response
        For `RESPONSE`: what the memory answered.
    address : 64 bits
        In bytes. For `RESPONSE`: of the beat (reading) or the burst (writing) that was answered so; else of the
        command.
    command : 16 bits
        Number of the command since reset or `clear`, from 0, modulo 2**16.
    """

    valid: 1
    code: BlockErrorCode
    response: axi.Response
    address: 64
    command: COMMAND_NUMBER_WIDTH


def block_beats(n_bytes):
    """Payload of a stream of blocks in beats of `n_bytes` bytes, the block's first byte in the first beat's lane 0.

    data
        The bytes. A beat is full unless it is the last of its block.
    last_byte
        Lane of the last byte of the block in a beat with `last`; it does not count in others.
    last
        The beat ends its block.
    """
    return data.StructLayout({"data": data.ArrayLayout(8, n_bytes), "last_byte": range(n_bytes), "last": 1})


@dataclass(frozen=True, kw_only=True)
class BlockWidths:
    """Sizes of the memory's and the stream's beats, and the payloads that depend on them.

    Attributes
    ----------
    address : int
        Bits of a byte address, 12 to 64.
    beat : int
        Bits of a beat of the memory, as `axi.Signature` takes them.
    stream_bytes : int
        Bytes of a beat of the stream, a power of two from 4 to 128.
    beats_per_burst : int
        Most beats of a burst.

    Raises
    ------
    ValueError
        If the stream's beats have no such size.
    """

    address: int
    beat: int
    stream_bytes: int
    beats_per_burst: int

    def __post_init__(self):
        if self.stream_bytes not in _STREAM_BYTES:
            raise ValueError(f"stream_bytes must be a power of two from 4 to 128, not {self.stream_bytes!r}")

    @property
    def beat_bytes(self):
        return self.beat // 8

    @property
    def lane_width(self):
        """Bits of a byte lane's number."""
        return exact_log2(self.beat_bytes)

    @property
    def burst_width(self):
        """Bits of an address within the largest burst."""
        return self.lane_width + exact_log2(self.beats_per_burst)

    # `ReadPort` packs beats into entries; here an entry is a beat.
    @property
    def entry(self):
        return self.beat

    @property
    def beats_per_entry(self):
        return 1

    @property
    def requests(self):
        """What the AR and AW channels carry: the address and AxLEN."""
        return data.StructLayout({"address": self.address, "length": 8})

    @property
    def beats(self):
        """What the R channel carries."""
        return data.StructLayout({"data": self.beat, "response": axi.Response, "last": 1})

    @property
    def answers(self):
        return self.beats

    @property
    def commands(self):
        """A block: `bytes` of them from `address` on."""
        return data.StructLayout({"address": self.address, "bytes": BYTES_WIDTH})

    @property
    def spans(self):
        """A numbered command; if it is refused, why."""
        return data.StructLayout(
            {
                "address": self.address,
                "bytes": BYTES_WIDTH,
                "command": COMMAND_NUMBER_WIDTH,
                "refused": 1,
                "code": BlockErrorCode,
            }
        )

    @property
    def bursts(self):
        """A burst of `length + 1` beats, `last` of its block; or, in its place, a refused command with its address."""
        return data.StructLayout(
            {
                "address": self.address,
                "length": range(self.beats_per_burst),
                "last": 1,
                "command": COMMAND_NUMBER_WIDTH,
                "refused": 1,
                "code": BlockErrorCode,
            }
        )

    @property
    def read_bursts(self):
        """A burst to read, with the lane of the block's first byte, and its bytes less one modulo a beat's."""
        return data.StructLayout(
            {"burst": self.bursts, "offset": range(self.beat_bytes), "rest": range(self.beat_bytes)}
        )

    @property
    def read_beats(self):
        """A beat as it was read; `last` of its block, `offset` and `rest` as in `read_bursts`."""
        return data.StructLayout(
            {"data": self.beat, "offset": range(self.beat_bytes), "rest": range(self.beat_bytes), "last": 1}
        )

    @property
    def write_beats(self):
        """A beat as it is written: only the lanes from `first_lane` to `last_lane`; `last` of its burst."""
        return data.StructLayout(
            {"data": self.beat, "first_lane": range(self.beat_bytes), "last_lane": range(self.beat_bytes), "last": 1}
        )

    @property
    def placed_beats(self):
        """A beat to write, `first` or last of its block, with the block's address and number in the first.

        In its place, a refused command, with both.
        """
        return data.StructLayout(
            {
                "beat": self.write_beats,
                "first": 1,
                "address": self.address,
                "command": COMMAND_NUMBER_WIDTH,
                "refused": 1,
                "code": BlockErrorCode,
            }
        )
