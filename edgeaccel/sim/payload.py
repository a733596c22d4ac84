"""Payloads of streams between NumPy arrays and rows of bytes."""

import numpy as np
from amaranth.hdl import Shape
from amaranth.lib import data

__all__ = ["decode", "encode", "row_bytes"]


def row_bytes(width):
    """Bytes of a port of `width` bits in a Verilated model."""
    for n_bytes in (1, 2, 4, 8):
        if width <= 8 * n_bytes:
            return n_bytes
    return 4 * -(-width // 32)


def encode(shape, values):
    """Rows of bytes `[n, row_bytes]` from values: a dict by field, or an array `[n, ...]` of integers.

    Fields without bits may be left out.
    """
    bits = _to_bits(shape, values)
    rows = np.packbits(bits, axis=1, bitorder="little")
    padded = np.zeros((len(rows), row_bytes(bits.shape[1])), np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded


def decode(shape, rows):
    """The inverse of `encode`; integers come back as int64, or uint64 for an unsigned field of 64 bits."""
    width = Shape.cast(shape).width
    return _from_bits(shape, np.unpackbits(rows, axis=1, count=width, bitorder="little"))


def _to_bits(shape, values):
    if isinstance(shape, data.StructLayout):
        needed = {name: field for name, field in shape.members.items() if Shape.cast(field).width or name in values}
        if needed.keys() != values.keys():
            raise ValueError(f"payload must have the fields {list(needed)}, not {list(values)}")
        return np.concatenate([_to_bits(field, values[name]) for name, field in needed.items()], axis=-1)
    if isinstance(shape, data.ArrayLayout):
        bits = _to_bits(shape.elem_shape, values)
        return bits.reshape(*bits.shape[:-2], bits.shape[-2] * bits.shape[-1])
    width = Shape.cast(shape).width
    values = np.asarray(values)
    values = values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)
    return (values[..., None] >> np.arange(width) & 1).astype(np.uint8)


def _from_bits(shape, bits):
    if isinstance(shape, data.StructLayout):
        return {
            name: _from_bits(field.shape, bits[..., field.offset : field.offset + field.width]) for name, field in shape
        }
    if isinstance(shape, data.ArrayLayout):
        return _from_bits(
            shape.elem_shape, bits.reshape(*bits.shape[:-1], shape.length, bits.shape[-1] // shape.length)
        )
    shape = Shape.cast(shape)
    weights = np.uint64(1) << np.arange(shape.width, dtype=np.uint64)
    values = (bits * weights).sum(axis=-1, dtype=np.uint64)
    if not shape.signed and shape.width == 64:
        return values
    values = values.view(np.int64)
    if shape.signed:
        values = values << (64 - shape.width) >> (64 - shape.width)
    return values
