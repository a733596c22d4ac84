"""Bench of the block movers in Amaranth's simulator: commands and a stream on one side, a memory on the other.

Stall patterns are those of `edgeaccel.golden.timing`: `commands` and `stream` of who offers or takes there. Every
stream and channel is held to its contract: an offer stands unchanged until it is taken, and does not wait for `ready`.
A bench in which nothing happens any more, although something should, raises.
"""

from collections import deque
from dataclasses import dataclass, field

from amaranth.sim import Simulator

from edgeaccel.golden.blocks import Beat, pack
from edgeaccel.golden.memory import BOUNDARY_BYTES, Error
from edgeaccel.golden.timing import Pattern
from edgeaccel.memory import axi
from edgeaccel.memory.block import BlockErrorCode
from edgeaccel.sim.bench import StreamError

__all__ = ["Phase", "Run", "WriteMemory", "run_reader", "run_writer"]

QUIET_CYCLES = 60
HANGING_CYCLES = 2000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What happens between two `clear` pulses: commands until `n_results` came, or for `cycles` cycles.

    Results are beats of the stream, or blocks that are done.
    """

    commands: list
    n_results: int = 0
    blocks: list = ()
    cycles: int | None = None


@dataclass
class Run:
    """What a phase gave: beats of the stream or done commands, the error at its end, cycles of the transfers."""

    results: list = field(default_factory=list)
    error: Error | None = None
    commands: list = field(default_factory=list)
    stream: list = field(default_factory=list)
    done: list = field(default_factory=list)


class WriteMemory:
    """The slave of an AXI4 write port, a cycle at a time.

    Parameters
    ----------
    content : uint8 array
        From address 0 on; repeats itself past its end; written.
    beat_bytes : int
    latency : int
        Cycles from a burst's address and last beat to its answer; then an answer a cycle, in order.
    addresses, beats, answers : Pattern
        Cycles in which an address or a beat is accepted, and in which an answer may begin to be offered.
    responses : dict of int to str
        Addresses of bursts that are not answered with OKAY.

    Members
    -------
    bursts : list of (address, beats)
        Accepted.
    strobes : list of int
        Of all beats accepted.
    address_cycles, beat_cycles : list of int
        Cycles of the transfers.
    most_outstanding : int
        Bursts accepted and not answered, at most.
    """

    def __init__(self, content, beat_bytes, *, latency, addresses=None, beats=None, answers=None, responses=None):
        self.content = content
        self.beat_bytes = beat_bytes
        self.latency = latency
        self.patterns = {"aw": addresses or Pattern(), "w": beats or Pattern()}
        self.answers = answers or Pattern()
        self.responses = responses or {}
        self.bursts = []
        self.strobes = []
        self.address_cycles = []
        self.beat_cycles = []
        self.most_outstanding = 0
        self._pending = {"aw": None, "w": None}
        self._n_beats = []  # of the bursts whose last beat came
        self._count = 0
        self._data = []
        self._answers = deque()
        self._offered = None
        self._n_written = 0
        self._n_answered = 0

    def accepts(self, channel, cycle):
        return self.patterns[channel].first(cycle) == cycle

    def offer(self, cycle):
        """The response offered in a cycle, or None."""
        if (
            self._offered is None
            and self._answers
            and self._answers[0][0] <= cycle
            and self.answers.first(cycle) == cycle
        ):
            self._offered = self._answers.popleft()[1]
        return self._offered

    def settle(self, cycle, offers, b_taken):
        """Account for a cycle: what `aw` and `w` offer, None or (address, length) and (data, strobe, last)."""
        for channel, offer in offers.items():
            before = self._pending[channel]
            if before is not None and offer != before:
                raise StreamError(f"cycle {cycle}: {channel} changed from {before} to {offer} before it was accepted")
            self._pending[channel] = None if self.accepts(channel, cycle) else offer
        if offers["aw"] is not None and self._pending["aw"] is None:
            self._accept(cycle, *offers["aw"])
        if offers["w"] is not None and self._pending["w"] is None:
            data, strobe, last = offers["w"]
            self.beat_cycles.append(cycle)
            self.strobes.append(strobe)
            self._data.append((data, strobe))
            self._count += 1
            if last:
                self._n_beats.append(self._count)
                self._count = 0
        if self._offered is not None and b_taken:
            self._offered = None
            self._n_answered += 1
        self._finish(cycle)
        self.most_outstanding = max(self.most_outstanding, len(self.bursts) - self._n_answered)

    def _accept(self, cycle, address, length):
        n_bytes = (length + 1) * self.beat_bytes
        if address % self.beat_bytes or address % BOUNDARY_BYTES + n_bytes > BOUNDARY_BYTES:
            raise StreamError(f"cycle {cycle}: a burst of {n_bytes} bytes from {address:#x} on")
        self.bursts.append((address, length + 1))
        self.address_cycles.append(cycle)

    def _finish(self, cycle):
        while self._n_written < min(len(self.bursts), len(self._n_beats)):
            address, n_beats = self.bursts[self._n_written]
            if n_beats != self._n_beats[self._n_written]:
                raise StreamError(f"cycle {cycle}: {self._n_beats[self._n_written]} beats in a burst of {n_beats}")
            for n in range(n_beats):
                self._write(address + n * self.beat_bytes, *self._data.pop(0))
            response = axi.Response[self.responses.get(address, "OKAY")].value
            self._answers.append((cycle + self.latency, response))
            self._n_written += 1

    def _write(self, address, data, strobe):
        for lane in range(self.beat_bytes):
            if strobe >> lane & 1:
                self.content[(address + lane) % len(self.content)] = data >> 8 * lane & 0xFF


def run_reader(reader, phases, memory, *, stalls=None):
    """Simulate a reader through phases, with a `clear` pulse between them.

    Parameters
    ----------
    reader : BlockReader
    phases : list of Phase
    memory : edgeaccel.sim.streamer_bench.ReadMemory
    stalls : dict of str to Pattern
        Of `commands` and `stream`.

    Returns
    -------
    list of Run, one for each phase

    Raises
    ------
    StreamError
        If a stream or channel breaks its contract, or the reader hangs.
    """
    return _run(_ReaderBench(reader, memory, stalls), phases)


def run_writer(writer, phases, memory, *, stalls=None):
    """Simulate a writer, as `run_reader` does a reader; phases also have `blocks`."""
    return _run(_WriterBench(writer, memory, stalls), phases)


def _run(bench, phases):
    runs = []

    async def drive(ctx):
        for n, phase in enumerate(phases):
            if n:
                await bench.clear(ctx)
            runs.append(await bench.run(ctx, phase))

    simulator = Simulator(bench.mover)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()
    return runs


class _Bench:
    """A mover cycle by cycle: subclasses drive the memory and the stream."""

    def __init__(self, mover, memory, stalls):
        self.mover = mover
        self.memory = memory
        self.source = (stalls or {}).get("commands", Pattern())
        self.pattern = (stalls or {}).get("stream", Pattern())
        self.stream_bytes = mover.widths.stream_bytes
        self.cycle = 0

    async def clear(self, ctx):
        self.leave(ctx)
        ctx.set(self.mover.i_commands.valid, 0)
        ctx.set(self.mover.clear, 1)
        for n in range(HANGING_CYCLES):
            self.drive_memory(ctx)
            ready = ctx.get(self.mover.i_commands.ready)
            self.settle_memory(ctx)
            await self._tick(ctx)
            ctx.set(self.mover.clear, 0)
            if n and ready:
                break
        else:
            raise StreamError(f"cycle {self.cycle}: hangs in clear")

    async def run(self, ctx, phase):
        result = Run()
        i = self.mover.i_commands
        offering, quiet, end = False, 0, self.cycle + (phase.cycles or 0)
        self.enter(phase)
        while phase.cycles is None or self.cycle < end:
            left = phase.commands[len(result.commands) :]
            offering = bool(left) and (offering or self.source.first(self.cycle) == self.cycle)
            ctx.set(i.valid, offering)
            if offering:
                ctx.set(i.payload, vars(left[0]))
            moved = self.drive_stream(ctx, result)
            self.drive_memory(ctx)
            if offering and ctx.get(i.ready):
                result.commands.append(self.cycle)
                offering, moved = False, True
            moved |= self.settle_stream(ctx, result)
            error = self._error(ctx)
            if result.error is not None and error != result.error:
                raise StreamError(f"cycle {self.cycle}: {result.error} became {error}")
            if error != result.error:
                moved, asked = True, len(self.memory.bursts)
            result.error = error
            moved |= self.settle_memory(ctx)
            await self._tick(ctx)
            if error is not None and len(self.memory.bursts) > asked + 1:
                raise StreamError(f"cycle {self.cycle}: more than the burst on offer was asked for after {error}")
            quiet = 0 if moved else quiet + 1
            if quiet > QUIET_CYCLES and len(result.results) >= phase.n_results and (error or not left):
                break
            if quiet > HANGING_CYCLES:
                raise StreamError(
                    f"hangs with {len(result.commands)} of {len(phase.commands)} commands,"
                    f" {len(result.results)} of {phase.n_results} results, {error}"
                )
        return result

    async def _tick(self, ctx):
        await ctx.tick()
        self.cycle += 1

    def _error(self, ctx):
        error = self.mover.error
        if not ctx.get(error.valid):
            return None
        return Error(
            code=BlockErrorCode(ctx.get(error.code)).name,
            response=axi.Response(ctx.get(error.response)).name,
            address=ctx.get(error.address),
            command=ctx.get(error.command),
        )


class _ReaderBench(_Bench):
    def enter(self, phase):
        self.pending = None

    def leave(self, ctx):
        ctx.set(self.mover.o.ready, 0)

    def drive_stream(self, ctx, result):
        o = self.mover.o
        ctx.set(o.ready, 0)
        self.valid = ctx.get(o.valid)
        ctx.set(o.ready, self.pattern.first(self.cycle) == self.cycle)
        return False

    def settle_stream(self, ctx, result):
        o = self.mover.o
        if ctx.get(o.valid) != self.valid:
            raise StreamError(f"cycle {self.cycle}: valid of the stream waits for ready")
        beat = None
        if self.valid:
            data = ctx.get(o.payload.data.as_value()).to_bytes(self.stream_bytes, "little")
            beat = Beat(data, ctx.get(o.payload.last_byte), bool(ctx.get(o.payload.last)))
        if self.pending is not None and beat != self.pending:
            raise StreamError(f"cycle {self.cycle}: an offered beat changed before it was taken")
        ready = self.pattern.first(self.cycle) == self.cycle
        self.pending = None if ready else beat
        if beat is None or not ready:
            return False
        result.results.append(beat)
        result.stream.append(self.cycle)
        return True

    def drive_memory(self, ctx):
        bus = self.mover.m_axi
        ctx.set(bus.arready, self.memory.accepts(self.cycle))
        beat = self.memory.offer(self.cycle)
        ctx.set(bus.rvalid, beat is not None)
        if beat is not None:
            for signal, value in zip((bus.rdata, bus.rresp.as_value(), bus.rlast), beat, strict=True):
                ctx.set(signal, value)

    def settle_memory(self, ctx):
        bus, before = self.mover.m_axi, len(self.memory.beat_cycles) + len(self.memory.bursts)
        request = (ctx.get(bus.araddr), ctx.get(bus.arlen)) if ctx.get(bus.arvalid) else None
        self.memory.settle(self.cycle, request, ctx.get(bus.rready))
        return len(self.memory.beat_cycles) + len(self.memory.bursts) != before


class _WriterBench(_Bench):
    def enter(self, phase):
        self.left = [beat for block in phase.blocks for beat in pack(block, self.stream_bytes)]
        self.offering = False

    def leave(self, ctx):
        ctx.set(self.mover.i.valid, 0)

    def drive_stream(self, ctx, result):
        i = self.mover.i
        if not self.offering and self.left and self.pattern.first(self.cycle) == self.cycle:
            self.offering = True
            data, last_byte, last = self.left[0]
            ctx.set(i.payload.data.as_value(), int.from_bytes(data, "little"))
            # Only the last beat of a block tells it.
            ctx.set(i.payload.last_byte, last_byte if last else self.cycle % self.stream_bytes)
            ctx.set(i.payload.last, last)
        ctx.set(i.valid, self.offering)
        return False

    def settle_stream(self, ctx, result):
        moved = False
        if self.offering and ctx.get(self.mover.i.ready):
            self.left.pop(0)
            result.stream.append(self.cycle)
            self.offering, moved = False, True
        if ctx.get(self.mover.done):
            result.results.append(ctx.get(self.mover.done_command))
            result.done.append(self.cycle)
            moved = True
        return moved

    def drive_memory(self, ctx):
        bus = self.mover.m_axi
        ctx.set(bus.awready, 0)
        ctx.set(bus.wready, 0)
        self.valid = ctx.get(bus.awvalid), ctx.get(bus.wvalid)
        ctx.set(bus.awready, self.memory.accepts("aw", self.cycle))
        ctx.set(bus.wready, self.memory.accepts("w", self.cycle))
        response = self.memory.offer(self.cycle)
        ctx.set(bus.bvalid, response is not None)
        if response is not None:
            ctx.set(bus.bresp.as_value(), response)

    def settle_memory(self, ctx):
        bus = self.mover.m_axi
        if self.valid != (ctx.get(bus.awvalid), ctx.get(bus.wvalid)):
            raise StreamError(f"cycle {self.cycle}: valid of the memory port waits for ready")
        offers = {
            "aw": (ctx.get(bus.awaddr), ctx.get(bus.awlen)) if self.valid[0] else None,
            "w": (ctx.get(bus.wdata), ctx.get(bus.wstrb), ctx.get(bus.wlast)) if self.valid[1] else None,
        }
        before = len(self.memory.beat_cycles), len(self.memory.bursts)
        self.memory.settle(self.cycle, offers, ctx.get(bus.bready))
        return (len(self.memory.beat_cycles), len(self.memory.bursts)) != before
