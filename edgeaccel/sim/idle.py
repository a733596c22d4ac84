"""Emitted Verilog for simulation: what a module computes at an edge is left out while it would change nothing.

Most of a machine waits most of the time, but compiled Verilog computes all of it in every cycle. Here the logic in
front of a module's registers goes into the process that sets them, which runs only when something may have changed.
The module's inputs are kept. When one of them changes, or a register that depends on itself, the change goes through
the other registers from edge to edge: one that lies k registers behind can change k edges later, and at no other time.
Bit k of `idle_active_` is whether something changed k edges ago. So all registers and outputs have the same values in
every cycle as those of the text that was given, and of a pipeline only stages that hold something new are computed.

    always @(posedge clk) begin
      if (idle_0_ != a || idle_1_ != b) begin
        idle_0_ = a; idle_1_ = b;
        idle_active_[0] = 1'd1;
      end
      if (idle_active_ != 0) begin : idle_work_
        idle_now_ = idle_active_;
        idle_active_ = idle_active_ << 1;
        if (idle_now_[5]) begin
          ...
        end
        ...
      end
    end

What an output or a submodule sees without a register in between stays outside.
"""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

__all__ = ["rest_when_idle"]

_MODULE = re.compile(r"^module (\w+) \((.*?)\);\n(.*?)^endmodule\n", re.DOTALL | re.MULTILINE)
_PORT = re.compile(r"^  (input|output) (?:wire|reg) (?:signed )?(?:\[(\d+):0\] )?(\w+)", re.MULTILINE)
_ITEM = re.compile(
    r"^  (?:"
    r"(?P<declaration>(?:\(\* .*? \*\)\n  )?(?:wire|reg) .*;)"
    r"|(?P<initial>initial begin\n(?:    .*\n)*  end)"
    r"|(?P<function>function .*\n(?:    .*\n)*  endfunction)"
    r"|assign (?P<assigned>.*?) = (?P<expression>.*);"
    r"|always @\(posedge (?P<clock>\w+)\)(?P<process>(?: begin\n(?:    .*\n)*  end)|(?:\n    .*)+)"
    r"|(?P<kind>\w+) \w+ \(\n(?P<connections>(?:    .*\n)*)  \);"
    r")\n",
    re.MULTILINE,
)
_DECLARATION = re.compile(r"(?:wire|reg) (?:signed )?(?:\[(\d+):0\] )?(\w+)( \[)?")
_CONNECTION = re.compile(r"^    \.(\w+)\((.*)\),?$", re.MULTILINE)
_SET = re.compile(r"^( *(?:(?:else )?if \(.*?\) |else )?)(\w+)((?: ?\[.*?\])?) <= (.*;)$", re.MULTILINE)
_NO_NAMES = re.compile(r"\(\* .*? \*\)|\d*'s?[bdho]\w+|\$\w+|\b(?:if|else|begin|end)\b")
_REFERENCE = re.compile(r"([A-Za-z_]\w*)(?:\[(\d+)(?::(\d+))?\])?")
_ALL = 1 << 30
_LEAST = 16  # statements of a module for which looking at its inputs pays
_LEAST_STAGE = 6  # statements of a stage for which a condition of their own pays


_WAKE = "idle_active_[0] = 1'd1;"


class _Unsuited(Exception):
    """The module has something that cannot rest, or too little that can."""


@dataclass
class _Node:
    """A statement: what it sets and reads, as (name, first bit, last bit)."""

    text: str
    sets: list
    reads: list
    is_register: bool = False


def rest_when_idle(source):
    """The text of `edgeaccel.verilog.emit` with modules that rest while nothing changes."""
    ports = {
        match[1]: {name: direction for direction, _, name in _PORT.findall(match[2])}
        for match in _MODULE.finditer(source)
    }

    def convert(match):
        try:
            return _Module(match, ports).text()
        except _Unsuited:
            return match[0]

    return _MODULE.sub(convert, source)


