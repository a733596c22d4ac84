"""The one interface to whatever runs a program: the golden machine, compiled RTL, a board."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from edgeaccel.golden.machine import Batch
from edgeaccel.isa import TOKEN_WIDTH
from edgeaccel.machine import Machine

__all__ = ["Batch", "Device", "DeviceError", "Stop", "StopReason", "check_run", "check_tokens"]


class StopReason(Enum):
    """Why a device has stopped."""

    END_OF_TEXT = "end_of_text"
    """A token that ends a text was written."""
    LIMIT = "limit"
    """The limit was reached; its token was written."""
    END = "end"
    """The program ended."""
    ERROR = "error"
    """Something went wrong; the device is ready to run again after `Device.reset`."""
    STOPPED = "stopped"
    """It was told to stop."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """How a run ended.

    Attributes
    ----------
    reason : StopReason
    position : int
        The first token that is not in the cache yet. For END_OF_TEXT and LIMIT that is the last one, which has been
        written but not worked on.
    cycles : int
        Of the run.
    code : str
        Of an error: what kind.
    command : int or None
        Of an error: number of the instruction.
    address : int or None
        Of an error: of the memory, if it has one.
    message : str
        Of an error: all that is known.
    """

    reason: StopReason
    position: int
    cycles: int = 0
    code: str = ""
    command: int | None = None
    address: int | None = None
    message: str = ""


class DeviceError(Exception):
    """A run that ended with an error; `stop` is its `Stop`."""

    def __init__(self, stop):
        at = "" if stop.command is None else f" at instruction {stop.command}"
        super().__init__(stop.message or f"the device stopped with the error {stop.code}{at}, position {stop.position}")
        self.stop = stop


@runtime_checkable
class Device(Protocol):
    """A machine with memory.

    Members
    -------
    machine : Machine
    """

    machine: Machine

    def load(self, image):
        """Write an image's segments; ValueError if it is for another machine."""

    def write_tokens(self, position, tokens):
        """Write tokens from a position on; ValueError if the token memory has no such place."""

    def read_tokens(self, position, count) -> list[int]:
        """Read tokens."""

    def run(self, position, prompt, limit, on_batch=None) -> Stop:
        """Run the program from its beginning until it stops.

        Parameters
        ----------
        position : int
            The first token that is not in the cache yet.
        prompt : int
            Tokens that are given: `position` to `prompt - 1` must be written.
        limit : int
            Position to stop at, once its token is written; at least `prompt`. With ``limit = prompt`` one token comes.
        on_batch : function of a `Batch`, optional
            Called after each batch of tokens, soon after it is done. It may call `stop`.

        Raises
        ------
        ValueError
            Positions that cannot be.
        """

    def stop(self):
        """Make a `run` return as soon as it can."""

    def read(self, address, n_bytes):
        """Some bytes of memory, uint8; by the global address."""

    def write(self, address, data):
        """Write bytes of memory."""

    def counters(self) -> dict:
        """What was counted since the last `load` or `reset`, by name: "cycles" at least."""

    def reset(self):
        """Be ready to run, whatever happened before: all but memory is as after power-on."""


def check_run(machine, position, prompt, limit):
    """ValueError if a run cannot be."""
    if not 0 <= position < prompt:
        raise ValueError(f"position must be below the {prompt} tokens that are given, not {position!r}")
    if not prompt <= limit <= machine.positions:
        raise ValueError(f"limit must be {prompt}, the tokens given, to {machine.positions}, not {limit!r}")


def check_tokens(machine, position, tokens):
    """The tokens as a list; ValueError if they cannot be written from a position on."""
    tokens = [int(token) for token in tokens]
    if position < 0 or position + len(tokens) > machine.positions:
        raise ValueError(
            f"tokens {position} to {position + len(tokens) - 1} are outside of the {machine.positions} that the machine"
            " holds; write fewer"
        )
    for token in tokens:
        if not 0 <= token < 1 << TOKEN_WIDTH:
            raise ValueError(f"a token must be 0 to {(1 << TOKEN_WIDTH) - 1}, not {token}")
    return tokens
