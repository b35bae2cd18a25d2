"""Safetensors files whose header is damaged, or does not fit the file: families 1 to 27, and 34."""

from __future__ import annotations

import json
from typing import Any

from tests.reliability.bad import (
    Bad,
    K,
    Q,
    entry,
    honest,
    matrix,
    npz,
    st,
    table,
    tensors,
    whole,
)

Q2, K2 = matrix(2, 0), matrix(2, 1)
QS = Q2.nbytes
WHOLE = tensors(honest())
DATA = Q2.tobytes() + K2.tobytes()


def beside_q(k: Any, data: bytes = b"", name: str = K) -> bytes:
    """An honest matrix of queries, and whatever stands beside it."""
    return table({Q: entry([6, 4], 0, QS), name: k}, Q2.tobytes() + data)


def twice(first: dict[str, Any], second: dict[str, Any], data: bytes) -> bytes:
    """A header with one name twice, which json.dumps does not write."""
    return st(f'{{"{K}":{json.dumps(first)},"{K}":{json.dumps(second)}}}'.encode(), data)


def k_of(shape: Any, dtype: Any = "F32", start: Any = QS, stop: Any = 2 * QS) -> bytes:
    return beside_q(entry(shape, start, stop, dtype), K2.tobytes())


def metadata(content: Any) -> bytes:
    q, k = entry([6, 4], 0, QS), entry([6, 4], QS, 2 * QS)
    return table({"__metadata__": content, Q: q, K: k}, DATA)


