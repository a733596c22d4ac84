"""Memories behind an AXI port, as timing: one set of parameters for every simulator, and what they mean.

A controller serves the bursts of a port in the order in which they are known: a read when its address is accepted, a
write when its last beat is; a read before a write of the same cycle. Each beat passes the DRAM's pins in a cycle of its
own, the first one, after the beat before, in which

- its row is open: a bank opens another row once its last access is over. It takes `read_miss - read_closed` cycles to
  close the old one, `read_closed - read_hit` to open the new one, and there are at least `row_cycles` between two of
  them. The controller looks ahead: all this begins as soon as the burst is known, while other banks are in use;
- its bank group is free again, and the pins are turned to its direction;
- the memory is not refreshing. A refresh takes all banks and closes their rows.

A beat can be delivered `read_hit` cycles later, and a write be answered that much after its last beat. Back-pressure
on the answers does not hold up the DRAM: the controller has room for `outstanding` bursts of each direction, and
accepts no more. Left out: limits on opening rows of several banks at once (tRRD, tFAW), postponed refreshes, ZQ
calibration, and ports that share a channel.

The JEDEC standards and PG150 were not at hand when the named models were written: their figures stand as others quote
them, and want checking before a decision hangs on one. The sustained bandwidths do not: tests hold those to what Shuhai
measured on boards.

`Channel` says this cycle by cycle; `edgeaccel/sim/memory.h` is the same in C++, and equal to it beat for beat.
"""

import ctypes
import functools
from collections import deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

__all__ = ["DDR4_2400", "HBM2", "IDEAL", "Access", "Channel", "MemoryModel"]

MAX_BANK_BITS = 8


