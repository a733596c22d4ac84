"""The sequencer, cycle by cycle."""

from types import SimpleNamespace

from edgeaccel.golden.blocks import Command
from edgeaccel.golden.cycles.stores import Fork

__all__ = ["Sequencer"]

PRODUCT_CYCLES = 3
SETTLE_CYCLES = 2


class Sequencer:
    """`edgeaccel.soc.sequencer.Sequencer` from its start on; the program is one that runs without errors.

    Parameters
    ----------
    machine : Machine
    program : list of (name, when, fields)
    program_command : edgeaccel.golden.blocks.Command
        Where the program lies.
    reader : BlockReader
        Of the program.
    tokens : sequence of int
        By position, given ones and those that come.
    units : Units
        To whom it gives what instructions ask for.
    begin_at : (position, prompt, limit)

    Members
    -------
    batches : list of (cycle, position, rows)
        The cycle in which `next` puts another batch in the place of one that is done, or ends the run.
    issues : list of (cycle, instruction, layer)
        When instructions were handed over, or done.
    done : bool
    """

    def __init__(self, machine, program, program_command, reader, tokens, units, begin_at):
        self.machine, self.program, self.tokens, self.units = machine, program, tokens, units
        self.reader, self._command = reader, program_command
        self.position, self.prompt, self.limit = begin_at
        self.rows = 1
        self.layer = self.layers = 0
        self.more = self.last = False
        self.cache = None
        self.next_pc = self.pc = 0
        self.batches, self.issues = [], []
        self.done = False
        self._state = self._check
        self._waited = self._row = 0
        self._loading = None
        self._fork = Fork()

    def step(self, cycle):
        self._state(cycle)

    def _go(self, state):
        self._state = state
        self._waited = 0

    # From the start to the first instruction.

    def _check(self, cycle):
        self._go(self._admit)

    def _admit(self, cycle):
        self._go(self._load)

    def _load(self, cycle):
        reader = self.reader
        if self._loading is None:  # `load` is high
            self._loading = "asking"
            return
        if self._loading == "asking" and reader.commands.has_room:
            reader.commands.put(self._command)
            self._loading = "waiting"
        if reader.head is not None and reader.get() == "last":
            self.next_pc = 0
            self._go(self._batch)

    def _batch(self, cycle):
        self._left = self.prompt - self.position
        self._go(self._choose_rows)

    def _choose_rows(self, cycle):
        most = self.machine.config.rows
        group = max(2, 1 << (most - 1).bit_length())
        rows = min(group - self.position % group, most)
        self.last = self._left <= rows
        self.rows = min(rows, self._left)
        self._go(self._fetch)

    # Instructions.

    def _fetch(self, cycle):
        self._go(self._latch)

    def _latch(self, cycle):
        self.pc = self.next_pc
        self.next_pc += 1
        self._go(self._decode)

    def _decode(self, cycle):
        name, when, fields = self.program[self.pc]
        self._fields = f = fields
        followed = self.more or self.last
        wanted = {
            "always": True,
            "single": self.rows == 1,
            "several": self.rows > 1,
            "last": self.last,
            "followed": followed,
            "unfollowed": not followed,
        }[when]
        if not wanted:
            return self._go(self._latch)
        self._row = 0
        if name in ("read", "fetch", "append", "attend"):
            self._name = name
            by_row = name == "read" and f["index"] in ("token", "position")
            return self._go(self._look if by_row else self._product)
        if name in ("multiply", "vector"):
            self._name = name
            return self._go(self._issue)
        self.issues.append((cycle, self.pc, self.layer))
        getattr(self, f"_do_{name}")(cycle, f)

    def _look(self, cycle):
        self._go(self._take)

    def _take(self, cycle):
        self._go(self._product)

    def _product(self, cycle):
        self._waited += 1
        if self._waited == PRODUCT_CYCLES + (self._name in ("append", "attend")):
            self._go(self._issue)

    def _issue(self, cycle):
        units, f = self.units, self._fields
        if self._name == "read":
            index = {"none": 0, "layer": self.layer}.get(f["index"])
            by_row = index is None
            if by_row:
                place = self.position + self._row
                index = self.tokens[place] if f["index"] == "token" else place
            address = f["address"] + f["stride"] * index
            taken = units.read(SimpleNamespace(address=address, bytes=f["bytes"], target=f["target"]))
            if taken and by_row and self._row + 1 != self.rows:
                self._row += 1
                self.issues.append((cycle, self.pc, self.layer))
                return self._go(self._look)
        else:
            taken = getattr(units, self._name)(self._fork, f, self)
        if taken:
            self.issues.append((cycle, self.pc, self.layer))
            self._go(self._latch)

    def _do_end(self, cycle, f):
        self._go(self._drain)

    def _do_cache(self, cycle, f):
        self.cache = f
        self._go(self._latch)

    def _do_pages(self, cycle, f):
        self._entry, self._page, self._pages_left = f["first"], f["page"], f["count"]
        self._go(self._pages)

    def _pages(self, cycle):
        if not self._pages_left:
            return self._go(self._latch)
        self.units.page(self._entry, self._page)
        self._entry, self._page, self._pages_left = self._entry + 1, self._page + 1, self._pages_left - 1

    def _do_loop(self, cycle, f):
        self.layer, self.layers, self.more = 0, f["layers"], f["layers"] > 1
        self._go(self._latch)

    def _do_again(self, cycle, f):
        if self.more:
            self.layer += 1
            self.more = self.layer + 1 < self.layers
            self.next_pc = f["target"]
            return self._go(self._fetch)
        self.layer = self.layers = 0
        self._go(self._latch)

    def _do_sync(self, cycle, f):
        self._go(self._sync)

    def _sync(self, cycle):
        if self._waited == SETTLE_CYCLES:
            if self.units.settled:
                self._go(self._latch)
            return
        self._waited += 1

    def _do_next(self, cycle, f):
        self._go(self._next)

    def _next(self, cycle):
        self._after = self.position + self.rows
        self._go(self._token)

    def _token(self, cycle):
        if self._after < self.prompt:
            self._jump(cycle)
            self._go(self._batch)
        elif self.units.take_token():
            self._go(self._write)

    def _write(self, cycle):
        self._go(self._judge)

    def _judge(self, cycle):
        f = self._fields
        token = self.tokens[self._after]
        self._jump(cycle)
        self.rows = 1
        self._go(self._fetch)
        is_end = token in [f[f"eos{n}"] for n in range(min(f["n_eos"], 4))]
        if is_end or self.position >= self.limit:
            self._go(self._drain)

    def _jump(self, cycle):
        self.batches.append((cycle, self.position, self.rows))
        self.position = self._after
        self.next_pc = self._fields["target"]
        self.layer = self.layers = 0
        self.more = False

    def _drain(self, cycle):
        if self._waited == SETTLE_CYCLES:
            if self.units.idle:
                self.done = True
                self._go(self._rest)
            return
        self._waited += 1

    def _rest(self, cycle):
        pass
