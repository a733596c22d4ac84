"""The sequencer against an interpreter of the same programs: what it gives, in which order, and why it stops."""

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from edgeaccel import isa
from edgeaccel.machine import machine as named_machine
from edgeaccel.sim.payload import decode, row_bytes
from edgeaccel.soc.program import ProgramMemory, line_layout
from edgeaccel.soc.sequencer import Sequencer, SequencerErrorCode, State, most_positions
from edgeaccel.soc.tokens import TokenMemory
from edgeaccel.verilated import lint
from edgeaccel.verilog import emit

STREAMS = ("reads", "fetches", "multiplies", "vectors", "appends", "attends", "pages")
MAX_CYCLES = 5_000


def small_machine(rows=4, sets=1, **sizes):
    sizes = {"positions": 64, "instructions": 32, **sizes}
    return named_machine("tiny", changes={"rows": rows, "sets": sets}, **sizes)


class Interpreter:
    """Executes a program as `edgeaccel.isa` tells; what it gives is in `given`: (stream, fields), or ("sync", None).

    `new_tokens` are those that the logits give.
    """

    def __init__(self, machine, program, tokens, new_tokens):
        self.machine, self.tokens, self.new_tokens = machine, list(tokens), list(new_tokens)
        self.program = [isa.decode(program[n : n + 64]) for n in range(0, len(program), 64)]
        self.given, self.cache_fields = [], None

    def give(self, stream, **fields):
        self.given.append((stream, fields))

    def run(self, position, prompt, limit):
        """Returns (state, error or None)."""
        if position >= prompt:
            return State.ERROR, SequencerErrorCode.PROMPT
        if prompt > self.machine.positions:
            return State.ERROR, SequencerErrorCode.POSITION
        self.position, self.prompt, self.limit = position, prompt, limit
        self.pc = self.layer = self.layers = 0
        self.begin_batch()
        while True:
            if self.pc >= len(self.program):
                return State.ERROR, SequencerErrorCode.PROGRAM
            name, when, f = self.program[self.pc]
            self.pc += 1
            if self.wanted(when) and (stop := getattr(self, name)(**f)):
                return stop

    def begin_batch(self):
        most = self.machine.config.rows * self.machine.config.sets
        group = 2
        while group < most:
            group *= 2
        self.rows = min(most, self.prompt - self.position, group - self.position % group)

    @property
    def last(self):
        return self.position + self.rows >= self.prompt

    def wanted(self, when):
        followed = self.layer + 1 < self.layers or self.last
        return {
            "always": True,
            "single": self.rows == 1,
            "several": self.rows != 1,
            "last": self.last,
            "followed": followed,
            "unfollowed": not followed,
        }[when]

    @property
    def sets(self):
        """(number, rows, whether another one follows, words to its part of the buffer, of the vector memory)"""
        most, config = self.machine.config.rows, self.machine.config
        n_sets = -(-self.rows // most)
        for n in range(n_sets):
            rows = min(most, self.rows - n * most)
            words = config.buffer_words // config.sets, self.machine.vector_words // config.sets
            yield n, rows, n + 1 < n_sets, n * words[0], n * words[1]

    def end(self):
        return State.END, None

    def read(self, address, stride, index, **f):
        places = range(self.position, self.position + self.rows)
        by_row = {"token": [self.tokens[n] for n in places], "position": places}
        if index in by_row:
            most = self.machine.config.rows
            of_rows = [(n, 1 << row, base) for n, rows, _, _, base in self.sets for row in range(rows)]
            assert len(of_rows) == self.rows <= most * self.machine.config.sets
            each = [(*row, value) for row, value in zip(of_rows, by_row[index], strict=True)]
        else:
            value = self.layer if index == "layer" else 0
            all_rows = (1 << self.machine.config.rows) - 1
            each = [(n, all_rows, base, value) for n, _, _, _, base in self.sets]
        vector = f.pop("vector")
        for which, rows, base, value in each:
            own = {"address": (address + stride * value) % (1 << 64), "vector": (vector + base) % (1 << 20)}
            self.give("reads", rows=rows, set=which, **own, **f)

    def fetch(self, address, stride, **f):
        self.give("fetches", address=(address + stride * self.layer) % (1 << 40), **f)

    def multiply(self, address, last, **f):
        *_, (last_set, _, _, base, _) = self.sets
        address = (address + (base if last else 0)) % (1 << 20)
        self.give("multiplies", address=address, more_sets=0 if last else last_set, **f)

    def vector(self, **f):
        *_, (last_set, *_) = self.sets
        logits = f["to_logits"]
        for n, rows, more, buffer, vector in self.sets:
            if logits and more:
                continue
            places = {"address": buffer, "operand": vector, "vector": vector}
            own = {name: (f[name] + base) % (1 << 20) for name, base in places.items()}
            own |= {"event": f["event"] * (not more), "dealt": int(last_set > 0 and not logits)}
            own |= {"set": n, "more": int(more), "skip": last_set * logits}
            self.give("vectors", rows=rows, **f | own)

    def pages(self, first, count, page):
        if first + count > self.machine.pages or not count:
            return State.ERROR, SequencerErrorCode.RANGE
        self.given += [
            ("pages", {"index": first + n, "page": (page + n) % (1 << 16), "valid": 1}) for n in range(count)
        ]
        return None

    def view(self):
        view = dict(self.cache_fields)
        words, scales = view.pop("layer_words"), view.pop("layer_scales")
        view["base"] = (view["base"] + self.layer * words) % (1 << 40)
        view["scales"] = (view["scales"] + self.layer * scales) % (1 << 64)
        return view

    def cache(self, **f):
        self.cache_fields = f

    def append(self, **f):
        self.give("appends", cache=self.view(), position=self.position, rows=self.rows, **f)

    def attend(self, **f):
        config = self.machine.config
        bits = (config.buffer_words - 1).bit_length()
        if f["address"] >> bits or f["stride"] >> bits:
            return State.ERROR, SequencerErrorCode.RANGE
        for number in self.sets:
            self.attend_set(bits, f, *number)
        return None

    def attend_set(self, bits, f, n, rows, more, base, _):
        config = self.machine.config
        batches = f["ratio"]
        if f["spread"]:
            batches, rows = -(-f["ratio"] // config.rows), min(f["ratio"], config.rows)
        f = f | {"address": (f["address"] + base) % (1 << bits), "out_address": (f["out_address"] + base) % (1 << 20)}
        f |= {"wait": f["wait"] * (n == 0), "load": f["load"] * (n == 0), "event": f["event"] * (not more)}
        names = ("first_head", "n_heads", "address", "stride", "window", "factor", "wait")
        attend = {name: f[name] for name in names}
        attend |= {"cache": self.view(), "batches": batches, "rows": rows}
        attend |= {"causal": 1 - f["spread"], "count": self.position + n * config.rows + 1}
        names = ("ratio", "spread", "load", "out_address", "out_stride", "event")
        self.give("attends", attend=attend, **{name: f[name] for name in names})

    def loop(self, layers):
        if not layers:
            return State.ERROR, SequencerErrorCode.RANGE
        self.layer, self.layers = 0, layers
        return None

    def again(self, target):
        if self.layer + 1 < self.layers:
            self.layer, self.pc = self.layer + 1, target
        else:
            self.layer = self.layers = 0

    def sync(self):
        self.given.append(("sync", None))

    def next(self, target, n_eos, **eos):
        self.position += self.rows
        self.pc, self.layer, self.layers = target, 0, 0
        if self.position < self.prompt:
            self.begin_batch()
            return None
        token, self.rows = self.new_tokens.pop(0), 1
        if self.position < self.machine.positions:
            self.tokens[self.position] = token
        if token in [eos[f"eos{n}"] for n in range(min(n_eos, 4))]:
            return State.END_OF_TEXT, None
        if self.position >= self.limit:
            return State.LIMIT, None
        if self.position >= self.machine.positions:
            return State.ERROR, SequencerErrorCode.POSITION
        return None


def number(values):
    """Fields with formats, functions and targets by their numbers."""
    return {name: number_of(name, value) for name, value in values.items()}


def number_of(name, value):
    if isinstance(value, dict):
        return number(value)
    if isinstance(value, str):
        names = {"format": isa.FORMAT_NAMES, "target": isa.TARGETS, "function": isa.FUNCTIONS}[name]
        return names.index(value)
    return int(value)


def plain(value):
    """A decoded payload of one item as a dict of integers."""
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    return int(value[0])


class Bench:
    """A sequencer with a token memory, and random units around it."""

    def __init__(self, machine, rng, program, tokens=(), new_tokens=(), *, open_share=None):
        self.machine, self.rng, self.program, self.new_tokens = machine, rng, program, list(new_tokens)
        self.tokens = list(tokens)
        self.open = rng.choice([0.2, 0.6, 1.0]) if open_share is None else open_share
        self.given, self.cycles, self.asked, self.n_done = [], [], [], 0
        self.fail_at = self.stop_at = self.clear_at = None
        self.never_idle = False
        self.sequencer, self.memory = Sequencer(machine), TokenMemory(machine)
        m = Module()
        m.submodules.sequencer, m.submodules.memory = self.sequencer, self.memory
        wiring.connect(m, self.sequencer.tokens, self.memory.sequencer)
        self.simulator = Simulator(m)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._run)

    def run(self, *runs):
        """Run for each of (position, prompt, limit), ("clear",) or ("program", bytes); (state, error) of each."""
        self.runs, self.ends = runs, []
        self.simulator.run()
        return self.ends

    async def _run(self, ctx):
        s, host = self.sequencer, self.memory.host
        for position, token in enumerate(self.tokens):
            ctx.set(host.position, position)
            ctx.set(host.token, token)
            ctx.set(host.write, 1)
            await ctx.tick()
        ctx.set(host.write, 0)
        for run in self.runs:
            if run == ("clear",):
                ctx.set(s.clear, 1)
                await ctx.tick()
                ctx.set(s.clear, 0)
                assert ctx.get(s.state) == State.IDLE
                continue
            if run[0] == "program":
                self.program = run[1]
                continue
            position, prompt, limit = run
            ctx.set(s.program_address, 0x123456789A00)
            ctx.set(s.program_bytes, len(self.program))
            ctx.set(s.position, position)
            ctx.set(s.prompt, prompt)
            ctx.set(s.limit, limit)
            ctx.set(s.start, 1)
            await ctx.tick()
            ctx.set(s.start, 0)
            for name in ("program_address", "program_bytes", "position", "prompt", "limit"):
                ctx.set(getattr(s, name), 0)
            await self._until_done(ctx)
            error = ctx.get(s.error)
            self.ends.append((ctx.get(s.state), SequencerErrorCode(error.code) if error.valid else None))
            self.at = {name: ctx.get(getattr(s, name)) for name in ("at_position", "rows", "layer", "pc")}
        for position in range(len(self.tokens)):
            ctx.set(host.position, position)
            await ctx.tick()
            self.tokens[position] = ctx.get(host.read)

    def chance(self):
        return int(self.rng.random() < self.open)

    async def _until_done(self, ctx):
        s, rng = self.sequencer, self.rng
        outs = {name: getattr(s, f"o_{name}") for name in STREAMS}
        lines = [self.program[n : n + 64] for n in range(0, len(self.program), 64)]
        pending = dict.fromkeys(STREAMS)
        offering, token_offered, asked = None, False, False
        busy_reads = busy = 0  # cycles until the units are idle again
        late_reads = late = 0  # cycle until which it does not show that they are not
        for cycle in range(MAX_CYCLES):
            ctx.set(s.stop, int(cycle == self.stop_at))
            ctx.set(s.failed, int(self.fail_at is not None and cycle >= self.fail_at))
            ctx.set(s.o_program.ready, self.chance())
            # Either may be late.
            ctx.set(s.parameters_idle, int((busy_reads == 0 or cycle < late_reads) and not self.never_idle))
            ctx.set(s.idle, int((busy == 0 or cycle < late) and not self.never_idle))
            busy_reads, busy = max(0, busy_reads - 1), max(0, busy - 1)
            if offering is None and asked and lines and self.chance():
                offering = lines.pop(0)
                ctx.set(s.i_program.p.data.as_value(), int.from_bytes(offering, "little"))
                ctx.set(s.i_program.p.last, not lines)
            ctx.set(s.i_program.valid, offering is not None)
            token_offered = token_offered or bool(self.new_tokens and self.chance())
            if token_offered:
                ctx.set(s.i_token.p.token, self.new_tokens[0])
            # A token only comes for logits, which are asked for by the program.
            ctx.set(s.i_token.valid, int(token_offered and ctx.get(s.state) == State.RUNNING))
            readies = {name: self.chance() for name in outs}
            for name, o in outs.items():
                ctx.set(o.ready, readies[name])
            if ctx.get(s.o_program.valid & s.o_program.ready):
                command = ctx.get(s.o_program.p)
                self.asked.append((command.address, command.bytes))
                asked = True
            if ctx.get(s.i_program.valid & s.i_program.ready):
                offering = None
            if ctx.get(s.i_token.valid & s.i_token.ready):
                self.new_tokens.pop(0)
                token_offered = False
                busy = int(rng.integers(0, 20))
            n_valid = 0
            for name, o in outs.items():
                valid = ctx.get(o.valid)
                n_valid += valid
                payload = ctx.get(o.p.as_value()) if valid else None
                if pending[name] is not None and self.fail_at is None:
                    assert payload == pending[name], f"cycle {cycle}: {name} changed what it offered"
                pending[name] = None if readies[name] else payload
                if valid and readies[name]:
                    self.given.append((name, self._decode(o, payload), busy_reads == 0))
                    self.cycles.append(cycle)
                    if busy == 0:
                        late = cycle + int(rng.integers(0, 5))
                    busy = int(rng.integers(5, 20))
                    if name == "reads" and self.given[-1][1]["target"] in (2, 3):
                        if busy_reads == 0:
                            late_reads = cycle + int(rng.integers(0, 5))
                        busy_reads = int(rng.integers(5, 20))
            assert n_valid <= 1
            was_idle = ctx.get(s.idle)
            if not ctx.get(s.done):  # it may be already if there was no way to begin
                await ctx.tick()
            if ctx.get(s.done):
                self.idle_when_done = was_idle and busy == 0
                self.end_cycle = cycle
                assert not ctx.get(s.busy)
                for name in ("stop", "failed"):
                    ctx.set(getattr(s, name), 0)
                for o in outs.values():
                    assert not ctx.get(o.valid)
                await ctx.tick()
                assert not ctx.get(s.done)
                return
        raise AssertionError(f"still {ctx.get(s.state)} after {MAX_CYCLES} cycles, at {ctx.get(s.pc)}")

    def _decode(self, o, payload):
        shape = o.p.shape()
        n_bytes = row_bytes(shape.size)
        row = np.frombuffer(payload.to_bytes(n_bytes, "little"), np.uint8)[None]
        return plain(decode(shape, row))


def assert_given(bench, interpreter):
    """The same jobs in the same order, and none behind a `sync` before the reads were done."""
    expected = [(stream, number(fields)) for stream, fields in interpreter.given if stream != "sync"]
    assert [(stream, fields) for stream, fields, _ in bench.given] == expected
    n = 0
    for (stream, _), after in zip(interpreter.given, [*interpreter.given[1:], None], strict=True):
        if stream != "sync":
            n += 1
        elif after and after[0] != "sync":
            assert bench.given[n][2], f"job {n} came before the reads were done"


def random_fields(rng, name, **fixed):
    """Any fields, often the largest values."""
    fields = {}
    for field, of in isa.INSTRUCTIONS[name].fields.items():
        if of.names:
            fields[field] = str(rng.choice(of.names))
        else:
            largest = (1 << of.width) - 1
            any_value = int.from_bytes(rng.bytes(8), "little") & largest
            fields[field] = [0, largest][rng.integers(2)] if rng.random() < 0.2 else any_value
    return fields | fixed


def random_program(rng, machine):
    """Any instructions, a loop or none among them, and `next` behind all."""

    def some(n):
        for _ in range(int(rng.integers(1, n))):
            name = str(
                rng.choice(["read", "fetch", "multiply", "vector", "append", "attend", "sync", "cache", "pages"])
            )
            fixed = {"when": str(rng.choice(isa.WHEN))} if rng.random() < 0.6 else {}
            if name == "pages":
                first = int(rng.integers(0, machine.pages))
                fixed |= {"first": first, "count": int(rng.integers(1, min(5, machine.pages - first) + 1))}
            if name == "attend":
                words = machine.config.buffer_words
                fixed |= {"address": int(rng.integers(0, words)), "stride": int(rng.integers(0, words))}
                fixed |= {"ratio": int(rng.integers(1, 20))} if rng.random() < 0.6 else {}
            if name == "cache":
                fixed.pop("when", None)
            yield name, random_fields(rng, name, **fixed)

    program = [("cache", random_fields(rng, "cache")), *some(3)]
    again = len(program)
    program += some(5)
    if rng.random() < 0.8:
        program += [("loop", {"layers": int(rng.integers(1, 5))})]
        target = len(program)
        program += [*some(8), ("again", {"target": target})]
    program += some(4)
    eos = {f"eos{n}": int(rng.integers(0, 40)) for n in range(4)}
    return isa.assemble([*program, ("next", {"target": again, "n_eos": int(rng.integers(0, 5)), **eos}), ("end", {})])


@pytest.mark.parametrize("seed", range(16))
def test_random_programs(seed):
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    machine = small_machine(rows=[1, 2, 3, 4, 6, 8][seed % 6], sets=1 + seed // 12 + seed // 14)
    program = random_program(rng, machine)
    prompt = int(rng.integers(1, 20))
    position = int(rng.integers(0, prompt))
    limit = prompt + int(rng.integers(0, 4))
    tokens = rng.integers(0, 1 << 20, machine.positions).tolist()
    new_tokens = rng.integers(0, 60, 8).tolist()
    bench = Bench(machine, rng, program, tokens, new_tokens)
    golden = Interpreter(machine, program, tokens, new_tokens)
    assert bench.run((position, prompt, limit)) == [golden.run(position, prompt, limit)]
    assert_given(bench, golden)
    assert bench.asked == [(0x123456789A00, len(program))]
    assert bench.tokens == golden.tokens
    assert bench.at["at_position"] == golden.position
    assert bench.idle_when_done


def simple(*body, eos=(), n_eos=None):
    """A program of a few instructions a batch."""
    fields = {f"eos{n}": token for n, token in enumerate(eos)} | {"n_eos": len(eos) if n_eos is None else n_eos}
    return isa.assemble([*body, ("next", {"target": 0, **fields}), ("end", {})])


def check(machine, program, *runs, tokens=None, new_tokens=(), seed=0, states, **settings):
    """Run a program, hold it against the interpreter if it is not disturbed, and against the states expected."""
    rng = np.random.default_rng(seed)
    tokens = list(range(100, 100 + machine.positions)) if tokens is None else tokens
    bench = Bench(machine, rng, program, tokens, new_tokens)
    for name, value in settings.items():
        setattr(bench, name, value)
    assert bench.run(*runs) == states
    if not settings and ("clear",) not in runs:
        golden = Interpreter(machine, program, tokens, new_tokens)
        assert [golden.run(*run) for run in runs] == states
        assert_given(bench, golden)
        assert bench.tokens == golden.tokens
    return bench


MULTIPLY = ("multiply", {"address": 3, "inputs": 64})


@pytest.mark.parametrize(
    ("run", "eos", "new", "state"),
    [
        ((0, 1, 1), [], [7], State.LIMIT),
        ((0, 5, 5), [], [7], State.LIMIT),
        ((0, 5, 3), [], [7], State.LIMIT),
        ((4, 5, 9), [], [7, 8, 9, 10, 11], State.LIMIT),
        ((0, 2, 9), [8], [7, 8], State.END_OF_TEXT),
        ((0, 2, 3), [1, 2, 3, 8], [7, 8], State.END_OF_TEXT),
        ((0, 2, 2), [7], [7], State.END_OF_TEXT),
        ((0, 2, 3), [], [0, 0], State.LIMIT),  # no end of text is 0, nor any other that does not count
        ((0, 2, 4), [1], [0, 0, 0], State.LIMIT),
    ],
)
def test_stops(run, eos, new, state):
    machine = small_machine()
    bench = check(machine, simple(MULTIPLY, eos=eos), run, new_tokens=new, states=[(state, None)])
    assert bench.idle_when_done
    assert bench.tokens[run[1] : run[1] + len(new)] == new


def test_end_and_again():
    """A program that ends by itself, twice without `clear`."""
    machine = small_machine()
    program = isa.assemble([MULTIPLY, ("end", {})])
    bench = check(machine, program, (0, 3, 4), (2, 3, 4), states=[(State.END, None)] * 2)
    assert len(bench.asked) == 2
    assert bench.at == {"at_position": 2, "rows": 1, "layer": 0, "pc": 1}


@pytest.mark.parametrize(("n_eos", "state"), [(2, State.LIMIT), (3, State.END_OF_TEXT), (7, State.END_OF_TEXT)])
def test_ends_of_text_that_count(n_eos, state):
    program = simple(MULTIPLY, eos=[1, 2, 3, 4], n_eos=n_eos)
    check(small_machine(), program, (0, 2, 3), new_tokens=[3, 5], states=[(state, None)])


def test_another_program():
    """The second one is longer, and takes the place of the first."""
    machine = small_machine()
    bench = Bench(machine, np.random.default_rng(0), isa.assemble([MULTIPLY, ("end", {})]), range(64))
    other = isa.assemble([("vector", {}), ("fetch", {}), MULTIPLY, ("end", {})])
    assert bench.run((0, 1, 1), ("program", other), (0, 1, 1)) == [(State.END, None)] * 2
    assert [stream for stream, _, _ in bench.given] == ["multiplies", "vectors", "fetches", "multiplies"]
    assert [n_bytes for _, n_bytes in bench.asked] == [128, 256]


def test_tokens_that_nobody_waits_for_are_dropped():
    sequencer = Sequencer(small_machine())
    simulator = Simulator(sequencer)
    simulator.add_clock(1e-6)

    async def bench(ctx):
        assert ctx.get(sequencer.i_token.ready)
        ctx.set(sequencer.prompt, 1)
        ctx.set(sequencer.program_bytes, 64)
        ctx.set(sequencer.start, 1)
        await ctx.tick()
        assert not ctx.get(sequencer.i_token.ready)

    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("program", "run", "code"),
    [
        (b"", (0, 1, 1), "PROGRAM"),
        (isa.encode("end")[:60], (0, 1, 1), "PROGRAM"),
        (isa.encode("end") * 33, (0, 1, 1), "PROGRAM"),
        (isa.encode("sync"), (0, 1, 1), "PROGRAM"),
        (isa.encode("end"), (1, 1, 1), "PROMPT"),
        (isa.encode("end"), (0, 0, 1), "PROMPT"),
        (isa.encode("end"), (0, 65, 1), "POSITION"),
        (isa.encode("end"), (0, 1 << 20, 1), "POSITION"),
        (simple(MULTIPLY), (63, 64, 70), "POSITION"),
        (bytes([13]) + bytes(63), (0, 1, 1), "OPCODE"),
        (bytes([31]) + bytes(63), (0, 1, 1), "OPCODE"),
        (bytes([6 << 5 | 2]) + bytes(63), (0, 1, 1), "OPCODE"),
        (isa.encode("pages", first=60, count=5), (0, 1, 1), "RANGE"),
        (isa.encode("pages"), (0, 1, 1), "RANGE"),
        (isa.encode("loop"), (0, 1, 1), "RANGE"),
        (isa.encode("attend", address=1 << 19), (0, 1, 1), "RANGE"),
        (isa.encode("attend", stride=1 << 19), (0, 1, 1), "RANGE"),
        (isa.assemble([("loop", {"layers": 2}), ("again", {"target": 9})]), (0, 1, 1), "PROGRAM"),
    ],
    ids=range(18),
)
def test_errors(program, run, code):
    machine = small_machine()
    error = (State.ERROR, SequencerErrorCode[code])
    clear = (State.ERROR, error[1])  # the first error stands until `clear`
    bench = Bench(machine, np.random.default_rng(0), program, range(64), [5] * 4)
    assert bench.run(run, run, ("clear",), run)[:2] == [error, clear]
    assert bench.given == [] or code == "POSITION"


def test_the_whole_page_table_and_the_last_positions():
    machine = small_machine()
    body = [("pages", {"first": 0, "count": 64, "page": 65530}), ("pages", {"first": 63, "count": 1})]
    check(machine, simple(*body), (62, 63, 64), new_tokens=[1, 2], states=[(State.LIMIT, None)])


def test_most_positions():
    """A count of positions has to fit its field."""
    assert most_positions(small_machine(positions=1 << 20)) == (1 << 20) - 1
    assert most_positions(small_machine(positions=64)) == 64


@pytest.mark.parametrize("fail_at", [0, 1, 2, 3, 5, 20, 33, 61])
def test_failed_unit(fail_at):
    """Ends at once, whatever is going on, and a start behind it needs `clear`."""
    machine, run = small_machine(), (0, 9, 20)
    program = simple(("read", {"index": "token", "stride": 5}), MULTIPLY, ("sync", {}))
    bench = Bench(machine, np.random.default_rng(fail_at), program, range(64), range(30))
    bench.fail_at = fail_at
    assert bench.run(run) == [(State.ERROR, None)]
    assert bench.end_cycle <= fail_at + 1


def test_start_needs_clear():
    machine, run = small_machine(), (0, 3, 3)
    program = simple(MULTIPLY)
    bench = Bench(machine, np.random.default_rng(0), program, range(64), [1, 2, 3])
    bench.stop_at = 10
    ends = bench.run(run, run, ("clear",), run)
    assert ends[:2] == [(State.STOPPED, None), (State.ERROR, SequencerErrorCode.CLEAR)]
    assert ends[2][0] in (State.STOPPED, State.LIMIT)


@pytest.mark.parametrize("stop_at", [0, 4, 9, 17, 30, 44, 71])
def test_stop(stop_at):
    """What was given is the beginning of what would have been; the units' `idle` is not waited for."""
    machine = small_machine()
    rng = np.random.default_rng(stop_at)
    program = random_program(rng, machine)
    tokens = list(range(64))
    bench = Bench(machine, rng, program, tokens, range(1000, 1050))
    bench.stop_at, bench.never_idle = stop_at, True
    assert bench.run((0, 9, 60)) == [(State.STOPPED, None)]
    golden = Interpreter(machine, program, tokens, range(1000, 1100))
    golden.run(0, 9, 60)
    given = [(stream, number(fields)) for stream, fields in golden.given if stream != "sync"]
    assert [(stream, fields) for stream, fields, _ in bench.given] == given[: len(bench.given)]


def test_stop_while_it_waits_for_a_token():
    machine = small_machine()
    bench = check(machine, simple(MULTIPLY), (0, 5, 9), states=[(State.STOPPED, None)], stop_at=400)
    assert bench.at["at_position"] == 4  # the batch whose token did not come


def test_idles_that_come_late():
    """Right behind a read or a job, the units' idles may still be wrong."""
    machine = small_machine()
    program = isa.assemble([("read", {"target": "table"}), ("sync", {}), MULTIPLY, ("end", {})])
    for seed in range(8):
        bench = Bench(machine, np.random.default_rng(seed), program, range(64), open_share=1)
        golden = Interpreter(machine, program, range(64), [])
        assert bench.run((0, 2, 2)) == [golden.run(0, 2, 2)]
        assert_given(bench, golden)
        assert bench.idle_when_done


def test_stop_while_it_waits_for_reads():
    program = simple(("read", {"target": "vector"}), ("sync", {}), MULTIPLY)
    bench = check(small_machine(), program, (0, 5, 9), states=[(State.STOPPED, None)], stop_at=400, never_idle=True)
    assert bench.at["pc"] == 1


def test_cycles():
    """As the docstring says, with units that take all at once."""
    machine = small_machine(rows=2)
    body = [
        MULTIPLY,  # 3 cycles, and each of these from where the one before was given
        MULTIPLY,
        ("multiply", {"when": "single"}),
        MULTIPLY,  # 2 more
        ("fetch", {"stride": 1}),
        ("read", {}),
        ("append", {}),
        ("read", {"index": "position"}),
        MULTIPLY,
    ]
    program = isa.assemble([("cache", {}), *body, ("end", {})])
    bench = Bench(machine, np.random.default_rng(0), program, range(64), [], open_share=1)
    assert bench.run((0, 2, 2)) == [(State.END, None)]
    assert np.diff(bench.cycles).tolist() == [3, 5, 6, 6, 7, 8, 6, 3]


def test_cycles_of_sets():
    """What is done for each set takes as long as an instruction of its own, but for getting it."""
    machine = small_machine(rows=2, sets=2)
    body = [MULTIPLY, ("vector", {"vectors": 1}), ("read", {}), ("attend", {"ratio": 1}), MULTIPLY]
    program = isa.assemble([("cache", {}), *body, ("end", {})])
    bench = Bench(machine, np.random.default_rng(0), program, range(64), [], open_share=1)
    assert bench.run((0, 3, 3)) == [(State.END, None)]
    assert np.diff(bench.cycles).tolist() == [3, 2, 6, 5, 7, 6, 3]


def test_line_layout():
    """What is sliced out of a line is what was encoded."""
    rng = np.random.default_rng(0)
    for name in isa.INSTRUCTIONS:
        fields = random_fields(rng, name)
        line = np.frombuffer(isa.encode(name, when="last", **fields), np.uint8)[None]
        decoded = plain(decode(line_layout(name), line))
        for field, of in isa.INSTRUCTIONS[name].fields.items():
            value = fields[field]
            assert decoded[field] == (of.names.index(value) if of.names else value)
        assert (decoded["opcode"], decoded["when"]) == (isa.INSTRUCTIONS[name].opcode, 3)


@pytest.mark.parametrize("preset", ["tiny", "vu9p"])
@pytest.mark.parametrize("component", [Sequencer, TokenMemory, ProgramMemory])
def test_lint(tmp_path, preset, component):
    source = tmp_path / "x.v"
    text = emit(component(named_machine(preset)), "x")
    source.write_text(text)
    assert lint(source, "x") == ""
    assert "initial" not in text  # of memories: no content is given, nor kept by `clear`
