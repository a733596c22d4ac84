"""The memory of a machine: its ports', and the one behind them."""

import numpy as np

from edgeaccel.golden.machine.error import Fault

__all__ = ["Memory"]

LEAST_BYTES = 1 << 16


class Memory:
    """Bytes by global address, 0 where nothing was written.

    Only what was touched takes room: each region grows to the highest address that was.

    Parameters
    ----------
    machine : Machine
    data_bytes : int
        Of the memory behind the ports'.
    """

    def __init__(self, machine, data_bytes=1 << 34):
        self.machine, self.data_bytes = machine, data_bytes
        self._regions = [np.zeros(0, np.uint8) for _ in range(machine.config.groups + 1)]

    def read(self, address, n_bytes):
        """Some bytes, a copy; a `Fault` if there are none."""
        return np.concatenate([self._part(*part).copy() for part in self._parts(address, n_bytes)] or [_NOTHING])

    def write(self, address, data):
        """Write bytes; a `Fault` if there are none."""
        data = np.asarray(data, np.uint8).reshape(-1)
        for region, begin, end in self._parts(address, len(data)):
            self._part(region, begin, end)[:] = data[: end - begin]
            data = data[end - begin :]

    def words(self, port, first, count):
        """Words of a port, uint8 [count, word bytes], a view."""
        size = self.machine.config.word_bytes
        if count and (first < 0 or (first + count) * size > self.machine.port_bytes):
            address = port * self.machine.port_bytes + first * size
            raise Fault("address", f"words {first} to {first + count - 1} are past the memory of port {port}", address)
        return self._part(port, first * size, (first + count) * size).reshape(count, size)

    def runs(self, ports, firsts, count):
        """Of many places, `count` words each: uint8 [places, count, word bytes]."""
        ports, firsts = np.asarray(ports), np.asarray(firsts)
        runs = np.empty((len(ports), count, self.machine.config.word_bytes), np.uint8)
        for port in np.unique(ports):
            own = ports == port
            begin, end = firsts[own].min(), firsts[own].max() + count
            places = (firsts[own] - begin)[:, None] + np.arange(count)
            runs[own] = self.words(port, int(begin), int(end - begin))[places]
        return runs

    def _parts(self, address, n_bytes):
        """(region, begin, end) of what lies in each region."""
        machine = self.machine
        end = address + n_bytes
        if address < 0 or end > machine.data_base + self.data_bytes:
            raise Fault("address", f"there is no memory at 0x{address:x} to 0x{end - 1:x}", address)
        while address < end:
            region = min(address // machine.port_bytes, machine.config.groups)
            base = region * machine.port_bytes
            stop = end if region == machine.config.groups else min(end, base + machine.port_bytes)
            yield region, address - base, stop - base
            address = stop

    def _part(self, region, begin, end):
        held = self._regions[region]
        if end > len(held):
            grown = np.zeros(1 << max(end, LEAST_BYTES).bit_length(), np.uint8)
            grown[: len(held)] = held
            self._regions[region] = held = grown
        return held[begin:end]


_NOTHING = np.zeros(0, np.uint8)
