"""The beat that every vector moves in, and what lengths and lanes may be."""

from amaranth.lib import data

from edgeaccel.pe.float import FP32

__all__ = ["NEGATIVE_ZERO", "check_lanes", "check_length", "check_max_length", "fields_of", "vector_beat"]

NEGATIVE_ZERO = 1 << (FP32.width - 1)  # -0 + x = x for every x, -0 too


def check_lanes(lanes):
    """Elements of a beat: a power of two, so that sums of pairs do not depend on it.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not isinstance(lanes, int) or lanes < 1 or lanes & (lanes - 1):
        raise ValueError(f"lanes must be a power of two, not {lanes!r}")


def check_max_length(max_length, lanes):
    """Beats of the longest vector.

    Raises
    ------
    ValueError
        If `lanes` is no power of two or `max_length` no positive multiple of it.
    """
    check_lanes(lanes)
    if not isinstance(max_length, int) or max_length < 1 or max_length % lanes:
        raise ValueError(
            f"max_length must be a positive multiple of the {lanes} elements of a beat, not {max_length!r}"
        )
    return max_length // lanes


def check_length(length, max_length):
    """What a program may ask of a build for vectors of up to `max_length` elements.

    Raises
    ------
    ValueError
        If the length is not 1 to `max_length`.
    """
    if length not in range(1, max_length + 1):
        raise ValueError(f"a vector must have 1 to {max_length} elements, not {length!r}")


def vector_beat(lanes, *, element_width=FP32.width, **fields):
    """Consecutive elements of a vector, and what travels with them.

    Parameters
    ----------
    lanes : int
        Elements of a beat.
    element_width : int
        Of an element's code; those of FP32 everywhere but at the edges.
    fields : shapes
        Of more that a unit needs with each beat.

    Returns
    -------
    layout {elements: codes x lanes, keep: a bit a lane, last: 1, ...}
        `keep` tells which lanes hold an element: all of them but, perhaps, in the last beat. The others may hold any
        code; element-wise units work on it all the same, reductions leave it out. `last` ends the vector.
    """
    return data.StructLayout({"elements": data.ArrayLayout(element_width, lanes), "keep": lanes, "last": 1} | fields)


def fields_of(beat, *without):
    """The fields of a beat, by name, as a pipe carries them."""
    return {name: beat[name] for name in beat.shape().members if name not in without}
