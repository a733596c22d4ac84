"""The registers of a machine in Python, with the golden machine behind them: a board that needs no compiler."""

import threading

import numpy as np

from edgeaccel import isa
from edgeaccel.golden.machine import Fault, GoldenMachine, MachineError
from edgeaccel.golden.machine import Memory as GoldenMemory
from edgeaccel.soc.register_map import STATES, UNITS, counter_names, register_map

__all__ = ["GoldenBoard"]

_STEP_SECONDS = 0.001
_CODES = {"program": 6, "sequencer": 4}  # of all their errors: RESPONSE, and RANGE


class GoldenBoard:
    """What `edgeaccel.sim.board.RtlMachine` is, in NumPy. It counts instructions as cycles, and its counters are 0.

    Parameters
    ----------
    machine : Machine
    memory : uint8 array
        By global address.
    """

    def __init__(self, machine, memory):
        self.machine, self.registers = machine, register_map(machine, counter_names(machine))
        self._golden = GoldenMachine(machine)
        self._golden.memory = _Memory(machine, memory)
        self._golden.reset()
        self._held = {"done": 0, **dict.fromkeys(self.registers.widths("hold", "read"), 0)}
        self._is_told_to_stop, self._thread = False, None

    @property
    def is_busy(self):
        """Whether a run is under way."""
        return bool(self._held["busy"])

    @property
    def interrupt(self):
        """Whether the interrupt is up."""
        return bool(self._held["done"] and self._held["enable_done"])

    def read(self, offset):
        """The 32 bits of a register, or a token."""
        if offset >= self.registers.tokens_offset:
            return int(self._golden.state.tokens[(offset - self.registers.tokens_offset) // 4])
        register = self._register(offset)
        if register.kind in ("constant", "pulse"):
            return register.value
        held = self._held | {"at_position": self._golden.state.position, "layer": self._golden.state.layer}
        return sum((held[bits.name] >> bits.low & (bits.mask >> bits.first)) << bits.first for bits in register.bits)

    def write(self, offset, value):
        """Write the 32 bits of a register, or a token."""
        if offset >= self.registers.tokens_offset:
            self._golden.state.tokens[(offset - self.registers.tokens_offset) // 4] = value
            return
        register = self._register(offset)
        for bits in register.bits:
            part = (value & bits.mask) >> bits.first
            if register.kind == "hold":
                mask = (bits.mask >> bits.first) << bits.low
                self._held[bits.name] = self._held[bits.name] & ~mask | part << bits.low
            elif register.kind == "pending":
                self._held[bits.name] &= ~part
            elif part:
                getattr(self, f"_{bits.name}")()

    def step(self):
        """Let some time pass."""
        self._thread.join(_STEP_SECONDS)

    def _register(self, offset):
        return next(register for register in self.registers.registers if register.offset == offset)

    # What the bits of `control` do.

    def _start(self):
        if self.is_busy:
            return
        self._held |= {"busy": 1, "state": STATES.index("running"), "cycles": 0, "pc": 0}
        self._is_told_to_stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._golden.state.position = self._held["position"]
        self._thread.start()

    def _stop(self):
        self._is_told_to_stop = True

    def _clear(self):
        if self.is_busy:
            self._is_told_to_stop = True
            self._thread.join()
        self._held |= {"state": STATES.index("idle"), "done": 0}

    def _run(self):
        held, golden = self._held, self._golden
        try:
            code = golden.memory.read(held["program_address"], held["program_bytes"]).tobytes()
            size = isa.INSTRUCTION_BYTES
            golden.program = [isa.decode(code[place : place + size]) for place in range(0, len(code), size)]
            golden._text = isa.disassemble(code)
            state = golden.run(held["position"], held["prompt"], held["limit"], on_instruction=self._count)
        except (Fault, MachineError, ValueError) as error:
            state = "error"
            unit = "program" if isinstance(error, Fault) else "sequencer"
            address = getattr(error, "address", None) or 0
            held |= {"error_unit": UNITS.index(unit), "error_code": _CODES[unit], "error_address": address}
        held |= {"state": STATES.index(state), "busy": 0}
        held["done"] = 1

    def _count(self, number):
        self._held["pc"] = number
        self._held["cycles"] += 1
        if self._is_told_to_stop:
            self._golden.stop()


class _Memory(GoldenMemory):
    """The golden machine's memory in bytes that others see as well."""

    def __init__(self, machine, content):
        super().__init__(machine)
        self.n_bytes, self._content = len(content), content

    def read(self, address, n_bytes):
        self._check(address, n_bytes)
        return self._content[address : address + n_bytes].copy()

    def write(self, address, data):
        data = np.asarray(data, np.uint8).reshape(-1)
        self._check(address, len(data))
        self._content[address : address + len(data)] = data

    def _check(self, address, n_bytes):
        if address < 0 or address + n_bytes > self.n_bytes:
            raise Fault("address", f"there is no memory at {address:#x} to {address + n_bytes - 1:#x}", address)
