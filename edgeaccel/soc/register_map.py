"""The registers, defined once: the RTL, the C header and a page on them derive from this, which knows no Amaranth.

Registers have 32 bits, a multiple of 4 bytes apart. A value of more bits lies in several registers, the lower half
first.
"""

from dataclasses import dataclass

from edgeaccel import isa
from edgeaccel.config import ACTIVATIONS
from edgeaccel.formats import FORMATS

__all__ = [
    "COUNTERS_OFFSET",
    "MAGIC",
    "PARTS",
    "REGISTER_BYTES",
    "STATES",
    "UNITS",
    "VERSION",
    "Bits",
    "Register",
    "RegisterMap",
    "counter_names",
    "machine_words",
    "register_map",
]

MAGIC = int.from_bytes(b"EDGE", "little")
VERSION = 1
REGISTER_BYTES = 4
COUNTERS_OFFSET = 0x400
PAGE_BYTES = 0x1000

STATES = ("idle", "loading", "running", "end_of_text", "limit", "end", "error", "stopped")
UNITS = ("none", "sequencer", "program", "port", "feed", "attention", "cache", "parameters", "logits")
PARTS = ("attention", "vectors", "parameters", "cache", "logits")  # as the bits of `edgeaccel.soc.core.Core.units`


@dataclass(frozen=True)
class Bits:
    """Bits of a register.

    Attributes
    ----------
    name : str
        Of the value that they are of.
    first, width : int
        Where in the register.
    doc : str
    low : int
        The first bit of the value that is here.
    values : tuple of str
        Names of the values, from 0 on, if they have any.
    """

    name: str
    first: int
    width: int
    doc: str
    low: int = 0
    values: tuple[str, ...] = ()

    @property
    def mask(self):
        return ((1 << self.width) - 1) << self.first


@dataclass(frozen=True)
class Register:
    """A register.

    Attributes
    ----------
    name : str
    offset : int
        In bytes.
    kind : str
        "constant": `value`, always. "read": what the machine tells. "hold": what was written. "pulse": each bit that
        is written as 1 does something once, and all read as 0. "pending": bits that the machine sets; writing 1 clears.
    doc : str
    bits : tuple of Bits
    value : int
        Of a constant.
    """

    name: str
    offset: int
    kind: str
    doc: str
    bits: tuple[Bits, ...] = ()
    value: int = 0

    @property
    def can_be_written(self):
        return self.kind in ("hold", "pulse", "pending")


@dataclass(frozen=True)
class RegisterMap:
    """All registers of a machine, and the window onto its token memory.

    Attributes
    ----------
    registers : tuple of Register
    tokens_offset, tokens_bytes : int
        The token of position n is at ``tokens_offset + 4 * n``.
    """

    registers: tuple[Register, ...]
    tokens_offset: int
    tokens_bytes: int

    @property
    def address_width(self):
        return (self.tokens_offset + self.tokens_bytes - 1).bit_length()

    def __getitem__(self, name):
        """The register of a name; KeyError if there is none."""
        for register in self.registers:
            if register.name == name:
                return register
        raise KeyError(name)

    def widths(self, *kinds):
        """Bits of each value that registers of these kinds have."""
        widths = {}
        for register in self.registers:
            for bits in register.bits if register.kind in kinds else ():
                widths[bits.name] = max(widths.get(bits.name, 0), bits.low + bits.width)
        return widths


def machine_words(machine):
    """What the registers tell of a machine's sizes: (value, meaning) by name."""
    config = machine.config
    return {
        "groups": (config.groups, "groups of the array, and memory ports"),
        "lanes": (config.lanes, "4-bit digits that a group multiplies each cycle"),
        "rows": (config.rows, "tokens that meet a word of weights in a cycle"),
        "mantissa_bits": (config.mantissa_bits, "bits of an aligned activation"),
        "formats": (
            sum(1 << FORMATS[name].code for name in config.formats),
            "number formats of the build: " + ", ".join(f"bit {row.code} {name}" for name, row in FORMATS.items()),
        ),
        "activations": (
            ACTIVATIONS.index(config.activations),
            "what the array takes: " + ", ".join(f"{n} {name}" for n, name in enumerate(ACTIVATIONS)),
        ),
        "block": (config.block, "inputs that share a scale of weights"),
        "vector_lanes": (config.vector_lanes, "elements of a row that go into the array in a cycle"),
        "buffer_inputs": (config.buffer_inputs, "elements of each row in the activation buffer"),
        "port_data_width": (config.port_data_width, "bits of a memory port"),
        "port_hz": (round(config.port_mhz * 1e6), "clock of the memory ports, as configured"),
        "core_hz": (round(config.core_mhz * 1e6), "clock of the array, as configured"),
        "vector_inputs": (machine.vector_inputs, "elements of each row in the vector memory"),
        "max_channels": (machine.max_channels, "channels of the longest vector that leaves the array"),
        "max_rotated": (machine.max_rotated, "most dimensions of a head that are rotated"),
        "functions": (
            sum(1 << isa.FUNCTIONS.index(name) for name in machine.functions),
            "activation functions of the build: " + ", ".join(f"bit {n} {f}" for n, f in enumerate(isa.FUNCTIONS)),
        ),
        "slots": (machine.slots, "running sums of attention"),
        "pages": (machine.pages, "entries of the page table"),
        "positions": (machine.positions, "tokens that the token memory holds"),
        "instructions": (machine.instructions, "of the longest program"),
        "port_bits": (machine.port_bytes.bit_length() - 1, "logarithm of the bytes of a port's memory"),
        "sets": (config.sets, "sets of rows for which each word of weights is used"),
    }


