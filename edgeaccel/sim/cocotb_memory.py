"""`cocotbext-axi`'s memory with the timing of a `edgeaccel.sim.memory.MemoryModel`.

`sim.system` is the fast bench, exact to the cycle. Here the same parameters drive the public AXI model: it moves the
data and checks the protocol, and this adapter tells it when. Its own queues add a cycle or two to some beats.
"""

import cocotb
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiReadBus, AxiWriteBus
from cocotbext.axi.axi_ram import AxiRamRead, AxiRamWrite

from edgeaccel.sim.memory import Channel

__all__ = ["AxiMemory", "pauses"]

# A beat that is handed to cocotbext-axi after an edge is on the pins after the next one.
_QUEUE_CYCLES = 1


class AxiMemory:
    """The memory behind the AXI port `prefix` of `dut`.

    Parameters
    ----------
    dut : handle
    prefix : str
        As in "m_axi".
    clock, reset : handles
        Cycles are counted from the first edge without reset.
    model : MemoryModel
    content : bytearray
        Changed in place by writes; addresses repeat past its end.
    errors : list of (start, stop)
        Beats that touch an address in start..stop-1 are answered with SLVERR.
    first_refresh : int
        Cycle of the first refresh; `refresh_interval` by default.
    stalls : dict of str to bool array
        Stall patterns of "ar", "r", "aw", "w" and "b", as `edgeaccel.golden.timing` defines them.
    read, write : bool
        Which channels the port has.

    Members
    -------
    beats : list of int
        Cycles in which beats of reads were taken.
    """

    def __init__(
        self,
        dut,
        prefix,
        clock,
        reset,
        *,
        model,
        content,
        errors=(),
        first_refresh=None,
        stalls=None,
        read=True,
        write=True,
    ):
        self.clock = clock
        self.reset = reset
        self.model = model
        self.errors = errors
        self.channel = Channel(model, first_refresh=first_refresh)
        self.cycle = 0
        self.beats = []
        channels = {}
        if read:
            self.read = _Read(self, AxiReadBus.from_prefix(dut, prefix), clock, reset, mem=content)
            channels |= {"ar": self.read.ar_channel, "r": self.read.r_channel}
        if write:
            self.write = _Write(self, AxiWriteBus.from_prefix(dut, prefix), clock, reset, mem=content)
            channels |= {"aw": self.write.aw_channel, "w": self.write.w_channel, "b": self.write.b_channel}
        self._monitored = [(channel.bus, name) for name, channel in channels.items() if name in ("ar", "r", "aw")]
        for name, pattern in (stalls or {}).items():
            channels[name].set_pause_generator(pauses(pattern))
        cocotb.start_soon(self._monitor())

    async def until(self, cycle):
        while self.cycle < cycle:
            await RisingEdge(self.clock)

    def check(self, address):
        for start, stop in self.errors:
            if start - self.model.beat_bytes < address < stop:
                raise ValueError(f"error at {address:#x}")

    async def _monitor(self):
        """Counts cycles, and tells the channel the bursts as they are accepted."""
        while True:
            await RisingEdge(self.clock)
            if self.reset.value:
                continue
            for bus, name in self._monitored:
                if getattr(bus, f"{name}valid").value and getattr(bus, f"{name}ready").value:
                    if name == "r":
                        self.beats.append(self.cycle)
                    else:
                        end = self.read if name == "ar" else self.write
                        address, length = (int(getattr(bus, f"{name}{part}").value) for part in ("addr", "len"))
                        end.accept(self.cycle, address, length + 1)
            self.cycle += 1


class _Read(AxiRamRead):
    def __init__(self, memory, *arguments, **options):
        super().__init__(*arguments, **options)
        self.memory = memory
        self.ar_channel.queue_occupancy_limit = memory.model.outstanding
        self._cycles = []

    def accept(self, cycle, address, beats):
        self._cycles += self.memory.channel.serve(cycle, address, beats)

    async def _read(self, address, length):
        await self.memory.until(self._cycles.pop(0) - _QUEUE_CYCLES)
        self.memory.check(address)
        return await super()._read(address, length)


class _Write(AxiRamWrite):
    def __init__(self, memory, *arguments, **options):
        super().__init__(*arguments, **options)
        self.memory = memory
        self.aw_channel.queue_occupancy_limit = memory.model.outstanding
        self._send = self.b_channel.send
        self.b_channel.send = self._answer
        self._bursts = []

    def accept(self, cycle, address, beats):
        self._bursts.append((address, beats))

    async def _write(self, address, data):
        self.memory.check(address)
        await super()._write(address, data)

    async def _answer(self, answer):
        """Called once the last beat came: answers later, so that the next burst is not held up."""
        *_, last = self.memory.channel.serve(self.memory.cycle, *self._bursts.pop(0), write=True)
        cocotb.start_soon(self._answer_in(last - _QUEUE_CYCLES, answer))

    async def _answer_in(self, cycle, answer):
        await self.memory.until(cycle)
        await self._send(answer)


def pauses(pattern):
    """A pause generator of cocotbext-axi from a stall pattern: no pause past its end."""
    for is_open in pattern:
        yield not is_open
    yield False
