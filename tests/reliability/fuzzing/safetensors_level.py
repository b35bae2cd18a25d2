"""Mutations of safetensors files: entries of the header, and tensors with another meaning."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import prod
from random import Random
from typing import Any

from tests.reliability.fuzzing import hostile, json_level
from tests.reliability.fuzzing.json_level import Table

SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "BOOL": 1}
ODD_TYPES = ("F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "C64", "F33", "", "f32", "F32 ")
FILLS = (  # of four bytes as float32: NaN, inf, -inf, zero, denormal, largest, one
    *(b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\0\0\0\0", b"\1\0\0\0"),
    *(b"\xff\xff\x7f\x7f", b"\0\0\x80\x3f"),
)


@dataclass(frozen=True)
class Stored:
    """A tensor as the file has it."""

    name: str
    dtype: Any
    shape: list[Any]
    data: bytes


def mutated(rng: Random, data: bytes) -> bytes:
    """The file after a mutation of its header, or with tensors that mean something else."""
    header, body = split(data)
    metadata, tensors = tensors_of(header, body)
    if rng.random() < 0.5 or not tensors:
        return _with_header(rng, json_level.mutated(rng, header), body)
    for _ in range(rng.choice((1, 1, 2))):
        tensors = rng.choice(MEANINGS)(rng, tensors)
    return written(metadata, tensors)


def split(data: bytes) -> tuple[bytes, bytes]:
    """Header and data."""
    length = struct.unpack("<Q", data[:8])[0]
    return data[8 : 8 + length], data[8 + length :]


def tensors_of(header: bytes, body: bytes) -> tuple[Any, list[Stored]]:
    """Metadata and tensors of an honest file."""
    table = {str(key): value for key, value in json_level.parsed(header)}
    metadata = table.pop("__metadata__", None)
    tensors = []
    for name, entry in table.items():
        of = {str(key): value for key, value in entry}
        start, end = of["data_offsets"]
        tensors.append(Stored(name, of["dtype"], of["shape"], body[start:end]))
    return metadata, tensors


def written(metadata: Any, tensors: list[Stored]) -> bytes:
    """A file whose header fits its data, whatever the tensors are."""
    table, at = Table(), 0
    if metadata is not None:
        table.append(["__metadata__", metadata])
    for one in tensors:
        span = [at, at := at + len(one.data)]
        table.append([one.name, {"dtype": one.dtype, "shape": one.shape, "data_offsets": span}])
    header = json_level.dumped(table).encode()
    return struct.pack("<Q", len(header)) + header + b"".join(one.data for one in tensors)


def _with_header(rng: Random, header: bytes, body: bytes) -> bytes:
    length = rng.choice((len(header),) * 12 + (0, 1, len(header) - 1, len(header) + 1, 2**63))
    return struct.pack("<Q", length) + header + body


def _one(rng: Random, tensors: list[Stored], **changes: Any) -> list[Stored]:
    at = rng.randrange(len(tensors))
    return [*tensors[:at], replace(tensors[at], **changes), *tensors[at + 1 :]]


def _rename(rng: Random, tensors: list[Stored]) -> list[Stored]:
    old = rng.choice(tensors).name
    parts = old.split(".")
    parts[rng.randrange(len(parts))] = hostile.name(rng)
    return _one(rng, tensors, name=rng.choice((hostile.name(rng), ".".join(parts), old)))


def _drop(rng: Random, tensors: list[Stored]) -> list[Stored]:
    return rng.sample(tensors, len(tensors) - 1) if len(tensors) > 1 else tensors


def _add(rng: Random, tensors: list[Stored]) -> list[Stored]:
    return [*tensors, replace(rng.choice(tensors), name=hostile.name(rng))]


def _reshape(rng: Random, tensors: list[Stored]) -> list[Stored]:
    """Another shape, and data for it."""
    one = rng.choice(tensors)
    shape = list(one.shape)
    if rng.random() < 0.6 and shape:
        shape[rng.randrange(len(shape))] = rng.choice((0, 1, 2, 3, 5, 8, 64))
    else:
        shape = rng.choice(
            (
                [],
                [0],
                [1],
                [7],
                shape[::-1],
                [*shape, 2],
                [2, *shape],
                [1] * 64,
                [1] * 65,
                [0, 2**40],
            )
        )
    size = prod(shape) * SIZES.get(str(one.dtype), 4)
    data = (one.data * (size // max(len(one.data), 1) + 1))[:size].ljust(min(size, 10**6), b"\0")
    changed = replace(one, shape=shape, data=data)
    return [changed if other is one else other for other in tensors]


def _retype(rng: Random, tensors: list[Stored]) -> list[Stored]:
    """Another format, of the same number of bytes where that is possible."""
    one = rng.choice(tensors)
    dtype = rng.choice((*SIZES, *ODD_TYPES))
    shape = list(one.shape)
    old, new = SIZES.get(str(one.dtype), 4), SIZES.get(dtype, 4)
    if shape and shape[-1] * old % new == 0:
        shape[-1] = shape[-1] * old // new
    changed = replace(one, dtype=dtype, shape=shape)
    return [changed if other is one else other for other in tensors]


def _fill(rng: Random, tensors: list[Stored]) -> list[Stored]:
    """Numbers that are not finite, zero, or at the end of the range."""
    one = rng.choice(tensors)
    fill = rng.choice(FILLS)
    at = 4 * rng.randrange(len(one.data) // 4 + 1)
    data = one.data[:at] + fill + one.data[at + 4 :]
    if rng.random() < 0.6:
        data = fill * (len(one.data) // 4 + 1)
    changed = replace(one, data=data[: len(one.data)])
    return [changed if other is one else other for other in tensors]


def _exchange(rng: Random, tensors: list[Stored]) -> list[Stored]:
    """Two tensors have each other's names."""
    names = [one.name for one in tensors]
    rng.shuffle(names)
    return [replace(one, name=name) for one, name in zip(tensors, names, strict=True)]


MEANINGS = (_rename, _rename, _drop, _add, _reshape, _reshape, _retype, _fill, _exchange)
