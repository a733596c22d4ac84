"""The fast bench: a component's emitted Verilog with memories, streams and clocks around it, all of it in C++.

One call runs a whole operator: contents of memories go in as NumPy arrays; results, cycles and counters come out.
`edgeaccel.sim.bench` does the same for components that have nothing but streams, in three engines.
"""

import ctypes
import functools
import math
import time
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data, stream, wiring

from edgeaccel.memory import axi
from edgeaccel.sim.bench import StreamError
from edgeaccel.sim.memory import CModel, MemoryModel
from edgeaccel.sim.payload import decode, encode, row_bytes
from edgeaccel.verilated import build_library
from edgeaccel.verilog import emit

__all__ = ["Memory", "PortRun", "SystemRun", "Traffic", "build", "harness", "run"]

SOURCE = Path(__file__).parent
BUILD = Path("build/verilated").absolute()
QUIET_CYCLES = 50

_CHANNELS = {"ar": ("id", "addr", "len", "size", "burst"), "r": ("id", "data", "resp", "last")}
_CHANNELS |= {"aw": _CHANNELS["ar"], "w": ("data", "strb", "last"), "b": ("id", "resp")}
_BURST = np.dtype([("cycle", np.int64), ("address", np.uint64), ("beats", np.uint64), ("write", np.uint64)])


