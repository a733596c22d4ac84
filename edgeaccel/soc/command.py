"""What the sequencer tells the units: the instructions' fields, with all that depends on the state worked out."""

from amaranth.lib import data

from edgeaccel import isa
from edgeaccel.attention.command import attend
from edgeaccel.pe.digit import FormatCode

__all__ = ["attend_job", "fetch_job", "multiply_job", "read_job", "vector_job"]


def _fields(name, *left_out):
    fields = isa.INSTRUCTIONS[name].fields
    return {
        field: FormatCode if of.names is isa.FORMAT_NAMES else of.width
        for field, of in fields.items()
        if field not in left_out
    }


def read_job(machine):
    """A read from `address` on, for `rows` of a set: a bit a row."""
    own = {"rows": machine.config.rows, "set": range(machine.config.sets)}
    return data.StructLayout(_fields("read", "stride", "index") | own)


def fetch_job(machine):
    """Tiles from `address` on."""
    return data.StructLayout(_fields("fetch", "stride"))


def multiply_job(machine):
    """For a set, and `more_sets` behind it."""
    return data.StructLayout(_fields("multiply", "last") | {"more_sets": range(machine.config.sets)})


def vector_job(machine):
    """Vectors of a set of a batch, or of all of it.

    rows
        Of the set.
    set
        Which one.
    more
        Another set of the batch comes behind it.
    dealt
        The array gives the results of several sets, pass by pass.
    skip
        Statistics that are dropped before any are taken.
    """
    sets = machine.config.sets
    own = {
        "rows": range(machine.config.rows + 1),
        "set": range(sets),
        "more": range(min(2, sets)),
        "dealt": range(min(2, sets)),
        "skip": range(sets),
    }
    return data.StructLayout(_fields("vector") | own)


def attend_job(machine):
    """An attend, what to wait for beside the cache, and where its results go."""
    own = ("ratio", "spread", "load", "out_address", "out_stride", "event")
    fields = isa.INSTRUCTIONS["attend"].fields
    return data.StructLayout({"attend": attend(machine.config)} | {name: fields[name].width for name in own})
