"""The way to a card behind Xilinx's XDMA: its driver's character devices, and nothing of what is on the card.

The driver (github.com/Xilinx/dma_ip_drivers, XDMA/linux-kernel) makes these for each card:

- ``/dev/xdma0_h2c_0`` and ``/dev/xdma0_c2h_0``: writing and reading at an offset moves bytes to and from that address
  on the card (cdev_sgdma.c);
- ``/dev/xdma0_user``: the window of the AXI4-Lite master, to be mapped (cdev_ctrl.c);
- ``/dev/xdma0_events_0``: readable when the first user interrupt has come; reading 4 bytes takes it (cdev_events.c).

What that code decides here: the driver pins pages of the caller's buffer for writing, even where it only reads them,
so a file that is mapped read-only cannot be sent from where it lies; depending on how the DMA was built, buffer and
card address must agree in their lowest bits; and readv, preadv and their like crash the kernel (issue 113 there). So
all bytes go through one buffer of our own, with `pwrite` and `read`.
"""

import contextlib
import errno
import fcntl
import io
import mmap
import os
import select
import socket
import stat
import struct
from pathlib import Path

import numpy as np

__all__ = ["ALL_ONES", "REQUEST", "BoardError", "Channels", "LostBoardError", "MappedRegisters", "SocketRegisters"]

ALL_ONES = 0xFFFFFFFF  # what PCIe reads where nothing answers
PIECE_BYTES = 1 << 22
REQUEST = struct.Struct("<cII")  # of `SocketRegisters`: b"R" or b"W", offset, value; the answer is ANSWER
ANSWER = struct.Struct("<I")
_PAGE = mmap.PAGESIZE
_DRIVER = Path("/sys/module/xdma")
_SOCKET_SECONDS = 60


class BoardError(OSError):
    """A board that cannot be used; says why, and what to do."""


class LostBoardError(BoardError):
    """A board that was there and does not answer any more."""


