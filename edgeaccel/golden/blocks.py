"""Block movers in plain Python: which bursts, strobes and beats, and in which cycles."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgeaccel.golden.memory import BOUNDARY_BYTES, Error, bursts
from edgeaccel.golden.timing import Pattern

__all__ = ["Beat", "BlockPort", "Burst", "Command", "Reader", "ReaderTiming", "Writer", "WriterTiming", "pack"]

# Bursts that wait in the writer for their turn.
_READY_BURSTS = 4


@dataclass(frozen=True, kw_only=True)
class Command:
    """`bytes` bytes from `address` on."""

    address: int
    bytes: int


class Beat(NamedTuple):
    """A beat of the stream; `last_byte` is the lane of its last byte."""

    data: bytes
    last_byte: int
    last: bool


class Burst(NamedTuple):
    """A burst that writes: the strobes of each beat, bit `n` for lane `n`, and its bytes, 0 where no strobe is set."""

    address: int
    strobes: list
    data: list


@dataclass(frozen=True)
class ReaderTiming:
    """Cycles from the first after reset: commands, addresses, beats of the memory and of the stream transferred."""

    commands: np.ndarray
    addresses: np.ndarray
    beats: np.ndarray
    taken: np.ndarray


@dataclass(frozen=True)
class WriterTiming:
    """Cycles from the first after reset: commands, beats of the stream, addresses, beats of the memory; blocks done."""

    commands: np.ndarray
    taken: np.ndarray
    addresses: np.ndarray
    beats: np.ndarray
    done: np.ndarray


def pack(block, n_bytes):
    """The beats of `n_bytes` bytes in which a block is streamed, padded with zeros."""
    block = bytes(block)
    beats = []
    for start in range(0, len(block), n_bytes):
        part = block[start : start + n_bytes]
        beats.append(Beat(part.ljust(n_bytes, b"\0"), len(part) - 1, start + n_bytes >= len(block)))
    return beats


@dataclass(frozen=True, kw_only=True)
class BlockPort:
    """What reader and writer have in common, for legal parameters."""

    data_width: int = 256
    stream_bytes: int = 64
    buffer_beats: int = 256
    burst_beats: int = 16
    outstanding: int = 16
    queue: int = 8
    memory_bytes: int | None = None
    address_width: int = 64

    @property
    def beat_bytes(self):
        return self.data_width // 8

    @property
    def ratio(self):
        """Beats of the memory in one of the stream."""
        return max(1, self.stream_bytes // self.beat_bytes)

    def bursts(self, command):
        """The bursts of a command: list of (address, beats)."""
        start = command.address - command.address % self.beat_bytes
        size = -(-(command.address + command.bytes - start) // self.beat_bytes) * self.beat_bytes
        pieces = bursts(start, size, min(self.burst_beats * self.beat_bytes, BOUNDARY_BYTES))
        return [(address, n_bytes // self.beat_bytes) for address, n_bytes in pieces]

    def refusal(self, command):
        """Name of the error that a command is refused with, or None."""
        if command.bytes == 0:
            return "EMPTY"
        memory_bytes = 1 << self.address_width if self.memory_bytes is None else self.memory_bytes
        return "RANGE" if command.address + command.bytes > memory_bytes else None


@dataclass(frozen=True, kw_only=True)
class Reader(BlockPort):
    """`edgeaccel.memory.BlockReader` of the same parameters."""

    def read(self, commands, memory, responses=None):
        """What commands give.

        Parameters
        ----------
        commands : list of Command
        memory : uint8 array
            From address 0 on; repeats itself past its end.
        responses : dict of int to str
            Beats' addresses that the memory answers with 'SLVERR' or 'DECERR'.

        Returns
        -------
        (beats, bursts, error)
            The `Beat`s of the stream; the (address, beats) of all commands, of which the reader asks for the first ones
            only if there is a response that stops it; the `Error` or None.
        """
        beats, asked, error = [], [], None
        for number, command in enumerate(commands):
            if refusal := self.refusal(command):
                error = error or Error(code=refusal, address=command.address, command=number)
                break
            pieces = self.bursts(command)
            asked += pieces
            if error:
                continue
            end = command.address + command.bytes
            block = memory[np.arange(command.address, end) % len(memory)].tobytes()
            for address in (start + n * self.beat_bytes for start, n_beats in pieces for n in range(n_beats)):
                response = (responses or {}).get(address)
                if response in ("SLVERR", "DECERR"):
                    error = Error(code="RESPONSE", response=response, address=address, command=number)
                    end = max(address, command.address)
                    break
            whole = max(self.beat_bytes, self.stream_bytes)
            n_bytes = end - command.address if error is None else (end - command.address) // whole * whole
            beats += pack(block, self.stream_bytes)[: -(-n_bytes // self.stream_bytes)]
        return beats, asked, error

    def timing(self, commands, *, latency, source=None, sink=None):
        """Cycles with an ideal memory, for commands without errors.

        The memory accepts an address in each cycle and gives the first beat `latency` cycles after that, or once the
        beats asked for before are out; one beat a cycle. By recurrence, with `k` a burst of command `j`, and `r` a beat
        of the memory:

            accept[j] = max(first(source, accept[j-1] + 1), hold[j - queue] + 1)
            hold[j]   = max(accept[j] + 1, start[j-1])
            start[j]  = max(hold[j] + 1, the last issue of j - 1)
            issue[k]  = max(start[j] + 1, issue[k-1] + 1, done[k - outstanding] + 1, ahead[the row it needs last] + 1)
            address   = issue[k] + 1
            beat      = max(address + latency, the beat before + 1);  done[k] = its last beat + 1
            ahead[r]  = max(beat[r] + 3, held[r-1])
            held[r]   = max(ahead[r] + 1, leave[r-1])
            offer[r]  = held[r] + 1, but if it needs beat r + 1: max(held[r], ahead[r+1]) + 1
            leave[r]  = when the stream has taken all of it, or its larger beat has it

        Parameters
        ----------
        commands : list of Command
        latency : int
            Cycles from an address to the beat, at least 1.
        source, sink : Pattern
            Stalls of commands and of the stream.

        Returns
        -------
        ReaderTiming
        """
        source, sink = source or Pattern(), sink or Pattern()
        accept, hold, start, issue, done, beats, ahead, held, taken = ([] for _ in range(9))
        leaves = 0  # when the packed beat before has left
        parts = 0  # in the larger beat of the stream that is being filled
        reserved = 0

        def leave(offer, n_bytes, last):
            nonlocal parts
            if self.ratio == 1:
                for _ in range(0, n_bytes, self.stream_bytes):
                    offer = sink.first(max(offer, taken[-1] + 1 if taken else 0))
                    taken.append(offer)
                return offer
            cycle = max(offer, taken[-1] if taken and not parts else 0)
            parts += 1
            if last or parts == self.ratio:
                taken.append(sink.first(cycle + 1))
                parts = 0
            return cycle

        for j, command in enumerate(commands):
            cycle = source.first(accept[-1] + 1 if accept else 0)
            if j >= self.queue:
                cycle = max(cycle, hold[j - self.queue] + 1)
            accept.append(cycle)
            hold.append(max(cycle + 1, start[-1] if start else 0))
            start.append(max(hold[j] + 1, issue[-1] if issue else 0))
            offset = command.address % self.beat_bytes
            n_packed = -(-command.bytes // self.beat_bytes)
            rest = command.bytes - (n_packed - 1) * self.beat_bytes
            n_read = 0
            for _, n_beats in self.bursts(command):
                reserved += n_beats
                cycle = max(start[-1], issue[-1] if issue else 0) + 1
                if len(issue) >= self.outstanding:
                    cycle = max(cycle, done[len(issue) - self.outstanding] + 1)
                if reserved > self.buffer_beats:
                    cycle = max(cycle, ahead[reserved - self.buffer_beats - 1] + 1)
                issue.append(cycle)
                for _ in range(n_beats):
                    beats.append(max(cycle + 1 + latency, beats[-1] + 1 if beats else 0))
                    ahead.append(max(beats[-1] + 3, held[-1] if held else 0))
                    # The beat before may have waited for this one; the last may not have to wait.
                    if n_read and offset:
                        is_last = n_read == n_packed
                        leaves = leave(max(held[-1], ahead[-1]) + 1, rest if is_last else self.beat_bytes, is_last)
                    held.append(max(ahead[-1] + 1, leaves))
                    n_read += 1
                    if not offset or (n_read == n_packed and offset + rest <= self.beat_bytes):
                        is_last = n_read == n_packed
                        leaves = leave(held[-1] + 1, rest if is_last else self.beat_bytes, is_last)
                done.append(beats[-1] + 1)
        return ReaderTiming(*_arrays(accept, [cycle + 1 for cycle in issue], beats, taken))


@dataclass(frozen=True, kw_only=True)
class Writer(BlockPort):
    """`edgeaccel.memory.BlockWriter` of the same parameters."""

    buffer_beats: int = 64

    def write(self, commands, blocks, responses=None):
        """What commands write.

        Parameters
        ----------
        commands : list of Command
        blocks : list of bytes
            What is streamed for each command, until there is an error.
        responses : dict of int to str
            Bursts' addresses that the memory answers with 'SLVERR' or 'DECERR'.

        Returns
        -------
        (bursts, done, error)
            The `Burst`s, of which those after one that is answered so may not be written; the numbers of the commands
            that are done; the `Error` or None.
        """
        written, done, error = [], [], None
        for number, (command, block) in enumerate(zip(commands, blocks, strict=True)):
            if refusal := self.refusal(command):
                error = error or Error(code=refusal, address=command.address, command=number)
                break
            complete = self._place(command, block)
            for burst in complete:
                response = (responses or {}).get(burst.address)
                if error is None and response in ("SLVERR", "DECERR"):
                    error = Error(code="RESPONSE", response=response, address=burst.address, command=number)
            written += complete
            if len(block) != command.bytes:
                error = error or Error(code="LENGTH", address=command.address, command=number)
                break
            if error is None:
                done.append(number)
        return written, done, error

    def _place(self, command, block):
        """The bursts of a command that its block fills."""
        beat_bytes = self.beat_bytes
        n_beats = None
        if len(block) != command.bytes:
            # Packed beats before the first that is not as the command says; each fills one beat of the memory.
            n_beats = min(-(-len(block) // beat_bytes), -(-command.bytes // beat_bytes)) - 1
        offset = command.address % beat_bytes
        pieces = self.bursts(command)
        image = (bytes(offset) + bytes(block)).ljust(sum(n for _, n in pieces) * beat_bytes, b"\0")
        enabled = (1 << offset + command.bytes) - (1 << offset)
        placed, first = [], 0
        for address, n in pieces:
            if n_beats is not None and first + n > n_beats:
                break
            places = range(first * beat_bytes, (first + n) * beat_bytes, beat_bytes)
            strobes = [enabled >> place & (1 << beat_bytes) - 1 for place in places]
            placed.append(Burst(address, strobes, [image[place : place + beat_bytes] for place in places]))
            first += n
        return placed

    def timing(self, commands, *, latency, source=None, blocks=None):
        """Cycles with an ideal memory, for commands without errors.

        The memory accepts an address and a beat in each cycle, and answers a burst `latency` cycles after both its
        address and its last beat, or a cycle after the answer before. By recurrence, with `k` a burst of command `j`,
        and `r` a beat of the memory made from packed beat `p`; a block that ends in a beat more than it fills has a
        last beat without a packed one:

            accept[j] = max(first(source, accept[j-1] + 1), hold[j - queue] + 1)
            hold[j]   = max(accept[j] + 1, start[j-1])
            start[j]  = max(hold[j] + 1, the last take of j - 1)
            take[p]   = max(the stream has brought it, start[j] + 1, take[p-1] + 1, enter[the beat made from p - 1])
            enter[r]  = max(take[p] + 1, enter[r-1] + 1, read[r - buffer] + 1), and if it ends burst k: issue[k-4] + 1
            issue[k]  = max(enter[its last beat] + 1, issue[k-1] + 1, answer[k - outstanding] + 2)
            read[r]   = max(enter[r] + 1, beat[r-1])
            beat[r]   = max(read[r] + 1, beat[r-1] + 1, issue[k] + 1)
            address   = issue[k] + 1
            answer[k] = max(max(address, its last beat) + latency, answer[k-1] + 1)
            done      = the last answer of j, + 1

        Parameters
        ----------
        commands : list of Command
        latency : int
            Cycles from a burst's last transfer to the answer, at least 1.
        source, blocks : Pattern
            Stalls of commands and of the stream.

        Returns
        -------
        WriterTiming
        """
        source, blocks = source or Pattern(), blocks or Pattern()
        accept, hold, start, take, taken, enter, issue, read, beats, answer, done = ([] for _ in range(11))
        room = 0  # when the stage behind the take is free
        part = 0  # of the stream's beat, if that is the larger one
        offered = 0

        def bring(ready, n_bytes):
            """Cycle in which a packed beat that can be taken from `ready` on is taken."""
            nonlocal part, offered
            if self.stream_bytes >= self.beat_bytes:
                if not part:
                    offered = blocks.first(taken[-1] + 1 if taken else 0)
                cycle = max(offered, ready)
                part = (part + 1) % self.ratio
                if not part or is_last:
                    taken.append(cycle)
                    part = 0
                return cycle
            for n in range(0, n_bytes, self.stream_bytes):
                cycle = blocks.first(taken[-1] + 1 if taken else 0)
                taken.append(cycle if n else max(cycle, take[-1] if take else 0))
            return max(taken[-1] + 1, ready)

        for j, command in enumerate(commands):
            cycle = source.first(accept[-1] + 1 if accept else 0)
            if j >= self.queue:
                cycle = max(cycle, hold[j - self.queue] + 1)
            accept.append(cycle)
            hold.append(max(cycle + 1, start[-1] if start else 0))
            start.append(max(hold[j] + 1, take[-1] if take else 0))
            left = command.bytes
            for _, n_beats in self.bursts(command):
                first = len(enter)
                for n in range(n_beats):
                    if left > 0:
                        is_last = left <= self.beat_bytes
                        ready = max(start[-1] + 1, take[-1] + 1 if take else 0, room)
                        take.append(bring(ready, min(left, self.beat_bytes)))
                        left -= self.beat_bytes
                        cycle, has_packed = take[-1] + 1, True
                    else:
                        cycle, has_packed = 0, False
                    if enter:
                        cycle = max(cycle, enter[-1] + 1)
                    if len(enter) >= self.buffer_beats:
                        cycle = max(cycle, read[len(enter) - self.buffer_beats] + 1)
                    if n == n_beats - 1 and len(issue) >= _READY_BURSTS:
                        cycle = max(cycle, issue[-_READY_BURSTS] + 1)
                    enter.append(cycle)
                    if has_packed:
                        room = cycle
                cycle = max(enter[-1], issue[-1] if issue else 0) + 1
                if len(issue) >= self.outstanding:
                    cycle = max(cycle, answer[len(issue) - self.outstanding] + 2)
                issue.append(cycle)
                for entered in enter[first:]:
                    before = beats[-1] if beats else 0
                    read.append(max(entered + 1, before))
                    beats.append(max(read[-1] + 1, before + 1, cycle + 1))
                answer.append(max(max(cycle + 1, beats[-1]) + latency, answer[-1] + 1 if answer else 0))
            done.append(answer[-1] + 1)
        return WriterTiming(*_arrays(accept, taken, [cycle + 1 for cycle in issue], beats, done))


def _arrays(*lists):
    return [np.array(cycles, np.int64) for cycles in lists]
