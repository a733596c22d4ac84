"""The golden machine: what a whole machine computes, instruction by instruction, bit for bit, in NumPy.

It reads an image's program and tiles out of its memory, as the hardware does, and shares no code with the compiler.
"""

from edgeaccel.golden.machine.error import Fault, MachineError
from edgeaccel.golden.machine.machine import Batch, GoldenMachine
from edgeaccel.golden.machine.memory import Memory

__all__ = ["Batch", "Fault", "GoldenMachine", "MachineError", "Memory"]
