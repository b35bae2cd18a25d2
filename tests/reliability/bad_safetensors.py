"""Bad safetensors files: families 1 to 38."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.reliability.bad import (
    Array,
    K,
    Q,
    entry,
    fine,
    honest,
    lost,
    matrix,
    npz,
    st,
    table,
    tensors,
)
from tests.reliability.bad import (
    whole as bad,
)

Q2, K2 = matrix(2, 0), matrix(2, 1)
QS = Q2.size * 4  # bytes of Q
HUGE = 4 * (4 * 10**5) ** 2
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


def with_name(name: str) -> Callable[[int], dict[str, Array]]:
    """Steps whose second matrix has this name."""
    return lambda step: {Q: matrix(step, 0), name: matrix(step, 1)}


def metadata(content: Any) -> bytes:
    q, k = entry([6, 4], 0, QS), entry([6, 4], QS, 2 * QS)
    return table({"__metadata__": content, Q: q, K: k}, DATA)


def alike(step: int) -> dict[str, Array]:
    """Matrices whose names are one name as the name of a file."""
    names = (Q, "a/b", "a_b", "a b", "A_B")
    return {name: matrix(step, number) for number, name in enumerate(names)}


def wide() -> bytes:
    """A lot of tensors of one element."""
    arrays = {f"t.{i}": np.ones((1, 1), np.float32) for i in range(2000)}
    return tensors({Q: Q2, K: K2} | arrays)


CONTAINER = [
    bad("empty", 1, b"", "empty", "is empty"),
    bad("seven bytes", 2, b"\1" * 7, "cut-short", "7 bytes"),
    bad("one byte", 2, b"{", "cut-short", "1 bytes"),
    bad("zeros", 2, bytes(64), "header-json", ""),
    bad("length beyond the file", 3, st(WHOLE[8:], n=5000), "cut-short", ""),
    bad("length one too many", 3, st(b"{}", n=3), "cut-short", ""),
    bad("length 2^63", 4, st(b"{}", n=2**63), "cut-short", ""),
    bad("length 2^64 - 1", 4, st(b"{}", n=2**64 - 1), "cut-short", ""),
    bad("length above the limit", 5, st(b"{", n=100_000_001), "cut-short", "", hole=10**8 + 100),
    bad("length 0", 6, st(b"", b""), "header-json", ""),
    bad("length 0 before data", 6, st(b"", DATA), "header-json", ""),
    bad("not JSON", 7, st(b"{hello}"), "header-json", ""),
    bad("a list", 7, st(b"[1,2]"), "header-json", ""),
    bad("null", 7, st(b"null"), "header-json", ""),
    bad("two tables", 7, st(b"{}{}"), "header-json", ""),
    bad(
        "name not UTF-8",
        8,
        st(b'{"\xff\xfe":' + json.dumps(entry([6, 4], 0, QS)).encode() + b"}", Q2.tobytes()),
        "header-utf8",
        "",
    ),
    bad(
        "lone surrogate",
        9,
        st(b'{"\\ud800":' + json.dumps(entry([6, 4], 0, QS)).encode() + b"}", Q2.tobytes()),
        "header-utf8",
        "",
    ),
    bad(
        "lists nested deeply",
        10,
        st(b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}"),
        "header-json",
        "",
    ),
    bad("tables nested deeply", 10, st(b'{"a":' * 10**5 + b"1" + b"}" * 10**5), "header-json", ""),
    bad(
        "name twice, same range",
        11,
        twice(entry([6, 4], 0, QS), entry([6, 4], 0, QS), K2.tobytes()),
        "duplicate-key",
        "twice",
    ),
    bad(
        "name twice, another shape",
        12,
        twice(entry([6, 4], 0, QS), entry([4, 6], 0, QS), K2.tobytes()),
        "duplicate-key",
        "twice",
    ),
    bad(
        "name twice, another range",
        13,
        twice(entry([6, 4], 0, QS), entry([6, 4], QS, 2 * QS), DATA),
        "duplicate-key",
        "twice",
    ),
    bad(
        "metadata twice", 13, st(b'{"__metadata__":{},"__metadata__":{}}'), "duplicate-key", "twice"
    ),
    bad(
        "ranges overlap",
        14,
        k_of([6, 4], start=QS // 2, stop=QS // 2 + QS),
        "overlap",
        "",
        tensor=K,
    ),
    bad("two names, one range", 15, k_of([6, 4], start=0, stop=QS), "overlap", "", tensor=K),
    bad("one range within another", 15, k_of([2, 4], start=32, stop=64), "overlap", "", tensor=K),
    bad(
        "hole in the middle",
        16,
        beside_q(entry([6, 4], QS + 8, 2 * QS + 8), bytes(8) + K2.tobytes()),
        "hole",
        "",
        tensor=K,
    ),
    bad(
        "hole at the start",
        16,
        table({Q: entry([6, 4], 8, QS + 8)}, bytes(8) + Q2.tobytes()),
        "hole",
        "",
        tensor=Q,
    ),
    bad("bytes after the end", 17, WHOLE + b"PK\3\4", "trailing-bytes", "4"),
    bad("a zip after the end", 17, WHOLE + npz({"a": Q2}), "trailing-bytes", ""),
    bad("last byte gone", 18, WHOLE[:-1], "cut-short", "1"),
    bad("all data gone", 18, WHOLE[: -2 * QS], "cut-short", ""),
    bad("header cut", 18, WHOLE[:40], "cut-short", ""),
    bad("range smaller than the shape", 19, k_of([6, 5]), "size-mismatch", "", tensor=K),
    bad("range larger than the shape", 19, k_of([2, 4]), "size-mismatch", "", tensor=K),
    bad("shape beyond 64 bits", 20, k_of([2**33, 2**33]), "size-mismatch", "", tensor=K),
    bad("shape beyond 4300 digits", 20, k_of([10**4200, 10**4200]), "size-mismatch", "", tensor=K),
]
TYPES = [
    *(
        bad(f"shape {shape}", 21, k_of(shape), "header-type", "", tensor=K)
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
    bad("range reversed", 22, k_of([6, 4], start=2 * QS, stop=QS), "header-type", "", tensor=K),
    bad("range negative", 22, k_of([6, 4], start=-QS, stop=0), "header-type", "", tensor=K),
    bad(
        "range of fractions", 22, k_of([6, 4], start=96.0, stop=192.0), "header-type", "", tensor=K
    ),
    bad(
        "range beyond 64 bits", 22, k_of([6, 4], start=2**70, stop=2**70 + QS), "hole", "", tensor=K
    ),
    bad(
        "range of three",
        22,
        beside_q({"dtype": "F32", "shape": [6, 4], "data_offsets": [QS, QS, 2 * QS]}, K2.tobytes()),
        "header-type",
        "",
        tensor=K,
    ),
    *(
        bad(f"dtype {dtype}", 23, k_of([6, 4], dtype), "header-type", "", tensor=K)
        for dtype in (["F32"], {}, 32, None)
    ),
    *(
        bad(
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
        bad(f"entry {content}", 23, beside_q(content, K2.tobytes()), "header-type", "", tensor=K)
        for content in ([], 3, None, "F32")
    ),
    bad("metadata with a number", 27, metadata({"step": 3}), "header-type", ""),
    bad("metadata with a table", 27, metadata({"a": {"b": "c"}}), "header-type", ""),
    bad("metadata a list", 27, metadata(["a"]), "header-type", ""),
    bad("metadata a text", 27, metadata("a"), "header-type", ""),
    bad("no tensors", 32, st(b"{}"), "no-matrices", "no weight matrix"),
    bad(
        "metadata alone",
        32,
        table({"__metadata__": {"format": "pt"}}),
        "no-matrices",
        "no weight matrix",
    ),
]
TENSORS = [
    lost("dtype F33", 23, k_of([6, 4], "F33"), "unreadable", "F33"),
    lost(
        "dtype F6_E2M3",
        24,
        beside_q(entry([2, 2], QS, QS + 3, "F6_E2M3"), bytes(3)),
        "unreadable",
        "F6_E2M3",
    ),
    lost("dtype F4", 25, beside_q(entry([2, 2], QS, QS + 2, "F4"), bytes(2)), "unreadable", "F4"),
    lost(
        "dtype F8_E8M0",
        25,
        beside_q(entry([2, 2], QS, QS + 4, "F8_E8M0"), bytes(4)),
        "unreadable",
        "F8_E8M0",
    ),
    fine("unknown field", 26, beside_q(entry([6, 4], QS, 2 * QS, evil="x"), K2.tobytes())),
    fine("step contradicts the folder", 28, tensors(honest(), step="999")),
    fine("white space before the table", 29, st(b"  " + WHOLE[8 : -2 * QS], DATA)),
    fine("white space after the table", 29, st(WHOLE[8 : -2 * QS] + b"   ", DATA)),
    fine(
        "vector without elements at a shared place",
        30,
        table(
            {Q: entry([6, 4], 0, QS), K: entry([6, 4], QS, 2 * QS), "e.bias": entry([0], 0, 0)},
            DATA,
        ),
    ),
    fine(
        "float64 at an odd place",
        31,
        table(
            {
                "b": entry([3], 0, 3, "U8"),
                Q: entry([6, 4], 3, 3 + 2 * QS, "F64"),
                K: entry([6, 4], 3 + 2 * QS, 3 + 3 * QS),
            },
            b"abc" + Q2.astype(float).tobytes() + K2.tobytes(),
        ),
    ),
    fine("2000 tensors", 33, wide),
    bad(
        "70 axes",
        34,
        table({Q: entry([6, 4], 0, QS), K: entry([1] * 70, QS, QS + 4)}, Q2.tobytes() + b"abcd"),
        "header-type",
        "70 axes",
        tensor=K,
    ),
    *(
        fine(f"name {name[:20]!r}", 35, tensors(with_name(name)(2)), step=with_name(name))
        for name in (
            "",
            "a\0b",
            "a\nb",
            "\x1b[2J\x1b]0;x\7",
            "../../etc/passwd",
            "/etc/passwd",
            "x" * 10**5,
            "a\u202eb",
            "$\\frac{x$",
            "=1+1",
            "%s%n{0}",
            "(((",
            "a" + "\u0301" * 50,
        )
    ),
    fine("names that fold alike", 36, tensors(alike(2)), step=alike, notes=1),
    lost(
        "1 TB beside",
        37,
        table({Q: entry([6, 4], 0, QS), K: entry([2**19, 2**19], QS, QS + 2**40)}, Q2.tobytes()),
        "too-large",
        "",
        hole=2**40,
        headers=False,
        lines=3,
    ),
    lost(
        "400,000 x 400,000",
        71,
        table({Q: entry([6, 4], 0, QS), K: entry([4 * 10**5] * 2, QS, QS + HUGE)}, Q2.tobytes()),
        "too-large",
        "",
        hole=HUGE,
        headers=False,
        lines=3,
    ),
]
OTHERS = [
    bad(
        "git-lfs pointer",
        38,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "lfs-pointer",
        "git lfs pull",
    ),
    bad("web page", 38, b"<!DOCTYPE html><html>404</html>", "web-page", "web page"),
    bad(
        "XML error", 38, b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web-page", "web page"
    ),
    bad("gzip", 38, gzip.compress(WHOLE, mtime=0), "cut-short", ""),
    bad("text", 38, b"Internal server error, try again later", "cut-short", ""),
]
BAD_SAFETENSORS = [*CONTAINER, *TYPES, *TENSORS, *OTHERS]