CONTAINER: list[Bad] = [
    whole("empty", 1, b"", "empty", "is empty"),
    whole("seven bytes", 2, b"\1" * 7, "cut-short", "7 bytes"),
    whole("one byte", 2, b"{", "cut-short", "1 bytes"),
    whole("zeros", 2, bytes(64), "header-json", "safetensors header"),
    whole("length beyond the file", 3, st(WHOLE[8:], n=5000), "cut-short", "cut short"),
    whole("length one too many", 3, st(b"{}", n=3), "cut-short", "cut short"),
    whole("length 2^63", 4, st(b"{}", n=2**63), "cut-short", "cut short"),
    whole("length 2^64 - 1", 4, st(b"{}", n=2**64 - 1), "cut-short", "cut short"),
    whole(
        "length above the limit",
        5,
        st(b"{", n=100_000_001),
        "cut-short",
        "cut short",
        hole=10**8 + 100,
    ),
    whole("length 0", 6, st(b"", b""), "header-json", "safetensors header"),
    whole("length 0 before data", 6, st(b"", DATA), "header-json", "safetensors header"),
    whole("not JSON", 7, st(b"{hello}"), "header-json", "safetensors header"),
    whole("a list", 7, st(b"[1,2]"), "header-json", "safetensors header"),
    whole("null", 7, st(b"null"), "header-json", "safetensors header"),
    whole("two tables", 7, st(b"{}{}"), "header-json", "safetensors header"),
    whole(
        "name not UTF-8",
        8,
        st(b'{"\xff\xfe":' + json.dumps(entry([6, 4], 0, QS)).encode() + b"}", Q2.tobytes()),
        "header-utf8",
        "damaged safetensors header",
    ),
    whole(
        "lone surrogate",
        9,
        st(b'{"\\ud800":' + json.dumps(entry([6, 4], 0, QS)).encode() + b"}", Q2.tobytes()),
        "header-utf8",
        "damaged safetensors header",
    ),
    whole(
        "lists nested deeply",
        10,
        st(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
        "header-json",
        "safetensors header",
    ),
    whole(
        "tables nested deeply",
        10,
        st(b'{"a":' * 10**5 + b"1" + b"}" * 10**5),
        "header-json",
        "safetensors header",
    ),
    whole(
        "name twice, same range",
        11,
        twice(entry([6, 4], 0, QS), entry([6, 4], 0, QS), K2.tobytes()),
        "duplicate-key",
        "twice",
    ),
    whole(
        "name twice, another shape",
        12,
        twice(entry([6, 4], 0, QS), entry([4, 6], 0, QS), K2.tobytes()),
        "duplicate-key",
        "twice",
    ),
    whole(
        "name twice, another range",
        13,
        twice(entry([6, 4], 0, QS), entry([6, 4], QS, 2 * QS), DATA),
        "duplicate-key",
        "twice",
    ),
    whole(
        "metadata twice", 13, st(b'{"__metadata__":{},"__metadata__":{}}'), "duplicate-key", "twice"
    ),
    whole(
        "ranges overlap",
        14,
        k_of([6, 4], start=QS // 2, stop=QS // 2 + QS),
        "overlap",
        "overlaps that of the tensor before it",
        tensor=K,
    ),
    whole(
        "two names, one range",
        15,
        k_of([6, 4], start=0, stop=QS),
        "overlap",
        "overlaps that of the tensor before it",
        tensor=K,
    ),
    whole(
        "one range within another",
        15,
        k_of([2, 4], start=32, stop=64),
        "overlap",
        "overlaps that of the tensor before it",
        tensor=K,
    ),
    whole(
        "hole in the middle",
        16,
        beside_q(entry([6, 4], QS + 8, 2 * QS + 8), bytes(8) + K2.tobytes()),
        "hole",
        "leaves a hole after",
        tensor=K,
    ),
    whole(
        "hole at the start",
        16,
        table({Q: entry([6, 4], 8, QS + 8)}, bytes(8) + Q2.tobytes()),
        "hole",
        "leaves a hole after",
        tensor=Q,
    ),
    whole("bytes after the end", 17, WHOLE + b"PK\3\4", "trailing-bytes", "4"),
    whole(
        "a zip after the end", 17, WHOLE + npz({"a": Q2}), "trailing-bytes", "after its last tensor"
    ),
    whole("last byte gone", 18, WHOLE[:-1], "cut-short", "1"),
    whole("all data gone", 18, WHOLE[: -2 * QS], "cut-short", "cut short"),
    whole("header cut", 18, WHOLE[:40], "cut-short", "cut short"),
    whole(
        "range smaller than the shape",
        19,
        k_of([6, 5]),
        "size-mismatch",
        "but its offsets span",
        tensor=K,
    ),
    whole(
        "range larger than the shape",
        19,
        k_of([2, 4]),
        "size-mismatch",
        "but its offsets span",
        tensor=K,
    ),
    whole(
        "shape beyond 64 bits",
        20,
        k_of([2**33, 2**33]),
        "size-mismatch",
        "but its offsets span",
        tensor=K,
    ),
    whole(
        "shape beyond 4300 digits",
        20,
        k_of([10**4200, 10**4200]),
        "header-type",
        "must be integers from 0 to",
        tensor=K,
    ),
]
TYPES: list[Bad] = [
    *(
        whole(f"shape {shape}", 21, k_of(shape), "header-type", "", tensor=K)
        for shape in (
            [-2, -2],
            [2.0, 2],
            ["6", "4"],
            [True, 24],
            [None, 4],
            [[6], 4],
            24,
            None,
            "64",
            {},
        )
    ),
    whole("range reversed", 22, k_of([6, 4], start=2 * QS, stop=QS), "header-type", "", tensor=K),
    whole("range negative", 22, k_of([6, 4], start=-QS, stop=0), "header-type", "", tensor=K),
    whole(
        "range of fractions", 22, k_of([6, 4], start=96.0, stop=192.0), "header-type", "", tensor=K
    ),
    whole(
        "range beyond 64 bits",
        22,
        k_of([6, 4], start=2**70, stop=2**70 + QS),
        "header-type",
        "must be integers from 0 to",
        tensor=K,
    ),
    whole(
        "range of three",
        22,
        beside_q({"dtype": "F32", "shape": [6, 4], "data_offsets": [QS, QS, 2 * QS]}, K2.tobytes()),
        "header-type",
        "",
        tensor=K,
    ),
    *(
        whole(f"dtype {dtype}", 23, k_of([6, 4], dtype), "header-type", "", tensor=K)
        for dtype in (["F32"], {}, 32, None)
    ),
    *(
        whole(
            f"no {field}",
            23,
            beside_q(
                {k: v for k, v in entry([6, 4], QS, 2 * QS).items() if k != field}, K2.tobytes()
            ),
            "header-type",
            "",
            tensor=K,
        )
        for field in ("dtype", "shape", "data_offsets")
    ),
    *(
        whole(f"entry {content}", 23, beside_q(content, K2.tobytes()), "header-type", "", tensor=K)
        for content in ([], 3, None, "F32")
    ),
    whole("metadata with a number", 27, metadata({"step": 3}), "header-type", ""),
    whole("metadata with a table", 27, metadata({"a": {"b": "c"}}), "header-type", ""),
    whole("metadata a list", 27, metadata(["a"]), "header-type", ""),
    whole("metadata a text", 27, metadata("a"), "header-type", ""),
    whole("no tensors", 32, st(b"{}"), "no-matrices", "no weight matrix"),
    whole(
        "metadata alone",
        32,
        table({"__metadata__": {"format": "pt"}}),
        "no-matrices",
        "no weight matrix",
    ),
]
