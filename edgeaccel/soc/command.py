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
    """A read from `address` on, for `rows`: a bit a row."""
    return data.StructLayout(_fields("read", "stride", "index") | {"rows": machine.config.rows})


def fetch_job(machine):
    """Tiles from `address` on."""
    return data.StructLayout(_fields("fetch", "stride"))


def multiply_job(machine):
    return data.StructLayout(_fields("multiply"))


def vector_job(machine):
    """Vectors of a batch of `rows`."""
    return data.StructLayout(_fields("vector") | {"rows": range(machine.config.rows + 1)})


def attend_job(machine):
    """An attend, what to wait for beside the cache, and where its results go."""
    own = ("ratio", "spread", "load", "out_address", "out_stride", "event")
    fields = isa.INSTRUCTIONS["attend"].fields
    return data.StructLayout({"attend": attend(machine.config)} | {name: fields[name].width for name in own})