@dataclass(kw_only=True)
class Memory:
    """What is behind an AXI port.

    Attributes
    ----------
    model : MemoryModel
        Its `data_width` is that of the port; its clock is the port's, whatever `mhz` says.
    content : uint8 array
        Changed in place by writes. Whole beats. Several ports may share it; each has its own timing.
    base : int
        Address of the first byte, at a whole beat. Beats outside are answered with DECERR.
    errors : list of (start, stop, response)
        Beats that touch an address in start..stop-1 are answered with "SLVERR" or "DECERR", and not written.
    first_refresh : int
        Cycle of the first refresh; `refresh_interval` by default.
    """

    model: MemoryModel
    content: np.ndarray
    base: int = 0
    errors: list = field(default_factory=list)
    first_refresh: int | None = None


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One direction of a port.

    Attributes
    ----------
    bursts : array of (cycle, address, beats, write)
        In the order of service. The cycle is that of the address, or of the last beat of a write.
    beats : int
    first, last : int
        Cycles in which the first and the last beat were taken; -1 if there was none.
    stalls, address_stalls : int
        Cycles in which a beat, or an address, was offered and not taken.
    cycles : int64 array
        For each burst those of its beats if `record` was set, or of its answer.
    """

    bursts: np.ndarray
    beats: int
    first: int
    last: int
    stalls: int
    address_stalls: int
    cycles: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PortRun:
    """What went through a port.

    Attributes
    ----------
    reads, writes : Traffic
    deliverable : int
        `MemoryModel.deliverable` of the reads, from the first beat to the last.
    past_end : int
        Beats outside of the memory.
    """

    reads: Traffic
    writes: Traffic
    deliverable: int
    past_end: int

    @property
    def beat_share(self):
        """Share of the deliverable beats that were consumed, from the first to the last."""
        return self.reads.beats / self.deliverable


@dataclass(frozen=True, kw_only=True)
class SystemRun:
    """What a run gave.

    Attributes
    ----------
    results : dict
        For each output stream its items, as `edgeaccel.sim.payload.decode` gives them.
    cycles : dict of str to int64 array
        For each stream the cycles of its transfers, in its clock.
    ports : dict of str to PortRun
    outputs : dict
        Values of the plain outputs at the end.
    n_cycles : dict of str to int
        For each domain the cycles that were simulated.
    seconds : float
        How long that took.
    """

    results: dict
    cycles: dict
    ports: dict
    outputs: dict
    n_cycles: dict
    seconds: float


def run(
    component,
    *,
    streams=None,
    n_results=0,
    memories=None,
    inputs=None,
    until=None,
    clocks=None,
    domains=None,
    stalls=None,
    check=True,
    record=False,
    max_cycles=1 << 40,
    hang_cycles=20_000,
    optimise="-O0",
):
    """Simulate a component from reset until all items are through and all memories are idle.

    Members are named as in the component's signature, with two underscores between the parts (`o__0`), or one before
    the index of an AXI interface (`m_axi_0`). Cycles are those of the member's clock, counted from the first edge after
    reset, which all clocks have together.

    Parameters
    ----------
    component : wiring.Component
        Its members are streams, AXI masters and plain ports, or arrays of them.
    streams : dict
        For each input stream its items, as `sim.payload.encode` takes them; none by default. Of a plain payload with
        more than 64 bits these are rows of bytes, the lowest first, here and in what comes out.
    n_results : int or dict of str to int
        Items expected from the output streams.
    memories : dict of str to Memory
        One for each AXI interface.
    inputs : dict
        Values of plain inputs, or dicts from cycles to values; 0 by default.
    until : (str, value)
        A plain output that must have this value in the end.
    clocks : dict of str to number
        Frequencies of the domains, integers or fractions, in any unit; all the same by default.
    domains : dict of str to str
        Clock domains of members. By default AXI interfaces are in the last of the component's `domains`, and all else
        in the first.
    stalls : dict of str to bool array
        Stall patterns, as `edgeaccel.golden.timing` defines them, of streams and of AXI channels (`m_axi_r`).
    check : bool
        Whether to hold `valid` against changes of `ready`, for one more evaluation a cycle. That offers stand until
        they are taken, and that bursts are legal, is always checked.
    record : bool
        Whether to keep the cycle of each beat read.
    max_cycles : int
        Cycles of the first domain after which the bench gives up.
    hang_cycles : int
        The same, without any transfer.
    optimise : str
        Optimisation of g++: "-O1" takes three times as long to compile and pays from some 500,000 cycles on.

    Returns
    -------
    SystemRun

    Raises
    ------
    ValueError
        If a name is unknown, a memory is missing or does not fit.
    StreamError
        If the component breaks the contract of a stream or of AXI, or a limit is reached.
    """
    members = _Members(component)
    given = (
        ("streams", streams, members.sources),
        ("n_results", n_results if isinstance(n_results, dict) else None, members.sinks),
        ("memories", memories, members.ports),
        ("inputs", inputs, members.inputs),
        ("until", dict([until]) if until else None, members.outputs),
        ("clocks", clocks, members.domains),
        ("domains", domains, [*members.sources, *members.sinks, *members.ports, *members.inputs]),
        ("stalls", stalls, [*members.sources, *members.sinks, *members.channels()]),
    )
    for what, names, known in given:
        if unknown := set(names or ()) - set(known):
            raise ValueError(f"{what} has no {', '.join(sorted(unknown))}; there are: {', '.join(known) or 'none'}")
    if missing := members.ports.keys() - (memories or {}).keys():
        raise ValueError(f"no memory for {', '.join(sorted(missing))}")
    library = build(component, optimise=optimise)
    call = _Call(members, domains or {}, stalls or {})
    system = call.system(streams or {}, n_results, memories or {}, inputs or {}, until, clocks or {}, record)
    system.max_cycles, system.hang_cycles, system.quiet_cycles = max_cycles, hang_cycles, QUIET_CYCLES
    system.check = check
    start = time.perf_counter()
    outcome = library.run(ctypes.byref(system))
    seconds = time.perf_counter() - start
    try:
        if outcome:
            raise StreamError(call.message(outcome, system))
        return call.result(system, seconds)
    finally:
        library.release(ctypes.byref(system))


@functools.cache
def build(component, *, optimise="-O0"):
    """The compiled bench of a component, a `ctypes.CDLL`."""
    text = harness(_Members(component).pins(), "system.cpp")
    return ctypes.CDLL(build_library(emit(component, "dut"), "dut", text, BUILD, optimise=optimise))


def harness(pins, main):
    """C++ text of a bench: what drives clocks and memories, then the file `main`, which takes `pins` in this order."""
    pins = ",\n        ".join(f"PIN({_c_name(name)})" for name in pins)
    return (
        '#include "Vtop.h"\n#include "verilated.h"\n'
        + "".join((SOURCE / name).read_text() for name in ("memory.h", "memory.cpp"))
        + "#define PIN(name) {reinterpret_cast<uint8_t *>(&top.name), sizeof(top.name)}\n"
        + f"static Pins list_pins(Vtop &top) {{\n    return Pins({{\n        {pins}}});\n}}\n"
        + "".join((SOURCE / name).read_text() for name in ("clocks.h", main))
    )


def _c_name(port):
    """What Verilator calls a port in C++, where `interrupt` is too common a word."""
    return "__SYM__interrupt" if port == "interrupt" else port.replace("__", "___05F")


class _Members:
    """A component's members by kind and name, and their pins in the order in which the C++ takes them."""

    def __init__(self, component):
        self.domains = getattr(component, "domains", ("sync",))
        self.inputs, self.outputs, self.sources, self.sinks, self.ports = {}, {}, {}, {}, {}
        self._add(component.signature, ())

    def _add(self, signature, path):
        for name, member in signature.members.items():
            for index in np.ndindex(*member.dimensions):
                self._add_one(member, (*path, name, *index))

    def _add_one(self, member, path):
        name = "__".join(map(str, path))
        if member.is_port:
            (self.inputs if member.flow == wiring.In else self.outputs)[name] = _layout(member.shape)
        elif isinstance(member.signature, stream.Signature):
            ends = self.sources if member.flow == wiring.In else self.sinks
            ends[name] = _layout(member.signature.members["payload"].shape)
        elif isinstance(member.signature, axi.Signature):
            if member.flow == wiring.In:
                raise ValueError(f"{name} is an AXI slave, and this bench only has memories")
            self.ports["_".join(map(str, path))] = member.signature
        else:
            self._add(member.signature, path)

    def channels(self, port=None):
        """Names of the AXI channels of a port, or of all."""
        names = []
        for name, signature in self.ports.items():
            if port in (None, name):
                names += [f"{name}_{channel}" for channel in (("ar", "r") if signature.read else ())]
                names += [f"{name}_{channel}" for channel in (("aw", "w", "b") if signature.write else ())]
        return names

    def pins(self):
        for domain in self.domains:
            prefix = "" if domain == "sync" else f"{domain}_"
            yield from (f"{prefix}clk", f"{prefix}rst")
        yield from self.inputs
        yield from self.outputs
        for name in (*self.sources, *self.sinks):
            yield from (f"{name}__valid", f"{name}__ready", f"{name}__payload")
        for channel in self.channels():
            fields = _CHANNELS[channel.rpartition("_")[2]]
            yield from (f"{channel}{part}" for part in ("valid", "ready", *fields))


