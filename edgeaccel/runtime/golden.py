"""The golden machine as a device."""

from edgeaccel.golden.machine import GoldenMachine, MachineError
from edgeaccel.perf.matrix import PortMemory
from edgeaccel.perf.token import predict
from edgeaccel.runtime.device import Stop, StopReason, check_run, check_tokens

__all__ = ["GoldenDevice"]

MEMORY = PortMemory(latency=30)


class GoldenDevice:
    """A `Device` in NumPy.

    Its cycles are those of the cycle model, `edgeaccel.perf.token`.

    Parameters
    ----------
    machine : Machine
    memory : PortMemory
        What the cycle model takes the memory for.

    Members
    -------
    golden : GoldenMachine
    """

    def __init__(self, machine, memory=MEMORY):
        self.machine, self.memory, self.golden = machine, memory, GoldenMachine(machine)
        self._cycles = 0

    def load(self, image):
        self.golden.load(image)
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

        def count(batch):
            self._cycles += predict(
                self.machine,
                self.golden.program,
                self.memory,
                position=batch.position,
                rows=batch.rows,
                last=batch.token is not None,
            ).cycles
            if on_batch is not None:
                on_batch(batch)

        try:
            reason = self.golden.run(position, prompt, limit, on_batch=count, on_instruction=on_instruction)
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

    def stop(self):
        self.golden.stop()

    def read(self, address, n_bytes):
        return self.golden.memory.read(address, n_bytes)

    def write(self, address, data):
        self.golden.memory.write(address, data)

    def counters(self):
        """Of the cycle model "cycles"; "beats" of tiles that the ports have given, as they are."""
        config = self.machine.config
        beats = self.golden.state.tile_words * config.word_bits // config.port_data_width
        return {"cycles": self._cycles, "beats": beats}

    def reset(self):
        self.golden.reset()
        self._cycles = 0
