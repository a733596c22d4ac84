"""Verilog of a whole machine, or of a component, with a description of its ports, from the command line.

    python -m edgeaccel.elaborate --preset tiny --out machine

writes a folder with the Verilog and all that goes with it, and

    python -m edgeaccel.elaborate --component pe.GroupDatapath --set lanes=128 -o group.v

writes `group.v`, one standalone Verilog-2005 file, and `group.json` beside it. The same input gives the same bytes.
"""

import argparse
import inspect
import json
import re
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

import edgeaccel
from edgeaccel import isa
from edgeaccel.component import (
    arguments,
    build,
    constant_name,
    find_component,
    public_components,
    read_settings,
    show,
)
from edgeaccel.config import Config
from edgeaccel.machine import MACHINES, Machine, machine
from edgeaccel.memory import axi
from edgeaccel.soc.diagram import block_diagram
from edgeaccel.soc.document import c_header, instruction_page, register_page
from edgeaccel.soc.soc import SoC
from edgeaccel.verilog import describe_ports, emit

__all__ = ["build_machine", "describe", "describe_machine", "machine_files", "main", "module_name"]

EXAMPLES = """\
examples:
  python -m edgeaccel.elaborate --preset tiny --out machine
  python -m edgeaccel.elaborate --preset vcu128 --set rows=1 --set pages=256 --out machine
  python -m edgeaccel.elaborate --list
  python -m edgeaccel.elaborate --component pe.GroupDatapath --set lanes=128 -o group.v
  python -m edgeaccel.elaborate --component pe.GroupDatapath --set formats=int4,int8 --set rows=2 -o group.v
  python -m edgeaccel.elaborate --component pe.BlockAligner --set format=BF16 --set width=32 -o aligner.v
"""
_SIZES = [field.name for field in fields(Machine) if field.name != "config"]
_CONFIG = [field.name for field in fields(Config)]


