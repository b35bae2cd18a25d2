"""Flat files of token ids: numpy's, llm.c's with a header, nanoGPT's and OLMo's without any.

llm.c's header is 256 int32: a magic number, a version, the number of tokens, zeros
(github.com/karpathy/llm.c, ``dev/data/data_common.py``). OLMo's files are bare ids though they
are named ``.npy``, so the content decides, not the name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.training.data.corpus import Tokens
from rankscope.training.data.document_files import reading

RAW_TYPES = {"uint16": "<u2", "uint32": "<u4"}
_NUMPY_MAGIC = b"\x93NUMPY"
_HEADER_BYTES = 256 * 4
_LLM_C = {20240520: (1, "<u2"), 20240801: (7, "<u4")}  # magic number: version, type of the ids


def open_token_file(path: Path, *, dtype: str | None = None) -> Tokens:
    """Memory-map the ids of a token file.

    Parameters
    ----------
    path
        The file.
    dtype
        A key of `RAW_TYPES`: how ids are stored in a file that does not say so itself. A file that
        does is read as it says.

    Returns
    -------
    The ids, (n,) with n >= 1.

    Raises
    ------
    RankscopeError
        If the file cannot be read, is not what its header says, holds no one-dimensional array of
        unsigned integers, or has no header while ``dtype`` is None.
    """
    try:
        with reading(path):
            tokens = _open(path, dtype)
    except RankscopeError as error:
        message = error.message.replace("cannot be read:", "cannot be read as token ids:")
        raise RankscopeError(message, path=path) from None
    if tokens.ndim != 1 or tokens.dtype.kind != "u" or not len(tokens):
        raise RankscopeError(
            f"holds {tokens.dtype} of shape {tokens.shape}, but token ids are a "
            "one-dimensional array of unsigned integers",
            path=path,
        )
    return tokens


def iter_token_documents(tokens: Tokens, end_of_document: int | None) -> Iterator[Tokens]:
    """Yield the ids up to and with each end of document; all of them where none is known."""
    start = 0
    if end_of_document is not None:
        for first in range(0, len(tokens), 1 << 22):
            chunk = tokens[first : first + (1 << 22)]
            for place in np.flatnonzero(chunk == end_of_document).tolist():
                yield tokens[start : first + place + 1]
                start = first + place + 1
    if start < len(tokens):
        yield tokens[start:]


def _open(path: Path, dtype: str | None) -> NDArray[Any]:
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if start.startswith(_NUMPY_MAGIC):
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    if len(start) == _HEADER_BYTES and int.from_bytes(start[:4], "little") in _LLM_C:
        return _open_llm_c(path, np.frombuffer(start, dtype="<i4"))
    if dtype is None:
        raise RankscopeError(
            "does not say how its token ids are stored, neither as numpy nor as llm.c does: "
            "read it with `rankscope data prepare --dtype uint16` or uint32",
            path=path,
        )
    return np.memmap(path, dtype=RAW_TYPES[dtype], mode="r")


def _open_llm_c(path: Path, header: NDArray[np.int32]) -> NDArray[Any]:
    magic, version, count = header[:3].tolist()
    known_version, dtype = _LLM_C[magic]
    if version != known_version:
        raise RankscopeError(
            f"is a token file of llm.c of version {version}, but {known_version} is known",
            path=path,
        )
    found = (path.stat().st_size - _HEADER_BYTES) / np.dtype(dtype).itemsize
    if found != count:
        raise RankscopeError(
            f"holds {found:g} token ids, but its header says {count}: it is not complete", path=path
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=_HEADER_BYTES, shape=(count,))
