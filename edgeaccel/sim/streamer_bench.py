"""Bench of the tile streamer in Amaranth's simulator: commands, events and words on one side, a memory on the other.

Stall patterns are those of `edgeaccel.golden.timing`. Every stream and channel is held to its contract: an offer stands
unchanged until it is taken, `valid` does not wait for `ready`, no burst crosses 4 KiB. A bench in which nothing happens
any more, although something should, raises.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from amaranth.sim import Simulator

from edgeaccel.golden.memory import BOUNDARY_BYTES, Error
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory import axi
from edgeaccel.memory.command import ErrorCode
from edgeaccel.pe.digit import FormatCode
from edgeaccel.sim.bench import StreamError

__all__ = ["Phase", "ReadMemory", "Run", "run"]

QUIET_CYCLES = 100


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What happens between two `clear` pulses: commands until `n_words` came, or for `cycles` cycles."""

    commands: list
    n_words: int
    cycles: int | None = None


@dataclass
class Run:
    """What a phase gave: words, the error held at its end, cycles of the transfers of commands and of words."""

    words: list = field(default_factory=list)
    error: Error | None = None
    commands: list = field(default_factory=list)
    cycles: list = field(default_factory=list)


class ReadMemory:
    """The slave of an AXI4 read port, a cycle at a time.

    Parameters
    ----------
    content : uint8 array
        From address 0 on; repeats itself past its end.
    beat_bytes : int
    latency : int
        Cycles from an address to its first beat; then a beat a cycle, bursts in order.
    addresses, beats : Pattern
        Cycles in which an address is accepted, and in which a beat may begin to be offered.
    responses : dict of int to str
        Addresses of beats that are not answered with OKAY.

    Members
    -------
    bursts : list of (address, beats)
        Asked for.
    address_cycles, beat_cycles : list of int
        Cycles of the transfers.
    most_outstanding : int
        Bursts accepted and not fully answered, at most.
    waited : int
        Cycles in which a beat was offered and not taken.
    """

    def __init__(self, content, beat_bytes, *, latency, addresses=None, beats=None, responses=None):
        self.content = content
        self.beat_bytes = beat_bytes
        self.latency = latency
        self.addresses = addresses or Pattern()
        self.beats = beats or Pattern()
        self.responses = responses or {}
        self.bursts = []
        self.address_cycles = []
        self.beat_cycles = []
        self.most_outstanding = 0
        self.waited = 0
        self._queue = deque()
        self._offered = None
        self._request = None
        self._outstanding = 0

    def accepts(self, cycle):
        return self.addresses.first(cycle) == cycle

    def offer(self, cycle):
        """The beat offered in a cycle: (data, response, last), or None."""
        if self._offered is None and self._queue and self._queue[0][0] <= cycle and self.beats.first(cycle) == cycle:
            _, address, last = self._queue.popleft()
            places = (address % len(self.content) + np.arange(self.beat_bytes)) % len(self.content)
            data = int.from_bytes(self.content[places].tobytes(), "little")
            self._offered = data, axi.Response[self.responses.get(address, "OKAY")].value, last
        return self._offered

    def settle(self, cycle, request, taken):
        """Account for a cycle: the (address, length) on the AR channel or None, whether the beat was taken."""
        if self._request is not None and request != self._request:
            raise StreamError(f"cycle {cycle}: AR changed from {self._request} to {request} before it was accepted")
        self._request = None
        if request is not None:
            if self.accepts(cycle):
                self._accept(cycle, *request)
            else:
                self._request = request
        if self._offered is not None:
            if taken:
                self.beat_cycles.append(cycle)
                self._outstanding -= self._offered[2]
                self._offered = None
            else:
                self.waited += 1

    def _accept(self, cycle, address, length):
        n_bytes = (length + 1) * self.beat_bytes
        if address % self.beat_bytes or address % BOUNDARY_BYTES + n_bytes > BOUNDARY_BYTES:
            raise StreamError(f"cycle {cycle}: a burst of {n_bytes} bytes from {address:#x} on")
        self.bursts.append((address, length + 1))
        self.address_cycles.append(cycle)
        self._outstanding += 1
        self.most_outstanding = max(self.most_outstanding, self._outstanding)
        for n in range(length + 1):
            self._queue.append((cycle + self.latency, address + n * self.beat_bytes, n == length))


def run(streamer, phases, memory, *, stalls=None, events=None, periods_ps=(4000, 4000)):
    """Simulate a streamer through phases, with a `clear` pulse between them.

    Parameters
    ----------
    streamer : TileStreamer
    phases : list of Phase
    memory : ReadMemory
    stalls : dict of str to bool array
        Patterns of `commands` and `words`.
    events : dict of int to list of int
        Cycles of each event's pulses.
    periods_ps : (int, int)
        Of the core's and the port's clock.

    Returns
    -------
    list of Run, one for each phase

    Raises
    ------
    StreamError
        If a stream or channel breaks its contract, or the streamer hangs.
    """
    core = _Core(streamer, phases, stalls or {}, events or {})
    simulator = Simulator(streamer)
    for domain, period in zip(streamer.domains, periods_ps, strict=False):
        simulator.add_clock(period * 1e-12, domain=domain)
    simulator.add_testbench(core.drive)
    simulator.add_testbench(_slave(streamer, memory), background=True)
    simulator.run()
    return core.runs


