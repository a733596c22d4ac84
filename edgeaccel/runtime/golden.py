"""The golden machine as a device."""

from edgeaccel.golden.cycles.machine import CycleMachine, masters
from edgeaccel.golden.cycles.memory import Memory
from edgeaccel.golden.machine import GoldenMachine, MachineError
from edgeaccel.perf.matrix import PortMemory
from edgeaccel.perf.token import predict
from edgeaccel.runtime.device import Stop, StopReason, check_run, check_tokens
from edgeaccel.sim.memory import Channel

__all__ = ["GoldenDevice"]

MEMORY = PortMemory(latency=30)


class GoldenDevice:
    """A `Device` in NumPy.

    Its cycles are those of the cycle model, `edgeaccel.perf.token`; or, if it is told the timing of the memories,
    exactly those of the emitted Verilog, which takes about a second for 10,000 of them.

    Parameters
    ----------
    machine : Machine
    memory : PortMemory
        What the cycle model takes the memory for.
    timing : edgeaccel.sim.memory.MemoryModel, optional
        Of every master's memory, with beats of the machine's `port_data_width`. Each run finds them at rest, and is
        started in the cycle 0.

    Members
    -------
    golden : GoldenMachine
    exact : CycleMachine or None
        With `timing`, the units of the last run: when each did what.
    """

    def __init__(self, machine, memory=MEMORY, *, timing=None):
        if timing is not None and timing.data_width != machine.config.port_data_width:
            raise ValueError(
                f"timing must be of beats of {machine.config.port_data_width} bits, not {timing.data_width}; see"
                " MemoryModel.with_width"
            )
        self.machine, self.memory, self.golden = machine, memory, GoldenMachine(machine)
        self.exact, self._timing, self._image = None, timing, None
        self._cycles = 0

    def load(self, image):
        self.golden.load(image)
        self.exact, self._image = None, image
        self._cycles = 0

    def write_tokens(self, position, tokens):
        tokens = check_tokens(self.machine, position, tokens)
        self.golden.state.tokens[position : position + len(tokens)] = tokens

    def read_tokens(self, position, count):
        check_tokens(self.machine, position, [0] * count)
        return self.golden.state.tokens[position : position + count].tolist()

    def run(self, position, prompt, limit, on_batch=None, on_instruction=None):
        """As of `Device`; `on_instruction` as of `GoldenMachine.run`."""
        check_run(self.machine, position, prompt, limit)
        before = self._cycles
        tokens = self.golden.state.tokens[:prompt].tolist()
        if self._timing is not None:
            self.exact = self._begin(tokens, position, prompt, limit)

        def count(batch):
            if self.exact is None:
                self._cycles += self._predicted(batch)
            else:
                tokens.extend([] if batch.token is None else [batch.token])
                self._cycles = before + self.exact.run(to_batch=True)
            if on_batch is not None:
                on_batch(batch)

        try:
            reason = self.golden.run(position, prompt, limit, on_batch=count, on_instruction=on_instruction)
            if self.exact is not None and reason != "stopped":
                self._cycles = before + self.exact.run()
        except MachineError as error:
            return Stop(
                reason=StopReason.ERROR,
                position=error.position,
                cycles=self._cycles - before,
                code=error.code,
                command=error.instruction,
                address=error.address,
                message=str(error),
            )
        return Stop(reason=StopReason(reason), position=self.golden.state.position, cycles=self._cycles - before)

    def _predicted(self, batch):
        return predict(
            self.machine,
            self.golden.program,
            self.memory,
            position=batch.position,
            rows=batch.rows,
            last=batch.token is not None,
        ).cycles

    def _begin(self, tokens, position, prompt, limit):
        """The units for a run; of the one before they know the page table."""
        model = self._timing
        memories = {name: Memory(Channel(model), model.outstanding) for name in masters(self.machine)}
        pages = None if self.exact is None else self.exact.pages
        return CycleMachine(self.machine, self._image, tokens, position, prompt, limit, memories, pages=pages)

    def stop(self):
        self.golden.stop()

    def read(self, address, n_bytes):
        return self.golden.memory.read(address, n_bytes)

    def write(self, address, data):
        self.golden.memory.write(address, data)

    def counters(self):
        """As they are counted here "cycles"; "beats" of tiles that the ports have given, as they are."""
        config = self.machine.config
        beats = self.golden.state.tile_words * config.word_bits // config.port_data_width
        return {"cycles": self._cycles, "beats": beats}

    def reset(self):
        self.golden.reset()
        self._cycles = 0
