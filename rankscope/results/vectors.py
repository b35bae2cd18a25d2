"""Files of named vectors with a description: the one format of what the results folder stores.

A file is a safetensors file whose metadata has one entry, ``rankscope``: a JSON document with the
version, the description and a digest of both it and the vectors. Whatever damaged the file, a
flipped bit included, is noticed before a number of it is used. The same content gives the same
bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rankscope.atomic import write_atomically
from rankscope.errors import RankscopeError

Vectors = Mapping[str, NDArray[Any]]
KEY = "rankscope"


class OtherVersionError(RankscopeError):
    """A sound file of another version of the arithmetic or of the format."""


def write_vectors(path: Path, vectors: Vectors, about: Mapping[str, Any], *, version: str) -> None:
    """Write vectors and what they are, replacing the file in one go.

    Parameters
    ----------
    vectors
        By name.
    about
        Anything that JSON holds.
    version
        Of the arithmetic and the format: a reader that asks for another gets `OtherVersionError`.

    Raises
    ------
    OSError
        If the file cannot be written; an earlier one is left as it was.
    """
    described = json.dumps(about, separators=(",", ":"))
    listing = {"version": version, "digest": _digest(described, vectors), "about": about}
    kept = {name: np.ascontiguousarray(vector) for name, vector in vectors.items()}
    content = save(kept, metadata={KEY: json.dumps(listing, separators=(",", ":"))})
    write_atomically(path, content)


def read_vectors(
    path: Path, *, version: str, older: Collection[str] = ()
) -> tuple[dict[str, NDArray[Any]], Any]:
    """Read vectors and their description, and check that both are as they were written.

    Parameters
    ----------
    older
        Versions that are read too, from before files had digests: these are taken as they are.

    Raises
    ------
    OtherVersionError
        If the file is of another version.
    RankscopeError
        If it is not there or damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            listing = json.loads(file.metadata()[KEY])
            if listing["version"] not in (version, *older):
                raise OtherVersionError(
                    f"is of version {listing['version']}, not {version}", path=path
                )
            vectors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if listing["version"] != version:
            return vectors, listing
        described = json.dumps(listing["about"], separators=(",", ":"))
        if listing["digest"] != _digest(described, vectors):
            raise ValueError("its digest does not fit its content")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RankscopeError(f"is damaged ({error})", path=path, reason="damaged") from error
    return vectors, listing["about"]


def _digest(described: str, vectors: Vectors) -> str:
    digest = hashlib.blake2b(described.encode(), digest_size=16)
    for name in sorted(vectors):
        vector = vectors[name]
        digest.update(f"\n{name} {vector.dtype.str} {vector.shape}\n".encode())
        digest.update(np.ascontiguousarray(vector).tobytes())
    return digest.hexdigest()
