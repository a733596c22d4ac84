"""What the cycle model says of a model on a machine, as records and as tables."""

from collections import defaultdict
from dataclasses import dataclass

from edgeaccel.bench.record import Record
from edgeaccel.compiler import KINDS
from edgeaccel.perf.energy import BIT_PJ, estimate

__all__ = ["EDGELLM_MACS_PER_S", "Report", "Total", "by_layer", "by_operator"]

EDGELLM_MACS_PER_S = 4096 * 140e6  # arXiv 2407.21325: the FP16 x INT4 array, for prefill
NAMES = (*KINDS[:3], "attention", *KINDS[3:])


@dataclass
class Total:
    """Of operators together: what `Operator` has."""

    cycles: float = 0.0
    wait_cycles: float = 0.0
    bytes: int = 0
    macs: int = 0

    def add(self, operator):
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(operator, name))

    def beat_share(self, memories):
        """Of the beats that could have come in the cycles; above 1 where they came ahead."""
        return self.bytes / memories.deliverable / (self.cycles / (memories.config.core_mhz * 1e6))


def by_operator(run):
    """{name: Total} over all layers of a `Run`, in the order of a layer."""
    totals = {name: Total() for name in NAMES}
    for batch in run.batches:
        for operator in batch.operators:
            totals[operator.name].add(operator)
    return totals


def by_layer(run):
    """{layer: {name: Total}} of a `Run`; of the classifier the layer is None."""
    totals = defaultdict(lambda: defaultdict(Total))
    for batch in run.batches:
        for operator in batch.operators:
            totals[operator.layer][operator.name].add(operator)
    return totals


@dataclass(frozen=True, kw_only=True)
class Report:
    """Runs of a model on a machine.

    Attributes
    ----------
    performance : Performance
    name, preset : str
        Of the model and of the machine.
    context : int
        Position of the token whose decoding is told.
    decode, prefill, text : Run
        The token at `context`; a prompt; tokens of a text from `context` on, or None.
    lut : int or None
        LUTs of the machine, if they are known.
    command : str
        What was asked for, for the records.
    """

    performance: object
    name: str
    preset: str
    context: int
    decode: object
    prefill: object
    text: object = None
    lut: int | None = None
    command: str = ""

    @property
    def runs(self):
        """{name: Run}: those that there are."""
        runs = {"decode": self.decode, "prefill": self.prefill, "text": self.text}
        return {name: run for name, run in runs.items() if run is not None}

    def seconds(self, run):
        return run.cycles / self.performance.core_hz

    def energy(self, run):
        """`Energy` of a run, or None if nothing is known of the memory's."""
        memory = self.performance.memories.model.name
        if memory not in BIT_PJ:
            return None
        of_run = {"bytes": run.bytes, "tokens": run.tokens, "seconds": self.seconds(run), "lut": self.lut}
        return estimate(self.performance.machine.config, memory, **of_run)

    @property
    def prefill_goal(self):
        """Tokens a second that four times EdgeLLM's array would give for this prompt, were it never idle."""
        return 4 * EDGELLM_MACS_PER_S * self.prefill.tokens / self.prefill.macs

    def records(self):
        """A list of `Record`: "estimated", by the cycle model."""
        performance, memories = self.performance, self.performance.memories
        made = []

        def record(name, value, unit, note="cycle model"):
            name = f"perf.{self.name.lower()}.{self.preset}.{name}"
            made.append(Record(name, float(value), unit, "estimated", f"{self.command}: {note}"))

        tokens = {"decode": "tok_s", "prefill": "prefill_tok_s", "text": "text_tok_s"}
        for name, run in self.runs.items():
            record(tokens[name], performance.tokens_per_s(run), "tokens/s")
            record(f"{name}.cycles", run.cycles, "cycles")
            record(f"{name}.tokens", run.tokens, "tokens")
            record(f"{name}.beat_share", run.beat_share, "1")
            record(f"{name}.busy_share", performance.busy_share(run), "1")
            record(f"{name}.bytes", run.bytes, "B")
            record(f"{name}.macs", run.macs, "1")
            record(f"{name}.bound_cycles", performance.bound(run), "cycles", "roofline")
            energy = self.energy(run)
            if energy is not None:
                for end in ("low", "high"):
                    note = f"energy estimate, {end} end"
                    record(f"{name}.joules_per_token.{end}", getattr(energy.joules_per_token, end), "J", note)
                    record(f"{name}.tokens_per_joule.{end}", getattr(energy.tokens_per_joule, end), "1/J", note)
                    record(f"{name}.watts.{end}", getattr(energy.watts, end), "W", note)
            for kind, total in by_operator(run).items():
                record(f"{name}.{kind}.cycles", total.cycles, "cycles")
                record(f"{name}.{kind}.wait_cycles", total.wait_cycles, "cycles")
                record(f"{name}.{kind}.beat_share", total.beat_share(memories), "1")
        for layer, totals in by_layer(self.decode).items():
            if layer is not None:
                record(f"decode.layer{layer}.cycles", sum(total.cycles for total in totals.values()), "cycles")
        note = "4 x 4096 MAC x 140 MHz over the MAC of this prompt's tokens; a goal, not a result"
        record("prefill_goal_tok_s", self.prefill_goal, "tokens/s", note)
        return made

    def tables(self):
        """`rich` tables: the runs, and the operators of each."""
        from rich.table import Table

        performance, memories = self.performance, self.performance.memories
        plan, config = performance.plan, performance.machine.config
        title = (
            f"{self.name} on {self.preset}: {plan.formats['k']} weights, {plan.cache} cache, {memories.model.name},"
            f" {config.core_mhz:g} MHz; cycle model, energy estimated"
        )
        summary = Table(
            "",
            "tokens",
            "cycles",
            "tokens/s",
            "of the beats",
            "of the multipliers",
            "J a token",
            "tokens a J",
            title=title,
        )
        names = {
            "decode": f"token at position {self.context}",
            "prefill": f"prompt of {self.prefill.tokens}",
            "text": f"text from position {self.context} on",
        }
        for name, run in self.runs.items():
            energy = self.energy(run)
            ranges = ("", "") if energy is None else (energy.joules_per_token, energy.tokens_per_joule)
            summary.add_row(
                names[name],
                str(run.tokens),
                f"{run.cycles:,}",
                f"{performance.tokens_per_s(run):,.1f}",
                f"{run.beat_share:.1%}",
                f"{performance.busy_share(run):.1%}",
                *(f"{each.low:.3g} to {each.high:.3g}" if each else "" for each in ranges),
            )
        yield summary
        for name, run in self.runs.items():
            table = Table(
                "operator", "cycles", "share", "waits", "bytes", "of the beats", "MAC a byte", title=names[name]
            )
            totals = by_operator(run)
            rest = run.cycles - sum(total.cycles for total in totals.values())
            for kind, total in totals.items():
                table.add_row(
                    kind,
                    f"{total.cycles:,.0f}",
                    f"{total.cycles / run.cycles:.1%}",
                    f"{total.wait_cycles:,.0f}",
                    f"{total.bytes:,}",
                    f"{total.beat_share(memories):.1%}",
                    f"{total.macs / total.bytes:.2f}" if total.bytes else "",
                )
            table.add_row(
                "last vectors, tokens", f"{rest:,.0f}", f"{rest / run.cycles:.1%}", f"{rest:,.0f}", "", "", ""
            )
            yield table