class Access(NamedTuple):
    """A burst of `beats` full beats from `address` on, known to the memory in `cycle`."""

    cycle: int
    address: int
    beats: int
    write: bool = False


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """Timing of a memory, in cycles of its AXI port.

    Attributes
    ----------
    name : str
    data_width : int
        Bits of a beat.
    mhz : int
        Clock of the port.
    read_hit, read_closed, read_miss : int
        Cycles from an address to its first beat, in an idle memory: if its row is open, if no row is open in its bank,
        if another one is.
    row_bit : int
        The row is the address from this bit on.
    bank_bits : tuple of int
        The bits of the address that choose the bank, at most 8.
    group_bits : tuple of int
        Those of them that choose the bank group.
    row_cycles : int
        Least cycles between two rows that a bank opens.
    group_cycles : int
        Least cycles between two beats of one bank group.
    read_to_write, write_to_read : int
        Least cycles between two beats of such directions.
    refresh_interval : int
        Cycles from one refresh to the next, 0 for none.
    refresh_cycles : int
        Cycles of a refresh, in which no row can be open or be opened.
    outstanding : int
        Most bursts of a direction that are accepted and not fully answered.
    in_order : bool
        Bursts are answered in the order of their addresses. If not, the one that was asked for last of those that can
        be answered goes first, which is the least convenient order that AXI allows; those of one ID keep their order.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    name: str
    data_width: int
    mhz: int
    read_hit: int
    read_closed: int
    read_miss: int
    row_bit: int
    bank_bits: tuple
    group_bits: tuple
    row_cycles: int
    group_cycles: int
    read_to_write: int
    write_to_read: int
    refresh_interval: int
    refresh_cycles: int
    outstanding: int
    in_order: bool

    def __post_init__(self):
        if not 1 <= self.read_hit <= self.read_closed <= self.read_miss:
            raise ValueError(
                "read_hit, read_closed and read_miss must ascend from 1 on,"
                f" not {(self.read_hit, self.read_closed, self.read_miss)}"
            )
        if len(self.bank_bits) > MAX_BANK_BITS or not set(self.group_bits) <= set(self.bank_bits):
            raise ValueError(
                f"bank_bits must be at most {MAX_BANK_BITS} and contain group_bits,"
                f" not {self.bank_bits} and {self.group_bits}"
            )
        if not all(0 <= bit < self.row_bit for bit in self.bank_bits):
            raise ValueError(f"bank_bits must be below row_bit {self.row_bit}, not {self.bank_bits}")
        for name in ("group_cycles", "read_to_write", "write_to_read", "outstanding"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        # Else a row that is opened after one refresh might not be used before the next.
        needed = self.refresh_cycles + self.read_miss + self.row_cycles
        if self.refresh_interval and self.refresh_interval <= needed:
            raise ValueError(f"refresh_interval must be 0 or above {needed}, not {self.refresh_interval!r}")

    @property
    def beat_bytes(self):
        return self.data_width // 8

    @property
    def banks(self):
        return 1 << len(self.bank_bits)

    @property
    def page_bytes(self):
        """Bytes of a row of a bank."""
        return 1 << self.row_bit - len(self.bank_bits)

    @property
    def peak(self):
        """Bytes a second with a beat in every cycle."""
        return self.beat_bytes * self.mhz * 1_000_000

    @functools.cached_property
    def share(self):
        """Beats a cycle in long sequential reads, measured over ten refreshes."""
        n_beats = 10 * self.refresh_interval or 1
        burst = 4096 // self.beat_bytes
        channel = Channel(self)
        beats = [cycle for n in range(-(-n_beats // burst)) for cycle in channel.serve(0, n * 4096, burst)]
        return len(beats) / (beats[-1] + 1 - beats[0])

    def share_of(self, reads, *, burst_beats=16):
        """Beats a cycle in reads (address, bytes) in a row, cut into bursts as a streamer does it."""
        channel = Channel(self)
        beats = []
        for address, n_bytes in reads:
            end = address + n_bytes
            while address < end:
                stop = min(end, (address // 4096 + 1) * 4096, address + burst_beats * self.beat_bytes)
                beats += channel.serve(0, address, (stop - address) // self.beat_bytes)
                address = stop
        return len(beats) / (beats[-1] + 1 - beats[0])

    def with_latency(self, cycles):
        """The same memory with another `read_hit`, and the others as much later as before."""
        later = cycles - self.read_hit
        return replace(self, read_hit=cycles, read_closed=self.read_closed + later, read_miss=self.read_miss + later)

    def with_width(self, data_width):
        """The same memory with beats of another width: rows, banks and groups hold as many of them."""
        shift = (data_width // 8).bit_length() - self.beat_bytes.bit_length()
        return replace(
            self,
            data_width=data_width,
            row_bit=max(self.row_bit + shift, 0),
            bank_bits=tuple(bit + shift for bit in self.bank_bits),
            group_bits=tuple(bit + shift for bit in self.group_bits),
        )

    def timing(self, accesses, *, first_refresh=None):
        """For each burst, in the order in which they are served, the cycles in which its beats can be delivered.

        For a write these are the cycles in which the answer could be given if it ended with that beat.
        """
        channel = Channel(self, first_refresh=first_refresh)
        return [np.array(channel.serve(*access), np.int64) for access in accesses]

    def deliverable(self, reads, first, last, *, first_refresh=None):
        """Beats that the memory could have delivered in the cycles `first` to `last`, both included.

        That is with the addresses of `reads`, over and over, always asked for and always taken: an address is accepted
        in the cycle of the first one, and then in each cycle in which less than `outstanding` bursts are unanswered.

        A component that took n of them has consumed the share n / deliverable of what there was to have.
        """
        channel = Channel(self, first_refresh=first_refresh)
        unanswered = deque()
        cycle, count = reads[0].cycle, 0
        while True:
            for access in reads:
                if len(unanswered) == self.outstanding:
                    cycle = max(cycle, unanswered.popleft() + 1)
                beats = channel.serve(cycle, access.address, access.beats)
                count += sum(first <= beat <= last for beat in beats)
                if beats[-1] > last:
                    return count
                unanswered.append(beats[-1])
                cycle += 1

    def to_c(self):
        """The model as the structure `Model` of edgeaccel/sim/memory.h."""
        return CModel(
            self.beat_bytes,
            self.read_hit,
            self.read_closed - self.read_hit,
            self.read_miss - self.read_closed,
            self.row_bit,
            len(self.bank_bits),
            (ctypes.c_int64 * MAX_BANK_BITS)(*self.bank_bits),
            len(self.group_bits),
            (ctypes.c_int64 * MAX_BANK_BITS)(*self.group_bits),
            self.row_cycles,
            self.group_cycles,
            self.read_to_write,
            self.write_to_read,
            self.refresh_interval,
            self.refresh_cycles,
            self.outstanding,
            self.in_order,
        )


class CModel(ctypes.Structure):
    """`Model` of edgeaccel/sim/memory.h."""

    _fields_ = (
        ("beat_bytes", ctypes.c_int64),
        ("read_hit", ctypes.c_int64),
        ("activate", ctypes.c_int64),
        ("precharge", ctypes.c_int64),
        ("row_bit", ctypes.c_int64),
        ("n_bank_bits", ctypes.c_int64),
        ("bank_bits", ctypes.c_int64 * MAX_BANK_BITS),
        ("n_group_bits", ctypes.c_int64),
        ("group_bits", ctypes.c_int64 * MAX_BANK_BITS),
        ("row_cycles", ctypes.c_int64),
        ("group_cycles", ctypes.c_int64),
        ("read_to_write", ctypes.c_int64),
        ("write_to_read", ctypes.c_int64),
        ("refresh_interval", ctypes.c_int64),
        ("refresh_cycles", ctypes.c_int64),
        ("outstanding", ctypes.c_int64),
        ("in_order", ctypes.c_int64),
    )


@dataclass
class _Bank:
    row: int | None = None
    opened: int = -1 << 40  # cycle in which the last row was asked for
    usable: int = 0  # from when on the open row can be used
    free: int = 0  # from when on another row can be asked for


class Channel:
    """A memory at work: the bursts of a port, in the order in which they become known.

    Parameters
    ----------
    model : MemoryModel
    first_refresh : int
        Cycle in which the first refresh starts; `refresh_interval` by default.
    """

    def __init__(self, model, *, first_refresh=None):
        self.model = model
        self._banks = [_Bank() for _ in range(model.banks)]
        self._groups = [-1 << 40] * (1 << len(model.group_bits))
        self._last = -1
        self._writing = None
        self._refresh = None
        if model.refresh_interval:
            self._refresh = model.refresh_interval if first_refresh is None else first_refresh

    def serve(self, cycle, address, beats, write=False):
        """Cycles in which the beats of a burst that is known in `cycle` can be delivered, and a write be answered."""
        size = self.model.beat_bytes
        start = address - address % size
        return [self._beat(cycle, start + n * size, write) + self.model.read_hit for n in range(beats)]

    def _beat(self, known, address, write):
        model = self.model
        bank = self._banks[_gather(address, model.bank_bits)]
        group = _gather(address, model.group_bits)
        row = address >> model.row_bit
        pins = max(self._last + 1, self._groups[group] + model.group_cycles)
        if write != self._writing and self._writing is not None:
            pins = max(pins, self._last + (model.read_to_write if write else model.write_to_read))
        while True:
            opened, usable = bank.opened, bank.usable
            if bank.row != row:
                opened = max(known, bank.free)
                if bank.row is not None:
                    opened += model.read_miss - model.read_closed
                opened = max(opened, bank.opened + model.row_cycles)
                usable = opened + model.read_closed - model.read_hit
            cycle = max(known, usable, pins)
            if self._refresh is None or cycle < self._refresh:
                break
            self._close_all()
        bank.row, bank.opened, bank.usable, bank.free = row, opened, usable, cycle + 1
        self._groups[group] = self._last = cycle
        self._writing = write
        return cycle

    def _close_all(self):
        for bank in self._banks:
            bank.row = None
            bank.free = self._refresh + self.model.refresh_cycles
        self._refresh += self.model.refresh_interval


def _gather(address, bits):
    return sum((address >> bit & 1) << n for n, bit in enumerate(bits))


IDEAL = MemoryModel(
    name="ideal",
    data_width=256,
    mhz=250,
    read_hit=20,
    read_closed=20,
    read_miss=20,
    row_bit=12,
    bank_bits=(),
    group_bits=(),
    row_cycles=0,
    group_cycles=1,
    read_to_write=1,
    write_to_read=1,
    refresh_interval=0,
    refresh_cycles=0,
    outstanding=1 << 16,
    in_order=True,
)
"""A beat in every cycle, `read_hit` cycles after its address; see `with_latency`."""

HBM2 = MemoryModel(
    name="hbm2",
    # AMD PG276, Raw Throughput Evaluation: 256-bit ports at 450 MHz match 64 bits of HBM at 900 MHz: 14.4 GB/s.
    data_width=256,
    mhz=450,
    # Shuhai (Wang et al., Benchmarking High Bandwidth Memory on FPGAs, FCCM 2020, arXiv 2005.04324), table IV.
    read_hit=48,
    read_closed=55,
    read_miss=62,
    # Shuhai, table II, the default mapping 14R-1BG-2B-5C-1BG. PG276, HBM Address Map: 16 banks, 4 groups of 4, of
    # CA[5:1], so 1 KiB a row.
    row_bit=14,
    bank_bits=(5, 13, 11, 12),
    group_bits=(5, 13),
    # tRC 48 ns (tRAS 33 ns and tRP 15 ns): JESD235D, table 58. 21.6 cycles.
    row_cycles=22,
    # tCCD_L of 4 nCK (JESD235D, table 68) is 2 cycles, tCCD_S of 2 nCK is one.
    group_cycles=2,
    # gem5, DRAMInterface HBM_2000_4H_1x64 after the HBM2 specification: tRTW 18 ns. Derived from its tCWL 7 ns, tBURST
    # 2 ns and tWTR_L 9 ns: 18 ns. 8.1 cycles.
    read_to_write=9,
    write_to_read=9,
    # PG276, Raw Throughput Evaluation: tREFI 3.9 us.
    refresh_interval=1755,
    # PG276, HBM Address Map: 4H stacks have channels of 4 Gb, for which tRFC is 260 ns (JESD235, as in Ramulator 2's
    # HBM2): 117 cycles. Derived: before it all banks are closed, as long as from `read_closed` to `read_miss`.
    refresh_cycles=7 + 117,
    # Assumed, as PG276 gives no number: one for each of a port's 64 identifiers.
    outstanding=64,
    # PG276, Features: reorders transactions with different IDs, honours the order within an ID.
    in_order=False,
)
"""One pseudo-channel of a Virtex UltraScale+ HBM stack behind its own AXI port, the switch bypassed.

