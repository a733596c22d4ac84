"""Texts that derive from the definitions: a C header, and pages on registers and instructions.

python -m edgeaccel.soc.document --machine tiny --header edgeaccel.h --registers registers.md --instructions isa.md
"""

import argparse
import ast
import inspect
import sys
from itertools import pairwise
from pathlib import Path

from edgeaccel import isa
from edgeaccel.attention.command import AttentionErrorCode
from edgeaccel.machine import MACHINES
from edgeaccel.machine import machine as named_machine
from edgeaccel.memory.block import BlockErrorCode
from edgeaccel.memory.command import ErrorCode
from edgeaccel.soc.register_map import STATES, UNITS, register_map
from edgeaccel.soc.sequencer import SequencerErrorCode
from edgeaccel.systolic.operator import FeedErrorCode

__all__ = ["ERROR_CODES", "c_header", "instruction_page", "main", "register_page"]

ERROR_CODES = {
    "sequencer": SequencerErrorCode,
    "program": BlockErrorCode,
    "port": ErrorCode,
    "feed": FeedErrorCode,
    "attention": AttentionErrorCode,
    "cache": AttentionErrorCode,
    "parameters": BlockErrorCode,
    "logits": BlockErrorCode,
}
"""What `error_code` means, by the part that reports it."""

_ACCESS = {
    "constant": "read, constant",
    "read": "read",
    "hold": "read, write",
    "pulse": "write; reads as 0",
    "pending": "read, write 1 to clear",
}


def c_header(machine, counters=()):
    """Offsets, masks and numbers of everything, for the host's C.

    Parameters
    ----------
    machine : Machine
        Offsets of the token memory and the constants' values are this one's; all else is the same for all.
    counters : tuple of str
        Of performance, as `Registers` has them.
    """
    registers = register_map(machine, counters)
    lines = ["/* Registers and instructions of edgeaccel. Generated; do not edit. */"]
    lines += ["#ifndef EDGEACCEL_H", "#define EDGEACCEL_H", "", "/* Registers: offsets in bytes. */"]
    lines += [_define(register.name, f"{register.offset:#05x}") for register in registers.registers]
    lines += [
        _define("tokens", f"{registers.tokens_offset:#x}"),
        _define("tokens_bytes", f"{registers.tokens_bytes:#x}"),
    ]
    lines += [_define("address_width", registers.address_width)]
    lines += ["", "/* What the constants are. */"]
    lines += [
        _define(f"{register.name}_value", f"{register.value:#x}u")
        for register in registers.registers
        if register.kind == "constant"
    ]
    lines += ["", "/* Fields of registers: mask, and first bit. */"]
    for register in registers.registers:
        for bits in register.bits if register.kind != "constant" else ():
            if bits.width < 32:
                name = bits.name if bits.name.startswith(register.name) else f"{register.name}_{bits.name}"
                lines += [_define(f"{name}_mask", f"{bits.mask:#010x}u"), _define(f"{name}_first", bits.first)]
    lines += _numbers("States", "state", STATES)
    lines += _numbers("Parts that report errors", "unit", UNITS)
    for unit, codes in ERROR_CODES.items():
        lines += _numbers(f"Errors of the part {unit}", f"{unit}_error", {code.name: code.value for code in codes})
    lines += ["", "/* Instructions: 64 bytes each; opcode in bits 0 to 4, when in bits 5 to 7. */"]
    lines += [_define("instruction_bytes", isa.INSTRUCTION_BYTES)]
    lines += _numbers("Opcodes", "opcode", {name: of.opcode for name, of in isa.INSTRUCTIONS.items()})
    lines += _numbers("When", "when", isa.WHEN)
    lines += ["", "#endif"]
    return "\n".join(lines) + "\n"


def _define(name, value):
    return f"#define EDGEACCEL_{name.upper()} {value}"


def _numbers(title, prefix, names):
    """Defines of numbers by name, or of names from 0 on."""
    numbers = names if isinstance(names, dict) else {name: n for n, name in enumerate(names)}
    return ["", f"/* {title}. */", *(_define(f"{prefix}_{name}", number) for name, number in numbers.items())]


