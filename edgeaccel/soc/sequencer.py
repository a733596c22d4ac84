"""The sequencer: executes a program, for one batch of tokens after the other, without the host.

CHECK -> ADMIT -> LOAD -> BATCH -> ROWS -> FETCH -> LATCH -> DECODE -> (LOOK -> TAKE) -> (PRODUCT) -> ISSUE -> LATCH ...
"""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel import isa
from edgeaccel.attention.command import PAGE_WIDTH, append, cache_view
from edgeaccel.attention.table import PRODUCT_CYCLES, product
from edgeaccel.memory.block import BYTES_WIDTH, block_beats
from edgeaccel.soc.command import attend_job, fetch_job, multiply_job, read_job, vector_job
from edgeaccel.soc.program import LINE_WIDTH, ProgramMemory, line_layout, program_command
from edgeaccel.soc.tokens import token_port

__all__ = ["Sequencer", "SequencerError", "SequencerErrorCode", "State", "most_positions", "page_write"]

# What was just handed over may not show yet in a unit that tells that it is done.
_SETTLE_CYCLES = 2
_TARGET_WIDTH = isa.INSTRUCTIONS["next"].fields["target"].width


class State(enum.Enum, shape=3):
    """What the sequencer does, or why it has stopped."""

    IDLE = 0
    LOADING = 1
    RUNNING = 2
    END_OF_TEXT = 3
    LIMIT = 4
    END = 5
    ERROR = 6
    STOPPED = 7


class SequencerErrorCode(enum.Enum, shape=3):
    """What is wrong with a program, or with what it was begun with."""

    PROGRAM = 0
    """It is empty, no whole number of instructions, or longer than the memory; or it goes on past its end."""
    PROMPT = 1
    """No tokens were given: `position` is not below `prompt`."""
    POSITION = 2
    """More tokens were given than the token memory holds, or the next one would be past its end."""
    OPCODE = 3
    """There is no such instruction, or no such `when`."""
    RANGE = 4
    """An entry of the page table, or a word of the activation buffer, that the build does not have; or a count of 0."""
    CLEAR = 5
    """Begun without `clear` behind an error or a stop."""


class SequencerError(data.Struct):
    """The first error since reset or `clear`; `valid` says that there was one."""

    valid: 1
    code: SequencerErrorCode


class Step(enum.Enum, shape=5):
    """Where the sequencer is in an instruction."""

    REST = 0
    CHECK = 1
    LOAD = 2
    BATCH = 3
    ROWS = 4
    FETCH = 5
    LATCH = 6
    DECODE = 7
    LOOK = 8
    TAKE = 9
    PRODUCT = 10
    ISSUE = 11
    PAGES = 12
    SYNC = 13
    NEXT = 14
    TOKEN = 15
    WRITE = 16
    JUDGE = 17
    DRAIN = 18
    ADMIT = 19


def page_write(machine):
    """An entry of the page table, as `PageTable.i` takes it."""
    return data.StructLayout({"index": range(machine.pages), "page": PAGE_WIDTH, "valid": 1})


def most_positions(machine):
    """Tokens of the longest sequence: positions are counted in `isa.POSITION_WIDTH` bits, their number included."""
    return min(machine.positions, (1 << isa.POSITION_WIDTH) - 1)


