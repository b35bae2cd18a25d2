"""Safetensors files: the length of the header, JSON of name → dtype, shape and offsets, the data.

Torch's ``HuggingFaceStorageWriter`` leaves distributed checkpoints in this format: each process
writes ``shard-<process>-model-<n>-of-<n>.safetensors``, whose metadata says where in the whole
tensor each of its pieces begins.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rankscope.checkpoints.checksums import FileDigest
from rankscope.checkpoints.files.kinds import LOOK, not_weights
from rankscope.checkpoints.files.opened_file import Unread
from rankscope.checkpoints.limits import (
    MAX_HEADER,
    MAX_SIZE,
    are_counts,
    check_values,
    short_name,
)
from rankscope.checkpoints.manifest import digest_of
from rankscope.checkpoints.pieces import Piece, pieces_of
from rankscope.checkpoints.tensors import (
    AGAIN,
    MAX_AXES,
    StoredTensor,
    Tensor,
    open_regular,
)
from rankscope.errors import RankscopeError, printable

OWN = b'{"__metadata__":{"rankscope":'  # as `rankscope.results.vectors` begins its files
ENTRY = frozenset(("dtype", "shape", "data_offsets"))
METADATA = "__metadata__"  # null in the headers of some writers
SHARDING, SHARDS = "DCP_SHARDING_INFO", "shard-*-model-*-of-*.safetensors"

Span = tuple[int, int, int, str]  # first byte, bytes, place in the header, name

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
    """List the tensors of a safetensors file; reads nothing but its header.

    A tensor in a format that is not known here is an `Unread`: formats are newer than readers, and
    its place among the others can be checked all the same.

    Raises
    ------
    RankscopeError
        If the file is not a whole and consistent safetensors file.
    """
    header, data_start, size = _read_header(path)
    tensors: dict[str, StoredTensor | Unread] = {}
    spans: dict[str, Span] = {}
    path, digest = str(path), digest_of(path)
    for long_name, entry in header.items():
        if long_name != METADATA:
            name = short_name(long_name)
            tensors[name] = _stored(path, name, entry, data_start=data_start, digest=digest)
            start, stop = entry["data_offsets"]
            spans[name] = data_start + start, stop - start, len(spans), name
    _check_cover(path, spans.values(), data_start, size)
    return {**tensors}


def read_notes(path: str | Path) -> dict[str, str]:
    """Read the notes in the header of a safetensors file, such as who wrote it.

    Raises
    ------
    RankscopeError
        If the file has no valid header.
    """
    header, _, _ = _read_header(path)
    return dict(header.get(METADATA) or {})


def is_own_store(path: str | Path) -> bool:
    """Whether a file is of the stores in a results folder of rankscope."""
    try:
        with open_regular(path) as (file, _):
            return file.read(8 + len(OWN))[8:] == OWN
    except RankscopeError:
        return False


def _read_header(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """Header, offset of the first data byte, and size of the file."""
    with open_regular(path) as (file, size):
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise not_weights(start + file.read(LOOK), size, path, kind="safetensors")
        raw = file.read(length)
    check_values(raw, "its header", path=path)
    header = _parsed(raw, path)
    if not isinstance(header, dict):
        message = "has a safetensors header that is not a table"
        raise RankscopeError(message, path=path, reason="header-json")
    notes = header.get(METADATA) or {}
    if not isinstance(notes, dict) or not all(isinstance(one, str) for one in notes.values()):
        message = f"has a safetensors header whose {METADATA} is not a table of text"
        raise RankscopeError(message, path=path, reason="header-type")
    return header, 8 + length, size


def _parsed(raw: bytes, path: str | Path) -> Any:
    """The JSON of a header, without a name twice or a name that is not text."""

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(pairs) == len(ENTRY) and table.keys() == ENTRY:
            return table
        if len(table) < len(pairs):
            (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            message = f"has {printable(twice)!r} twice in its safetensors header"
            raise RankscopeError(message, path=path, reason="duplicate-key")
        "".join(table).encode()  # JSON can escape half a character, which no text has
        return table

    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=without_duplicates)
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        reason, what = "header-utf8", f"{error.reason} at {error.start}"
    except (ValueError, RecursionError) as error:
        reason, what = "header-json", str(error)
    message = f"has a damaged safetensors header ({what})"
    raise RankscopeError(message, path=path, reason=reason)


def _stored(
    path: str, name: str, entry: Any, *, data_start: int, digest: FileDigest | None
) -> StoredTensor | Unread:
    if not isinstance(entry, dict) or not entry.keys() >= ENTRY:
        message = "its header entry does not have a dtype, a shape and data_offsets"
        raise _fault(message, path, name)
    shape, offsets, dtype = entry["shape"], entry["data_offsets"], entry["dtype"]
    if isinstance(shape, list) and len(shape) > MAX_AXES:
        message = f"has {len(shape)} axes, more than the {MAX_AXES} that numpy reads"
        raise _fault(message, path, name)
    if not are_counts(shape) or not are_counts(offsets) or len(offsets) != 2:
        shown = printable(f"{reprlib.repr(shape)} and offsets {reprlib.repr(offsets)}", limit=120)
        raise _fault(f"its shape {shown} must be integers from 0 to {MAX_SIZE}", path, name)
    start, length = data_start + offsets[0], offsets[1] - offsets[0]
    if not isinstance(dtype, str):
        raise _fault("its dtype is not text", path, name)
    if length < 0:
        raise _fault("its data ends before it starts", path, name)
    if dtype not in DTYPES:
        # Not checked against the shape: a format may have less than one byte per element.
        why = f"is stored as {printable(dtype, limit=40)}, a format that is not known here"
        return Unread(path, name, dtype, tuple(shape), why, start, length)
    tensor = StoredTensor(path, name, DTYPES[dtype], tuple(shape), start, None, digest)
    size = tensor.nbytes
    if length != size:
        shown = printable(f"{tensor.dtype} of shape {shape}", limit=120)
        taken = size if size < MAX_SIZE else f"over {MAX_SIZE}"
        message = f"{shown} takes {taken} bytes, but its offsets span {length}"
        raise _fault(message, path, name, reason="size-mismatch")
    return tensor


def _fault(message: str, path: str, name: str, reason: str = "header-type") -> RankscopeError:
    return RankscopeError(message, path=path, tensor=name, reason=reason)


def _check_cover(path: str | Path, spans: Iterable[Span], data_start: int, size: int) -> None:
    """Check that the data of the tensors fill the file: no hole, no overlap, nothing left over."""
    end = data_start
    for start, length, _, name in sorted(spans):
        if start != end and length:
            overlaps = start < end
            kind = "overlaps that of" if overlaps else "leaves a hole after"
            message = f"its data {kind} the tensor before it: the header is damaged"
            raise _fault(message, str(path), name, reason="overlap" if overlaps else "hole")
        end = max(end, start + length)
    if end > size:
        message = f"is cut short: {end - size} of {end} bytes are missing; {AGAIN}"
        raise RankscopeError(message, path=path, reason="cut-short")
    if end < size:
        message = f"has {size - end} bytes after its last tensor"
        raise RankscopeError(message, path=path, reason="trailing-bytes")


def iter_shards(folder: Path) -> Iterator[Path]:
    """Files of the processes of a distributed checkpoint, sorted by name."""
    yield from sorted(folder.glob(SHARDS))


def open_shards(folder: Path) -> dict[str, Tensor]:
    """List the tensors that the pieces of all processes make up; reads the headers.

    Raises
    ------
    RankscopeError
        If a file is damaged or missing. No file says how many there are, so a missing last one
        goes unnoticed.
    """
    _check_numbers(folder)
    pieces: dict[str, dict[tuple[int, ...], Piece]] = {}
    for path in iter_shards(folder):
        starts = _starts(path)
        for name, tensor in open_tensors(path).items():
            start = starts.get(name, (0,) * len(tensor.shape))
            if len(start) != len(tensor.shape):
                raise RankscopeError(
                    f"begins at {list(start)}, but has the shape {list(tensor.shape)}",
                    path=path,
                    tensor=name,
                )
            pieces.setdefault(name, {})[start] = Piece(start, tensor)
    return {name: _joined(folder, name, list(held.values())) for name, held in pieces.items()}


def _check_numbers(folder: Path) -> None:
    """Processes are numbered from 1."""
    numbers = {path.name.split("-")[1] for path in iter_shards(folder)}
    for number in (f"{i:05d}" for i in range(1, len(numbers) + 1)):
        if number not in numbers:
            raise RankscopeError(f"lacks the files shard-{number}-model-…", path=folder)


def _joined(folder: Path, name: str, pieces: list[Piece]) -> Tensor:
    """The tensor that reaches to the end of its last piece: no file states its shape."""
    ranks = sorted({len(piece.start) for piece in pieces})
    if len(ranks) > 1:
        message = f"has pieces of {' and of '.join(map(str, ranks))} axes"
        raise RankscopeError(message, path=folder, tensor=name)
    shape = tuple(max(ends) for ends in zip(*(piece.stop for piece in pieces), strict=True))
    return pieces_of(name, shape, pieces, path=str(folder))


def _starts(path: Path) -> dict[str, tuple[int, ...]]:
    """Where the pieces in a file begin, by name."""
    try:
        noted: Any = json.loads(read_notes(path).get(SHARDING, "{}"))
        starts = {str(name): tuple(entry["saved_offsets"]) for name, entry in noted.items()}
        if any(type(n) is not int or n < 0 for start in starts.values() for n in start):
            raise ValueError("offsets must be non-negative integers")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RankscopeError(f"has a damaged {SHARDING} ({error})", path=path) from None
    return starts