def register_page(machine, counters=()):
    """Page on the registers, in Markdown."""
    registers = register_map(machine, counters)
    lines = ["# Registers", "", "Made from `edgeaccel/soc/register_map.py` by `edgeaccel.soc.document`.", ""]
    lines += [
        "AXI4-Lite, 32 bits. An address where nothing is, a write to what can only be read, and a write of a part of a",
        "token are answered with SLVERR, and do nothing. Strobes choose bytes.",
        "",
        "| offset | register | access | what it is |",
        "|---|---|---|---|",
    ]
    for register in registers.registers:
        doc = _cell(register.doc)
        lines.append(f"| {register.offset:#05x} | `{register.name}` | {_ACCESS[register.kind]} | {doc} |")
    lines += [
        f"| {registers.tokens_offset:#05x} | `tokens` | read, write | The token memory: token n at 4 n from here. |",
        "",
        f"Offset and size ({registers.tokens_bytes:#x} bytes) of `tokens` depend on the machine's `positions`, here"
        f" {machine.positions}: the",
        "window begins at its own size, or at 0x1000 if that is more.",
    ]
    for register in registers.registers:
        if register.kind == "constant" or (len(register.bits) == 1 and register.bits[0].width == 32):
            continue
        lines += ["", f"## `{register.name}`", "", "| bits | field | what it is |", "|---|---|---|"]
        for bits in register.bits:
            last = bits.first + bits.width - 1
            place = str(bits.first) if bits.width == 1 else f"{last}:{bits.first}"
            values = ": " + ", ".join(f"{n} {name}" for n, name in enumerate(bits.values)) if bits.values else ""
            lines.append(f"| {place} | `{bits.name}` | {_cell(bits.doc + values)} |")
    lines += ["", "## Error codes", "", "| part | codes |", "|---|---|"]
    for unit, codes in ERROR_CODES.items():
        lines.append(f"| {unit} | {', '.join(f'{code.value} {code.name.lower()}' for code in codes)} |")
    return "\n".join(lines) + "\n"


def instruction_page():
    """Page on the instructions, in Markdown."""
    docs = _documentation(isa)
    lines = ["# Instructions", "", "Made from `edgeaccel/isa.py` by `edgeaccel.soc.document`.", ""]
    lines += [
        f"An instruction has {isa.INSTRUCTION_BYTES} bytes, little endian: `opcode` in bits 4:0, `when` in bits 7:5,",
        "then the fields; bits behind them are 0.",
        "",
        *_block(isa.__doc__.strip().split("\n\n", 2)[2]),
    ]
    for title, field in (("`when`", "WHEN"), ("`index` of `read`", "INDICES"), ("`target` of `read`", "TARGETS")):
        names = ", ".join(f"{n} {name}" for n, name in enumerate(getattr(isa, field)))
        lines += ["", f"## {title}", "", f"{names}.", "", *_block(docs[field])]
    lines += ["", "## All instructions", "", "| opcode | instruction | what it does |", "|---|---|---|"]
    lines += [f"| {of.opcode} | `{name}` | {_cell(of.doc)} |" for name, of in isa.INSTRUCTIONS.items()]
    for name, of in isa.INSTRUCTIONS.items():
        if not of.fields:
            continue
        lines += ["", f"## `{name}`", "", of.doc, "", "| bits | field | what it is |", "|---|---|---|"]
        begin = 8
        for field, bits in of.fields.items():
            place = str(begin) if bits.width == 1 else f"{begin + bits.width - 1}:{begin}"
            values = ", ".join(f"{n} {value}" for n, value in enumerate(bits.names))
            doc = ": ".join(part for part in (bits.doc, values) if part)
            lines.append(f"| {place} | `{field}` | {_cell(doc)} |")
            begin += bits.width
    return "\n".join(lines) + "\n"


def _cell(text):
    return " ".join(text.split()).replace("|", "\\|")


def _block(text):
    return ["```text", *text.splitlines(), "```"]


def _documentation(module):
    """The strings behind a module's assignments, by the name that is assigned."""
    body = ast.parse(inspect.getsource(module)).body
    return {
        before.targets[0].id: inspect.cleandoc(after.value.value)
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


def main(arguments=None):
    """Write the texts that are asked for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.soc.document", description="Write texts that derive from the definitions."
    )
    parser.add_argument("--machine", choices=sorted(MACHINES), default="tiny", help="whose registers (tiny)")
    parser.add_argument("--counters", default="", help="names of performance counters, with commas between")
    parser.add_argument("--header", metavar="FILE", type=Path, help="C header")
    parser.add_argument("--registers", metavar="FILE", type=Path, help="page on registers, Markdown")
    parser.add_argument("--instructions", metavar="FILE", type=Path, help="page on instructions, Markdown")
    options = parser.parse_args(arguments)
    chosen = named_machine(options.machine), tuple(filter(None, options.counters.split(",")))
    try:
        for path, text in (
            (options.header, c_header(*chosen)),
            (options.registers, register_page(*chosen)),
            (options.instructions, instruction_page()),
        ):
            if path is not None:
                path.write_text(text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
