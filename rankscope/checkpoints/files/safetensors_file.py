"""Safetensors files: 8 bytes of header length, JSON of name → dtype, shape, offsets; the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankscope.checkpoints.tensors import StoredTensor, open_regular
from rankscope.errors import RankscopeError

MAX_HEADER = 100_000_000  # bytes; the format's own limit

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


def open_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """List the tensors of a safetensors file; reads its header and nothing else.

    Raises
    ------
    RankscopeError
        If the file is not a whole and consistent safetensors file.
    """
    header, data_start, size = _read_header(path)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _stored(path, name, entry, data_start)
    _check_cover(path, list(tensors.values()), data_start, size)
    return tensors


def read_notes(path: str | Path) -> dict[str, str]:
    """Read the notes in the header of a safetensors file, such as who wrote it.

    Raises
    ------
    RankscopeError
        If the file has no sound header.
    """
    header, _, _ = _read_header(path)
    return {k: v for k, v in header.get("__metadata__", {}).items() if isinstance(v, str)}


def _read_header(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """Header, offset of the first data byte, and size of the file."""
    with open_regular(path) as (file, size):
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise RankscopeError(_not_safetensors(start + file.read(64), size), path=path)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise RankscopeError(f"has a damaged safetensors header ({error})", path=path) from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise RankscopeError("has a safetensors header that is not a table", path=path)
    return header, 8 + length, size


def _not_safetensors(start: bytes, size: int) -> str:
    if size == 0:
        return "is empty, not a safetensors file"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a safetensors file"
    return f"is cut short or not a safetensors file ({size} bytes)"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return table


def _stored(path: str | Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path, tensor=name)

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise fault("its header entry has no dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise fault(f"its shape {shape} and offsets {offsets} must be whole numbers from 0")
    if entry["dtype"] not in DTYPES:
        raise fault(f"has the unknown dtype {entry['dtype']!r}")
    tensor = StoredTensor(
        str(path), name, DTYPES[entry["dtype"]], tuple(shape), data_start + offsets[0]
    )
    if offsets[1] - offsets[0] != tensor.nbytes:
        raise fault(
            f"{tensor.dtype} of shape {shape} takes {tensor.nbytes} bytes, "
            f"its offsets span {offsets[1] - offsets[0]}"
        )
    return tensor


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(x) is int and x >= 0 for x in numbers)


def _check_cover(path: str | Path, tensors: list[StoredTensor], data_start: int, size: int) -> None:
    """The data of the tensors must fill the file, without hole, overlap or rest."""
    end = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end and tensor.nbytes:
            kind = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole"
            raise RankscopeError(f"its data {kind}", path=path, tensor=tensor.name)
        end = max(end, tensor.offset + tensor.nbytes)
    if end > size:
        raise RankscopeError(f"is cut short: {end - size} of {end} bytes are missing", path=path)
    if end < size:
        raise RankscopeError(f"has {size - end} bytes behind its last tensor", path=path)
