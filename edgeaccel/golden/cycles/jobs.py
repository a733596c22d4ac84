"""What the sequencer hands over, and to whom: the ways from it to the units."""

from types import SimpleNamespace

from edgeaccel.golden.blocks import Command
from edgeaccel.golden.cycles.path import vector_steps
from edgeaccel.golden.cycles.stores import Fork
from edgeaccel.golden.feed import Operator

__all__ = ["Jobs"]


class Jobs:
    """Hands each job of the sequencer to the units that it is for.

    Each method but `page` and `take_token` offers a job in a cycle, and tells whether all that it is for have it now.

    Parameters
    ----------
    machine : Machine
    units : CycleMachine
        By their names there.

    Members
    -------
    settled, idle : bool
        As of `edgeaccel.soc.core.Core`.
    """

    def __init__(self, machine, units):
        self._machine, self._of = machine, units
        self._fork = Fork()
        self._steps = None  # of the vectors that are offered
        self._under_way = self._writes = 0

    def begin(self, cycle):
        of = self._of
        self._are_done = self._under_way == of.split.done
        self.settled = of.parameters.is_idle and self._are_done
        self.idle = self.settled and of.logits.is_idle

    def read(self, f, address):
        return self._of.parameters.put(Command(address=address, bytes=f["bytes"]), f["target"])

    def fetch(self, f, sequencer):
        turns = self._of.engine.requests.turns
        if turns.has_room:
            turns.put((f["address"] + f["stride"] * sequencer.layer, f))
        return turns.has_room

    def multiply(self, f, sequencer):
        turns = self._of.engine.operators.turns
        if turns.has_room:
            names = ("format", "inputs", "channel_tiles", "address")
            more_sets = 0 if f["last"] else sequencer.last_set
            turns.put(Operator(**{name: f[name] for name in names}, wait=bool(f["wait"]), more_sets=more_sets))
        return turns.has_room

    def vector(self, f, sequencer):
        of = self._of
        if self._steps is None:
            last_set, which = sequencer.last_set, sequencer.which
            self._steps = vector_steps(
                self._machine,
                f | {"event": f["event"] and which == last_set},
                rows=sequencer.set_rows,
                which=which,
                more=which != last_set,
                dealt=last_set > 0 and not f["to_logits"],
                skip=last_set if f["to_logits"] else 0,
            )
        steps = self._steps
        ends = [(queue.has_room, queue.put, steps) for queue in (of.path.sources, of.path.steps, of.split.jobs)]
        if steps.factors or steps.residual:
            jobs = of.operands.jobs
            kind = "factors" if steps.factors else "residual"
            ends.append((jobs.has_room, jobs.put, (steps.vectors * steps.beats, kind, self._writes)))
        if steps.rotated:
            jobs = of.table.jobs
            ends.append((jobs.has_room, jobs.put, (steps.vectors * steps.table_beats, "table", 0)))
        taken = self._fork.offer(*ends)
        if taken:
            self._steps = None
            self._under_way += 1
            self._writes += steps.to_vector
        return taken

    def page(self, entry, page):
        self._of.pages.write(entry, page)

    def append(self, f, sequencer):
        of = self._of
        job = SimpleNamespace(
            cache=_view(sequencer),
            values=f["values"],
            event=f["event"],
            position=sequencer.position,
            rows=sequencer.rows,
        )
        rows = of.cache_rows.appends
        return self._fork.offer(
            (of.writer.appends.accepts(job), of.writer.appends.put, job),
            (rows.has_room, rows.put, (job.rows, job.cache.heads)),
        )

    def attend(self, f, sequencer):
        of, most = self._of, self._machine.config.rows
        ratio, spread = f["ratio"], f["spread"]
        job = SimpleNamespace(
            **{name: f[name] for name in ("first_head", "n_heads", "address", "stride", "window", "factor")},
            wait=f["wait"] and sequencer.which == 0,
            cache=_view(sequencer),
            batches=-(-ratio // most) if spread else ratio,
            rows=min(ratio, most) if spread else sequencer.set_rows,
            count=sequencer.position + sequencer.which * most + 1,
            causal=not spread,
        )
        event = f["event"] and sequencer.which == sequencer.last_set
        attends, outputs = of.attention.attends, of.output.jobs
        operators, requests = of.engine.operators.turns, of.engine.requests.turns
        return self._fork.offer(
            (attends.accepts(job), attends.put, job),
            (operators.has_room, operators.put, (f["load"] and sequencer.which == 0,)),
            (requests.has_room, requests.put, "attend"),
            (outputs.has_room, outputs.put, (f["n_heads"], ratio, spread, event)),
        )

    def take_token(self):
        return self._of.logits.take_token()


def _view(sequencer):
    """The cache as it is said to lie, in the layer that is worked on."""
    f, layer = sequencer.cache, sequencer.layer
    base, scales = f["base"] + f["layer_words"] * layer, f["scales"] + f["layer_scales"] * layer
    return SimpleNamespace(**f | {"base": base, "scales": scales})
