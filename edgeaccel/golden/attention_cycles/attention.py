"""Attention beside the array, cycle by cycle: walk, passes, scores and values with the ways between them."""

from edgeaccel.golden.attention_cycles.passes import SPARE_PLACES, PassIssue
from edgeaccel.golden.attention_cycles.scores import ScorePath
from edgeaccel.golden.attention_cycles.values import ValueAccumulator
from edgeaccel.golden.attention_cycles.walk import UnitWalk
from edgeaccel.golden.memory import Command

__all__ = ["Attention"]


class Attention:
    """`edgeaccel.attention.Attention` for legal commands: everything that moves, and no numbers.

    In a cycle `begin` comes before, and `step` among, all that moves; the order of what moves does not matter. What
    depends on streams that the outside takes in the cycle is made up for at the next `begin`.

    Parameters
    ----------
    config : Config
    table : PageTable
    scales : edgeaccel.golden.cycles.fetcher.TileStreamer
        Of the values' scales; its `begin` and `step` are called here.
    lookahead : int
        As in the hardware.

    Attributes
    ----------
    attends : stream's end
        `accepts(command)` tells whether one that is offered is taken, `put(command)` gives it: an object with the
        fields of `edgeaccel.attention.command.attend`, the format by its name.
    operators, requests : stream's ends
        `head` and `get()`: (edgeaccel.golden.feed.Operator, ends), (Request, ends) where `ends` tells that it is the
        last of its command.
    loads : stream's end
        0 or 1, the event of a load; to be taken in the cycle in which it is offered.
    output : stream's end
        (last of the vector, tag, slot) of each beat; the tag marks vectors that end a command.
    results_ready : bool
        Whether `put_result` may give a beat of the array's results.
    """

    def __init__(self, config, *, table, scales, lookahead=None):
        sets = max(1, config.groups * config.tile_channels // config.block)
        self.lookahead = max(6, 3 * sets) if lookahead is None else lookahead
        places = self.lookahead + SPARE_PLACES
        self.ring = config.buffer_words - places * config.block // config.vector_lanes
        self._cycle, self._n_taken, self._rests = 0, 0, False
        self._scales = scales
        self._walk = UnitWalk(config, table)
        self._passes = passes = PassIssue(config, lookahead=self.lookahead, ring=self.ring)
        self._scores = ScorePath(config, passes.scores, scales)
        self._values = ValueAccumulator(config, passes.values, self._scores.chunks, ahead=places)
        self._beat = 0
        self.attends = self
        self.operators, self.requests = passes.operators, passes.requests
        self.loads, self.output = self._scores.loads, self._values.output
        self.results_ready = False

    def accepts(self, command):
        return self._walk.accepts(command, self._passes.in_flight)

    def put(self, command):
        self._walk.put(command)
        self._n_taken += 1
        self._rests = False

    def read(self):
        """An operator of values has read its inputs."""
        self._passes.read()

    def appended(self):
        """An event of appends."""
        self._walk.appended()

    def begin(self, cycle):
        walk, passes = self._walk, self._passes
        self._cycle = cycle
        if self._rests:
            return
        if cycle:
            walk.commit(cycle - 1, passes.commit(cycle - 1))
        walk.begin(cycle)
        passes.begin(cycle, walk)
        passes.operators.begin(cycle)
        self._scores.begin(cycle)
        self._values.begin(cycle)
        self._scales.begin(cycle)
        self.results_ready = False
        if passes.routes.offered(cycle):
            is_values, _ = passes.routes.first()
            self.results_ready = (self._values if is_values else self._scores).ready(cycle)
        # Nothing is left to do until a command comes.
        self._rests = self._values.n_commands == self._n_taken and not self.output.items

    def put_result(self):
        """A beat of results to whom it belongs."""
        routes = self._passes.routes
        is_values, beats = routes.first()
        (self._values if is_values else self._scores).put(self._cycle)
        self._beat += 1
        if self._beat == beats:
            self._beat = 0
            routes.take(self._cycle)

    def step(self, cycle):
        if self._rests:
            return
        commands = self._scales.commands
        if commands.has_room and self._passes.scales.offered(cycle):
            address, words, format = self._passes.scales.take(cycle)
            commands.put(Command(address=address, words=words, format=format))
        self._values.step(cycle)
        self._scores.step(cycle)
        self._scales.step(cycle)
