"""The core of a function: a row of the tables, and the parabola that it describes."""

from amaranth.hdl import Mux

from edgeaccel.vector.argument import STEP_BITS
from edgeaccel.vector.route import add_exponent
from edgeaccel.vector.table import FRACTION_BITS

__all__ = ["evaluate_parabola"]


def evaluate_parabola(pipe, address, step, table):
    """The core in units of 2**-FRACTION_BITS, in six stages: start + t * (slope + t * bend), t = step / 2**STEP_BITS.

    Both products are rounded down to a unit. The exponent of the segment goes off that of the `route` that the pipe
    carries, which also tells whether the core is one, whatever the table says.
    """
    m = pipe.m
    m.submodules.table = memory = table.memory()
    port = memory.read_port()
    m.d.comb += port.addr.eq(address)
    pipe.carry(step=step)
    pipe.stage()  # in which the memory reads
    row = pipe.stage(row=table.layout(port.data))  # which a block RAM has itself

    route = pipe.take("route")
    pipe.carry(route=add_exponent(m, route, Mux(route.core_is_one, 0, -row.exponent)))
    start, slope, product = pipe.stage(start=row.start, slope=row.slope, product=row.bend * pipe.step)
    start, slope = pipe.stage(start=start, slope=slope + (product >> STEP_BITS))
    start, product = pipe.stage(start=start, product=slope * pipe.take("step"))
    core = (start + (product >> STEP_BITS))[: FRACTION_BITS + 1]
    return pipe.stage(core=Mux(pipe.route.core_is_one, 1 << FRACTION_BITS, core))