class _Module:
    def __init__(self, match, ports):
        self.name, self.header, body = match.groups()
        self.widths = {name: int(last or 0) + 1 for _, last, name in _PORT.findall(self.header)}
        self.inputs = {name for direction, _, name in _PORT.findall(self.header) if direction == "input"}
        self.seen = self.widths.keys() - self.inputs  # from outside, at any time
        self.declarations, self.kept, self.nodes, self.memories = {}, [], [], set()
        clocks = set()
        end = 0
        for item in _ITEM.finditer(body):
            if body[end : item.start()].strip():
                raise _Unsuited
            end = item.end()
            if item["declaration"]:
                self._declare(item["declaration"])
            elif item["assigned"]:
                self.nodes.append(_Node(item[0], _references(item["assigned"]), _references(item["expression"])))
            elif item["clock"]:
                clocks.add(item["clock"])
                self._add_process(item["process"])
            else:
                self.kept.append(item[0])
                if item["kind"]:
                    self._add_instance(item, ports)
        if body[end:].strip() or len(clocks) != 1:
            raise _Unsuited
        self.clock = clocks.pop()
        self.inputs.discard(self.clock)
        self.drivers, self._found, self._open = {}, {}, set()
        for node in self.nodes:
            for part in node.sets:
                self.drivers.setdefault(part[0], []).append((part, node))

    def _declare(self, text):
        last, name, memory = _DECLARATION.search(text).groups()
        self.declarations[name] = text
        self.widths[name] = int(last or 0) + 1
        if memory:
            self.memories.add(name)

    def _add_process(self, text):
        sets = [part for _, name, place, _ in _SET.findall(text) for part in _targets(name, place)]
        if not sets:
            raise _Unsuited
        reads = _references(_SET.sub(lambda s: f"{s[1]}{s[3] if _is_dynamic(s[3]) else ''} {s[4]}", text))
        if text.count("if (") > text.count("else") or sets[0][0] in self.memories:
            reads += sets  # what may keep its value depends on it
        self.nodes.append(_Node(text, sets, reads, is_register=True))

    def _add_instance(self, item, ports):
        if item["kind"] not in ports:
            raise _Unsuited
        for port, expression in _CONNECTION.findall(item["connections"]):
            for part in _references(expression):
                if ports[item["kind"]][port] == "output":
                    self.inputs.add(part[0])
                self.seen.add(part[0])

    def _before(self, part):
        """The statements that set a part of a signal."""
        return [node for other, node in self.drivers.get(part[0], ()) if _overlap(other, part)]

    def text(self):
        registers = [node for node in self.nodes if node.is_register]
        outside = self._outside()
        sources = {id(node): self._sources(node) for node in registers}
        depth, states = self._depths(registers, sources)
        ages = self._ages(registers, sources, states)
        logic = [node for node in self.nodes if not node.is_register and id(node) not in outside]
        inputs = self._ranges({part for found in sources.values() for part in found[1]})
        words = sum((last - first) // 32 + 1 for _, first, last in inputs)
        if len(logic) + len(registers) < max(_LEAST, 2 * words):
            raise _Unsuited

        edges = max(ages.values(), default=1).bit_length()
        lines, extra = [], []  # lines: (when they are needed, text)
        done = dict.fromkeys(outside)
        for node in sorted(registers, key=lambda node: (-depth.get(id(node), _ALL), ages[id(node)])):
            self._logic(node, ages, done, lines)
            name = node.sets[0][0]
            if id(node) not in states:
                # Whoever reads it has read it; those outside see it change with all others.
                text = node.text if name in self.seen else _SET.sub(r"\1\2\3 = \4", node.text)
                work = self._process(text)
            elif name in self.memories:
                work = self._process(_SET.sub(rf"\1begin \2\3 <= \4 {_WAKE} end", node.text))
            else:
                work = self._state(node, extra)
            lines += [(ages[id(node)], line) for line in work]
        keep, changed, take = [], [], []
        for n, (name, first, last) in enumerate(inputs):
            part = name if (first, last) == (0, self.widths[name] - 1) else f"{name}[{last}:{first}]"
            keep.append(f"  reg [{last - first}:0] idle_{n}_ = 0;\n")
            changed.append(f"idle_{n}_ != {part}")
            take.append(f"      idle_{n}_ = {part};\n")
        inner = {part[0] for node in logic for part in node.sets}
        return (
            f"module {self.name} ({self.header});\n"
            + "".join(f"  {text}\n" for name, text in self.declarations.items() if name not in inner)
            + "".join(keep)
            + f"  reg [{edges - 1}:0] idle_active_ = {{{edges}{{1'd1}}}};\n"
            # Verilator makes variables of C++ of these; those that are declared where they are used it would set to 0.
            + f"  reg [{edges - 1}:0] idle_now_;\n"
            + "".join(extra)
            + "".join(
                f"  {text.replace('wire', 'reg', 1)}\n"
                for name, text in self.declarations.items()
                if name in inner & {part[0] for node in done.values() if node for part in node.sets}
            )
            + "".join(node.text for node in self.nodes if id(node) in outside)
            + "".join(self.kept)
            + f"  always @(posedge {self.clock}) begin\n"
            + (f"    if ({' || '.join(changed)}) begin\n" if changed else "")
            + ("".join(take) + f"      {_WAKE}\n    end\n" if changed else "")
            + f"    if (idle_active_ != {edges}'d0) begin : idle_work_\n"
            + "      idle_now_ = idle_active_;\n"
            + f"      idle_active_ = idle_active_ << {edges}'d1;\n"
            + "".join(_when_active(lines, edges))
            + "    end\n  end\nendmodule\n"
        )

    def _outside(self):
        """Statements that an output or a submodule sees without a register in between; what they read is `seen`."""
        found = set()
        waiting = list(self.seen)
        names = set()
        while waiting:
            name = waiting.pop()
            if name in names:
                continue
            names.add(name)
            for _, node in self.drivers.get(name, ()):
                if not node.is_register and id(node) not in found:
                    found.add(id(node))
                    waiting += [part[0] for part in node.reads + node.sets]
        self.seen |= names
        return found

    def _sources(self, node):
        """The registers, by id, and the parts of inputs that a statement depends on through logic."""
        if id(node) in self._found:
            return self._found[id(node)]
        if id(node) in self._open:
            raise _Unsuited  # a loop, for whoever does not look at single bits
        self._open.add(id(node))
        registers, inputs = set(), set()
        for part in node.reads:
            if part[0] in self.inputs:
                inputs.add(part)
            for before in self._before(part):
                if before.is_register:
                    registers.add(id(before))
                else:
                    others, parts = self._sources(before)
                    registers |= others
                    inputs |= parts
        self._found[id(node)] = registers, inputs
        return registers, inputs

    def _depths(self, registers, sources):
        """Edges until a register rests, for those that do not depend on themselves; and the ids of the others."""
        after = {id(node): sources[id(node)][0] for node in registers}
        states = {node for component in _components(after) for node in component}
        states |= {id(node) for node in registers if node.sets[0][0] in self.memories}
        depth = {}

        def visit(node):
            if node not in depth:
                depth[node] = 1 + max((visit(other) for other in after[node] if other not in states), default=0)
            return depth[node]

        for node in after:
            if node not in states:
                visit(node)
        return depth, states

    def _ages(self, registers, sources, states):
        """When a statement is needed, by id: bit k is set if what it sees can have changed k edges ago.

        Stages of few statements are always needed, and logic whenever one who reads it is.
        """
        found = {}

        def visit(node):
            if id(node) not in found:
                others, inputs = sources[id(node)]
                direct = bool(inputs) or not others
                ages = 0
                for other in others:
                    if other in states:
                        direct = True
                    else:
                        ages |= visit(by_id[other]) << 1
                found[id(node)] = ages | direct
            return found[id(node)]

        by_id = {id(node): node for node in registers}
        for node in registers:
            visit(node)
        always = 0
        for ages in found.values():
            always |= ages
        found = self._with_logic(registers, found)
        sizes = Counter(found.values())
        few = {id(node): always for node in registers if sizes[found[id(node)]] < _LEAST_STAGE}
        return self._with_logic(registers, {id(node): found[id(node)] for node in registers} | few)

    def _with_logic(self, registers, ages):
        """`ages` of registers, and of the logic in front of them."""
        found = dict(ages)

        def visit(node, age):
            for part in node.reads:
                for before in self._before(part):
                    if not before.is_register and found.get(id(before), 0) | age != found.get(id(before), 0):
                        found[id(before)] = found.get(id(before), 0) | age
                        visit(before, found[id(before)])

        for node in registers:
            visit(node, ages[id(node)])
        return found

    def _ranges(self, parts):
        """The parts of inputs as few ranges, in the order of their names."""
        bits = {}
        for name, first, last in parts:
            bits.setdefault(name, set()).update(range(first, min(last, self.widths[name] - 1) + 1))
        ranges = []
        for name in sorted(bits):
            for bit in sorted(bits[name]):
                if ranges and ranges[-1][0] == name and ranges[-1][2] == bit - 1:
                    ranges[-1] = name, ranges[-1][1], bit
                else:
                    ranges.append((name, bit, bit))
        return ranges

    def _logic(self, node, ages, done, lines):
        for part in node.reads:
            for before in self._before(part):
                if not before.is_register and id(before) not in done:
                    done[id(before)] = before
                    self._logic(before, ages, done, lines)
                    lines.append((ages[id(before)], "    " + before.text.strip().removeprefix("assign ")))

    def _process(self, text):
        text = text.removeprefix(" begin\n").removesuffix("  end") if text.startswith(" begin") else text
        return text.strip("\n").splitlines()

    def _state(self, node, extra):
        """A register that depends on itself: if it changes, what sees it does not rest."""
        names = list(dict.fromkeys(part[0] for part in node.sets))
        lines = []
        after = []
        text = node.text
        for name in names:
            following = f"idle_next_{len(extra)}_"
            extra.append(f"  reg [{self.widths[name] - 1}:0] {following};\n")
            place = next(_place(part) for part in node.sets if part[0] == name)
            lines.append(f"    {following} = {name};")
            text = _SET.sub(
                lambda s, name=name, following=following: f"{s[1]}{following}{s[3]} = {s[4]}" if s[2] == name else s[0],
                text,
            )
            after.append(f"    if ({following} != {name}) {_WAKE}")
            after.append(f"    {name}{place} <= {following}{place};")
        return [*lines, *self._process(text), *after]


def _when_active(lines, edges):
    """The lines, those of a stage together under its condition."""
    for ages, group in groupby(lines, key=lambda line: line[0]):
        texts = [text for _, text in group]
        if ages == (1 << edges) - 1:
            yield from (f"  {text}\n" for text in texts)
        else:
            one = ages & (ages - 1) == 0
            condition = f"idle_now_[{ages.bit_length() - 1}]" if one else f"(idle_now_ & {edges}'d{ages}) != {edges}'d0"
            yield f"      if ({condition}) begin\n"
            yield from (f"    {text}\n" for text in texts)
            yield "      end\n"


def _references(expression):
    return [
        (name, int(last or first), int(first)) if first else (name, 0, _ALL)
        for name, first, last in _REFERENCE.findall(_NO_NAMES.sub(" ", expression))
    ]


def _is_dynamic(place):
    return bool(re.search(r"[A-Za-z_]", place))


def _targets(name, place):
    return [(name, 0, _ALL)] if _is_dynamic(place) or not place else _references(name + place.strip())


def _place(part):
    return "" if part[2] == _ALL else f"[{part[2]}:{part[1]}]"


def _overlap(a, b):
    return a[1] <= b[2] and b[1] <= a[2]


def _components(after):
    """Sets of nodes of a graph that depend on themselves (R. Tarjan, 1972)."""
    number, low, stack, found = {}, {}, [], []

    def visit(node):
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in after[node]:
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            component = set()
            while node not in component:
                component.add(stack.pop())
            if len(component) > 1 or node in after[node]:
                found.append(component)

    for node in after:
        if node not in number:
            visit(node)
    return found