class Sequencer(wiring.Component):
    """Executes a program of `edgeaccel.isa`, working out all that depends on position, rows and layer.

    A started sequencer reads the program into its memory, then executes it from instruction 0 on. Outside of a loop
    `layer` and `layers` are 0. Before it reports that a program has ended, it waits until all is done that was begun;
    behind an error or a stop there may be work left, which `clear` must end before the next start.

    An instruction takes 3 cycles if it is taken at once, 2 if it is skipped, 1 more behind a jump; 6 with an address
    that depends on the layer, 7 if two do; reads that depend on the row 6 for each row and 2 more. `next` to given
    tokens takes 7.

    Parameters
    ----------
    machine : Machine

    Members
    -------
    start, stop : in
        Pulses. A start while it runs is ignored. A stop ends a run behind the instruction at hand, and does not wait
        for logits or reads.
    program_address, program_bytes, position, prompt, limit : in
        Latched on `start`: where the program lies; the first token that is not in the cache, how many tokens were
        given, and the position at which to stop.
    o_program : stream of {address, bytes}
    i_program : stream of block_beats(64)
        Commands to a `BlockReader`, and what it gives.
    o_reads, o_fetches, o_multiplies, o_vectors, o_appends, o_attends : streams of `read_job` and so on
    o_pages : stream of `page_write`
    i_token : stream of {token: 20 bits}
        The largest logit's of a batch for which logits were asked for. Dropped while nothing runs.
    tokens : `token_port`
    parameters_idle, idle : in
        All reads given so far are done; all that was begun is done. Either may be late by a cycle.
    failed : in
        A unit reports an error.
    state : out, State
    busy : out
    done : out
        High for a cycle when a run ends.
    error : out, SequencerError
        Not set when it was a unit that failed.
    at_position, rows, layer, pc : out
        The batch that is worked on, or was last; the instruction at hand.
    clear : in
        A pulse ends everything and makes all as after reset but the program memory.
    """

    def __init__(self, machine):
        self.machine = machine
        config = machine.config
        count = isa.POSITION_WIDTH + 1
        jobs = {
            "reads": read_job(machine),
            "fetches": fetch_job(machine),
            "multiplies": multiply_job(machine),
            "vectors": vector_job(machine),
            "appends": append(config.of_batch),
            "attends": attend_job(machine),
            "pages": page_write(machine),
        }
        super().__init__(
            {
                "start": In(1),
                "stop": In(1),
                "program_address": In(64),
                "program_bytes": In(BYTES_WIDTH),
                "position": In(count),
                "prompt": In(count),
                "limit": In(count),
                "o_program": Out(stream.Signature(program_command())),
                "i_program": In(stream.Signature(block_beats(isa.INSTRUCTION_BYTES))),
                **{f"o_{name}": Out(stream.Signature(job)) for name, job in jobs.items()},
                "i_token": In(stream.Signature(data.StructLayout({"token": isa.TOKEN_WIDTH}))),
                "tokens": Out(token_port(machine)),
                "parameters_idle": In(1),
                "idle": In(1),
                "failed": In(1),
                "state": Out(State),
                "busy": Out(1),
                "done": Out(1),
                "error": Out(SequencerError),
                "at_position": Out(count),
                "rows": Out(range(config.batch_rows + 1)),
                "layer": Out(isa.INSTRUCTIONS["loop"].fields["layers"].width),
                "pc": Out(range(machine.instructions)),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.program = program = ProgramMemory(self.machine)
        wiring.connect(m, program.o_commands, wiring.flipped(self.o_program))
        wiring.connect(m, wiring.flipped(self.i_program), program.i_lines)
        r = self._registers()
        m.d.comb += [
            self.busy.eq((self.state == State.LOADING) | (self.state == State.RUNNING)),
            program.load.eq((r.step == Step.LOAD) & (self.state != State.LOADING)),
            program.address.eq(r.program_address),
            program.bytes.eq(r.program_bytes),
            program.index.eq(r.next_pc),
        ]
        m.d.sync += self.done.eq(0)
        self._jobs(m, r)
        self._predicate(m, r)
        with m.If(self.stop & self.busy):
            m.d.sync += r.stopping.eq(1)
        with m.Switch(r.step):
            self._begin(m, r, program)
            self._batch(m, r)
            self._instruction(m, r, program)
            self._execute(m, r)
            self._next(m, r)
            with m.Case(Step.DRAIN):
                m.d.sync += r.waited.eq(r.waited + (r.waited != _SETTLE_CYCLES))
                with m.If((r.waited == _SETTLE_CYCLES) & self.idle):
                    self._finish(m, r, r.reason)
        with m.If(self.busy & self.failed):
            self._finish(m, r, State.ERROR)
        return ResetInserter(self.clear)(m)

    def _registers(self):
        count = isa.POSITION_WIDTH + 1
        line = Signal(LINE_WIDTH, reset_less=True)
        layouts = {name: line_layout(name) for name in isa.INSTRUCTIONS}
        return SimpleNamespace(
            step=Signal(Step),
            line=line,
            fields={name: data.View(layout, line[: layout.size]) for name, layout in layouts.items()},
            # Wide enough for any target, so that none past the program looks like one of it.
            next_pc=Signal(range(max(self.machine.instructions + 1, 1 << _TARGET_WIDTH))),
            n_lines=Signal(range(self.machine.instructions + 1), reset_less=True),
            program_address=Signal(64, reset_less=True),
            program_bytes=Signal(BYTES_WIDTH, reset_less=True),
            is_bad_program=Signal(reset_less=True),
            is_bad_prompt=Signal(reset_less=True),
            is_bad_position=Signal(reset_less=True),
            prompt=Signal(count, reset_less=True),
            limit=Signal(count, reset_less=True),
            after=Signal(count, reset_less=True),  # first position behind the batch
            left=Signal(count, reset_less=True),  # tokens that were given, from the batch's first on
            last=Signal(),  # the batch ends with the last given token
            layers=Signal.like(self.layer),
            known=Signal(),
            wanted=Signal(),
            more=Signal(),  # another layer follows
            cache=Signal(cache_view(), reset_less=True),
            layer_words=Signal(isa.INSTRUCTIONS["cache"].fields["layer_words"].width, reset_less=True),
            layer_scales=Signal(isa.INSTRUCTIONS["cache"].fields["layer_scales"].width, reset_less=True),
            base=Signal(64, reset_less=True),
            address=Signal(64, reset_less=True),
            scales=Signal(64, reset_less=True),
            factor=Signal(40, reset_less=True),
            index=Signal(isa.POSITION_WIDTH, reset_less=True),
            token_of_batch=Signal(range(max(2, self.machine.config.batch_rows)), reset_less=True),
            row=Signal(range(max(2, self.machine.config.rows)), reset_less=True),
            # The set of rows whose turn it is, the batch's last one, and the rows that this has.
            set=Signal(range(self.machine.config.sets)),
            last_set=Signal(range(self.machine.config.sets), reset_less=True),
            rows_of_last=Signal(range(self.machine.config.rows + 1), reset_less=True),
            place=Signal(isa.POSITION_WIDTH, reset_less=True),  # position of the row
            token=Signal(isa.TOKEN_WIDTH, reset_less=True),
            is_end=Signal(reset_less=True),
            entry=Signal(range(self.machine.pages), reset_less=True),
            page=Signal(PAGE_WIDTH, reset_less=True),
            pages_outside=Signal(reset_less=True),
            attend_outside=Signal(reset_less=True),
            pages_left=Signal(PAGE_WIDTH, reset_less=True),
            waited=Signal(range(PRODUCT_CYCLES + 1)),
            stopping=Signal(),
            reason=Signal(State),
        )

    def _finish(self, m, r, state):
        m.d.sync += [r.step.eq(Step.REST), self.state.eq(state), self.done.eq(1)]

    def _fail(self, m, r, code):
        self._finish(m, r, State.ERROR)
        m.d.sync += [self.error.valid.eq(1), self.error.code.eq(code)]

    def _drain(self, m, r, reason):
        m.d.sync += [r.step.eq(Step.DRAIN), r.reason.eq(reason), r.waited.eq(0)]

    def _begin(self, m, r, program):
        """From `start` to the program's first instruction."""
        with m.Case(Step.REST), m.If(self.start):
            m.d.sync += [
                r.stopping.eq(0),
                r.program_address.eq(self.program_address),
                r.program_bytes.eq(self.program_bytes),
                self.at_position.eq(self.position),
                r.prompt.eq(self.prompt),
                r.limit.eq(self.limit),
            ]
            with m.If((self.state == State.ERROR) | (self.state == State.STOPPED)):
                self._finish(m, r, State.ERROR)
                with m.If(~self.error.valid):
                    m.d.sync += [self.error.valid.eq(1), self.error.code.eq(SequencerErrorCode.CLEAR)]
            with m.Else():
                m.d.sync += [r.step.eq(Step.CHECK), self.state.eq(State.RUNNING)]
        size = isa.INSTRUCTION_BYTES
        most_bytes = self.machine.instructions * size
        with m.Case(Step.CHECK):
            m.d.sync += [
                r.is_bad_program.eq(
                    (r.program_bytes == 0) | (r.program_bytes > most_bytes) | (r.program_bytes % size).any()
                ),
                r.is_bad_prompt.eq(self.at_position >= r.prompt),
                r.is_bad_position.eq(r.prompt > most_positions(self.machine)),
                r.step.eq(Step.ADMIT),
            ]
        with m.Case(Step.ADMIT):
            m.d.sync += r.step.eq(Step.LOAD)
            with m.If(r.is_bad_program):
                self._fail(m, r, SequencerErrorCode.PROGRAM)
            with m.Elif(r.is_bad_prompt):
                self._fail(m, r, SequencerErrorCode.PROMPT)
            with m.Elif(r.is_bad_position):
                self._fail(m, r, SequencerErrorCode.POSITION)
        with m.Case(Step.LOAD):
            m.d.sync += [
                self.state.eq(State.LOADING),
                r.n_lines.eq(r.program_bytes // size),
                r.next_pc.eq(0),
                self.layer.eq(0),
                r.layers.eq(0),
                r.more.eq(0),
            ]
            with m.If(program.loaded):
                m.d.sync += [r.step.eq(Step.BATCH), self.state.eq(State.RUNNING)]

    def _batch(self, m, r):
        """As many given tokens as the rows of all sets hold, and one aligned group of positions."""
        most = self.machine.config.batch_rows
        group = max(2, 1 << (most - 1).bit_length())
        room = Signal(range(group + 1))
        rows = Signal(range(most + 1))
        m.d.comb += [
            room.eq(group - self.at_position % group),
            rows.eq(Mux(room < most, room, most)),
        ]
        with m.Case(Step.BATCH):
            m.d.sync += [r.left.eq(r.prompt - self.at_position), r.step.eq(Step.ROWS)]
        with m.Case(Step.ROWS):
            m.d.sync += [self.rows.eq(rows), r.last.eq(r.left <= rows), r.step.eq(Step.FETCH)]
            with m.If(r.left < rows):
                m.d.sync += self.rows.eq(r.left)

    def _instruction(self, m, r, program):
        """Get an instruction; the one behind it is read from the memory while this one is executed."""
        with m.Case(Step.FETCH):
            m.d.sync += r.step.eq(Step.LATCH)
        with m.Case(Step.LATCH):
            with m.If(r.stopping):
                self._finish(m, r, State.STOPPED)
            with m.Else():
                m.d.sync += [
                    r.line.eq(program.line),
                    self.pc.eq(r.next_pc),
                    r.next_pc.eq(r.next_pc + 1),
                    r.step.eq(Step.DECODE),
                    r.set.eq(0),
                ]
                with m.If(r.next_pc >= r.n_lines):
                    self._fail(m, r, SequencerErrorCode.PROGRAM)

    def _execute(self, m, r):
        """What instructions do, all but `next`."""
        fields = r.fields
        header = fields["end"]
        with m.Case(Step.DECODE):
            with m.If(~r.known):
                self._fail(m, r, SequencerErrorCode.OPCODE)
            with m.Elif(~r.wanted):
                m.d.sync += r.step.eq(Step.LATCH)
            with m.Else():
                m.d.sync += [
                    r.step.eq(Step.ISSUE),
                    r.waited.eq(0),
                    r.row.eq(0),
                    r.token_of_batch.eq(0),
                    r.place.eq(self.at_position),
                ]
                with m.Switch(header.opcode):
                    for name, of in isa.INSTRUCTIONS.items():
                        with m.Case(of.opcode):
                            getattr(self, f"_execute_{name}")(m, r, fields[name])
        with m.Case(Step.LOOK):
            m.d.sync += [r.waited.eq(0), r.step.eq(Step.TAKE)]
        with m.Case(Step.TAKE):
            by_token = fields["read"].index == isa.INDICES.index("token")
            m.d.sync += [r.index.eq(Mux(by_token, self.tokens.read, r.place)), r.step.eq(Step.PRODUCT)]
        with m.Case(Step.PRODUCT):
            is_two = (header.opcode == _opcode("append")) | (header.opcode == _opcode("attend"))
            m.d.sync += r.waited.eq(r.waited + 1)
            with m.If(r.waited == 0):
                m.d.sync += r.factor.eq(Mux(is_two, r.layer_scales, r.factor))
            with m.If(r.waited == PRODUCT_CYCLES - 1):
                m.d.sync += r.address.eq(r.base + r.product)
                with m.If(is_two):
                    m.d.sync += r.base.eq(r.cache.scales)
                with m.Else():
                    m.d.sync += r.step.eq(Step.ISSUE)
            with m.If((header.opcode == _opcode("attend")) & r.attend_outside):
                self._fail(m, r, SequencerErrorCode.RANGE)
            with m.If(r.waited == PRODUCT_CYCLES):
                m.d.sync += [r.scales.eq(r.base + r.product), r.step.eq(Step.ISSUE)]
        with m.Case(Step.ISSUE), m.If(r.taken):
            m.d.sync += r.step.eq(Step.LATCH)
            reads_row = (header.opcode == _opcode("read")) & r.by_row
            with m.If(reads_row & (r.token_of_batch + 1 != self.rows)):
                m.d.sync += [
                    r.token_of_batch.eq(r.token_of_batch + 1),
                    r.row.eq(r.row + 1),
                    r.place.eq(r.place + 1),
                    r.step.eq(Step.LOOK),
                ]
                with m.If(r.row == self.machine.config.rows - 1):
                    m.d.sync += [r.row.eq(0), r.set.eq(r.set + 1)]
            # For the next set the instruction is executed again.
            with m.Elif(r.by_set & (r.set != r.last_set)):
                m.d.sync += [r.set.eq(r.set + 1), r.step.eq(Step.DECODE)]
        with m.Case(Step.PAGES):
            with m.If(r.pages_outside):
                self._fail(m, r, SequencerErrorCode.RANGE)
            with m.Elif(~r.pages_left.any()):
                m.d.sync += r.step.eq(Step.LATCH)
            with m.Elif(self.o_pages.ready):
                m.d.sync += [
                    r.entry.eq(r.entry + 1),
                    r.page.eq(r.page + 1),
                    r.pages_left.eq(r.pages_left - 1),
                ]
        with m.Case(Step.SYNC):
            m.d.sync += r.waited.eq(r.waited + (r.waited != _SETTLE_CYCLES))
            with m.If(r.stopping | ((r.waited == _SETTLE_CYCLES) & self.parameters_idle)):
                m.d.sync += r.step.eq(Step.LATCH)
        m.d.comb += self.o_pages.valid.eq((r.step == Step.PAGES) & r.pages_left.any() & ~r.pages_outside)

    def _predicate(self, m, r):
        """Whether there is such an instruction, whether it is to be executed, and, a cycle later, whether it can be."""
        header, pages, attend = r.fields["end"], r.fields["pages"], r.fields["attend"]
        width = len(self.o_attends.p.attend.address)
        m.d.sync += [
            r.pages_outside.eq((pages.first + pages.count > self.machine.pages) | (pages.count == 0)),
            r.attend_outside.eq(Cat(attend.address[width:], attend.stride[width:]).any()),
        ]
        followed, single = r.more | r.last, self.rows == 1
        conditions = {
            "always": 1,
            "single": single,
            "several": ~single,
            "last": r.last,
            "followed": followed,
            "unfollowed": ~followed,
        }
        opcodes = [of.opcode for of in isa.INSTRUCTIONS.values()]
        m.d.comb += r.known.eq(header.opcode.matches(*opcodes) & (header.when < len(isa.WHEN)))
        with m.Switch(header.when):
            for number, name in enumerate(isa.WHEN):
                with m.Case(number):
                    m.d.comb += r.wanted.eq(conditions[name])

    def _execute_end(self, m, r, f):
        self._drain(m, r, State.END)

    def _execute_read(self, m, r, f):
        by_layer = f.index == isa.INDICES.index("layer")
        m.d.sync += [
            r.base.eq(f.address),
            r.factor.eq(f.stride),
            r.index.eq(Mux(by_layer, self.layer, 0)),
            r.step.eq(Mux(r.by_row, Step.LOOK, Step.PRODUCT)),
        ]

    def _execute_fetch(self, m, r, f):
        m.d.sync += [
            r.base.eq(f.address),
            r.factor.eq(f.stride),
            r.index.eq(self.layer),
            r.step.eq(Step.PRODUCT),
        ]

    def _execute_multiply(self, m, r, f):
        pass

    def _execute_vector(self, m, r, f):
        with m.If(f.to_logits):
            m.d.sync += r.set.eq(r.last_set)

    def _execute_cache(self, m, r, f):
        m.d.sync += [
            *(_bits(r.cache[name]).eq(f[name]) for name in r.cache.shape().members),
            r.layer_words.eq(f.layer_words),
            r.layer_scales.eq(f.layer_scales),
            r.step.eq(Step.LATCH),
        ]

    def _execute_pages(self, m, r, f):
        m.d.sync += [r.entry.eq(f.first), r.page.eq(f.page), r.pages_left.eq(f.count), r.step.eq(Step.PAGES)]

    def _execute_append(self, m, r, f):
        m.d.sync += [
            r.base.eq(r.cache.base),
            r.factor.eq(r.layer_words),
            r.index.eq(self.layer),
            r.step.eq(Step.PRODUCT),
        ]

    def _execute_attend(self, m, r, f):
        self._execute_append(m, r, f)

    def _execute_loop(self, m, r, f):
        m.d.sync += [self.layer.eq(0), r.layers.eq(f.layers), r.more.eq(f.layers > 1), r.step.eq(Step.LATCH)]
        with m.If(f.layers == 0):
            self._fail(m, r, SequencerErrorCode.RANGE)

    def _execute_again(self, m, r, f):
        with m.If(r.more):
            m.d.sync += [
                self.layer.eq(self.layer + 1),
                r.more.eq(self.layer + 2 < r.layers),
                r.next_pc.eq(f.target),
                r.step.eq(Step.FETCH),
            ]
        with m.Else():
            m.d.sync += [self.layer.eq(0), r.layers.eq(0), r.step.eq(Step.LATCH)]

    def _execute_sync(self, m, r, f):
        m.d.sync += r.step.eq(Step.SYNC)

    def _execute_next(self, m, r, f):
        m.d.sync += r.step.eq(Step.NEXT)

    def _next(self, m, r):
        """The next batch: given tokens, or the one that the logits give."""
        f = r.fields["next"]
        given = r.after < r.prompt
        waits = Signal()
        m.d.comb += [
            waits.eq((r.step == Step.TOKEN) & ~given),
            self.i_token.ready.eq(waits | ~self.busy),
            self.tokens.position.eq(r.place),
            self.tokens.token.eq(r.token),
            self.tokens.write.eq((r.step == Step.WRITE) & (r.after < self.machine.positions)),
        ]
        with m.Case(Step.NEXT):
            m.d.sync += [r.after.eq(self.at_position + self.rows), r.step.eq(Step.TOKEN)]
        with m.Case(Step.TOKEN):
            m.d.sync += [r.place.eq(r.after), r.token.eq(self.i_token.p.token)]
            with m.If(given):
                self._go(m, r, f.target)
                m.d.sync += r.step.eq(Step.BATCH)
            with m.Elif(self.i_token.valid):
                m.d.sync += r.step.eq(Step.WRITE)
            with m.Elif(r.stopping):
                self._finish(m, r, State.STOPPED)
        with m.Case(Step.WRITE):
            m.d.sync += [
                r.is_end.eq(Cat((r.token == f[f"eos{n}"]) & (n < f.n_eos) for n in range(4)).any()),
                r.step.eq(Step.JUDGE),
            ]
        with m.Case(Step.JUDGE):
            self._go(m, r, f.target)
            m.d.sync += [self.rows.eq(1), r.step.eq(Step.FETCH)]  # and it is the last batch, as before
            with m.If(r.is_end):
                self._drain(m, r, State.END_OF_TEXT)
            with m.Elif(r.after >= r.limit):
                self._drain(m, r, State.LIMIT)
            with m.Elif(r.after >= most_positions(self.machine)):
                self._fail(m, r, SequencerErrorCode.POSITION)

    def _go(self, m, r, target):
        m.d.sync += [
            self.at_position.eq(r.after),
            r.next_pc.eq(target),
            self.layer.eq(0),
            r.layers.eq(0),
            r.more.eq(0),
        ]

    def _jobs(self, m, r):
        """What the instruction at hand gives, from its fields and what was worked out for it."""
        fields, rows = r.fields, self.machine.config.rows
        r.product = product(m, r.factor, r.index, "product")
        r.by_row = Signal()
        by_row = Cat(fields["read"].index == isa.INDICES.index(name) for name in ("token", "position"))
        r.taken = Signal()
        m.d.comb += r.by_row.eq(by_row.any())
        streams = {
            "read": self.o_reads,
            "fetch": self.o_fetches,
            "multiply": self.o_multiplies,
            "vector": self.o_vectors,
            "append": self.o_appends,
            "attend": self.o_attends,
        }
        for name, o in streams.items():
            offered = Signal(name=f"{name}_offered")
            m.d.comb += [
                offered.eq((r.step == Step.ISSUE) & (fields["end"].opcode == _opcode(name))),
                o.valid.eq(offered),
            ]
            with m.If(offered):
                m.d.comb += r.taken.eq(o.ready)
        worked_out = {
            "read": ("address", "vector"),
            "vector": ("address", "operand", "vector", "event"),
            "multiply": ("address",),
            "fetch": ("address",),
            "append": (),
        }
        for name, others in worked_out.items():
            o = streams[name]
            own = [field for field in o.p.shape().members if field in isa.INSTRUCTIONS[name].fields]
            m.d.comb += [_bits(o.p[field]).eq(fields[name][field]) for field in own if field not in others]
        one_hot = Signal(rows)
        self._sets(m, r)
        m.d.comb += [
            one_hot.eq(Mux(r.by_row, 1 << r.row, (1 << rows) - 1)),
            self.o_reads.p.address.eq(r.address),
            self.o_reads.p.rows.eq(one_hot),
            self.o_reads.p.set.eq(r.set),
            self.o_reads.p.vector.eq(fields["read"].vector + r.vector_base),
            self.o_fetches.p.address.eq(r.address),
            self.o_appends.p.position.eq(self.at_position),
            self.o_appends.p.rows.eq(self.rows),
            self.o_pages.p.index.eq(r.entry),
            self.o_pages.p.page.eq(r.page),
            self.o_pages.p.valid.eq(1),
        ]
        self._attend_job(m, r)
        for cache in (self.o_appends.p.cache, self.o_attends.p.attend.cache):
            worked_out = {"base": r.address, "scales": r.scales}
            for name in cache.shape().members:
                m.d.comb += cache[name].eq(worked_out.get(name, r.cache[name]))

    def _sets(self, m, r):
        """What an instruction gives for the set whose turn it is, or for all of them."""
        config, f = self.machine.config, r.fields
        header, multiply, vector = f["end"], f["multiply"], f["vector"]
        rows = Signal(range(config.rows + 1))
        r.vector_base, r.buffer_base = Signal(range(self.machine.vector_words)), Signal(range(config.buffer_words))
        r.by_set, r.set_rows, r.is_last_set = Signal(), rows, r.set == r.last_set
        own = {name: header.opcode == _opcode(name) for name in ("read", "vector", "attend")}
        # They follow the batch, which has been there for cycles when an instruction is executed.
        last_set = sum((self.rows > n * config.rows for n in range(1, config.sets)), start=0)
        m.d.sync += [r.last_set.eq(last_set), r.rows_of_last.eq(self.rows - last_set * config.rows)]
        o, product = self.o_vectors.p, self.o_multiplies.p
        m.d.comb += [
            r.by_set.eq((own["read"] & ~r.by_row) | own["vector"] | own["attend"]),
            r.vector_base.eq(r.set * self.machine.set_vector_words),
            r.buffer_base.eq(r.set * config.set_words),
            rows.eq(Mux(r.is_last_set, r.rows_of_last, config.rows)),
            product.address.eq(multiply.address + Mux(multiply.last, r.last_set * config.set_words, 0)),
            product.more_sets.eq(Mux(multiply.last, 0, r.last_set)),
            o.rows.eq(rows),
            o.set.eq(r.set),
            o.more.eq(~r.is_last_set),
            o.dealt.eq((r.last_set != 0) & ~vector.to_logits),
            o.skip.eq(Mux(vector.to_logits, r.last_set, 0)),
            o.operand.eq(vector.operand + r.vector_base),
            o.vector.eq(vector.vector + r.vector_base),
            o.address.eq(vector.address + r.buffer_base),
            o.event.eq(vector.event & r.is_last_set),
        ]

    def _attend_job(self, m, r):
        """The rows of an attend: query heads that share a head, or the tokens of the batch."""
        f, o, most = r.fields["attend"], self.o_attends.p, self.machine.config.rows
        batches, rows = Signal.like(o.attend.batches), Signal.like(o.attend.rows)
        count = Signal.like(o.attend.count)
        # These follow the instruction, which has been there for cycles when they are given.
        m.d.sync += [
            batches.eq(Mux(f.spread, _quotient(f.ratio, most), f.ratio)),
            rows.eq(Mux(f.spread & (f.ratio < most), f.ratio, most)),
            count.eq(self.at_position + r.set * most + 1),
        ]
        with m.If(~f.spread):
            m.d.sync += rows.eq(r.set_rows)
        own = [name for name in o.attend.shape().members if name in isa.INSTRUCTIONS["attend"].fields]
        is_first = r.set == 0
        worked_out = {
            "address": f.address + r.buffer_base,
            "out_address": f.out_address + r.buffer_base,
            "wait": f.wait & is_first,
            "load": f.load & is_first,
            "event": f.event & r.is_last_set,
        }
        m.d.comb += [
            *(o.attend[name].eq(worked_out.get(name, f[name])) for name in own),
            *(o[name].eq(worked_out.get(name, f[name])) for name in o.shape().members if name != "attend"),
            o.attend.batches.eq(batches),
            o.attend.rows.eq(rows),
            o.attend.count.eq(count),
            o.attend.causal.eq(~f.spread),
        ]


def _opcode(name):
    return isa.INSTRUCTIONS[name].opcode


def _bits(value):
    return value.as_value() if hasattr(value, "as_value") else value


def _quotient(value, divisor):
    """``ceil(value / divisor)``: times a reciprocal, which is exact for few bits of `value`; that is checked."""
    most, bits = (1 << len(value)) - 1, 2 * len(value)
    reciprocal = -(-(1 << bits) // divisor)
    if any((v + divisor - 1) * reciprocal >> bits != -(-v // divisor) for v in range(most + 1)):
        raise ValueError(f"rows must be at most {most}, not {divisor}")
    return ((value + (divisor - 1)) * reciprocal) >> bits