class Channels:
    """A card's memory, registers and interrupt.

    The memory's file is locked, so that one process at a time has the card; the lock goes with the process.

    Parameters
    ----------
    device : path
        What the names of the character devices begin with: `/dev/xdma0`.
    register_base, register_bytes : int
        Where in the window the registers begin, a multiple of 4, and how many bytes they take.
    event : int or None
        Number of the user interrupt; None if it is not to be used.

    Raises
    ------
    BoardError
        If a device is missing, may not be opened or is held by another process, or the window is too small.
    """

    def __init__(self, device, *, register_base=0, register_bytes, event=0):
        self.device = Path(device)
        self._open = contextlib.ExitStack()
        try:
            self._to_card = self._opened("h2c_0", os.O_WRONLY)
            self._lock()
            self._from_card = io.FileIO(self._opened("c2h_0", os.O_RDONLY), closefd=False)
            self._events = None if event is None else self._opened(f"events_{event}", os.O_RDONLY | os.O_NONBLOCK)
            self._poll = select.poll()
            if self._events is not None:
                self._poll.register(self._events, select.POLLIN)
            self._buffer = self._open.enter_context(mmap.mmap(-1, PIECE_BYTES + _PAGE))
            self._registers = self._opened_registers(register_base, register_bytes)
            self._open.callback(self._registers.close)
        except BaseException:
            self.close()
            raise

    def close(self):
        """Give the card back."""
        self._open.close()

    def write(self, address, data):
        """Write bytes, a uint8 array, to the card's memory."""
        for place, begin, size in _pieces(address, len(data)):
            with memoryview(self._buffer)[begin : begin + size] as piece:
                np.frombuffer(piece, np.uint8)[:] = data[place : place + size]
                done = 0
                while done < size:
                    done += self._moved("writing", address + place + done, size - done, self._send, piece[done:])

    def read(self, address, n_bytes):
        """Bytes of the card's memory, a new uint8 array."""
        data = np.empty(n_bytes, np.uint8)
        for place, begin, size in _pieces(address, n_bytes):
            with memoryview(self._buffer)[begin : begin + size] as piece:
                done = 0
                while done < size:
                    done += self._moved("reading", address + place + done, size - done, self._receive, piece[done:])
                data[place : place + size] = np.frombuffer(piece, np.uint8)
        return data

    def read_register(self, offset):
        """The 32 bits of a register."""
        return self._registers.read(offset)

    def write_register(self, offset, value):
        """Write the 32 bits of a register."""
        self._registers.write(offset, value)

    @property
    def has_events(self):
        """Whether `wait` knows of interrupts."""
        return self._events is not None

    def wait(self, seconds):
        """Whether an interrupt has come, or comes within some seconds; it is taken.

        Raises
        ------
        LostBoardError
            If none will ever come.
        """
        for _, happened in self._poll.poll(max(seconds, 0) * 1000):
            try:
                if happened & select.POLLIN and os.read(self._events, 4):
                    return True
            except OSError as error:
                raise LostBoardError(f"{self.device}: waiting for its interrupt failed: {error.strerror}") from None
            raise LostBoardError(f"{self.device}: gives no interrupts any more; it was removed")
        return False

    def _send(self, address, piece):
        return os.pwrite(self._to_card, piece, address)

    def _receive(self, address, piece):
        self._from_card.seek(address)
        return self._from_card.readinto(piece)  # one read(2), into memory that we choose

    def _moved(self, what, address, size, move, piece):
        """Move bytes; how many were moved."""
        with piece:
            try:
                count = move(address, piece)
            except OSError as error:
                why = error.strerror
            else:
                if count:
                    return count
                why = "there is nothing"
        raise BoardError(
            f"{self.device}: {what} {size} bytes at the card's address {address:#x} failed: {why}; is there memory at"
            " that address (the base of memory), and is its controller ready? dmesg may tell more"
        )

    def _opened(self, name, flags):
        """A descriptor of a character device."""
        path = Path(f"{self.device}_{name}")
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise BoardError(_why_not(self.device, path, error)) from None
        self._open.callback(os.close, descriptor)
        return descriptor

    def _lock(self):
        try:
            fcntl.flock(self._to_card, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BoardError(
                f"{self.device}: another process holds the board; wait until it has ended (fuser {self.device}_h2c_0"
                " names it)"
            ) from None

    def _opened_registers(self, base, n_bytes):
        path = Path(f"{self.device}_user")
        try:
            is_socket = stat.S_ISSOCK(path.stat().st_mode)
            return (SocketRegisters if is_socket else MappedRegisters)(path, base, n_bytes)
        except BoardError:
            raise
        except OSError as error:
            raise BoardError(_why_not(self.device, path, error)) from None


class MappedRegisters:
    """Registers in the window of a PCIe BAR, mapped into memory; each access is one of 32 bits."""

    def __init__(self, path, base, n_bytes):
        first = base // _PAGE * _PAGE
        size = -(-(base + n_bytes - first) // _PAGE) * _PAGE
        descriptor = os.open(path, os.O_RDWR | os.O_SYNC | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, offset=first)
        except (OSError, ValueError) as error:
            raise BoardError(
                f"{path}: registers at {base:#x} to {base + n_bytes - 1:#x} cannot be mapped ({error}); the window of"
                " the AXI4-Lite master must hold them: is the base of registers right, and the bitstream?"
            ) from None
        finally:
            os.close(descriptor)
        self._words = memoryview(self._map).cast("I")  # an item is one access of its own width
        self._first = (base - first) // 4

    def read(self, offset):
        return self._words[self._first + offset // 4]

    def write(self, offset, value):
        self._words[self._first + offset // 4] = value

    def close(self):
        self._words.release()
        self._map.close()


class SocketRegisters:
    """Registers of a process that stands in for a board, `edgeaccel.sim.board`: mapped files have no side effects."""

    def __init__(self, path, base, n_bytes):
        self._base, self._path = base, path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SOCKET_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self.close()
            raise BoardError(f"{path}: the process that stands in for the board is gone: {error.strerror}") from None

    def read(self, offset):
        return self._ask(b"R", offset, 0)

    def write(self, offset, value):
        self._ask(b"W", offset, value)

    def close(self):
        self._socket.close()

    def _ask(self, what, offset, value):
        try:
            self._socket.sendall(REQUEST.pack(what, self._base + offset, value))
            answer = self._socket.recv(ANSWER.size, socket.MSG_WAITALL)
        except OSError as error:
            raise LostBoardError(f"{self._path}: does not answer: {error.strerror or error}") from None
        if len(answer) < ANSWER.size:
            raise LostBoardError(f"{self._path}: the process that stands in for the board has ended")
        return ANSWER.unpack(answer)[0]


def _pieces(address, n_bytes):
    """(first byte, place in the buffer, bytes) of each transfer; the buffer's pages begin where the card's do."""
    place = 0
    while place < n_bytes:
        begin = (address + place) % _PAGE
        size = min(n_bytes - place, PIECE_BYTES + _PAGE - begin)
        if place + size < n_bytes:
            size -= (begin + size) % _PAGE
        yield place, begin, size
        place += size


def _why_not(device, path, error):
    """Why a character device cannot be opened, and what to do."""
    if error.errno == errno.ENOENT:
        if not _DRIVER.exists() and str(path).startswith("/dev/"):
            return (
                f"there is no {path}, and the driver xdma is not loaded; build it from Xilinx's dma_ip_drivers"
                " (XDMA/linux-kernel) and run modprobe xdma"
            )
        others = sorted({other.name.partition("_")[0] for other in path.parent.glob("xdma*_*")})
        if others:
            return f"there is no {path}; there are: {', '.join(str(path.parent / other) for other in others)}"
        return (
            f"there is no {path}: the driver has found no card for {device}; was the bitstream loaded before the bus"
            " was scanned (lspci -d 10ee: shows the card), and does the driver know its device number?"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be opened by this user; give it to a group of yours with a rule of udev, or be root"
    if error.errno in (errno.ENXIO, errno.ENODEV):
        return f"{path} is there, but no card behind it ({error.strerror}); unload and load the driver xdma"
    return f"{path} cannot be opened: {error.strerror or error}"