Sequential reads sustain 92.5% of the peak. Shuhai measured 13.27 of 14.4 GB/s, 92.2%: 425 of 460 for 32 ports.
"""

DDR4_2400 = MemoryModel(
    name="ddr4-2400",
    # 64 bits at 2400 MT/s are 512 bits at 300 MHz, 19.2 GB/s: the controller's clock is a quarter of the DRAM's (AMD
    # PG150).
    data_width=512,
    mhz=300,
    # Shuhai, table IV, on the U280's DDR4-2400.
    read_hit=22,
    read_closed=27,
    read_miss=32,
    # PG150, mapping ROW_COLUMN_BANK: beats go round 4 groups, then 4 banks. JESD79-4: 16 banks, rows of 1 KiB in each
    # of 8 devices with 8 bits.
    row_bit=17,
    bank_bits=(6, 7, 8, 9),
    group_bits=(6, 7),
    # JESD79-4, DDR4-2400T: tRAS 32 ns and tRP 14.16 ns. 13.8 cycles.
    row_cycles=14,
    # JESD79-4: tCCD_L 5 ns. 1.5 cycles.
    group_cycles=2,
    # Derived from CL 17, CWL 12, a burst of 4 nCK and tWTR_L 7.5 ns (JESD79-4): CL - CWL + 4 + 2 = 11 nCK, 2.75 cycles;
    # CWL + 4 + 9 = 25 nCK, 6.25 cycles.
    read_to_write=3,
    write_to_read=7,
    # JESD79-4: tREFI 7.8 us up to 85 degrees.
    refresh_interval=2340,
    # JESD79-4: tRFC1 350 ns for 8 Gb, 105 cycles. Derived: closing all banks before it, as for HBM2.
    refresh_cycles=5 + 105,
    # Assumed.
    outstanding=32,
    # PG150: the AXI interface answers in order.
    in_order=True,
)
"""One 64-bit channel of DDR4-2400 behind a controller with a 512-bit port at 300 MHz.

Sequential reads sustain 95.1% of the peak. Shuhai measured 18 of 19.2 GB/s, 93.8%.
"""
