"""Files of named vectors with a description: the format of every store in a results folder.

A file is a safetensors file whose metadata has one entry, ``rankscope``: a JSON document with the
version, the description, and a digest of both and the vectors. Damage anywhere in the file, even a
single flipped bit, is detected before a number is used. The same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rankscope.durable import write_file
from rankscope.errors import DAMAGE, RankscopeError

Vectors = Mapping[str, NDArray[Any]]
KEY = "rankscope"
EntryT = TypeVar("EntryT")


class Json(str):
    """Text that is JSON already, as `as_json` writes it."""

    __slots__ = ()


class OtherVersionError(RankscopeError):
    """An intact file of another version of the arithmetic or of the format."""


def write_vectors(
    path: Path, vectors: Vectors, about: Mapping[str, Any] | Json, *, version: str
) -> None:
    """Write vectors and their description, replacing the file in one step.

    Parameters
    ----------
    vectors
        By name.
    about
        The description: anything that JSON can hold, or `Json`.
    version
        Version of arithmetic and format; reading it as another raises `OtherVersionError`.

    Raises
    ------
    OSError
        If the file cannot be written; an existing one is left as it was.
    """
    kept = {name: np.ascontiguousarray(vector) for name, vector in vectors.items()}
    described = about if isinstance(about, Json) else as_json(about)
    text = _listing(version, _digest(version, described, vectors), described)
    write_file(path, save(kept, metadata={KEY: text}))


def read_vectors(
    path: Path, *, version: str, older: Collection[str] = ()
) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read vectors and their description, and check that both are as written.

    Parameters
    ----------
    older
        Other versions to accept; files of these without a digest are not checked.

    Raises
    ------
    OtherVersionError
        If the file is of another version.
    RankscopeError
        If it does not exist or is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            text = file.metadata()[KEY]
            listing = json.loads(text)
            stated = listing["version"]
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # Checked before the version is trusted, since a flipped bit may change that too.
        has_digest = "digest" in listing
        if has_digest and not _is_sound(text, listing, vectors):
            raise ValueError("its digest does not match its content")
        if stated not in (version, *older):
            raise OtherVersionError(f"is of version {stated}, not {version}", path=path)
        if stated != version:
            return vectors, listing["about"] if has_digest else listing
        if not has_digest:
            raise ValueError("it has no digest")
    except (SafetensorError, OSError, *DAMAGE) as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error
    return vectors, listing["about"]


def read_listed(
    path: Path,
    entries_of: Callable[[Any, dict[str, NDArray[Any]]], list[EntryT]],
    *,
    version: str,
    older: Collection[str] = (),
) -> list[EntryT]:
    """Read the entries of a file of a store; none if it does not exist or is of another version.

    Parameters
    ----------
    entries_of
        Makes the entries from the description and the vectors.

    Raises
    ------
    RankscopeError
        If the file is damaged, or its description does not fit its vectors.
    """
    if not path.is_file():
        return []
    try:
        vectors, about = read_vectors(path, version=version, older=older)
        return entries_of(about, vectors)
    except OtherVersionError:
        return []
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error


def _is_sound(text: str, listing: Mapping[str, Any], vectors: Vectors) -> bool:
    """Whether everything is as written, down to the spelling of each number."""
    described = as_json(listing["about"])
    digest = _digest(listing["version"], described, vectors)
    return text == _listing(listing["version"], digest, described)


def _listing(version: Any, digest: str, described: str) -> str:
    """The JSON document of a file; its long part, the description, is dumped already."""
    return f'{{"version":{as_json(version)},"digest":{as_json(digest)},"about":{described}}}'


def as_json(content: Any) -> str:
    """What JSON can hold, as these files have it."""
    return _encoder().encode(content)


@cache
def _encoder() -> json.JSONEncoder:
    return json.JSONEncoder(separators=(",", ":"))


def _digest(version: Any, described: str, vectors: Vectors) -> str:
    digest = hashlib.blake2b(f"[{as_json(version)},{described}]".encode(), digest_size=16)
    for name in sorted(vectors):
        vector = vectors[name]
        digest.update(f"\n{name} {vector.dtype.str} {vector.shape}\n".encode())
        digest.update(np.ascontiguousarray(vector).tobytes())
    return digest.hexdigest()
