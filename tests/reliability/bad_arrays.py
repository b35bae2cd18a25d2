"""Bad files of numpy: ``.npz`` archives in place of a file of weights."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import partial

import numpy as np

from tests.reliability.bad import (
    Array,
    Bad,
    K,
    Q,
    fine,
    flipped,
    honest,
    lost,
    matrix,
    npz,
    unzipped,
    whole,
    zipped,
)

Q2, K2 = matrix(2, 0), matrix(2, 1)
PLACE = "numpy"
bad, ok, gone = (partial(make, place=PLACE) for make in (whole, fine, lost))


def npy(header: str, data: bytes = b"", *, version: int = 1) -> bytes:
    """An array with any header."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2, "little") + text + data


def described(shape: str = "(6, 4)", descr: str = "'<f4'", order: str = "False") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"
    return npy(header, K2.tobytes())


def with_k(content: bytes) -> Callable[[], bytes]:
    """An archive of honest queries, and of keys that are these bytes."""
    return lambda: zipped(unzipped(npz({Q: Q2})) | {f"{K}.npy": content})


def of_k(array: Array) -> Callable[[], bytes]:
    return lambda: npz({Q: Q2, K: array})


def objects() -> bytes:
    """An array of Python objects, which is a pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, **{Q: Q2, K: np.array([{"a": 1}], dtype=object)})  # type: ignore[arg-type]
    return buffer.getvalue()


BAD_ARRAYS: list[Bad] = [
    bad("npz empty", "npz", b"", "empty", "is empty"),
    bad("npz cut", "npz", lambda: npz(honest())[:-30], "cut-short", ""),
    gone(
        "npz bit of an array",
        "npz",
        lambda: flipped(npz(honest()), K2.tobytes()),
        "damaged",
        "checksum",
        headers=False,
    ),
    bad("npz without arrays", "npz", lambda: zipped({"a.txt": b"a"}), "no-tensors", "numpy arrays"),
    bad(
        "npz header of 10^4000",
        "npz",
        with_k(described(f"({10**4000}, 1)")),
        "size-mismatch",
        "",
        tensor=K,
    ),
    bad(
        "npz header larger than its data",
        "npz",
        with_k(described("(7, 4)")),
        "size-mismatch",
        "",
        tensor=K,
    ),
    bad(
        "npz header with a call",
        "npz",
        with_k(npy("__import__('os').system('x')")),
        "damaged",
        "header",
        tensor=K,
    ),
    bad("npz header nested deeply", "npz", with_k(npy("(" * 4000)), "damaged", "header", tensor=K),
    bad("npz shape negative", "npz", with_k(described("(-6, -4)")), "damaged", "header", tensor=K),
    bad("npz shape true", "npz", with_k(described("(True, 24)")), "damaged", "header", tensor=K),
    bad("npz header not there", "npz", with_k(b""), "damaged", "header", tensor=K),
    gone("npz objects", "npz", objects, "no-numbers", "|O"),
    gone("npz big-endian", "npz", of_k(K2.astype(">f4")), "no-numbers", ">f4"),
    gone("npz text", "npz", of_k(np.array([["a", "b"]])), "no-numbers", "<U1"),
    gone("npz records", "npz", with_k(described(descr="[('a', '<f4')]")), "no-numbers", ""),
    gone("npz integers", "npz", of_k(np.arange(24).reshape(6, 4)), "quantised", "int64"),
    gone(
        "npz NaN",
        "npz",
        of_k(np.full((6, 4), np.nan)),
        "nonfinite",
        "NaN or infinity",
        headers=False,
    ),
    ok("npz compressed", "npz", lambda: npz(honest(), is_compressed=True)),
    gone(
        "npz compressed, a bit",
        "npz",
        lambda: damaged_deflate(),
        "damaged",
        "compressed data",
        headers=False,
    ),
    ok(
        "npz column-major",
        "npz",
        lambda: npz({n: np.asfortranarray(a) for n, a in honest().items()}),
    ),
    ok(
        "npz entry above the folder",
        "npz",
        lambda: zipped(unzipped(npz(honest())) | {"../../x": b"x"}),
    ),
]


def damaged_deflate() -> bytes:
    """A compressed archive whose keys have a wrong bit at their end."""
    content = bytearray(npz(honest(), is_compressed=True))
    with zipfile.ZipFile(io.BytesIO(bytes(content))) as archive:
        info = archive.getinfo(f"{K}.npy")
    start = info.header_offset + 30 + len(info.filename.encode())
    start += int.from_bytes(content[info.header_offset + 28 : info.header_offset + 30], "little")
    content[start + info.compress_size - 6] ^= 0x10
    return bytes(content)
