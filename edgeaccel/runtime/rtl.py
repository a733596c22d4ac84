"""The emitted Verilog as a device: compiled, with memories and a host around it."""

import functools
import mmap

import numpy as np

from edgeaccel.machine import DATA_BYTES, Machine
from edgeaccel.runtime.device import check_run
from edgeaccel.runtime.host import RegisterHost
from edgeaccel.sim.device import Simulation, masters, outputs, write_timeline
from edgeaccel.sim.memory import DDR4_2400, HBM2, IDEAL
from edgeaccel.sim.system import Memory
from edgeaccel.soc.register_map import register_map

__all__ = ["MEMORIES", "RtlDevice"]

MEMORIES = {"ideal": IDEAL, "hbm2": HBM2, "ddr4": DDR4_2400}

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # not every Python knows its name; Linux has this number
_POLL_CYCLES = 64  # a batch takes far more, and so does what the next one changes in memory
_SETTLE_CYCLES = 32
_SLICE_CYCLES = 1 << 18  # so that Python gets to see an interrupt from the keyboard


class RtlDevice(RegisterHost):
    """A `Device` that simulates the Verilog of a machine, with all its registers, clocks and memories.

    The masters ``m_axi_0``, ``m_axi_1`` ... see the memory of their port from 0 on; all others see all memory by its
    global address. The former and `m_axi_scales` are in the domain `port` if the top level has one.

    Parameters
    ----------
    machine : Machine
    memory : str, MemoryModel or dict of str to MemoryModel
        Timing of the memories: a name of `MEMORIES`, or a model, for all masters, or models by master. They are scaled
        to the masters' widths.
    clocks : dict of str to number
        Frequencies of the domains; by default those of the configuration.
    checks : bool
        Whether AXI and register accesses are checked for offers that change or wait for `ready`.
    component : wiring.Component
        `edgeaccel.soc.soc.SoC(machine)` by default. Its `map` is its `RegisterMap`.
    errors : dict of str to list of (start, stop, response)
        For masters, addresses that are answered with "SLVERR" or "DECERR".
    stalls : dict of str to bool array
        For channels of masters (`m_axi_0_r`), when they may transfer.
    data_bytes : int
        Memory behind the ports'.
    content : uint8 array, optional
        All memory, by global address, in place of one that is all zeros: of a file that others see too, for example.
        Then `load` changes only what the image fills.
    watch : bool
        Whether changes of all plain outputs are kept, for `write_timeline`.
    vcd : bool
        Whether waveforms can be written.
    optimise : str
        Optimisation of g++.
    max_cycles : int
        Cycles after which a run is given up.
    hang_cycles : int
        Cycles without any transfer of a memory, after which a run is given up.

    Members
    -------
    simulation : Simulation
    registers : RegisterMap
    memory : uint8 array
        All memory, by global address.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        memory="ideal",
        clocks=None,
        checks=False,
        component=None,
        errors=None,
        stalls=None,
        data_bytes=DATA_BYTES,
        content=None,
        watch=False,
        vcd=False,
        optimise="-O1",
        max_cycles=1 << 40,
        hang_cycles=200_000,
    ):
        identity = None
        if component is None:
            identity = repr(machine)
            component = _soc(machine)
        self.machine = machine
        self.registers = getattr(component, "map", None) or register_map(machine)
        self.max_cycles, self.hang_cycles = max_cycles, hang_cycles
        self._bits = getattr(component, "bit_names", {})
        self._map = None
        if content is None:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
            content = self._map = mmap.mmap(-1, machine.data_base + data_bytes, flags=flags)
        self.memory = np.frombuffer(content, np.uint8)
        domains = getattr(component, "domains", ("sync",))
        mhz = {"sync": machine.config.core_mhz, "port": machine.config.port_mhz}
        signatures = masters(component)
        self._array = {name for name in signatures if name.removeprefix("m_axi_").isdigit()}
        memories = {}
        for name, signature in signatures.items():
            model = memory.get(name, IDEAL) if isinstance(memory, dict) else memory
            model = MEMORIES[model] if isinstance(model, str) else model
            memories[name] = Memory(
                model=model.with_width(signature.data_width),
                content=self._seen(name),
                errors=(errors or {}).get(name, []),
            )
        self._mhz = (clocks or mhz)["sync"]
        self.simulation = Simulation(
            component,
            memories,
            clocks=clocks or {domain: mhz[domain] for domain in domains},
            domains=dict.fromkeys(self._array | (signatures.keys() & {"m_axi_scales"}), domains[-1]),
            stalls=stalls,
            check=checks,
            watch=outputs(component) if watch else (),
            vcd=vcd,
            optimise=optimise,
            identity=identity,
        )
        self._image = None
        self._is_stopped = False

    def _seen(self, name):
        """What a master sees."""
        if name not in self._array:
            return self.memory
        begin = int(name.removeprefix("m_axi_")) * self.machine.port_bytes
        return self.memory[begin : begin + self.machine.port_bytes]

    # What all devices have.

    def load(self, image):
        if image.machine != self.machine:
            raise ValueError("the image is for another machine; compile the model for this one")
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)  # all zeros again
        self._image = image
        for address, data in image.pieces():
            self.write(address, data)
        self.write(image.program_address, np.frombuffer(image.program, np.uint8))
        self.reset()

    def run(self, position, prompt, limit, on_batch=None):
        """As of `Device`.

        Raises
        ------
        StreamError
            If the machine breaks the contract of AXI.
        """
        check_run(self.machine, position, prompt, limit)
        if self._image is None:
            raise ValueError("no image is loaded")
        self._is_stopped = False
        self._start(position, prompt, limit)
        problem = self._wait(position, prompt, on_batch)
        return self._stop(problem)

    def stop(self):
        self._is_stopped = True

    def read(self, address, n_bytes):
        self._check(address, n_bytes)
        return self.memory[address : address + n_bytes].copy()

    def write(self, address, data):
        self._check(address, len(data))
        self.memory[address : address + len(data)] = data

    def counters(self):
        """Cycles, counters of the machine by their names, and for each master what `Simulation.counters` tells."""
        counted = {"cycles": self.cycles, "ports": self.traffic()}
        for register in self.registers.registers:
            if register.name.startswith("counter_"):
                counted[register.name.removeprefix("counter_")] = self.simulation.read(register.offset)
        return counted

    def reset(self):
        self.simulation.reset()
        self._must_clear = False

    # What only RTL has.

    @property
    def cycles(self):
        """Of the first clock, since the last `load` or `reset`."""
        return self.simulation.cycles

    def settle(self):
        """Let some cycles pass, for what is on its way to memory while `on_batch` is called: the last logits."""
        self.simulation.run(_SETTLE_CYCLES, until_interrupt=False)

    def mark(self):
        """Where the counters of the ports stand."""
        return self.simulation.mark()

    def traffic(self, since=None, until=None):
        """As `Simulation.counters`, with `is_array`: whether a master fetches tiles for the array."""
        counted = self.simulation.counters(since=since, until=until)
        return {name: counts | {"is_array": name in self._array} for name, counts in counted.items()}

    def write_timeline(self, path):
        """Write when the outputs that are watched were up, and when memories were busy, for Perfetto."""
        named = {}
        for name, spans in self.simulation.intervals().items():
            output, _, bit = name.partition(".")
            named[self._bits[output][int(bit)] if bit and output in self._bits else name] = spans
        write_timeline(named | self.simulation.bursts(), path, mhz=self._mhz)

    def write_vcd(self, path, first, cycles):
        """As `Simulation.write_vcd`; cycles are those since `load`."""
        self.simulation.write_vcd(path, first, cycles)

    def close(self):
        """Give back what is not Python's."""
        self.simulation.close()

    # What `RegisterHost` needs.

    def read_register(self, offset):
        return self.simulation.read(offset)

    def write_register(self, offset, value):
        self.simulation.write(offset, value)

    def _wait(self, position, prompt, on_batch):
        """Let time pass until the run is over; what was wrong if it had to be given up."""
        simulation = self.simulation
        end = simulation.cycles + self.max_cycles
        moved, traffic = simulation.cycles, None
        is_told = False
        while True:
            if self._is_stopped and not is_told:
                self.write_value("stop", 1)
                is_told = True
            poll = (self.registers["at_position"].offset, position, _POLL_CYCLES) if on_batch is not None else None
            why = simulation.run(_SLICE_CYCLES, poll=poll)
            if on_batch is not None:
                position = self._report(position, prompt, on_batch)
            if why == "interrupt":
                return None
            if traffic != (traffic := simulation.transfers()):
                moved = simulation.cycles
            if simulation.cycles - moved > self.hang_cycles:
                return f"no memory has moved anything for {simulation.cycles - moved} cycles"
            if simulation.cycles > end:
                return f"it has not ended after {self.max_cycles} cycles"

    def _check(self, address, n_bytes):
        if address < 0 or address + n_bytes > len(self.memory):
            raise ValueError(f"there is no memory at {address:#x} to {address + n_bytes - 1:#x}")


@functools.cache
def _soc(machine):
    from edgeaccel.soc.soc import SoC

    return SoC(machine)
