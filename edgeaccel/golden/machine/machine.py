"""A whole machine that runs programs."""

from dataclasses import dataclass

import numpy as np

from edgeaccel import isa
from edgeaccel.golden.machine import cache, vectors
from edgeaccel.golden.machine.error import Fault, MachineError
from edgeaccel.golden.machine.matrix import Array
from edgeaccel.golden.machine.memory import Memory
from edgeaccel.golden.machine.state import State, rows_at

__all__ = ["Batch", "GoldenMachine"]


@dataclass(frozen=True)
class Batch:
    """A batch of tokens that is done.

    Attributes
    ----------
    position, rows : int
    token : int or None
        What comes behind it, if it was the last of the given ones.
    """

    position: int
    rows: int
    token: int | None


class GoldenMachine:
    """What a machine does, instruction after instruction.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    state : State
        Memories, registers and queues.
    program : list of (name, when, fields)
    """

    def __init__(self, machine):
        self.machine = machine
        self.memory = Memory(machine)
        self.program, self._names, self._text = [], [], []
        self.reset()

    def reset(self):
        """As after power-on, but memory and program stay."""
        self.state = State(self.machine, self.memory)
        self.array = Array(self.state)
        self.is_stopped = False

    def load(self, image):
        """Write an image's segments and program to a memory of zeros.

        Raises
        ------
        ValueError
            If the image is of another machine, or its program is too long or has what is no instruction.
        """
        if image.machine != self.machine:
            raise ValueError("the image is for another machine; compile the model for this one")
        n_instructions = len(image.program) // isa.INSTRUCTION_BYTES
        if not 1 <= n_instructions <= self.machine.instructions:
            raise ValueError(f"a program must have 1 to {self.machine.instructions} instructions, not {n_instructions}")
        self.memory = Memory(self.machine)
        for address, data in image.segments:
            self.memory.write(address, data)
        self.memory.write(image.program_address, np.frombuffer(image.program, np.uint8))
        self.reset()
        self._text = isa.disassemble(image.program)
        self._names = image.manifest.get("names", [])
        size = isa.INSTRUCTION_BYTES
        self.program = [isa.decode(image.program[n * size : (n + 1) * size]) for n in range(n_instructions)]

    @property
    def most_positions(self):
        """Tokens of the longest sequence, a number that fits a position's field."""
        return min(self.machine.positions, (1 << isa.POSITION_WIDTH) - 1)

    def stop(self):
        """Make a running `run` return before the next instruction."""
        self.is_stopped = True

    def run(self, position, prompt, limit, *, on_batch=None, on_instruction=None):
        """Run the program from its beginning.

        Parameters
        ----------
        position : int
            The first token that is not in the cache yet.
        prompt : int
            Tokens that are given.
        limit : int
            Position to stop at.
        on_batch : function of a `Batch`, optional
            Called after each batch.
        on_instruction : function of an instruction's number, optional
            Called after each instruction that was executed, with all that it did in `state`.

        Returns
        -------
        str
            Why it has stopped: "end_of_text", "limit", "end" or "stopped". `state.position` is where.

        Raises
        ------
        MachineError
        ValueError
            If no tokens are given from `position` on, or more than there is room for.
        """
        if not 0 <= position < prompt <= self.most_positions:
            raise ValueError(
                f"tokens {position} to {prompt - 1} must be one or more, within {self.most_positions} positions"
            )
        self.state.begin(position, prompt, limit)
        self.array.begin()
        self.is_stopped = False
        number = 0
        with np.errstate(all="ignore"):  # rows that are not in use may hold anything
            while True:
                if self.is_stopped:
                    return "stopped"
                try:
                    executed = self._is_executed(number)
                    following, reason = self._step(number, on_batch) if executed else (number + 1, None)
                    if reason and (left := self._left()):
                        raise Fault("queue", f"all ends, but there are {left} left")
                except Fault as fault:
                    raise MachineError(
                        fault,
                        instruction=number,
                        text=self.text(number),
                        layer=self.state.layer,
                        position=self.state.position,
                    ) from None
                if on_instruction is not None and executed:
                    on_instruction(number)
                if reason:
                    return reason
                number = following

    def text(self, number):
        """An instruction, and what it is for."""
        if number >= len(self.program):
            return f"{number}, which the program does not have"
        name = f" ({self._names[number]})" if number < len(self._names) and self._names[number] else ""
        return f"{' '.join(self._text[number].split())}{name}"

    def _is_executed(self, number):
        if number >= len(self.program):
            raise Fault("program", f"the program has {len(self.program)} instructions")
        state = self.state
        return {
            "always": True,
            "single": state.rows == 1,
            "several": state.rows > 1,
            "last": state.last,
            "followed": state.layer + 1 < state.layers or state.last,
            "unfollowed": not (state.layer + 1 < state.layers or state.last),
        }[self.program[number][1]]

    def _left(self):
        words = self.array.left()
        return ", ".join(filter(None, [self.state.left(), f"{words} words of tiles" if words else ""]))

    def _step(self, number, on_batch):
        """(number of the next instruction, why it has stopped or None)"""
        name, _, fields = self.program[number]
        state = self.state
        if name == "end":
            return number, "end"
        if name == "next":
            return self._next(fields, on_batch, number)
        if name == "again":
            if state.layer + 1 < state.layers:
                state.layer += 1
                return fields["target"], None
            state.layer = state.layers = 0
        elif name == "loop":
            if not fields["layers"]:
                raise Fault("shape", "a loop has at least a layer")
            if state.layers:
                raise Fault("program", "a loop in a loop would never end")
            state.layer, state.layers = 0, fields["layers"]
        else:
            self._execute(name, fields)
        return number + 1, None

    def _execute(self, name, fields):
        state = self.state
        if name == "read":
            vectors.read(state, fields)
        elif name == "fetch":
            self.array.fetch(fields)
        elif name == "multiply":
            self.array.multiply(fields)
        elif name == "vector":
            vectors.vector(state, fields)
            cache.append(state)
        elif name == "append":
            cache.begin_append(state, fields)
        elif name == "attend":
            cache.attend(state, fields)
        elif name == "cache":
            state.cache = fields
        elif name == "pages":
            first, count = fields["first"], fields["count"]
            if not count or first + count > len(state.page_table):
                raise Fault("page", f"the page table has {len(state.page_table)} entries, not {first} + {count}")
            state.page_table[first : first + count] = fields["page"] + np.arange(count)

    def _next(self, fields, on_batch, number):
        state = self.state
        batch, token, reason = (state.position, state.rows), None, None
        if left := state.left():
            raise Fault("queue", f"the batch ends, but there are {left} left")
        state.position += state.rows
        if state.position < state.prompt:
            state.rows = rows_at(state.config, state.position, state.prompt)
        else:
            if state.token is None:
                raise Fault("program", "a token is wanted, but there were no logits")
            token, state.token = state.token, None
            if state.position < self.machine.positions:
                state.tokens[state.position] = token
            if token in [fields[f"eos{n}"] for n in range(min(fields["n_eos"], 4))]:
                reason = "end_of_text"
            elif state.position >= state.limit:
                reason = "limit"
            elif state.position >= self.most_positions:
                raise Fault("position", f"token {state.position} is past the {self.most_positions} of the machine")
            state.rows = 1
        state.layer = state.layers = 0
        if on_batch is not None:
            on_batch(Batch(*batch, token))
        return (number, reason) if reason else (fields["target"], None)