class _CPattern(ctypes.Structure):
    _fields_ = (("open", ctypes.c_void_p), ("cycles", ctypes.c_uint64))


class _CDomain(ctypes.Structure):
    _fields_ = (("period", ctypes.c_int64), ("cycles", ctypes.c_int64))


class _CChange(ctypes.Structure):
    _fields_ = (("cycle", ctypes.c_int64), ("input", ctypes.c_uint64), ("value", ctypes.c_void_p))


class _CInput(ctypes.Structure):
    _fields_ = (("domain", ctypes.c_uint64), ("changes", ctypes.POINTER(_CChange)), ("n_changes", ctypes.c_uint64))


class _CStream(ctypes.Structure):
    _fields_ = (
        ("domain", ctypes.c_uint64),
        ("rows", ctypes.c_void_p),
        ("n_rows", ctypes.c_uint64),
        ("pattern", _CPattern),
        ("transferred", ctypes.c_void_p),
        ("n_transferred", ctypes.c_uint64),
    )


class _CErrorRange(ctypes.Structure):
    _fields_ = (("start", ctypes.c_uint64), ("stop", ctypes.c_uint64), ("response", ctypes.c_uint64))


class _CCounters(ctypes.Structure):
    _fields_ = (
        ("bursts", ctypes.c_uint64),
        ("beats", ctypes.c_uint64),
        ("first", ctypes.c_int64),
        ("last", ctypes.c_int64),
        ("stalls", ctypes.c_uint64),
        ("address_stalls", ctypes.c_uint64),
    )