def module_name(name):
    """Verilog module of a component: `pe.GroupDatapath` becomes `edgeaccel_pe_group_datapath`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return "edgeaccel_" + words.replace(".", "_")


def describe(component, name, parameters):
    """What a program has to know of an emitted component: module, parameters, ports with their layouts, latency."""
    return {
        "generator": f"edgeaccel {edgeaccel.__version__}",
        "component": name,
        "module": module_name(name),
        "parameters": {key: value if _is_plain(value) else constant_name(value) for key, value in parameters.items()},
        "latency_cycles": getattr(component, "latency", None),
        "ports": describe_ports(component),
    }


def build_machine(preset, settings=()):
    """A named machine with sizes of it, and of its configuration, set by texts like `rows=1`.

    Raises
    ------
    ValueError
        If there is no such machine or size, a value cannot be read, or the machine cannot be built.
    """
    allowed = f"a machine has the sizes: {', '.join(_SIZES + _CONFIG)}"
    values = read_settings(settings, _SIZES + _CONFIG, allowed)
    for name in {"formats", "functions"} & values.keys():
        if isinstance(values[name], str):  # `formats=int8` as well as `formats=int8,`
            values[name] = (values[name],)
    changes = {name: value for name, value in values.items() if name in _CONFIG}
    sizes = {name: value for name, value in values.items() if name in _SIZES}
    try:
        return machine(preset, changes=changes, **sizes)
    except TypeError as error:  # sizes are checked for what they are, less so for their type
        raise ValueError(f"{preset} cannot be built with {show(values)}: {error}") from error


def describe_machine(soc, preset):
    """What a program has to know of a whole machine: sizes, clocks, interfaces, memory, registers, ports."""
    machine, config, registers = soc.machine, soc.machine.config, soc.map
    clocks = {"sync": config.core_mhz, "port": config.port_mhz}
    return {
        "generator": f"edgeaccel {edgeaccel.__version__}",
        "preset": preset,
        "module": f"edgeaccel_{preset}",
        "machine": {name: getattr(machine, name) for name in _SIZES},
        "config": {name: getattr(config, name) for name in _CONFIG},
        "clock_domains": [
            {"name": domain, "mhz": clocks[domain], "clock": f"{prefix}clk", "reset": f"{prefix}rst"}
            for domain in soc.domains
            for prefix in ("" if domain == "sync" else f"{domain}_",)
        ],
        "interfaces": _interfaces(soc),
        "bit_names": soc.bit_names,
        "address_map": [
            *(
                {"name": f"port {n}", "base": n * machine.port_bytes, "bytes": machine.port_bytes}
                for n in range(config.groups)
            ),
            {"name": "data", "base": machine.data_base, "bytes": None},
        ],
        "registers": {
            "address_width": registers.address_width,
            "tokens": {"offset": registers.tokens_offset, "bytes": registers.tokens_bytes},
            "registers": [_describe_register(register) for register in registers.registers],
        },
        "instruction_bytes": isa.INSTRUCTION_BYTES,
        "ports": describe_ports(soc),
    }


def _interfaces(soc):
    """AXI interfaces by the prefix of their ports.

    `base` is where address 0 of the interface lies in the memory map: masters of ports see no more than their port's
    memory, the others all.
    """
    of_ports = [f"m_axi_{n}" for n in range(soc.machine.config.groups)]
    port_domain = soc.domains[-1]
    described = []
    for path, interface in _axi_members(soc):
        name, signature = "_".join(map(str, path)), interface.signature
        entry = {
            "name": name,
            "protocol": "AXI4-Lite" if name.startswith("s_") else "AXI4",
            "role": "slave" if name.startswith("s_") else "master",
            "channels": [way for way in ("read", "write") if getattr(signature, way)],
            "data_width": signature.data_width,
            "address_width": signature.address_width,
            "clock_domain": port_domain if name in (*of_ports, "m_axi_scales") else "sync",
        }
        if entry["role"] == "master":
            is_port = name in of_ports
            entry["base"] = of_ports.index(name) * soc.machine.port_bytes if is_port else 0
            entry["bytes"] = soc.machine.port_bytes if is_port else None
        described.append(entry)
    return described


def _axi_members(soc):
    for name, member in soc.signature.members.items():
        if member.is_signature and isinstance(member.signature, axi.Signature):
            if member.dimensions:
                yield from (((name, n), each) for n, each in enumerate(getattr(soc, name)))
            else:
                yield (name,), getattr(soc, name)


def _describe_register(register):
    described = {"name": register.name, "offset": register.offset, "access": register.kind, "doc": register.doc}
    if register.kind == "constant":
        return described | {"value": register.value}
    names = ("name", "first", "width", "low", "doc", "values")
    return described | {"fields": [{name: getattr(bits, name) for name in names} for bits in register.bits]}


def machine_files(soc, preset):
    """Texts that belong to a machine, by the names of their files."""
    module = f"edgeaccel_{preset}"
    counters = tuple(name.removeprefix("counter_") for name in _register_names(soc) if name.startswith("counter_"))
    header = _header(soc, f"{preset}, a whole machine", _sizes(soc.machine))
    return {
        f"{module}.v": emit(soc, module, header=header),
        f"{module}.json": json.dumps(describe_machine(soc, preset), indent=2) + "\n",
        f"{module}.h": c_header(soc.machine, counters),
        "registers.md": register_page(soc.machine, counters),
        "instructions.md": instruction_page(),
        f"{module}.svg": block_diagram(soc.machine, preset),
    }


def _register_names(soc):
    return [register.name for register in soc.map.registers]


def _sizes(machine):
    return {name: getattr(machine, name) for name in _SIZES} | {name: getattr(machine.config, name) for name in _CONFIG}


def _header(component, name, parameters):
    """Comment at the top of the Verilog: what it is, and the contract that the docstring states."""
    documentation = inspect.cleandoc(type(component).__doc__ or "").splitlines()
    return [f"{name}: {show(parameters)}", f"Generated by edgeaccel {edgeaccel.__version__}.", "", *documentation]


def _is_plain(value):
    return value is None or isinstance(value, (bool, int, float, str, tuple, list))


def main(arguments_=None):
    """Run the command line; returns the exit status: 0, or 2 if something asked for is not possible."""
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.elaborate",
        description="Write a whole machine as a folder of Verilog, its description, C header, pages and diagram; or a"
        " component as standalone Verilog, with a JSON description of its ports beside it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", metavar="NAME", help=f"whole machine: {', '.join(MACHINES)}")
    what.add_argument("--component", metavar="NAME", help="public component, such as pe.GroupDatapath")
    what.add_argument("--list", action="store_true", help="list the components and their parameters")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="set a parameter")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for a machine's files; made if it is not there")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="Verilog file; FILE's .json goes beside it")
    options = parser.parse_args(arguments_)
    if options.list:
        for name, component_type in public_components().items():
            parameters = inspect.signature(component_type).parameters.values()
            print(name, show({parameter.name: parameter.default for parameter in parameters}), sep=": ")
        return 0
    if options.preset is not None and (options.out is None or options.output is not None):
        parser.error("--preset needs --out DIR, a folder for the files, and no -o")
    if options.preset is None and (options.output is None or options.output.suffix != ".v" or options.out is not None):
        parser.error("--component needs -o FILE.v, where the Verilog goes, and no --out")
    try:
        if options.preset is not None:
            _write_machine(options.preset, options.set, options.out)
        else:
            _write_component(options.component, options.set, options.output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write_component(name, settings, path):
    component = build(name, settings)
    parameters = arguments(find_component(name), settings)
    text = emit(component, module_name(name), header=_header(component, name, parameters))
    description = json.dumps(describe(component, name, parameters), indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(description, encoding="utf-8")


def _write_machine(preset, settings, folder):
    made = build_machine(preset, settings)
    soc = SoC(made)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # so that it is not after a long time that nothing can be written
            pass
    except OSError as error:
        problem = f"--out must be a folder that can be made and written, not {folder}: {error.strerror}"
        raise ValueError(problem) from error
    sizes = ", ".join(f"{getattr(made.config, name)} {name}" for name in ("groups", "lanes", "rows"))
    print(
        f"elaborating {preset} ({sizes}): half a minute for tiny, some for large machines", file=sys.stderr, flush=True
    )
    files = machine_files(soc, preset)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    print(f"wrote {', '.join(files)} to {folder}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
