"""The golden machine as a device."""

from edgeaccel.golden.machine import GoldenMachine, MachineError
from edgeaccel.runtime.device import Stop, StopReason, check_run, check_tokens

__all__ = ["GoldenDevice"]


class GoldenDevice:
    """A `Device` in NumPy.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    golden : GoldenMachine
    """

    def __init__(self, machine):
        self.machine, self.golden = machine, GoldenMachine(machine)
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
        try:
            reason = self.golden.run(position, prompt, limit, on_batch=on_batch, on_instruction=on_instruction)
        except MachineError as error:
            return Stop(
                reason=StopReason.ERROR,
                position=error.position,
                code=error.code,
                command=error.instruction,
                address=error.address,
                message=str(error),
            )
        return Stop(reason=StopReason(reason), position=self.golden.state.position)

    def stop(self):
        self.golden.stop()

    def read(self, address, n_bytes):
        return self.golden.memory.read(address, n_bytes)

    def write(self, address, data):
        self.golden.memory.write(address, data)

    def counters(self):
        return {"cycles": self._cycles}

    def reset(self):
        self.golden.reset()
        self._cycles = 0
