"""The sequencer, cycle by cycle."""

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
    jobs : Jobs
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

    def __init__(self, machine, program, program_command, reader, tokens, jobs, begin_at):
        self.machine, self.program, self.tokens, self.jobs = machine, program, tokens, jobs
        self.reader, self._command = reader, program_command
        self.position, self.prompt, self.limit = begin_at
        self.rows = 1
        self.layer = self.layers = 0
        self.more = self.last = False
        self.cache = None
        self.next_pc = self.pc = 0
        self.batches, self.issues = [], []
        self.done = False
        self._state, self._name = self._check, None
        self._waited = self._row = 0
        self.which = 0  # the set of rows whose turn it is
        self._loading = None

    def step(self, cycle):
        self._state(cycle)

    @property
    def last_set(self):
        """Of the batch."""
        return (self.rows - 1) // self.machine.config.rows

    @property
    def set_rows(self):
        """Of the set whose turn it is."""
        return min(self.machine.config.rows, self.rows - self.which * self.machine.config.rows)

    def where(self):
        """The instruction at hand, for people."""
        return f"instruction {self.pc} ({self._name}), layer {self.layer}, position {self.position}"

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
        most = self.machine.config.batch_rows
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
        self.which = 0
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
        self._row, self._name = 0, name
        if not wanted:
            self._go(self._latch)
        elif name == "read" and f["index"] in ("token", "position"):
            self._go(self._look)
        elif name in ("read", "fetch", "append", "attend"):
            self._go(self._product)
        elif name in ("multiply", "vector"):
            if name == "vector" and f["to_logits"]:
                self.which = self.last_set
            self._go(self._issue)
        else:
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
        f = self._fields
        is_read = self._name == "read"
        if is_read:
            taken = self.jobs.read(f, f["address"] + f["stride"] * self._index())
        else:
            taken = getattr(self.jobs, self._name)(f, self)
        if not taken:
            return
        self.issues.append((cycle, self.pc, self.layer))
        by_row = is_read and f["index"] in ("token", "position")
        if by_row and self._row + 1 != self.rows:
            self._row += 1
            self._go(self._look)
        elif not by_row and self._name in ("read", "vector", "attend") and self.which != self.last_set:
            self.which += 1
            self._go(self._decode)
        else:
            self._go(self._latch)

    def _index(self):
        """What the stride of a read is multiplied by."""
        place = self.position + self._row
        kind = self._fields["index"]
        if kind == "token":
            return self.tokens[place]
        return {"none": 0, "layer": self.layer, "position": place}[kind]

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
            self._go(self._latch)
            return
        self.jobs.page(self._entry, self._page)
        self._entry, self._page, self._pages_left = self._entry + 1, self._page + 1, self._pages_left - 1

    def _do_loop(self, cycle, f):
        self.layer, self.layers, self.more = 0, f["layers"], f["layers"] > 1
        self._go(self._latch)

    def _do_again(self, cycle, f):
        if self.more:
            self.layer += 1
            self.more = self.layer + 1 < self.layers
            self.next_pc = f["target"]
            self._go(self._fetch)
        else:
            self.layer = self.layers = 0
            self._go(self._latch)

    def _do_sync(self, cycle, f):
        self._go(self._sync)

    def _sync(self, cycle):
        if self._waited == SETTLE_CYCLES:
            if self.jobs.settled:
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
        elif self.jobs.take_token():
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
            if self.jobs.idle:
                self.done = True
                self._go(self._rest)
            return
        self._waited += 1

    def _rest(self, cycle):
        pass
