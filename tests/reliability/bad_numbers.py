"""Whole files with numbers and shapes that are not a weight's: families 58 to 74."""

from __future__ import annotations

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
    table,
    tensors,
)

Q2, K2 = matrix(2, 0), matrix(2, 1)
UP = "model.layers.0.mlp.up_proj.weight"


def k(array: Array) -> Callable[[], bytes]:
    """An honest matrix of queries, and other numbers for the keys."""
    return lambda: tensors({Q: Q2, K: array})


def stored(dtype: str, bits: Array, shape: tuple[int, ...] = (6, 4)) -> Callable[[], bytes]:
    """The keys in a format that numpy does not have."""
    stop = Q2.nbytes + bits.nbytes
    entries = {Q: entry([6, 4], 0, Q2.nbytes), K: entry(list(shape), Q2.nbytes, stop, dtype)}
    return lambda: table(entries, Q2.tobytes() + bits.tobytes())


def spoiled(*places: tuple[int, int], by: float) -> Array:
    """The keys with some entries replaced."""
    array = K2.copy()
    for place in places:
        array[place] = by
    return array


def bfloat16(array: Array) -> tuple[Array, Array]:
    """The upper halves of float32 numbers, and the numbers that they are."""
    bits = (array.view(np.uint32) >> 16).astype(np.uint16)
    return bits, (bits.astype(np.uint32) << 16).view(np.float32)


def also(name: str, shape: tuple[int, ...]) -> Callable[[int], dict[str, Array]]:
    """Honest steps that have another tensor too."""
    return lambda step: honest(step) | {name: matrix(step, 9, shape)}


BITS, HALVES = bfloat16(K2)
BIG = np.full((6, 4), np.finfo(np.float32).max)
RANK_1 = np.outer(np.arange(1, 7), np.ones(4)).astype(np.float32)
FAR = np.random.default_rng(5).normal(size=(6, 4))
FINITE = [
    fine("zero matrix", 60, k(np.zeros((6, 4), np.float32)), {Q: Q2, K: np.zeros((6, 4))}),
    fine("minus zero", 70, k(-np.zeros((6, 4), np.float32)), {Q: Q2, K: np.zeros((6, 4))}),
    fine("rank 1", 61, k(RANK_1), {Q: Q2, K: RANK_1}),
    fine("ones", 61, k(np.ones((6, 4), np.float32)), {Q: Q2, K: np.ones((6, 4))}),
    fine("largest of float32", 68, k(BIG), {Q: Q2, K: BIG}),
    fine("float64 of 1e180", 69, k(FAR * 1e180), {Q: Q2, K: FAR * 1e180}),
    fine("float64 of 1e-180", 69, k(FAR * 1e-180), {Q: Q2, K: FAR * 1e-180}),
    fine(
        "denormals",
        70,
        k((FAR * 1e-42).astype(np.float32)),
        {Q: Q2, K: (FAR * 1e-42).astype(np.float32)},
    ),
    fine("float16", 66, k(FAR.astype(np.float16)), {Q: Q2, K: FAR.astype(np.float16)}),
    fine("bfloat16 among float32", 72, stored("BF16", BITS), {Q: Q2, K: HALVES}),
    fine("a number beside", 62, lambda: tensors(honest() | {"s": np.ones((), np.float32)})),
    fine("a vector beside", 62, lambda: tensors(honest() | {"b": np.ones(5, np.float32)})),
]
LOST = [
    lost(
        "one NaN", 58, k(spoiled((3, 1), by=np.nan)), "nonfinite", "NaN or infinity", headers=False
    ),
    lost(
        "all NaN",
        58,
        k(np.full((6, 4), np.nan, np.float32)),
        "nonfinite",
        "NaN or infinity",
        headers=False,
    ),
    lost(
        "one Inf", 59, k(spoiled((0, 0), by=np.inf)), "nonfinite", "NaN or infinity", headers=False
    ),
    lost(
        "Inf and -Inf",
        59,
        k(spoiled((5, 3), by=-np.inf)),
        "nonfinite",
        "NaN or infinity",
        headers=False,
    ),
    lost("three axes", 62, k(matrix(2, 1, (6, 2, 2))), "not-understood", "axes"),
    lost("no rows", 63, k(np.zeros((0, 4), np.float32)), "empty", "is empty"),
    lost("no columns", 63, k(np.zeros((6, 0), np.float32)), "empty", "is empty"),
    lost("bool", 65, k(K2 > 0), "quantised", "bool"),
    *(
        lost(dtype, 65, k((K2 * 9).astype(dtype)), "quantised", dtype)
        for dtype in ("int8", "uint8", "int32", "int64")
    ),
    lost("complex64", 67, k(K2.astype(np.complex64)), "quantised", "complex64"),
    lost("float8 e4m3", 66, stored("F8_E4M3", BITS.astype(np.uint8)), "quantised", "FP8"),
    lost("float8 e5m2", 66, stored("F8_E5M2", BITS.astype(np.uint8)), "quantised", "FP8"),
    lost(
        "gone at this step",
        74,
        lambda: tensors({Q: Q2}),
        "absent",
        "is in step 1 but not in step 2",
    ),
]
SHAPES = [
    Bad(
        "another shape",
        73,
        k(matrix(2, 1, (5, 4))),
        3,
        "shape-changed",
        "",
        tensor=K,
        cost="nothing",
        truth={Q: Q2, K: matrix(2, 1, (5, 4))},
        lines=2,  # at the next step it has its old shape again
    ),
    fine("one row", 64, lambda: tensors(also(UP, (1, 4))(2)), step=also(UP, (1, 4))),
]
BAD_NUMBERS = [*FINITE, *LOST, *SHAPES]
