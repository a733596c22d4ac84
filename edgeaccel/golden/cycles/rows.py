"""What attention gives back to the activation buffer, and keys and values on their way into the cache."""

from edgeaccel.golden.cycles.stores import Buffer, Queue

__all__ = ["AttentionOutput", "CacheRows", "RowSerialiser"]

JOBS, STEPS, APPENDS = 4, 4, 4


class RowSerialiser:
    """`edgeaccel.attention.rows.RowSerialiser`; `step` comes after that of who takes its beats.

    Parameters
    ----------
    steps : object
        `head`, and `get()`: the rows of the next vector.

    Members
    -------
    has_room, put
        Beats of all rows: whether they end their vector.
    head, get
        Beats of one row: (whether it ends its vector,).
    """

    def __init__(self, steps):
        self._steps = steps
        self._full = [0, 0]  # beats of the vector that a half holds
        self._filling, self._n_filled = 0, 0
        self._half = self._beat = self._row = 0
        self._out = None

    def begin(self, cycle):
        self._now_full = self._full[self._half]
        self.has_room = not self._full[self._filling]
        self.head = self._out

    def put(self, last):
        self._n_filled += 1
        if last:
            self._full[self._filling] = self._n_filled
            self._filling, self._n_filled = 1 - self._filling, 0

    def get(self):
        beat, self._out = self._out, None
        return beat

    def step(self, cycle):
        rows = self._steps.head
        if not self._now_full or rows is None or self._out is not None:
            return
        ends_row = self._beat + 1 == self._now_full
        if rows:
            self._out = (ends_row,)
            self._beat = 0 if ends_row else self._beat + 1
            self._row += ends_row
        if not rows or self._row == rows:
            self._row = 0
            self._steps.get()
            self._full[self._half] = 0
            self._half = 1 - self._half


class _Heads:
    """An append's rows, for each of its heads those of one set after the other."""

    def __init__(self, most):
        self._most = most
        self.queue = Queue(APPENDS)  # of (rows, heads)
        self._held = None

    def begin(self, cycle):
        self.queue.begin(cycle)
        self._is_free = self._held is None
        self.head = None if self._is_free else min(self._held[2], self._most)

    def get(self):
        rows, heads, left = self._held
        if left > self._most:
            self._held = rows, heads, left - self._most
        else:
            self._held = (rows, heads - 1, rows) if heads > 1 else None

    def step(self, cycle):
        if self._is_free and self.queue.head is not None:
            rows, heads = self.queue.get()
            self._held = rows, heads, rows


class CacheRows:
    """The way of keys and values from `ResultSplit` to the cache writer.

    Parameters
    ----------
    machine : Machine
    beats : Queue
        As `ResultSplit.cache`.
    writer : CacheWriter

    Members
    -------
    appends : Queue of (rows, heads)
    """

    def __init__(self, machine, beats, writer):
        config = machine.config
        self._beats, self._writer = beats, writer
        self._waiting = Buffer(config.groups * config.tile_channels // config.vector_lanes)
        self._held = [Buffer(machine.max_channels // config.vector_lanes) for _ in range(config.sets - 1)]
        self._turn = 0  # the set whose vector goes
        self._heads = _Heads(config.rows)
        self._rows = RowSerialiser(self._heads)
        self.appends = self._heads.queue

    def begin(self, cycle):
        for part in (self._waiting, *self._held, self._heads, self._rows):
            part.begin(cycle)

    def step(self, cycle):
        if self._rows.head is not None and self._writer.vectors.has_room:
            self._writer.vectors.put(self._rows.get()[0])
        if self._waiting.head is not None and self._rows.has_room:
            _, last_set = self._waiting.head
            source = self._waiting if self._turn == last_set else self._held[self._turn]
            if source.head is not None:
                ends, _ = source.get()
                self._rows.put(ends)
                if ends:
                    self._turn = 0 if self._turn == last_set else self._turn + 1
        if self._beats.head is not None:
            ends, which, more = self._beats.head
            into = self._held[which] if more else self._waiting
            if into.has_room:
                self._beats.get()
                into.put(cycle, (ends, which))
        self._rows.step(cycle)
        self._heads.step(cycle)


class AttentionOutput:
    """`edgeaccel.soc.outputs.AttentionOutput`.

    Parameters
    ----------
    config : Config
    attention : Attention

    Members
    -------
    jobs : Queue of (heads, ratio, spread, event)
    """

    def __init__(self, config, attention):
        self._most, self._attention = config.rows, attention
        self.jobs, self._steps = Queue(JOBS), Queue(STEPS)
        self._rows = RowSerialiser(self._steps)
        self._heads_in = self._first_in = 0
        self._is_first, self._has_all = True, False
        self._query = self._head = 0

    def begin(self, cycle):
        for part in (self.jobs, self._steps, self._rows):
            part.begin(cycle)
        self._takes = self.jobs.head is not None and not self._has_all

    @property
    def head(self):
        """Whether a load is offered, for `get`."""
        job = self.jobs.head
        if job is None:
            return None
        return self._rows.head if job[2] else self._attention.output.head

    def get(self):
        """A load: whether it is an event, as 0 or 1."""
        heads, ratio, spread, event = self.jobs.head
        last = (self._rows if spread else self._attention.output).get()[0]
        if not last:
            return 0
        self._query += 1
        if self._query == ratio:
            self._query = 0
            self._head += 1
            if self._head == heads:
                self._head, self._has_all = 0, False
                self.jobs.get()
                return int(event)
        return 0

    def step(self, cycle):
        """To come after `get`."""
        job, output = self.jobs.head, self._attention.output
        has_room = self._rows.has_room and (self._steps.has_room or not self._is_first)
        if self._takes and job[2] and output.head is not None and has_room:
            self._take(job, output.get()[0])
        self._rows.step(cycle)

    def _take(self, job, last):
        heads, ratio, _, _ = job
        left = ratio - self._first_in
        if self._is_first:
            self._steps.put(min(left, self._most))
        self._rows.put(last)
        self._is_first = last
        if not last:
            return
        self._first_in += self._most
        if left <= self._most:
            self._first_in = 0
            self._heads_in += 1
            if self._heads_in == heads:
                self._heads_in, self._has_all = 0, True
