"""A board as a device: a card with a machine behind Xilinx's XDMA."""

import contextlib
import time
import warnings

import numpy as np

from edgeaccel.runtime.device import Stop, StopReason, check_run
from edgeaccel.runtime.host import RegisterHost
from edgeaccel.runtime.xdma import ALL_ONES, BoardError, Channels, LostBoardError
from edgeaccel.soc.register_map import counter_names, register_map

__all__ = ["Board", "BoardError", "LostBoardError"]

_LOOK_SECONDS = 0.002  # between two looks at a machine of which every batch is to be told; a token takes longer
_SLEEP_SECONDS = 0.1  # if an interrupt ends the wait
_LATE_SECONDS = 1.0  # that an interrupt may come after what it tells of
_CLEAR_SECONDS = 2.0
_PROBE_BYTES = 64  # at both ends of each segment


class Board(RegisterHost):
    """A `Device` that is a card in this computer.

    The machine's addresses of memory are those of the card, `memory_base` added. Only one process at a time can have
    the board. Whatever ran on it before is ended.

    Parameters
    ----------
    machine : Machine
        What the board must say that it is, before anything is written.
    device : path
        What the names of its character devices begin with.
    register_base : int
        Where the registers lie in the window of the AXI4-Lite master.
    memory_base : int
        The card's address of the machine's address 0.
    event : int or None
        Number of the user interrupt; None to look at a register instead.
    hang_seconds : number
        Time without any progress after which a run is given up.
    progress : function of (bytes, bytes), optional
        Called while an image is loaded, with what is done and what there is.

    Raises
    ------
    BoardError
        If there is no such board, it may not be used, or it is another machine; a `LostBoardError` if it does not
        answer.
    """

    def __init__(
        self,
        machine,
        device="/dev/xdma0",
        *,
        register_base=0,
        memory_base=0,
        event=0,
        hang_seconds=10.0,
        progress=None,
    ):
        for name, value in (("register_base", register_base), ("memory_base", memory_base)):
            if not isinstance(value, int) or value < 0 or value % 4:
                raise ValueError(f"{name} must be a multiple of 4, not {value!r}")
        self.machine = machine
        self.registers = register_map(machine, counter_names(machine))
        self.memory_base, self.hang_seconds, self.progress = memory_base, hang_seconds, progress
        self._image = None
        self._is_stopped = self._is_running = self._is_lost = False
        self._cycles, self._counted = 0, {}
        self.channels = Channels(
            device,
            register_base=register_base,
            register_bytes=self.registers.tokens_offset + self.registers.tokens_bytes,
            event=event,
        )
        self._uses_events = self.channels.has_events
        try:
            self._check_machine()
            self.reset()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Give the board back."""
        self.channels.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # What all devices have.

    def load(self, image):
        """Write an image to the card, by parts; what the machine writes is 0 at first.

        Raises
        ------
        ValueError
            If the image is for another machine.
        BoardError
            If what was written does not come back, or the board does not answer.
        """
        if image.machine != self.machine:
            raise ValueError("the image is for another machine; compile the model for this one")
        self._check_machine()
        self.reset()
        self._image = None
        spaces = list(_spaces(image))
        total, done, ends = image.n_bytes + sum(size for _, size in spaces), 0, []
        zeros = np.zeros(1 << 22, np.uint8)
        for address, size in spaces:
            for place in range(0, size, len(zeros)):
                piece = zeros[: size - place]
                self.write(address + place, piece)
                done = self._tell(done + len(piece), total)
        for address, data in image.pieces():
            self.write(address, data)
            ends += [(address, data[:_PROBE_BYTES].copy())]
            last = max(len(data) - _PROBE_BYTES, 0)
            ends += [(address + last, data[last:].copy())]
            done = self._tell(done + len(data), total)
        self.write(image.program_address, np.frombuffer(image.program, np.uint8))
        self._check_written(ends)
        self._image = image

    def run(self, position, prompt, limit, on_batch=None):
        """As of `Device`; batches of given tokens may be told together.

        If the board is lost, or makes no progress for `hang_seconds`, the run ends with an error, "lost" or "hang".
        """
        check_run(self.machine, position, prompt, limit)
        if self._image is None:
            raise ValueError("no image is loaded")
        self._is_stopped = False
        try:
            while self.channels.wait(0):
                pass  # of a run before
            self._start(position, prompt, limit, interrupt=self._uses_events)
            self._is_running = True
            problem = self._wait(position, prompt, on_batch)
            stop = self._stop(problem)
            self._is_running = False
            self._cycles += stop.cycles
            self._counted = self._count()
        except BoardError as error:
            self._is_running, self._is_lost = False, True
            return Stop(reason=StopReason.ERROR, position=position, code="lost", message=str(error))
        except BaseException:
            self._is_running = False
            with contextlib.suppress(BoardError):
                self.reset()
            raise
        return stop

    def stop(self):
        self._is_stopped = True

    def read(self, address, n_bytes):
        return self.channels.read(self._card_address(address), n_bytes)

    def write(self, address, data):
        self.channels.write(self._card_address(address), np.asarray(data, np.uint8).reshape(-1))

    def counters(self):
        """The machine's cycles in runs since the last `load` or `reset`; the machine's counters, of the last run."""
        counted = self._counted if self._is_lost else self._count()
        running = self.read_value("cycles") if self._is_running else 0
        return {"cycles": self._cycles + running} | counted

    def reset(self):
        self.write_value("clear", 1)
        end = time.monotonic() + _CLEAR_SECONDS
        while self.read_value("busy"):
            if time.monotonic() > end:
                raise BoardError(f"{self.channels.device}: is still busy {_CLEAR_SECONDS} s after it was cleared")
        self.write_value("enable_done", 0)
        self.write_value("done", 1)
        self._must_clear, self._cycles, self._counted = False, 0, {}
        self._is_lost = False

    # What `RegisterHost` needs.

    def read_register(self, offset):
        """The 32 bits at an offset; LostBoardError if the board reads as PCIe does where nothing answers."""
        value = self.channels.read_register(offset)
        if value == ALL_ONES and self.channels.read_register(self.registers["magic"].offset) == ALL_ONES:
            raise LostBoardError(
                f"{self.channels.device}: all registers read as ones: the card has fallen off the bus, or its bitstream"
                " was replaced; load the bitstream, and scan the bus again or restart the computer"
            )
        return value

    def write_register(self, offset, value):
        self.channels.write_register(offset, value)

    def _wait(self, position, prompt, on_batch):
        """Let the machine work until the run is over; what was wrong if it had to be given up."""
        is_told = has_come = False
        seen, moved = None, time.monotonic()
        while True:
            if self._is_stopped and not is_told:
                self.write_value("stop", 1)
                is_told = True
            has_come |= self._pause(on_batch is not None)
            is_done = self.read_value("done")
            if on_batch is not None:
                position = self._report(position, prompt, on_batch)
            if is_done:
                self._check_event(has_come)
                self.write_value("done", 1)  # the interrupt goes down
                return None
            now = time.monotonic()
            if seen != (seen := self._progress()):
                moved = now
            elif now - moved > self.hang_seconds:
                return f"it has made no progress for {self.hang_seconds} s, {self._clock()}"

    def _pause(self, is_followed):
        """Let some time pass; whether an interrupt has come."""
        if self._uses_events:
            return self.channels.wait(_LOOK_SECONDS if is_followed else _SLEEP_SECONDS)
        time.sleep(_LOOK_SECONDS)
        return False

    def _check_event(self, has_come):
        """See to it that interrupts come, or do without."""
        if self._uses_events and not has_come and not self.channels.wait(_LATE_SECONDS):
            warnings.warn(
                f"{self.channels.device}: the run has ended, but its interrupt has not come; going on without. Is `irq`"
                " wired to the user interrupt of the XDMA, and does the driver serve it (/proc/interrupts)?",
                RuntimeWarning,
                stacklevel=2,
            )
            self._uses_events = False

    def _progress(self):
        """What changes while a machine makes progress."""
        return tuple(self.read_register(self.registers[name].offset) for name in ("at_position", "progress", "status"))

    def _clock(self):
        """Whether the machine's clock runs, as text."""
        before = self.read_value("cycles")
        is_counted = self.read_value("cycles") != before
        return "though it counts cycles" if is_counted else "and it counts no cycles: is its clock running?"

    def _count(self):
        """The machine's counters by their names."""
        return {
            register.name.removeprefix("counter_"): self.read_register(register.offset)
            for register in self.registers.registers
            if register.name.startswith("counter_")
        }

    # Checks.

    def _check_machine(self):
        """Hold what the board says of itself against the machine that it should be."""
        device, registers = self.channels.device, self.registers
        constants = [register for register in registers.registers if register.kind == "constant"]
        for name, what in (("magic", "no machine of ours"), ("version", "another map of registers")):
            register = registers[name]
            if (value := self.read_register(register.offset)) != register.value:
                raise BoardError(
                    f"{device}: {what}: register {name} reads {value:#x}, not {register.value:#x}; load the bitstream"
                    " that this package's Verilog was made into, and check the base of registers"
                )
        differences = [
            f"{register.name} is {value}, not {register.value}"
            for register in constants
            if (value := self.read_register(register.offset)) != register.value
        ]
        if differences:
            raise BoardError(
                f"{device}: the board is another machine than the image's: {', '.join(differences)}; compile the model"
                " for the board's machine, or load the bitstream of the image's"
            )

    def _check_written(self, ends):
        """Read the ends of segments, now that all is written: memory may be missing, or be there twice."""
        for address, data in ends:
            found = self.read(address, len(data))
            if (found != data).any():
                place = int(np.argmax(found != data))
                where = f"{address + place:#x} of the machine, {self._card_address(address) + place:#x} of the card,"
                raise BoardError(
                    f"{self.channels.device}: address {where} holds {found[place]:#04x} where {data[place]:#04x} was"
                    " written; is the base of memory right, and is there as much memory as the machine has?"
                )

    def _card_address(self, address):
        if address < 0:
            raise ValueError(f"there is no memory at {address:#x}")
        return self.memory_base + address

    def _tell(self, done, total):
        if self.progress is not None:
            self.progress(done, total)
        return done


def _spaces(image):
    """(address, bytes) of regions in which nothing is at first: caches and logits."""
    segments = sorted((address, address + len(data)) for address, data in image.segments)
    size, groups = image.machine.port_bytes, image.machine.config.groups
    for address, n_bytes in image.manifest.get("regions", {}).values():
        for port in range(groups if address < size else 1):  # a region of tiles is in each port's memory
            begin = address + port * size
            if not any(first < begin + n_bytes and begin < last for first, last in segments):
                yield begin, n_bytes
