"""Safetensors files: 8 bytes of header length, JSON of name → dtype, shape, offsets; the data."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rankscope.checkpoints.checksums import FileDigest
from rankscope.checkpoints.files.damage import LOOK, not_weights
from rankscope.checkpoints.files.opened_file import Unread
from rankscope.checkpoints.manifest import digest_of
from rankscope.checkpoints.tensors import StoredTensor, Tensor, open_regular
from rankscope.errors import RankscopeError, printable

MAX_HEADER = 100_000_000  # bytes; the format's own limit
METADATA = "__metadata__"  # null in the headers of some writers

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
}


def open_tensors(path: str | Path) -> dict[str, Tensor]:
    """List the tensors of a safetensors file; reads its header and nothing else.

    One in a format that is not known here is an `Unread`: formats come after readers, and its
    place among the others can be checked all the same.

    Raises
    ------
    RankscopeError
        If the file is not a whole and consistent safetensors file.
    """
    header, data_start, size = _read_header(path)
    tensors: dict[str, StoredTensor | Unread] = {}
    digest = digest_of(path)
    for name, entry in header.items():
        if name != METADATA:
            tensors[name] = _stored(path, name, entry, data_start, digest)
    _check_cover(path, list(tensors.values()), data_start, size)
    return {**tensors}


def read_notes(path: str | Path) -> dict[str, str]:
    """Read the notes in the header of a safetensors file, such as who wrote it.

    Raises
    ------
    RankscopeError
        If the file has no sound header.
    """
    header, _, _ = _read_header(path)
    return {k: v for k, v in (header.get(METADATA) or {}).items() if isinstance(v, str)}


def _read_header(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """Header, offset of the first data byte, and size of the file."""
    with open_regular(path) as (file, size):
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise not_weights(start + file.read(LOOK), size, path, kind="safetensors")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise RankscopeError(f"has a damaged safetensors header ({error})", path=path) from error
    if not isinstance(header, dict) or not isinstance(header.get(METADATA) or {}, dict):
        raise RankscopeError("has a safetensors header that is not a table", path=path)
    return header, 8 + length, size


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{printable(twice)!r} is there twice")
    return table


def _stored(
    path: str | Path, name: str, entry: Any, data_start: int, digest: FileDigest | None
) -> StoredTensor | Unread:
    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path, tensor=name)

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise fault("its header entry has no dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise fault(f"its shape {shape} and offsets {offsets} must be whole numbers from 0")
    dtype, start, length = entry["dtype"], data_start + offsets[0], offsets[1] - offsets[0]
    if not isinstance(dtype, str):
        raise fault("its dtype is not a name")
    if length < 0:
        raise fault(f"its offsets span {length}")
    if dtype not in DTYPES:
        # Not checked against the shape: a format may have less than a byte an element.
        why = f"is stored as {printable(dtype, limit=40)}, a format that is not known here"
        return Unread(str(path), name, dtype, tuple(shape), why, start, length)
    tensor = StoredTensor(str(path), name, DTYPES[dtype], tuple(shape), start, checksum=digest)
    if length != tensor.nbytes:
        raise fault(
            f"{tensor.dtype} of shape {shape} takes {tensor.nbytes} bytes, "
            f"its offsets span {length}"
        )
    return tensor


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(x) is int and x >= 0 for x in numbers)


def _check_cover(
    path: str | Path, tensors: list[StoredTensor | Unread], data_start: int, size: int
) -> None:
    """The data of the tensors must fill the file, without hole, overlap or rest."""
    end = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end and tensor.nbytes:
            kind = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole"
            raise RankscopeError(f"its data {kind}", path=path, tensor=tensor.name)
        end = max(end, tensor.offset + tensor.nbytes)
    if end > size:
        message = f"is cut short: {end - size} of {end} bytes are missing"
        raise RankscopeError(message, path=path, reason="cut-short")
    if end < size:
        raise RankscopeError(f"has {size - end} bytes behind its last tensor", path=path)
