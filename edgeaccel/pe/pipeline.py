"""Stream units around free-running pipelines.

A datapath that may stall needs an enable on each of its registers: for a group of 128 lanes that is one net with
thousands of loads. So no datapath here ever stalls. What has been let in always comes out a fixed number of cycles
later, into a queue that is known to have room, because only as much is let in as the queue has places (*credits*).
"""

from collections import Counter
from contextlib import contextmanager

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from edgeaccel.repeated import repeated

__all__ = ["Pipe", "Pipelined", "place_registers", "spread"]


def spread(n_cuts, n_registers):
    """Which of `n_cuts` places in a row of logic get one of `n_registers` registers: evenly, the last one always."""
    return [(cut + 1) * n_registers // n_cuts > cut * n_registers // n_cuts for cut in range(n_cuts)]


def place_registers(n_cuts, depth):
    """`spread` for a `depth` that a user gave.

    Raises
    ------
    ValueError
        If `depth` is not 1 to `n_cuts`.
    """
    if depth not in range(1, n_cuts + 1):
        raise ValueError(f"depth must be 1 to {n_cuts} register stages, not {depth!r}")
    return spread(n_cuts, depth)


class Pipe:
    """A free-running pipeline while it is being described; it knows the stage that the description has reached.

    Parameters
    ----------
    m : Module
        Where the logic goes.
    cycles : int
        Stages before the first.
    platform
        That it is elaborated for.
    carried
        Values that travel along, among them `valid`, whether the stage holds an item, if anything asks for it.

    Members
    -------
    cycles : int
        Register stages so far.
    """

    def __init__(self, m, cycles=0, *, platform=None, **carried):
        self.m = m
        self.cycles = cycles
        self.platform = platform
        self._outermost = m
        self._carried = carried
        self._placed = Counter()

    def __getattr__(self, name):
        """The present stage's value of what is carried."""
        try:
            return self.__dict__["_carried"][name]
        except KeyError:
            raise AttributeError(f"the pipe carries {sorted(self._carried)}, no {name!r}") from None

    @contextmanager
    def inside(self, name):
        """Put the logic of the block into a submodule, so that it is one in the Verilog too."""
        outer, self.m = self.m, Module()
        outer.submodules[name] = self.m
        yield
        self.m = outer

    def branch(self, name, **carried):
        """A second pipe from the present stage on, in a submodule."""
        m = Module()
        self.m.submodules[name] = m
        valid = {"valid": self.valid} if "valid" in self._carried else {}
        return Pipe(m, self.cycles, platform=self.platform, **valid, **carried)

    def place(self, name, part):
        """Add a submodule where the description is; a second one of that name there is numbered."""
        self._placed[self.m, name] += 1
        number = self._placed[self.m, name]
        self.m.submodules[name if number == 1 else f"{name}_{number}"] = part

    def carry(self, **values):
        """Let values travel beside the data from here on; `pipe.name` is the present stage's value."""
        if again := values.keys() & self._carried.keys():
            raise ValueError(f"the pipe carries {sorted(again)} already")
        self._carried |= values

    def take(self, name):
        """The present stage's value, which is carried no further."""
        return self._carried.pop(name)

    def stage(self, **values):
        """One register stage: the values (or lists of values) a cycle later, in the order given.

        Data registers have no reset; only the one of `valid` has.
        """
        self.cycles += 1
        for name, value in self._carried.items():
            self._carried[name] = self._register(self._outermost, name, value, reset=name == "valid")
        return _unpacked(
            [self._register(self.m, f"{name}{n}", item) for n, item in enumerate(value)]
            if isinstance(value, list)
            else self._register(self.m, name, value)
            for name, value in values.items()
        )

    def later(self, cycles, **values):
        """The values as many cycles later, in the order given, beside the pipe, which stays where it is."""
        for cycle in range(cycles):
            values = {name: self._register(self.m, f"{name}_{cycle}", value) for name, value in values.items()}
        return _unpacked(values.values())

    def cut(self, registered, **values):
        """A place where a register may stand: `stage` if `registered`, else the values as they are."""
        return self.stage(**values) if registered else _unpacked(values.values())

    def wait(self, cycles):
        """Stages without logic, until as many as `cycles` are reached."""
        while self.cycles < cycles:
            self.stage()

    def _register(self, m, name, value, *, reset=False):
        register = Signal(value.shape(), name=f"{name}_s{self.cycles}", reset_less=not reset)
        m.d.sync += register.eq(value)
        return register


def _unpacked(values):
    values = tuple(values)
    return values[0] if len(values) == 1 else values


class Pipelined(wiring.Component):
    """A unit with streams on both sides and a free-running pipeline between them.

    An item is taken when every input stream offers its part and a credit is left. The result of what is taken in
    cycle `t` is offered from cycle `t + latency` on. One item a cycle, without bubbles, as long as results are taken.
    `valid` of the output is a function of registers alone; `ready` of an input waits for the other inputs, if any.

    Subclasses describe `datapath`, and `emits` if some items leave no result. Those that stand in other units many
    times say in `key` all that their datapath is built from, and what it is called there in `name`: in Verilog such a
    datapath is one module.

    Parameters
    ----------
    inputs : dict of str to shape
        Payload of each input stream, by member name.
    output : shape
        Payload of the output stream `o`.
    cycles : int
        Register stages of the datapath.
    credits : int
        Results that may be on their way or waiting: by default `cycles + 2`, as many as full throughput needs.

    Members
    -------
    latency : int
        Cycles from taking an item to offering its result: `cycles + 1`, one for the queue.
    """

    def __init__(self, inputs, output, *, cycles, credits=None):
        self.latency = cycles + 1
        self.credits = self.latency + 1 if credits is None else credits
        self._inputs = tuple(inputs)
        members = {name: In(stream.Signature(shape)) for name, shape in inputs.items()}
        super().__init__(members | {"o": Out(stream.Signature(output))})

    key = None
    name = "unit"

    def emits(self, *payloads):
        """Whether an item leaves a result, told from its payloads."""
        return 1

    def datapath(self, pipe, *payloads):
        """Describe the pipeline from the payloads to the result, which it returns."""
        raise NotImplementedError

    def inline(self, pipe, *payloads):
        """The result of the datapath as a part of another unit's pipe."""
        self._MustUse__used = True  # so that Amaranth does not warn of a unit that is never elaborated
        if self.key is None:
            return self.datapath(pipe, *payloads)
        part = Datapath(self)
        pipe.place(self.name, repeated(pipe.platform, part, key=(type(self), self.key)))
        for name, payload in zip(self._inputs, payloads, strict=True):
            pipe.m.d.comb += _assign(getattr(part, name), payload)
        pipe.wait(pipe.cycles + self.latency - 1)
        return part.o

    def elaborate(self, platform):
        m = Module()
        inputs = [getattr(self, name) for name in self._inputs]
        payloads = [i.payload for i in inputs]

        free = Signal(range(self.credits + 1), init=self.credits)
        has_credit = Signal()
        take = Signal()
        emit = Signal()
        spend = Signal()
        refund = Signal()
        m.d.comb += [
            has_credit.eq(free != 0),
            take.eq(has_credit & Cat(i.valid for i in inputs).all()),
            emit.eq(self.emits(*payloads)),
            spend.eq(take & emit),
            refund.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += free.eq(free - spend + refund)
        for i in inputs:
            m.d.comb += i.ready.eq(has_credit & Cat(other.valid for other in inputs if other is not i).all())

        pipe = Pipe(m, platform=platform, valid=take, emit=emit)
        result = self.datapath(pipe, *payloads)
        if pipe.cycles + 1 != self.latency:
            raise AssertionError(
                f"{type(self).__name__} states a latency of {self.latency}, its datapath has {pipe.cycles + 1}"
            )

        m.submodules.results = results = fifo.SyncFIFO(width=len(Value.cast(self.o.payload)), depth=self.credits)
        m.d.comb += [
            results.w_data.eq(result),
            results.w_en.eq(pipe.valid & pipe.emit),
            self.o.payload.eq(results.r_data),
            self.o.valid.eq(results.r_rdy),
            results.r_en.eq(self.o.ready),
        ]
        return m


class Datapath(wiring.Component):
    """The pipeline of a unit alone, without streams: a payload each cycle, and its result `latency - 1` cycles later.

    Parameters
    ----------
    unit : Pipelined
        With a `key`, and a datapath that asks for no `valid`.

    Members
    -------
    as the payloads of the unit's streams, `o` that of its results
    """

    is_reset_less = True

    def __init__(self, unit):
        self.unit = unit
        self.kind = type(unit).__name__
        payloads = {name: member.signature.members["payload"] for name, member in unit.signature.members.items()}
        super().__init__({name: (Out if name == "o" else In)(each.shape) for name, each in payloads.items()})

    def elaborate(self, platform):
        m = Module()
        payloads = [getattr(self, name) for name in self.signature.members if name != "o"]
        m.d.comb += self.o.eq(self.unit.datapath(Pipe(m, platform=platform), *payloads))
        return m


def _assign(target, payload):
    """Statements: the target is the payload, or has its fields."""
    if isinstance(payload, Value) or not isinstance(target, data.View):
        return [target.eq(payload)]
    return [target[name].eq(getattr(payload, name)) for name, _ in target.shape()]
