"""What a host does with the registers of a machine, whether that is simulated or on a board."""

from edgeaccel.runtime.device import Batch, Stop, StopReason, check_tokens
from edgeaccel.soc.register_map import STATES, UNITS

__all__ = ["RegisterHost"]

_REASONS = {name: StopReason(name) for name in ("end_of_text", "limit", "end", "error", "stopped")}


class RegisterHost:
    """Starts a machine, follows it, and says how it ended, by the registers of `edgeaccel.soc.register_map`.

    A class that derives from it has `machine`, `registers` (a `RegisterMap`), `_image` (what is loaded) and the two
    methods `read_register` and `write_register`.
    """

    machine = registers = _image = None
    _must_clear = False  # before the next start

    def read_register(self, offset):
        """The 32 bits at an offset."""
        raise NotImplementedError

    def write_register(self, offset, value):
        """Write the 32 bits at an offset."""
        raise NotImplementedError

    def write_tokens(self, position, tokens):
        """As of `Device`."""
        for place, token in enumerate(check_tokens(self.machine, position, tokens), position):
            self.write_register(self.registers.tokens_offset + 4 * place, token)

    def read_tokens(self, position, count):
        """As of `Device`."""
        check_tokens(self.machine, position, [0] * count)
        base = self.registers.tokens_offset
        return [self.read_register(base + 4 * place) for place in range(position, position + count)]

    def read_value(self, name):
        """A value that registers tell, whole, by its name."""
        value = 0
        for register in self.registers.registers:
            for bits in register.bits:
                if bits.name == name:
                    part = (self.read_register(register.offset) & bits.mask) >> bits.first
                    value |= part << bits.low
        return value

    def write_value(self, name, value):
        """Write all registers that hold a value, or do what a bit does."""
        for register in self.registers.registers:
            for bits in register.bits:
                if bits.name == name and register.can_be_written:
                    part = value >> bits.low & ((1 << bits.width) - 1)
                    self.write_register(register.offset, part << bits.first)

    def _start(self, position, prompt, limit, *, interrupt=True):
        if self._must_clear:
            self.write_value("clear", 1)
        values = {
            "program_address": self._image.program_address,
            "program_bytes": len(self._image.program),
            "position": position,
            "prompt": prompt,
            "limit": limit,
            "enable_done": int(interrupt),
            "done": 1,  # which clears it
            "start": 1,
        }
        for name, value in values.items():
            self.write_value(name, value)

    def _report(self, position, prompt, on_batch):
        """Tell `on_batch` what was done from a position on; the position that the machine is at.

        Batches of given tokens that were all done since the last look are told as one; each token that was made is
        told on its own.
        """
        at = self.read_value("at_position")
        while position < at:
            end = min(at, max(prompt, position + 1))
            token = self.read_tokens(end, 1)[0] if prompt <= end < self.machine.positions else None
            on_batch(Batch(position, end - position, token))
            position = end
        return position

    def _stop(self, problem):
        """The `Stop` of a run that is over, or had to be given up because of a problem."""
        state = STATES[self.read_value("state")]
        position = self.read_value("at_position")
        cycles = self.read_value("cycles")
        pc, layer = self.read_value("pc"), self.read_value("layer")
        reason = StopReason.ERROR if problem else _REASONS.get(state)
        self._must_clear = reason not in (StopReason.END_OF_TEXT, StopReason.LIMIT, StopReason.END)
        if reason is None:
            problem, reason = f"it has raised its interrupt, but its state is {state}", StopReason.ERROR
        if reason is not StopReason.ERROR:
            return Stop(reason=reason, position=position, cycles=cycles)
        where = f"at instruction {pc}{self._name(pc)}, layer {layer}, position {position}"
        if problem:
            message, code, address = f"the machine is {state} {where}: {problem}", "hang", None
        else:
            unit = _unit(self.read_value("error_unit"))
            number, port, command = (self.read_value(f"error_{name}") for name in ("code", "port", "command"))
            code, address = f"{unit}.{_code(unit, number)}", self.read_value("error_address")
            message = f"error {code} of command {command}, port {port}, address {address:#x}; {where}"
        return Stop(
            reason=reason, position=position, cycles=cycles, code=code, command=pc, address=address, message=message
        )

    def _name(self, pc):
        names = self._image.manifest.get("names", [])
        return f" ({names[pc]})" if pc < len(names) and names[pc] else ""


def _unit(number):
    return UNITS[number] if number < len(UNITS) else f"unit{number}"


def _code(unit, number):
    """What a part's error number means, as far as it is known."""
    from edgeaccel.attention.command import AttentionErrorCode
    from edgeaccel.memory.block import BlockErrorCode
    from edgeaccel.memory.command import ErrorCode
    from edgeaccel.soc.sequencer import SequencerErrorCode
    from edgeaccel.systolic.operator import FeedErrorCode

    codes = {"sequencer": SequencerErrorCode, "port": ErrorCode, "feed": FeedErrorCode}
    codes |= dict.fromkeys(("program", "parameters", "logits"), BlockErrorCode)
    codes |= dict.fromkeys(("attention", "cache"), AttentionErrorCode)
    try:
        return codes[unit](number).name.lower()
    except (KeyError, ValueError):
        return str(number)