def _slave(streamer, memory):
    bus = streamer.m_axi
    arready, arvalid, araddr, arlen = bus.arready, bus.arvalid, bus.araddr, bus.arlen
    rvalid, rready, rdata, rresp, rlast = bus.rvalid, bus.rready, bus.rdata, bus.rresp.as_value(), bus.rlast

    async def drive(ctx):
        if ctx.get(bus.arburst) != axi.Burst.INCR or 1 << ctx.get(bus.arsize) != memory.beat_bytes:
            raise StreamError("not INCR bursts of full beats")
        cycle = 0
        while True:
            ctx.set(arready, memory.accepts(cycle))
            beat = memory.offer(cycle)
            ctx.set(rvalid, beat is not None)
            if beat is not None:
                for signal, value in zip((rdata, rresp, rlast), beat, strict=True):
                    ctx.set(signal, value)
            request = (ctx.get(araddr), ctx.get(arlen)) if ctx.get(arvalid) else None
            memory.settle(cycle, request, ctx.get(rready))
            await ctx.tick(streamer.domains[-1])
            cycle += 1

    return drive


class _Core:
    def __init__(self, streamer, phases, stalls, events):
        self.streamer = streamer
        self.phases = phases
        self.source = Pattern(stalls.get("commands", ()))
        self.sink = Pattern(stalls.get("words", ()))
        self.events = {cycle: 0 for cycles in events.values() for cycle in cycles}
        for event, cycles in events.items():
            for cycle in cycles:
                self.events[cycle] |= 1 << event
        self.cycle = 0
        self.runs = []

    async def drive(self, ctx):
        for n, phase in enumerate(self.phases):
            if n:
                ctx.set(self.streamer.i_commands.valid, 0)
                ctx.set(self.streamer.o_words.ready, 0)
                ctx.set(self.streamer.clear, 1)
                await self._tick(ctx)
                ctx.set(self.streamer.clear, 0)
            self.runs.append(Run())
            await self._phase(ctx, phase, self.runs[-1])

    async def _tick(self, ctx):
        ctx.set(self.streamer.events, self.events.get(self.cycle, 0))
        await ctx.tick()
        self.cycle += 1

    async def _phase(self, ctx, phase, result):
        i, o = self.streamer.i_commands, self.streamer.o_words
        offering = False
        pending = None
        quiet = 0
        start = self.cycle
        flushed = not start
        while phase.cycles is None or self.cycle < start + phase.cycles:
            flushed |= bool(ctx.get(i.ready))
            left = phase.commands[len(result.commands) :]
            offering = bool(left) and (offering or self.source.first(self.cycle) == self.cycle)
            ctx.set(i.valid, offering)
            if offering:
                ctx.set(i.payload, _fields(left[0]))
            valid = ctx.get(o.valid) and flushed
            ready = self.sink.first(self.cycle) == self.cycle
            ctx.set(o.ready, ready)
            if flushed and valid != ctx.get(o.valid):
                raise StreamError(f"cycle {self.cycle}: valid of the words waits for ready")
            word = ctx.get(o.payload) if valid else None
            if pending is not None and word != pending:
                raise StreamError(f"cycle {self.cycle}: an offered word changed before it was taken")
            pending = None if ready else word
            accepted = offering and ctx.get(i.ready)
            error = _error(ctx, self.streamer.error) if flushed else None
            if result.error is not None and error != result.error:
                raise StreamError(f"cycle {self.cycle}: {result.error} became {error}")
            moved = accepted or (word is not None and ready) or error != result.error
            result.error = error
            if accepted:
                result.commands.append(self.cycle)
                offering = False
            if word is not None and ready:
                result.words.append(word)
                result.cycles.append(self.cycle)
            await self._tick(ctx)
            quiet = 0 if moved or self.cycle <= max(self.events, default=0) else quiet + 1
            if quiet > QUIET_CYCLES and len(result.words) >= phase.n_words and (error is not None or not left):
                break
            if quiet > 20 * QUIET_CYCLES:
                raise StreamError(
                    f"hangs with {len(result.commands)} of {len(phase.commands)} commands,"
                    f" {len(result.words)} of {phase.n_words} words, {error}"
                )
        result.words = _rows(result.words, len(o.payload) // 8)


def _fields(command):
    return {
        "address": command.address,
        "words": command.words,
        "format": FormatCode[command.format.upper()],
        "wait": command.wait,
        "event": command.event,
    }


def _error(ctx, error):
    if not ctx.get(error.valid):
        return None
    return Error(
        code=ErrorCode(ctx.get(error.code)).name,
        response=axi.Response(ctx.get(error.response)).name,
        address=ctx.get(error.address),
        command=ctx.get(error.command),
    )


def _rows(words, word_bytes):
    data = b"".join(word.to_bytes(word_bytes, "little") for word in words)
    return np.frombuffer(data, np.uint8).reshape(-1, word_bytes)