class _CPort(ctypes.Structure):
    _fields_ = (
        ("model", CModel),
        ("first_refresh", ctypes.c_int64),
        ("content", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("base", ctypes.c_uint64),
        ("errors", ctypes.POINTER(_CErrorRange)),
        ("n_errors", ctypes.c_uint64),
        *((channel, _CPattern) for channel in ("ar", "r", "aw", "w", "b")),
        *((name, ctypes.c_uint64) for name in ("domain", "reads", "writes", "record")),
        ("read", _CCounters),
        ("write", _CCounters),
        ("deliverable", ctypes.c_uint64),
        ("past_end", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("read_bursts", "write_bursts", "read_cycles", "answer_cycles")),
        ("n_read_cycles", ctypes.c_uint64),
        ("n_answer_cycles", ctypes.c_uint64),
    )


class _CSystem(ctypes.Structure):
    _fields_ = (
        ("domains", ctypes.POINTER(_CDomain)),
        ("inputs", ctypes.POINTER(_CInput)),
        ("outputs", ctypes.POINTER(ctypes.c_void_p)),
        ("sources", ctypes.POINTER(_CStream)),
        ("sinks", ctypes.POINTER(_CStream)),
        ("ports", ctypes.POINTER(_CPort)),
        *((f"n_{name}", ctypes.c_uint64) for name in ("domains", "inputs", "outputs", "sources", "sinks", "ports")),
        ("until", ctypes.c_uint64),
        ("until_value", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("max_cycles", "hang_cycles", "quiet_cycles")),
        ("check", ctypes.c_uint64),
        ("culprit", ctypes.c_uint64),
        ("culprit_domain", ctypes.c_uint64),
        ("bench", ctypes.c_void_p),
    )


class _Call:
    """The structures of one call, and the arrays that they point to."""

    def __init__(self, members, domains, stalls):
        self.members = members
        self.stalls = stalls
        self.kept = []
        names = [*members.inputs, *members.sources, *members.sinks]
        self.domain_of = dict.fromkeys(names, members.domains[0]) | dict.fromkeys(members.ports, members.domains[-1])
        self.domain_of |= domains
        if unknown := set(self.domain_of.values()) - set(members.domains):
            raise ValueError(f"no clock domain {', '.join(unknown)}; there are: {', '.join(members.domains)}")

    def system(self, streams, n_results, memories, inputs, until, clocks, record):
        members = self.members
        counts = n_results if isinstance(n_results, dict) else dict.fromkeys(members.sinks, n_results)
        self.rows = {name: _encode(shape, streams[name]) for name, shape in members.sources.items() if name in streams}
        for name, shape in (members.sources | members.sinks).items():
            if name not in self.rows:
                self.rows[name] = np.zeros((counts.get(name, 0), _bytes(shape)), np.uint8)
        self.transferred = {name: np.zeros(len(rows), np.int64) for name, rows in self.rows.items()}
        self.outputs = {name: np.zeros(_bytes(shape), np.uint8) for name, shape in members.outputs.items()}
        system = _CSystem()
        self._set(system, "domains", [_CDomain(period, 0) for period in _periods(members.domains, clocks)])
        self._set(system, "inputs", [self._input(name, inputs.get(name, {})) for name in members.inputs])
        self._set(system, "outputs", [self._keep(array).ctypes.data for array in self.outputs.values()])
        self._set(system, "sources", [self._stream(name) for name in members.sources])
        self._set(system, "sinks", [self._stream(name) for name in members.sinks])
        self._set(system, "ports", [self._port(name, memories[name], record) for name in members.ports])
        system.until = system.n_outputs
        if until:
            system.until = list(members.outputs).index(until[0])
            system.until_value = self._value(members.outputs[until[0]], until[1])
        return system

    def message(self, outcome, system):
        given = [name for name in self.members.channels() if not name.endswith(("_r", "_b"))]
        sinks = [*self.members.sinks, *given]
        ports = list(self.members.ports)
        cycle = system.domains[system.culprit_domain].cycles
        if outcome in (1, 2):
            ends = zip([*self.members.sources, *self.members.sinks], self._streams(system), strict=True)
            progress = [f"{name} {end.n_transferred} of {end.n_rows}" for name, end in ends]
            for name, port in zip(ports, system.ports[: system.n_ports], strict=True):
                progress.append(f"{name} {port.read.beats} beats read, {port.write.beats} written")
            reason = "not finished" if outcome == 1 else "nothing moves any more"
            return f"{reason} after {system.domains[0].cycles} cycles: {', '.join(progress)}"
        return f"cycle {cycle}: " + {
            3: lambda n: f"{sinks[n]} gave more than the {len(self.rows[sinks[n]])} results expected",
            4: lambda n: f"{sinks[n]} changed what it offered before it was taken",
            5: lambda n: f"valid of {sinks[n]} waits for ready",
            6: lambda n: f"{ports[n]} asked for a burst that is not INCR, not of full beats, or crosses 4 KiB",
            7: lambda n: f"{ports[n]} marked the wrong beat of a write as the last",
        }[outcome](system.culprit)

    def result(self, system, seconds):
        members = self.members
        return SystemRun(
            results={name: _decode(shape, self.rows[name]) for name, shape in members.sinks.items()},
            cycles=self.transferred,
            ports={
                name: _port_run(port) for name, port in zip(members.ports, system.ports[: system.n_ports], strict=True)
            },
            outputs={name: _item(_decode(shape, self.outputs[name][None])) for name, shape in members.outputs.items()},
            n_cycles={name: domain.cycles for name, domain in zip(members.domains, system.domains, strict=False)},
            seconds=seconds,
        )

    def _streams(self, system):
        return [*system.sources[: system.n_sources], *system.sinks[: system.n_sinks]]

    def _keep(self, value):
        self.kept.append(value)
        return value

    def _set(self, system, name, items):
        pointer = dict(_CSystem._fields_)[name]
        setattr(system, name, self._keep((pointer._type_ * len(items))(*items)))
        setattr(system, f"n_{name}", len(items))

    def _domain(self, name):
        return self.members.domains.index(self.domain_of[name])

    def _pattern(self, name):
        pattern = self._keep(np.ascontiguousarray(self.stalls.get(name, ()), dtype=bool))
        return _CPattern(pattern.ctypes.data, len(pattern))

    def _value(self, shape, value):
        if isinstance(value, dict):
            value = {name: np.asarray([part]) for name, part in value.items()}
        else:
            value = np.asarray([value])
        return self._keep(_encode(shape, value)).ctypes.data

    def _input(self, name, values):
        shape = self.members.inputs[name]
        is_schedule = isinstance(values, dict) and all(isinstance(cycle, int) for cycle in values)
        schedule = values if is_schedule else {0: values}
        changes = [_CChange(cycle, 0, self._value(shape, value)) for cycle, value in sorted(schedule.items())]
        return _CInput(self._domain(name), self._keep((_CChange * len(changes))(*changes)), len(changes))

    def _stream(self, name):
        rows, transferred = self.rows[name], self.transferred[name]
        return _CStream(
            self._domain(name), rows.ctypes.data, len(rows), self._pattern(name), transferred.ctypes.data, 0
        )

    def _port(self, name, memory, record):
        signature = self.members.ports[name]
        model, content = memory.model, memory.content
        if model.data_width != signature.data_width:
            raise ValueError(f"{name} has {signature.data_width} bits, and its memory {model.data_width}")
        if (
            content.dtype != np.uint8
            or content.ndim != 1
            or not content.flags.c_contiguous
            or not content.flags.writeable
        ):
            raise ValueError(f"the memory of {name} must be a writeable, contiguous array of bytes")
        if len(content) % model.beat_bytes or memory.base % model.beat_bytes:
            raise ValueError(f"the memory of {name} must start and end at whole beats of {model.beat_bytes} bytes")
        errors = [_CErrorRange(start, stop, axi.Response[response].value) for start, stop, response in memory.errors]
        port = _CPort(
            model=model.to_c(),
            first_refresh=model.refresh_interval if memory.first_refresh is None else memory.first_refresh,
            content=self._keep(content).ctypes.data,
            bytes=len(content),
            base=memory.base,
            errors=self._keep((_CErrorRange * len(errors))(*errors)),
            n_errors=len(errors),
            domain=self._domain(name),
            reads=signature.read,
            writes=signature.write,
            record=record,
        )
        for channel in self.members.channels(name):
            setattr(port, channel.rpartition("_")[2], self._pattern(channel))
        return port


def _encode(shape, values):
    """Rows of bytes; what is plain and wider than 64 bits is given as bytes already."""
    if not _is_wide(shape):
        return encode(shape, values)
    rows = np.zeros((len(values), _bytes(shape)), np.uint8)
    rows[:, : values.shape[1]] = values
    return rows


def _decode(shape, rows):
    return rows[:, : -(-Shape.cast(shape).width // 8)] if _is_wide(shape) else decode(shape, rows)


def _is_wide(shape):
    return not isinstance(shape, data.Layout) and Shape.cast(shape).width > 64


def _layout(shape):
    """The layout of a `data.Struct`; any other shape as it is."""
    return data.Layout.cast(shape) if isinstance(shape, type) and issubclass(shape, data.View) else shape


def _bytes(shape):
    return row_bytes(Shape.cast(shape).width)


def _periods(domains, clocks):
    """Periods of the clocks as integers, in the largest unit in which they are."""
    periods = [1 / Fraction(clocks.get(domain, 1)) for domain in domains]
    unit = math.lcm(*(period.denominator for period in periods))
    periods = [int(period * unit) for period in periods]
    return [period // math.gcd(*periods) for period in periods]


def _port_run(port):
    def bursts(pointer, n):
        return _copy(pointer, n, _BURST)

    def traffic(counters, log, cycles):
        names = ("beats", "first", "last", "stalls", "address_stalls")
        return Traffic(bursts=log, cycles=cycles, **{name: getattr(counters, name) for name in names})

    return PortRun(
        reads=traffic(
            port.read,
            bursts(port.read_bursts, port.read.bursts),
            _copy(port.read_cycles, port.n_read_cycles, np.int64),
        ),
        writes=traffic(
            port.write,
            bursts(port.write_bursts, port.n_answer_cycles),
            _copy(port.answer_cycles, port.n_answer_cycles, np.int64),
        ),
        deliverable=port.deliverable,
        past_end=port.past_end,
    )


def _copy(pointer, n, dtype):
    """The `n` items at an address of C++, as an array of our own."""
    n_bytes = n * np.dtype(dtype).itemsize
    return np.frombuffer(ctypes.string_at(pointer, n_bytes) if n_bytes else b"", dtype).copy()


def _item(value):
    """The only item of a decoded payload."""
    return {name: _item(part) for name, part in value.items()} if isinstance(value, dict) else value[0]
