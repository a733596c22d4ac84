"""Block reader, cycle by cycle."""

from edgeaccel.golden.blocks import Reader
from edgeaccel.golden.cycles.fetcher import Fetcher
from edgeaccel.golden.cycles.port import ReadPort

__all__ = ["BlockReader"]


class BlockReader:
    """`edgeaccel.memory.BlockReader` of the parameters of a `Reader`; `step` comes after that of who takes its beats.

    Members
    -------
    commands : Queue of edgeaccel.golden.blocks.Command
    head, get
        Beats of the stream: "last" or "more".
    """

    def __init__(self, memory, **sizes):
        self._reader = reader = Reader(**sizes)
        self._fetcher = Fetcher(
            ReadPort(memory),
            queue=reader.queue,
            rows=reader.buffer_beats,
            outstanding=reader.outstanding,
            cut=self._cut,
        )
        self.commands = self._fetcher.commands
        self._ahead = self._held = None  # rows in the packer
        self._wide = None  # a larger beat that is complete
        self._part = 0  # of a larger or of smaller beats
        self._is_wider = reader.ratio > 1
        self._is_taken = False
        self.head = None

    def _cut(self, command):
        """Rows are (full, last, spill, bytes of the last packed beat)."""
        size = self._reader.beat_bytes
        offset = command.address % size
        rest = (command.bytes - 1) % size
        spills = offset + rest >= size
        bursts = self._reader.bursts(command)
        left = sum(beats for _, beats in bursts)
        for address, beats in bursts:
            rows = []
            for beat in range(beats):
                left -= 1
                rows.append((beat, (offset == 0, left == 0, left == 0 and spills, rest + 1)))
            yield address, beats, rows

    def begin(self, cycle):
        self._fetcher.begin(cycle)
        self._is_taken = False
        held, ahead = self._held, self._ahead
        self._packed = None  # (whether it ends the block, its bytes)
        if held is not None and (held[1] or held[0] or ahead is not None):
            last = held[1] or (not held[0] and ahead[2])
            self._packed = last, held[3] if last else self._reader.beat_bytes
        if self._is_wider:
            self.head = self._wide
        elif self._packed is None:
            self.head = None
        else:
            last, n_bytes = self._packed
            self._is_final = (self._part + 1) * self._reader.stream_bytes >= n_bytes
            self.head = "last" if last and self._is_final else "more"

    def get(self):
        self._is_taken = True
        return self.head

    def step(self, cycle):
        self._fetcher.step(cycle)
        if self._is_wider:
            leaves = self._widen()
        else:
            leaves = self._is_taken and self._is_final
            if self._is_taken:
                self._part = 0 if self._is_final else self._part + 1
        if leaves:
            self._held = None
        if self._ahead is not None and self._held is None:
            self._held, self._ahead = None if self._ahead[2] else self._ahead, None
        buffer = self._fetcher.buffer
        if self._ahead is None and buffer.head is not None:
            self._ahead = buffer.get()
            self._fetcher.give()

    def _widen(self):
        """Whether a packed beat goes into the larger one."""
        if self._is_taken:
            self._wide = None
        if self._wide is not None or self._packed is None:
            return False
        self._part += 1
        last = self._packed[0]
        if last or self._part == self._reader.ratio:
            self._wide, self._part = "last" if last else "more", 0
        return True
