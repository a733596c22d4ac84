"""The memory of a machine: its ports', and the one behind them."""

import numpy as np

from edgeaccel.golden.machine.error import Fault
from edgeaccel.machine import DATA_BYTES

__all__ = ["Memory"]

CHUNK = 1 << 20  # bytes
SPAN = 4  # times as much may be read at once as is wanted of it


class Memory:
    """Bytes by global address, 0 where nothing was written.

    Parameters
    ----------
    machine : Machine
    data_bytes : int
        Of the memory behind the ports'.
    """

    def __init__(self, machine, data_bytes=DATA_BYTES):
        self.machine = machine
        self.n_bytes = machine.data_base + data_bytes
        self._chunks = {}  # those that were written

    def read(self, address, n_bytes):
        """Some bytes, a copy; a `Fault` if there are none."""
        data = np.zeros(n_bytes, np.uint8)
        for number, begin, place in self._pieces(address, n_bytes):
            if (chunk := self._chunks.get(number)) is not None:
                data[place] = chunk[begin : begin + place.stop - place.start]
        return data

    def write(self, address, data):
        """Write bytes; a `Fault` if there are none."""
        data = np.asarray(data, np.uint8).reshape(-1)
        for number, begin, place in self._pieces(address, len(data)):
            if number not in self._chunks:
                self._chunks[number] = np.zeros(CHUNK, np.uint8)
            self._chunks[number][begin : begin + place.stop - place.start] = data[place]

    def words(self, port, first, count):
        """Words of a port, uint8 [count, word bytes]."""
        address, n_bytes = self.check_words(port, first, count)
        return self.read(address, n_bytes).reshape(count, -1)

    def check_words(self, port, first, count):
        """(address, bytes) of words of a port; a `Fault` if there are none."""
        size = self.machine.config.word_bytes
        address = port * self.machine.port_bytes + first * size
        if first < 0 or (first + count) * size > self.machine.port_bytes:
            raise Fault("address", f"words {first} to {first + count - 1} are past the memory of port {port}", address)
        return address, count * size

    def runs(self, ports, firsts, count):
        """Of many places, `count` words each: uint8 [places, count, word bytes]."""
        runs = np.empty((len(ports), count, self.machine.config.word_bytes), np.uint8)
        for port in np.unique(ports):
            own = np.flatnonzero(ports == port)
            begin, end = int(firsts[own].min()), int(firsts[own].max()) + count
            if end - begin <= SPAN * len(own) * count:
                places = (firsts[own] - begin)[:, None] + np.arange(count)
                runs[own] = self.words(int(port), begin, end - begin)[places]
            else:
                runs[own] = [self.words(int(port), int(first), count) for first in firsts[own]]
        return runs

    def _pieces(self, address, n_bytes):
        """(chunk, byte of it, slice of the bytes) of each chunk that is touched."""
        end = address + n_bytes
        if address < 0 or end > self.n_bytes:
            raise Fault("address", f"there is no memory at 0x{address:x} to 0x{end - 1:x}", address)
        at = address
        while at < end:
            number, begin = divmod(at, CHUNK)
            stop = min(end, at + CHUNK - begin)
            yield number, begin, slice(at - address, stop - address)
            at = stop
