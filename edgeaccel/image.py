"""Images: what is loaded into a machine's memory to run a model, with all that a host has to know of it.

The file begins with a prefix of 96 bytes; then come the segments' bytes, and at the end a header in JSON, which says
where each segment lies in the file and in the machine's memory, with a CRC-32 of each. The prefix says where the header
is and what its SHA-256 is. So a file is written in one go, a segment at a time, and no part of it goes unchecked.
"""

import dataclasses
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeaccel import isa
from edgeaccel.config import Config
from edgeaccel.image_check import check_manifest, check_program, check_segments
from edgeaccel.machine import Machine

__all__ = ["Image", "ImageError", "Lazy", "instruction_set", "machine_fields", "machine_from"]

MAGIC = b"edgeaccel image\n"
VERSION = 1
PREFIX = struct.Struct("<16sIIQQ32s")  # magic, version, 0, header's place and length, its SHA-256
PREFIX_BYTES = 96  # PREFIX, its own SHA-256 cut to what is left
PIECE = 1 << 22  # bytes that are worked on at a time


class ImageError(ValueError):
    """A file that is no whole image, or one for another machine; says what to do."""


@dataclass(frozen=True, eq=False)
class Lazy:
    """Bytes that are made when they are asked for: `len` of them, and `numpy.asarray` makes them."""

    n_bytes: int
    make: Callable[[], np.ndarray] = field(repr=False)

    def __len__(self):
        return self.n_bytes

    def __array__(self, dtype=None, copy=None):
        made = self.make()
        if made.shape != (self.n_bytes,) or made.dtype != np.uint8:
            raise ValueError(f"a segment must be {self.n_bytes} bytes, not {made.dtype} of shape {made.shape}")
        return made if dtype is None else made.astype(dtype, copy=False)


