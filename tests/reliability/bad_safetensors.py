"""Safetensors files of odd tensors, odd names, or other content: families 23 to 38."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import numpy as np

from tests.reliability.bad import (
    Array,
    Bad,
    K,
    Q,
    entry,
    fine,
    honest,
    lost,
    matrix,
    st,
    table,
    tensors,
    whole,
)
from tests.reliability.bad_headers import CONTAINER, DATA, K2, Q2, QS, TYPES, WHOLE, beside_q, k_of

HUGE = 4 * (4 * 10**5) ** 2  # bytes


def with_name(name: str) -> Callable[[int], dict[str, Array]]:
    """Steps whose second matrix has this name."""
    return lambda step: {Q: matrix(step, 0), name: matrix(step, 1)}


def alike(step: int) -> dict[str, Array]:
    """Matrices whose names are one name as the name of a file."""
    names = (Q, "a/b", "a_b", "a b", "A_B")
    return {name: matrix(step, number) for number, name in enumerate(names)}


def wide() -> bytes:
    """A lot of tensors of one element."""
    arrays = {f"t.{i}": np.ones((1, 1), np.float32) for i in range(2000)}
    return tensors({Q: Q2, K: K2} | arrays)


TENSORS: list[Bad] = [
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
    whole(
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
            "a\rb",
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
OTHERS: list[Bad] = [
    whole(
        "git-lfs pointer",
        38,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "lfs-pointer",
        "git lfs pull",
    ),
    whole("web page", 38, b"<!DOCTYPE html><html>404</html>", "web-page", "web page"),
    whole(
        "XML error", 38, b"<?xml version='1.0'?><Error>AccessDenied</Error>", "web-page", "web page"
    ),
    whole("gzip", 38, gzip.compress(WHOLE, mtime=0), "cut-short", "cut short"),
    whole("text", 38, b"Internal server error, try again later", "cut-short", "cut short"),
]
BAD_SAFETENSORS: list[Bad] = [*CONTAINER, *TYPES, *TENSORS, *OTHERS]
