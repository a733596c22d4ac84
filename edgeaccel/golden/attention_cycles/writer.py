"""Cache writer, cycle by cycle: appends to the pages of sequences."""

from collections import deque

from edgeaccel.golden.append import Append
from edgeaccel.golden.attention_cycles.append import KVAppend
from edgeaccel.golden.attention_cycles.table import FIND_CYCLES, place_of

__all__ = ["CacheWriter"]

IN_FLIGHT = 4  # appends
OUTSTANDING = 64  # writes
OF_LAYOUT = ("k_words", "k_stride", "v_region", "v_words", "v_stride", "share_bits")


class CacheWriter:
    """`edgeaccel.attention.CacheWriter` for legal commands, with its memory.

    In a cycle `begin` comes before, and `step` among, all that moves.

    Parameters
    ----------
    config : Config
    port_bytes : int
        As in the hardware.
    table : PageTable
    memory : edgeaccel.golden.cycles.memory.Memory
        All ports' memories and that of the values' scales, as the writer sees them.

    Attributes
    ----------
    appends : stream's end
        `accepts(command)` tells whether one that is offered is taken, `put(command)` gives it: an object with the
        fields of `edgeaccel.attention.command.append`, the format by its name.
    vectors : stream's end
        `has_room`, and `put(last)` of each beat.
    done, appended : bool
        In this cycle an append is written; and it gives an event. `on_appended` is called in such a cycle's `step`.
    idle : bool
        No append is under way.
    answers : list of int
        Cycles in which the memory has answered writes.
    """

    def __init__(self, config, *, port_bytes, table, memory, on_appended=None):
        self.config, self.table = config, table
        self._inner = KVAppend(config, port_bytes=port_bytes, memory=memory, outstanding=OUTSTANDING)
        self.vectors, self.answers = self._inner.vectors, self._inner.answers
        self.on_appended = on_appended
        self.appends = self
        self._command, self._sequence = None, 0
        self._find = self._place = None
        self._events = deque()
        self._n_in_flight = 0
        self.done = self.appended = False
        self.idle = self._rests = False

    def accepts(self, command):
        is_same = command.cache.table == self._sequence
        return self._is_idle and (is_same or not self._n_in_flight)

    def put(self, command):
        self._command, self._sequence = command, command.cache.table
        self._find = self._cycle + 2
        self._rests = False

    def begin(self, cycle):
        self._cycle = cycle
        if self._rests:
            return
        self._inner.begin(cycle)
        self._is_idle = self._command is None
        # Nothing is left to do until a command comes.
        self.idle = self._rests = self._is_idle and not self._n_in_flight
        if cycle == self._find:
            self._place = place_of(self.table, self._command.cache, self._command.position // self.config.block)
        self.done = self._inner.done
        self.appended = self.done and self._events[0]

    def step(self, cycle):
        if self._rests:
            return
        gives = (
            not self._is_idle
            and cycle >= self._find + FIND_CYCLES - 1
            and self._n_in_flight < IN_FLIGHT
            and self._inner.commands.free(cycle)
        )
        if gives:
            self._inner.commands.put_in(cycle, self._append())
            self._events.append(bool(self._command.event))
            self._command = None
        self._n_in_flight += gives - self.done
        if self.done:
            self._events.popleft()
        if self.appended and self.on_appended:
            self.on_appended()
        self._inner.step(cycle)

    def _append(self):
        """The command as the inner writer has it."""
        command, cache, place = self._command, self._command.cache, self._place
        return Append(
            kind="v" if command.values else "k",
            format=cache.format,
            rows=command.rows,
            heads=cache.heads,
            inputs=cache.inputs,
            unit=place.unit,
            place=command.position % self.config.block,
            page=place.page,
            scales=place.scales,
            **{name: getattr(cache, name) for name in OF_LAYOUT},
        )
