"""Flat files of token ids: numpy's, llm.c's with a header, nanoGPT's and OLMo's without one.

llm.c's header is 256 int32: a magic number, a version, the number of tokens, zeros
(github.com/karpathy/llm.c, ``dev/data/data_common.py``). OLMo's files hold bare ids although they
are named ``.npy``, so the content decides, not the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.document_files import reading

Tokens = NDArray[np.unsignedinteger[Any]]
IdType = Literal["uint16", "uint32"]  # how ids are stored, always little-endian

ID_TYPES: tuple[IdType, ...] = get_args(IdType)
AT_ONCE = 1 << 22  # ids, where memory must not grow with their number
_NUMPY_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 256 * 4
_LLM_C: dict[int, tuple[int, IdType]] = {  # magic number: version, type of the ids
    20240520: (1, "uint16"),
    20240801: (7, "uint32"),
}


def id_dtype(name: IdType) -> np.dtype[np.unsignedinteger[Any]]:
    """Numpy's type of ids as they are stored."""
    return np.dtype(name).newbyteorder("<")


def open_token_file(path: Path, *, dtype: IdType | None = None) -> Tokens:
    """Memory-map the ids of a token file.

    Parameters
    ----------
    path
        The file.
    dtype
        How ids are stored in a file that does not say so itself; ignored for one that does.

    Returns
    -------
    The ids, (n,) with n >= 1.

    Raises
    ------
    WrongSettingError
        If the file has no header and ``dtype`` is None.
    RankscopeError
        If the file cannot be read, is not what its header says, or does not hold a one-dimensional
        array of unsigned integers.
    """
    with reading(path, what="token ids"):
        tokens = _open(path, dtype)
    if tokens.ndim != 1 or tokens.dtype.kind != "u" or not len(tokens):
        raise RankscopeError(
            f"holds {tokens.dtype} of shape {tokens.shape}, but token ids are a "
            "one-dimensional array of unsigned integers",
            path=path,
        )
    return tokens


def iter_token_documents(tokens: Tokens, end_of_document: int | None) -> Iterator[Tokens]:
    """Yield the ids up to and including each end of document; all at once where it is unknown."""
    start = 0
    if end_of_document is not None:
        for first in range(0, len(tokens), AT_ONCE):
            chunk = tokens[first : first + AT_ONCE]
            for index in np.flatnonzero(chunk == end_of_document).tolist():
                yield tokens[start : first + index + 1]
                start = first + index + 1
    if start < len(tokens):
        yield tokens[start:]


def iter_id_bytes(tokens: Tokens, dtype: IdType = "uint32") -> Iterator[bytes]:
    """Yield ids as they are stored, whatever type holds them now, a few megabytes at a time."""
    for start in range(0, len(tokens), AT_ONCE):
        yield tokens[start : start + AT_ONCE].astype(id_dtype(dtype)).tobytes()


def tokens_digest(training: Tokens, validation: Tokens, *, vocab_size: int) -> str:
    """Hash of the ids of a corpus; the same for every unsigned integer type that holds them."""
    digest = hashlib.blake2b(f"{len(training)} {vocab_size}".encode(), digest_size=16)
    for tokens in (training, validation):
        for stored in iter_id_bytes(tokens):
            digest.update(stored)
    return digest.hexdigest()


def _open(path: Path, dtype: IdType | None) -> NDArray[Any]:
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if start.startswith(_NUMPY_MAGIC):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    if len(start) == _HEADER_BYTES and int.from_bytes(start[:4], "little") in _LLM_C:
        return _open_llm_c(path, np.frombuffer(start, dtype="<i4"))
    if dtype is None:
        raise WrongSettingError(
            "has neither numpy's nor llm.c's header to say how its token ids are stored: "
            f"`rankscope data prepare` reads it if `dtype` is {' or '.join(ID_TYPES)}",
            path=path,
        )
    return np.memmap(path, dtype=id_dtype(dtype), mode="r")


def _open_llm_c(path: Path, header: NDArray[np.int32]) -> NDArray[Any]:
    magic, version, count = header[:3].tolist()
    known_version, dtype = _LLM_C[magic]
    if version != known_version:
        raise RankscopeError(
            f"is a token file of llm.c, version {version}, but only version {known_version} is "
            "known",
            path=path,
        )
    held = (path.stat().st_size - _HEADER_BYTES) / id_dtype(dtype).itemsize
    if held != count:
        raise RankscopeError(
            f"holds {held:g} token ids, but its header says {count}: it is not complete", path=path
        )
    return np.memmap(path, dtype=id_dtype(dtype), mode="r", offset=_HEADER_BYTES, shape=(count,))
