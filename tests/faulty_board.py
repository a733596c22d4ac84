"""A process that stands in for a board and goes wrong in some way, once the machine is at some position.

`python tests/faulty_board.py DEVICE PRESET ENGINE FAULT POSITION`; the engine "registers" is `test_device.Stand`.
"""

import contextlib
import os
import sys
from pathlib import Path

from edgeaccel.machine import machine
from edgeaccel.runtime.xdma import ALL_ONES
from edgeaccel.sim.board import ENGINES, RtlMachine, StandIn, files, serve


class FaultyStandIn(StandIn):
    """Goes wrong as its class says."""

    fault, position = "none", 0

    @property
    def is_faulty(self):
        at = self.machine.registers["at_position"].offset
        return self.machine.is_busy and self.machine.read(at) >= self.position

    def access(self, what, offset, value):
        if self.fault in ("ones", "exit") and self.is_faulty:
            if self.fault == "exit":
                os._exit(1)
            self.machine.read = lambda offset: ALL_ONES
            self.machine.write = lambda offset, value: None
        if self.fault == "stuck":  # a machine that reads its program for ever
            start = self.machine.registers["control"].offset
            if what == b"W" and offset == start and value & 1:
                self.machine.write(self.machine.registers["control"].offset, 0)
                self.machine.read = self._stuck(self.machine.read)
                return 0
        return super().access(what, offset, value)

    def _stuck(self, read):
        status, values = self.machine.registers["status"].offset, iter(range(1 << 30))
        cycles = self.machine.registers["cycles_low"].offset
        changed = {status: lambda: 1 << 8 | 2, cycles: lambda: next(values)}
        return lambda offset: changed[offset]() if offset in changed else read(offset)

    def raise_event(self):
        if self.fault == "silent" or (self.fault == "twice" and self.position):
            return
        super().raise_event()
        if self.fault == "twice":  # and never again
            super().raise_event()
            self.position = 1


if __name__ == "__main__":
    device, preset, engine, FaultyStandIn.fault, position = sys.argv[1:]
    served, engine = machine(preset), ENGINES.get(engine)
    if engine is None:  # the real registers, and what is soon compiled
        from test_device import MACHINE as served
        from test_device import Stand

        def engine(machine, memory):
            return RtlMachine(machine, memory, component=Stand(), checks=True)

    FaultyStandIn.position = int(position)
    with contextlib.suppress(KeyboardInterrupt), files(Path(device)):
        serve(served, Path(device), engine, FaultyStandIn)
