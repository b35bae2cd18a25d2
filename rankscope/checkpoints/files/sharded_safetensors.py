"""Distributed checkpoints in safetensors, as torch's ``HuggingFaceStorageWriter`` leaves them.

Every process writes ``shard-<process>-model-<n>-of-<n>.safetensors``, whose metadata says where in
the whole tensor each of its pieces begins.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.safetensors_file import open_tensors, read_notes
from rankscope.checkpoints.pieces import Piece, pieces_of
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

NOTE = "DCP_SHARDING_INFO"
PATTERN = "shard-*-model-*-of-*.safetensors"


def iter_shards(folder: Path) -> Iterator[Path]:
    """Files of the processes, by name."""
    yield from sorted(folder.glob(PATTERN))


def open_shards(folder: Path) -> dict[str, Tensor]:
    """List the tensors that the pieces of all processes make up; reads the headers.

    Raises
    ------
    RankscopeError
        If a file is damaged or missing. No file says how many there are, so that it does not show
        if it is the last that is missing.
    """
    _check_numbers(folder)
    found: dict[str, dict[tuple[int, ...], Piece]] = {}
    for path in iter_shards(folder):
        starts = _starts(path)
        for name, tensor in open_tensors(path).items():
            start = starts.get(name, (0,) * len(tensor.shape))
            if len(start) != len(tensor.shape):
                raise RankscopeError(
                    f"begins at {list(start)}, and its shape is {list(tensor.shape)}",
                    path=path,
                    tensor=name,
                )
            found.setdefault(name, {})[start] = Piece(start, tensor)
    return {name: _whole(folder, name, list(held.values())) for name, held in found.items()}


def _check_numbers(folder: Path) -> None:
    """Processes are numbered from 1."""
    numbers = {path.name.split("-")[1] for path in iter_shards(folder)}
    for number in (f"{i:05d}" for i in range(1, len(numbers) + 1)):
        if number not in numbers:
            raise RankscopeError(f"lacks the files shard-{number}-model-…", path=folder)


def _whole(folder: Path, name: str, pieces: list[Piece]) -> Tensor:
    """The tensor that reaches to the end of its last piece: no file states its shape."""
    shape = tuple(max(ends) for ends in zip(*(piece.stop for piece in pieces), strict=True))
    return pieces_of(name, shape, pieces, path=str(folder))


def _starts(path: Path) -> dict[str, tuple[int, ...]]:
    """Where the pieces in a file begin, by name."""
    try:
        noted: Any = json.loads(read_notes(path).get(NOTE, "{}"))
        found = {str(name): tuple(entry["saved_offsets"]) for name, entry in noted.items()}
        if any(type(n) is not int or n < 0 for start in found.values() for n in start):
            raise ValueError("offsets must be whole numbers from 0")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RankscopeError(f"has a damaged {NOTE} ({error})", path=path) from None
    return found
