"""Unit walk, cycle by cycle: the units of an attend in order, and where the keys and values of each lie."""

from typing import NamedTuple

from edgeaccel.golden.attention_cycles.table import FIND_CYCLES, place_of

__all__ = ["Unit", "UnitWalk"]

CHECK_CYCLES = 7  # from the cycle in which a command is taken to the one before it waits for its event
UNIT_CYCLES = 7  # two products


class Unit(NamedTuple):
    """What the passes of a unit need, but for its positions' bounds: those of `attention.walk.unit`."""

    slot: int
    first: bool
    last: bool
    ends: bool
    address: int
    group: int
    turn: int
    keys: int
    values: int
    scales: int
    tiles: int
    positions: int
    inputs: int
    format: str
    k_words: int
    v_words: int
    share_bits: int


class UnitWalk:
    """`edgeaccel.attention.walk.UnitWalk`, of legal commands.

    What happens at the end of a cycle is done by `commit`, when it is known whether the unit was taken in it.

    Parameters
    ----------
    config : Config
    table : PageTable

    Attributes
    ----------
    unit : Unit or None
        What is offered in this cycle.
    more : bool
        Units follow soon.
    """

    def __init__(self, config, table):
        self.config, self.table = config, table
        self.of_set = min(config.block // config.tile_channels, config.groups)
        self.sets = config.groups // self.of_set
        self.command, self.n_events = None, 0
        self.sequence = 0  # first entry of the page table of the last command
        self.is_waiting = False
        self._since = self._unit = None  # from which cycle on the walk waits for its event, or offers its unit
        self._is_new = False
        self._n_appended = 0
        self.unit, self.more, self.is_idle = None, False, True

    def begin(self, cycle):
        self.is_idle = self.command is None
        self.unit = self._unit if not self.is_idle and not self.is_waiting and cycle >= self._since else None
        is_stuck = self.is_waiting and cycle >= self._since and self.command.wait and not self.n_events
        self.more = not self.is_idle and not is_stuck

    def accepts(self, command, in_flight):
        """Whether the command is taken if it is offered: at most one sequence is under way."""
        return self.is_idle and (command.cache.table == self.sequence or not in_flight)

    def put(self, command):
        self.command, self.sequence = command, command.cache.table
        self._is_new = True

    def appended(self):
        self._n_appended += 1

    def commit(self, cycle, is_taken):
        """To the next cycle; whether the unit that was offered was taken."""
        if self._is_new:
            self._is_new = False
            self._begin_command(cycle + CHECK_CYCLES + 1)
        elif self.is_waiting and cycle >= self._since and (not self.command.wait or self.n_events):
            self.n_events -= bool(self.command.wait)
            self.is_waiting = False
            self._find(cycle + 1)
        elif is_taken:
            self._next(cycle)
        self.n_events += self._n_appended
        self._n_appended = 0

    def _begin_command(self, cycle):
        command, block = self.command, self.config.block
        self.is_waiting, self._since = True, cycle
        self.most = command.count + (command.rows - 1 if command.causal else 0)
        start = max(command.count - command.window, 0) if command.window else 0
        self.chunk = self.first_chunk = start // block
        self.last_chunk = (self.most - 1) // block

    def _find(self, cycle):
        """Look up the chunk's page, which begins in a cycle."""
        self.place = place_of(self.table, self.command.cache, self.chunk)
        self.head = self.batch = self.slot = 0
        self.address = self.command.address
        self._describe(cycle + FIND_CYCLES + UNIT_CYCLES)

    def _next(self, cycle):
        """What follows the unit that was given in a cycle."""
        command = self.command
        self.slot, self.batch, self.address = self.slot + 1, self.batch + 1, self.address + command.stride
        if self.batch < command.batches:
            self._describe(cycle + 1)
            return
        self.batch, self.head = 0, self.head + 1
        if self.head < command.n_heads:
            self._describe(cycle + 1 + UNIT_CYCLES)
        elif self.chunk < self.last_chunk:
            self.chunk += 1
            self._find(cycle + 1)
        else:
            self.command = None

    def _describe(self, cycle):
        """The unit, and from which cycle on it is offered."""
        command, cache, config = self.command, self.command.cache, self.config
        page, scales, unit = self.place
        number = unit + command.first_head + self.head
        place, of = divmod(number, self.sets)
        positions = min(self.most - self.chunk * config.block, config.block)
        is_last = self.chunk == self.last_chunk
        share = 1 << cache.share_bits
        self._since = cycle
        self._unit = Unit(
            slot=self.slot,
            first=self.chunk == self.first_chunk,
            last=is_last,
            ends=is_last and self.batch + 1 == command.batches and self.head + 1 == command.n_heads,
            address=self.address,
            group=of * self.of_set,
            turn=place % share * (self.of_set // share),
            keys=page + place * cache.k_stride,
            values=page + cache.v_region + place // share * cache.v_stride,
            scales=scales + 2 * config.block * number,
            tiles=-(-positions // config.tile_channels),
            positions=positions,
            inputs=cache.inputs,
            format=cache.format,
            k_words=cache.k_words,
            v_words=cache.v_words,
            share_bits=cache.share_bits,
        )