@dataclass(kw_only=True, eq=False)
class Image:
    """A model for a machine.

    Attributes
    ----------
    machine : Machine
    program : bytes
        Instructions, `edgeaccel.isa`; in memory they are among the segments.
    program_address : int
        Where they lie, a multiple of 64.
    segments : list of (address, bytes)
        What memory holds before the first run: uint8 arrays, or `Lazy`, of which neighbours are made together; ask for
        each once, in order. Addresses are the machine's: port `n` from ``n * machine.port_bytes`` on.
    manifest : dict
        What JSON can hold: `model` (the shape's fields), `origin`, `formats`, `positions`, `vocab_size`, `bos`, `eos`,
        `logits` (address), `regions`, `matrices`, `names`, `cache`, `buffer`, `tokenizer`; see
        `edgeaccel.compiler.compile_model`.
    """

    machine: Machine
    program: bytes
    program_address: int
    segments: list
    manifest: dict

    @property
    def n_bytes(self):
        """Bytes of all segments."""
        return sum(len(data) for _, data in self.segments)

    def pieces(self):
        """(address, uint8 array) of all that memory holds, in arrays of a few MB at most."""
        for address, data in self.segments:
            array = np.asarray(data)
            for place in range(0, len(array), PIECE):
                yield address + place, array[place : place + PIECE]

    def save(self, path, *, progress=None):
        """Write the file, a segment at a time; it gets its name once it is whole.

        Parameters
        ----------
        path : path
        progress : function, optional
            Called with the number of bytes after each segment.
        """
        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            with part.open("wb") as file:
                file.write(bytes(PREFIX_BYTES))
                table, place = [], PREFIX_BYTES
                for address, data in self.segments:
                    array = np.ascontiguousarray(np.asarray(data))
                    file.write(array.data)
                    table.append([address, place, array.size, zlib.crc32(array)])
                    place += array.size
                    if progress:
                        progress(array.size)
                header = {
                    "instruction_set": instruction_set(),
                    "machine": machine_fields(self.machine),
                    "program": self.program.hex(),
                    "program_address": self.program_address,
                    "segments": table,
                    "manifest": self.manifest,
                }
                encoded = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
                file.write(encoded)
                prefix = PREFIX.pack(MAGIC, VERSION, 0, place, len(encoded), hashlib.sha256(encoded).digest())
                file.seek(0)
                file.write(prefix + hashlib.sha256(prefix).digest()[: PREFIX_BYTES - PREFIX.size])
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path, machine=None):
        """The image in a file, checked; its segments are mapped, not read into memory.

        Parameters
        ----------
        path : path
        machine : Machine, optional
            The one that it must be for.

        Raises
        ------
        ImageError
            A file that is no image, is cut or damaged, is of another version of the format or of the instruction set,
            or is for another machine; one that is whole, but whose segments or program do not keep to the machine's
            memory, `edgeaccel.image_check`.
        OSError
            If it cannot be read.
        """
        path = Path(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            place, length, digest = _prefix(path, file.read(PREFIX_BYTES))
            if place + length != size:
                what = "cut" if size < place + length else "followed by something else"
                raise ImageError(f"{path}: {size} bytes, but {place + length} were written: it is {what}; {_ANEW}")
            file.seek(place)
            encoded = file.read(length)
        if hashlib.sha256(encoded).digest() != digest:
            raise ImageError(f"{path}: its header is damaged; {_ANEW}")
        try:
            header = json.loads(encoded)
            image = cls._from(path, header, np.memmap(path, np.uint8, "r")[:place], machine)
        except ImageError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ImageError(f"{path}: its header makes no sense ({error!r}); {_ANEW}") from None
        return image

    @classmethod
    def _from(cls, path, header, file, machine):
        if header["instruction_set"] != instruction_set():
            raise ImageError(f"{path}: its program is of another version of the instruction set; {_ANEW}")
        own = machine_from(header["machine"])
        if machine is not None and own != machine:
            raise ImageError(f"{path}: is for another machine: {_difference(own, machine)}; compile for this one")
        segments, expected = [], PREFIX_BYTES
        for number, (address, place, size, checksum) in enumerate(header["segments"]):
            if place != expected or size < 1 or place + size > len(file) or address < 0:
                raise ImageError(f"{path}: segment {number} cannot lie at byte {place} of the file; {_ANEW}")
            data = file[place : place + size]
            if zlib.crc32(data) != checksum:
                raise ImageError(f"{path}: segment {number}, bytes {place} to {place + size - 1}, is damaged; {_ANEW}")
            segments.append((address, data))
            expected += size
        if expected != len(file):
            raise ImageError(f"{path}: {len(file) - expected} bytes belong to no segment; {_ANEW}")
        program = bytes.fromhex(header["program"])
        isa.disassemble(program)
        if not program or len(program) > own.instructions * isa.INSTRUCTION_BYTES:
            raise ImageError(f"{path}: a program of {len(program)} bytes cannot run; {_ANEW}")
        if not isinstance(header["manifest"], dict):
            raise ImageError(f"{path}: its manifest must be an object; {_ANEW}")
        address, manifest = int(header["program_address"]), header["manifest"]
        try:
            check_segments(own, segments)
            check_program(own, program, address, segments)
        except ValueError as error:
            raise ImageError(f"{path}: {error}; {_ANEW}") from None
        try:
            check_manifest(own, manifest, program)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ImageError(f"{path}: its manifest makes no sense ({error!r}); {_ANEW}") from None
        return cls(machine=own, program=program, program_address=address, segments=segments, manifest=manifest)


_ANEW = "compile it anew with python -m edgeaccel.compile"


def _prefix(path, data):
    """(place, length, SHA-256) of the header."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise ImageError(f"{path}: is no image; name a file that python -m edgeaccel.compile wrote")
    if len(data) < PREFIX_BYTES:
        raise ImageError(f"{path}: {len(data)} bytes: it is cut; {_ANEW}")
    _, version, _, place, length, digest = PREFIX.unpack_from(data)
    if data[PREFIX.size :] != hashlib.sha256(data[: PREFIX.size]).digest()[: PREFIX_BYTES - PREFIX.size]:
        raise ImageError(f"{path}: its first {PREFIX_BYTES} bytes are damaged; {_ANEW}")
    if version != VERSION:
        raise ImageError(f"{path}: version {version} of the format, not {VERSION}; {_ANEW}")
    return place, length, digest


def _difference(one, other):
    """Where two machines differ, as text."""
    one, other = (_flat(machine_fields(each)) for each in (one, other))
    return ", ".join(f"{name} is {one[name]!r}, not {other[name]!r}" for name in one if one[name] != other[name])


def _flat(fields):
    return {name: value for name, value in fields.items() if name != "config"} | fields["config"]


def machine_fields(machine):
    """A machine as what JSON can hold."""
    return json.loads(json.dumps(dataclasses.asdict(machine)))


def machine_from(fields):
    """The machine of `machine_fields`.

    Raises
    ------
    ValueError, TypeError, KeyError
        If it is none.
    """
    fields = {name: _tuples(value) for name, value in fields.items()}
    config = {name: _tuples(value) for name, value in fields.pop("config").items()}
    return Machine(config=Config(**config), **fields)


def _tuples(value):
    return tuple(value) if isinstance(value, list) else value


def instruction_set():
    """What tells versions of the instruction set apart: a digest of opcodes, fields, widths and names."""
    table = [
        (name, of.opcode, [(field, each.width, each.names) for field, each in of.fields.items()])
        for name, of in isa.INSTRUCTIONS.items()
    ]
    return hashlib.sha256(json.dumps([table, isa.WHEN]).encode()).hexdigest()[:16]