def counter_names(machine):
    """Names of the performance counters of a whole machine, `edgeaccel.soc.soc.SoC`."""
    return (*(f"{name}{n}" for name in ("words", "starved") for n in range(machine.config.groups)), *PARTS)


def register_map(machine, counters=()):
    """The registers of a machine with performance counters of these names.

    Raises
    ------
    ValueError
        If two counters have the same name, or there are too many.
    """
    counters = tuple(counters)
    room = (PAGE_BYTES - COUNTERS_OFFSET) // REGISTER_BYTES
    if len(set(counters)) != len(counters) or len(counters) > room:
        raise ValueError(f"counters must be at most {room} different names, not {counters!r}")
    count = isa.POSITION_WIDTH + 1
    sizes = machine_words(machine)
    registers = [
        *_in_a_row(
            0x000,
            ("magic", "constant", 'The letters "EDGE".', MAGIC),
            ("version", "constant", "Of this map of registers.", VERSION),
            ("n_counters", "constant", "Performance counters.", len(counters)),
        ),
        *_in_a_row(
            0x040,
            *((name, "constant", f"{doc[0].upper()}{doc[1:]}.", value) for name, (value, doc) in sizes.items()),
        ),
        *_in_a_row(
            0x100,
            (
                "control",
                "pulse",
                "What is to be done.",
                Bits("start", 0, 1, "run the program; nothing while one runs"),
                Bits("stop", 1, 1, "end the run behind the instruction at hand"),
                Bits("clear", 2, 1, "end all that goes on and be as after reset, but for registers and memories"),
            ),
            (
                "interrupt_enable",
                "hold",
                "Which of `interrupt` raise the interrupt line.",
                Bits("enable_done", 0, 1, "a run has ended"),
            ),
            (
                "interrupt",
                "pending",
                "What has happened since it was cleared, by writing 1.",
                Bits("done", 0, 1, "a run has ended"),
            ),
            *_halves("program_address", "hold", "Where the program lies, in bytes."),
            (
                "program_bytes",
                "hold",
                f"Of the program: {isa.INSTRUCTION_BYTES} an instruction.",
                Bits("program_bytes", 0, 32, "bytes"),
            ),
            (
                "position",
                "hold",
                "Where a run begins.",
                Bits("position", 0, count, "the first token that is not in the cache"),
            ),
            (
                "prompt",
                "hold",
                "Tokens that are given: those from `position` on must be in the token memory.",
                Bits("prompt", 0, count, "tokens"),
            ),
            (
                "limit",
                "hold",
                "Where a run ends: with `prompt` behind its first token.",
                Bits("limit", 0, count, "position"),
            ),
        ),
        *_in_a_row(
            0x200,
            (
                "status",
                "read",
                "What the machine does, or why it has stopped.",
                Bits("state", 0, 3, "what it does, or why it has stopped", values=STATES),
                Bits("busy", 8, 1, "a run is under way"),
            ),
            (
                "at_position",
                "read",
                "The batch of tokens that is worked on, or was last. Behind the end of a text or at the limit: of the "
                "last token, which was written but not worked on.",
                Bits("at_position", 0, count, "its first token"),
            ),
            (
                "progress",
                "read",
                "Where in the program the machine is.",
                Bits("pc", 0, 8, "the instruction"),
                Bits("layer", 8, 12, "the turn of the loop"),
                Bits("rows", 20, 8, "tokens of the batch"),
            ),
            (
                "error",
                "read",
                "What has failed, if the state is `error`.",
                Bits("error_unit", 0, 4, "which part", values=UNITS),
                Bits("error_code", 4, 4, "what, in the numbers of that part"),
                Bits("error_port", 8, 8, "which memory port"),
                Bits("error_command", 16, 16, "number of the part's command since the start"),
            ),
            *_halves("error_address", "read", "Of the memory, in bytes, if it has answered with an error."),
            *_halves(
                "cycles",
                "read",
                "Cycles of the run, or of the last one. Reading the lower half keeps the upper one for the next read.",
            ),
        ),
        *_in_a_row(
            COUNTERS_OFFSET,
            *(
                (
                    f"counter_{name}",
                    "read",
                    f"Cycles of the run with: {name}.",
                    Bits(f"counter_{name}", 0, 32, "cycles"),
                )
                for name in counters
            ),
        ),
    ]
    tokens_bytes = REGISTER_BYTES * machine.positions
    return RegisterMap(tuple(registers), max(PAGE_BYTES, tokens_bytes), tokens_bytes)


def _in_a_row(offset, *rows):
    """Registers from an offset on; each of name, kind, text, and bits or a constant's value."""
    for n, (name, kind, doc, *bits) in enumerate(rows):
        at = offset + REGISTER_BYTES * n
        if kind == "constant":
            yield Register(name, at, kind, doc, (Bits(name, 0, 32, ""),), bits[0])
        else:
            yield Register(name, at, kind, doc, tuple(bits))


def _halves(name, kind, doc):
    return [
        (f"{name}_{part}", kind, doc, Bits(name, 0, 32, f"bits {low + 31} to {low}", low=low))
        for part, low in (("low", 0), ("high", 32))
    ]
