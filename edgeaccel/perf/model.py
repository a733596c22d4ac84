"""Cycles of a whole model on a machine: a token at a position, a prompt, a text; by operator and layer.

No weights are needed: the program is that which the compiler writes for the model's shape, and
`edgeaccel.perf.token` tells the cycles of each batch of tokens from it.
"""

from dataclasses import dataclass, field
from functools import cached_property

from edgeaccel.compiler import plan_model
from edgeaccel.compiler.program import program
from edgeaccel.isa import INSTRUCTION_BYTES, decode
from edgeaccel.perf.token import predict

__all__ = ["Batch", "Operator", "Performance", "Run", "batches", "roofline"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What the array does of a batch in one piece.

    Attributes
    ----------
    name : str
        A kind of matrix of `edgeaccel.compiler.KINDS`, or "attention".
    layer : int or None
        None for the classifier.
    cycles : float
        Core cycles from the end of the operator before.
    wait_cycles : float
        Those of them in which the array had nothing to do: until its first word.
    bytes : int
        Of tiles, scales and padding included.
    macs : int
        That the model needs, without padding.
    format : str
        Of the tiles.
    """

    name: str
    layer: int | None
    cycles: float
    wait_cycles: float
    bytes: int
    macs: int
    format: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch of tokens.

    Attributes
    ----------
    position, rows : int
        Its first token, and how many it has.
    cycles : int
        Core cycles, from its first instruction to that of the next batch.
    operators : tuple of Operator
        In order; what lacks to `cycles` is waited for behind the last: vectors, the token.
    beat_share : float
        Tiles' beats over those that the ports' memories could deliver in long reads in those cycles.
    """

    position: int
    rows: int
    cycles: int
    operators: tuple = field(repr=False)
    beat_share: float

    @property
    def bytes(self):
        return sum(operator.bytes for operator in self.operators)

    @property
    def macs(self):
        return sum(operator.macs for operator in self.operators)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Batches one after the other."""

    batches: tuple

    @property
    def tokens(self):
        return sum(batch.rows for batch in self.batches)

    @property
    def cycles(self):
        return sum(batch.cycles for batch in self.batches)

    @property
    def bytes(self):
        return sum(batch.bytes for batch in self.batches)

    @property
    def macs(self):
        return sum(batch.macs for batch in self.batches)

    @property
    def beat_share(self):
        return sum(batch.beat_share * batch.cycles for batch in self.batches) / self.cycles


class Performance:
    """A model on a machine.

    Parameters
    ----------
    shape : ModelShape
    machine : Machine
    memories : edgeaccel.perf.memory.PortMemories
    positions : int
        Tokens that the cache has room for.
    weights, cache : str
        Formats, as of `edgeaccel.compiler.compile_model`.
    classifier : str, optional
    name : str
        Of the model, for messages.

    Raises
    ------
    CompileError
        If the machine cannot run the model, or its memory cannot hold it with so many positions.
    """

    def __init__(self, shape, machine, memories, *, positions, weights="int4", cache="int16", classifier=None, name=""):
        self.shape, self.machine, self.memories = shape, machine, memories
        self.plan = plan_model(
            shape, machine, weights=weights, classifier=classifier, cache=cache, positions=positions, origin=name
        )
        code, self.names = program(self.plan)
        self.program = [decode(code[n : n + INSTRUCTION_BYTES]) for n in range(0, len(code), INSTRUCTION_BYTES)]
        self._tensors = shape.tensors()

    @property
    def core_hz(self):
        return self.machine.config.core_mhz * 1e6

    def tokens_per_s(self, run):
        """Of a `Run`."""
        return run.tokens * self.core_hz / run.cycles

    def busy_share(self, run):
        """Share of rows x lanes that multiply what the model needs, over the cycles of a `Run`."""
        work = sum(
            operator.macs / self.machine.config.macs_per_cycle(operator.format)
            for batch in run.batches
            for operator in batch.operators
        )
        return work / run.cycles

    def bound(self, run):
        """Core cycles that a `Run` takes at least, by the roofline: all beats delivered, or all multipliers at work."""
        return max(run.bytes / self.memories.deliverable * self.core_hz, self.busy_share(run) * run.cycles)

    def decode(self, position):
        """A `Run` of the token at a position, which sees all before it; another one comes behind it."""
        return Run(batches=(self._batch(position, 1, last=True),))

    def text(self, position, tokens, progress=None):
        """A `Run` of tokens one after the other, from a position on."""
        return self._run([(position + n, 1, True) for n in range(tokens)], progress)

    def prefill(self, tokens, progress=None):
        """A `Run` of a prompt's tokens, as many at a time as the machine has rows in all sets."""
        given = batches(self.machine.config.batch_rows, tokens)
        return self._run([(position, rows, position + rows == tokens) for position, rows in given], progress)

    def _run(self, every, progress):
        made = []
        for position, rows, last in every:
            made.append(self._batch(position, rows, last=last))
            if progress is not None:
                progress(1)
        return Run(batches=tuple(made))

    @cached_property
    def _cache_memory(self):
        heads = self.plan.attends(spread=True)[0][1]
        return self.memories.tiles(self.plan.layout, n_heads=heads, batches=self.plan.batches(spread=True))

    @cached_property
    def _value_share(self):
        return self.memories.value_share(self.plan.layout)

    def _batch(self, position, rows, *, last):
        predicted = predict(
            self.machine,
            self.program,
            self.memories.weights(),
            position=position,
            rows=rows,
            last=last,
            cache_memory=self._cache_memory,
            value_share=self._value_share,
        )
        operators = tuple(self._operator(span, position, rows) for span in predicted.spans)
        return Batch(
            position=position,
            rows=rows,
            cycles=predicted.cycles,
            operators=operators,
            beat_share=predicted.beat_share,
        )

    def _operator(self, span, position, rows):
        kind = self.names[span.number].rpartition(".")[2]
        name = "attention" if kind == "cache" else kind
        return Operator(
            name=name,
            layer=None if name == "classifier" else span.layer,
            cycles=span.end - span.begin,
            wait_cycles=span.first - span.begin,
            bytes=span.words * self.machine.config.word_bytes,
            macs=self._macs(span, name, position, rows),
            format=self.plan.cache if name == "attention" else self.plan.formats[name],
        )

    def _macs(self, span, name, position, rows):
        if name == "attention":
            _, _, fields = self.program[span.number]
            heads = fields["n_heads"] * fields["ratio"]
            window = self.shape.window or position + rows
            seen = sum(min(position + row + 1, window) for row in range(rows))
            return 2 * heads * self.shape.head_dim * seen
        part = "" if name == "classifier" else ("feed_forward." if name in ("up", "gate", "down") else "attention.")
        channels, inputs = self._tensors[name if not part else f"layers.{span.layer}.{part}{name}"]
        return channels * inputs * (rows if part else 1)  # of the logits only the last row's are wanted


def batches(rows, tokens, position=0):
    """(position, rows) of the batches in which given tokens go: as many as the rows hold, of one aligned group."""
    group = max(2, 1 << (rows - 1).bit_length())
    given, at = [], position
    while at < position + tokens:
        given.append((at, min(rows, group - at % group, position + tokens - at)))
        at += given[-1][1]
    return given


def roofline(machine, memories, format, intensity):
    """Multiply-accumulates a second that can be had with so many of them for a byte of tiles, at most."""
    peak = machine.config.macs_per_cycle(format) * machine.config.core_mhz * 1e6
    return min(peak, intensity * memories.deliverable)
