"""Bad files of adapters and of merges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tests.reliability.bad import (
    MODULE,
    Array,
    Bad,
    K,
    Q,
    adapter_arrays,
    delta,
    entry,
    fine,
    matrix,
    merge_arrays,
    table,
    tensors,
    whole,
)
from tests.reliability.bad_safetensors import CONTAINER, OTHERS, TYPES

K_MODULE, Q_MODULE = f"{MODULE}.k_proj", f"{MODULE}.q_proj"
A, B = f"base_model.model.{K_MODULE}.lora_A.weight", f"base_model.model.{K_MODULE}.lora_B.weight"
DAMAGE = (
    "empty",
    "seven bytes",
    "length 2^63",
    "not JSON",
    "name not UTF-8",
    "name twice, same range",
    "ranges overlap",
    "hole in the middle",
    "bytes after the end",
    "shape beyond 4300 digits",
    "shape [-2, -2]",
    "dtype ['F32']",
    "metadata with a number",
    "git-lfs pointer",
)
CHOSEN = [one for one in (*CONTAINER, *TYPES, *OTHERS) if one.name in DAMAGE]


def adapter(**changed: Array | None) -> Callable[[], bytes]:
    """An adapter with other factors of the keys, or without one."""
    arrays = adapter_arrays()
    for name, array in changed.items():
        key = {"a": A, "b": B}[name]
        if array is None:
            del arrays[key]
        else:
            arrays[key] = array
    return lambda: tensors(arrays)


def merge(**changed: Array | None) -> Callable[[], bytes]:
    """The record of a merge with other numbers for the keys."""
    arrays = merge_arrays()
    for name, array in changed.items():
        key = f"{K_MODULE}.{ {'a': 'lora_A', 'b': 'lora_B'}.get(name, name) }"
        if array is None:
            del arrays[key]
        else:
            arrays[key] = array
    return lambda: tensors(arrays)


def four_bits() -> bytes:
    """An adapter one factor of which is in a format that is not known."""
    entries, data = {}, b""
    for name, array in adapter_arrays().items():
        raw, dtype = (b"\0" * 4, "F4") if name == A else (array.tobytes(), "F32")
        entries[name] = entry(list(array.shape), len(data), len(data) + len(raw), dtype)
        data += raw
    return table(entries, data)


FLOAT, INFINITE = np.float32, "NaN or infinity"
NAN = np.full((2, 4), np.nan, FLOAT)
ONLY_Q = {Q: delta(2, Q)}
in_adapter = partial(whole, place="adapter", cost="tensor", truth=ONLY_Q, notes=1)
in_half = partial(in_adapter, reason="adapter-incomplete", tensor=K_MODULE)
in_merge = partial(whole, place="merge")
ADAPTERS: list[Bad] = [
    *(replace(one, name=f"adapter: {one.name}", place="adapter", notes=1) for one in CHOSEN),
    in_adapter("adapter: NaN", 58, adapter(a=NAN), "nonfinite", INFINITE, tensor=K, headers=False),
    in_half("adapter: other ranks", 84, adapter(b=matrix(2, 7, (6, 3))), what="do not fit"),
    in_half("adapter: one axis", 84, adapter(b=matrix(2, 7, (6,))), what="do not fit"),
    in_half("adapter: no B", 84, adapter(b=None), what="has lora_A but no lora_B"),
    in_half("adapter: F4", 25, four_bits, what="is stored as F4"),
    in_half("adapter: int8", 65, adapter(a=np.ones((2, 4), np.int8)), what="is stored as int8"),
]
MERGES: list[Bad] = [
    *(replace(one, name=f"merge: {one.name}", place="merge") for one in CHOSEN),
    in_merge(
        "merge: no module",
        "merge",
        tensors({"a": np.ones(2, FLOAT)}),
        "no-tensors",
        "records no module",
    ),
    in_merge("merge: no tensor", "merge", table({}), "no-tensors", "records no module"),
    in_merge(
        "merge: no B", 84, merge(b=None), "adapter-incomplete", "has no lora_B", tensor=K_MODULE
    ),
    in_merge(
        "merge: no scale",
        84,
        merge(scale=None),
        "adapter-incomplete",
        "has no scale",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: scale of no numbers",
        "merge",
        merge(scale=np.zeros(0)),
        "adapter-misfit",
        "is not one number",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: two scales",
        "merge",
        merge(scale=np.ones(2)),
        "adapter-misfit",
        "is not one number",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: scale NaN",
        "merge",
        merge(scale=np.array([np.nan])),
        "nonfinite",
        "its scale is nan",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: scale Inf",
        "merge",
        merge(scale=np.array([np.inf])),
        "nonfinite",
        "its scale is inf",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: scale of integers",
        "merge",
        merge(scale=np.array([2])),
        "quantised",
        "int64",
        tensor=f"{K_MODULE}.scale",
    ),
    in_merge(
        "merge: factor of one axis",
        "merge",
        merge(b=matrix(2, 7, (6,))),
        "adapter-misfit",
        "make no product",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: factor of three axes",
        "merge",
        merge(a=matrix(2, 7, (2, 2, 2))),
        "adapter-misfit",
        "make no product",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: other ranks",
        "merge",
        merge(a=matrix(2, 7, (3, 16))),
        "adapter-misfit",
        "make no product",
        tensor=K_MODULE,
    ),
    in_merge(
        "merge: no rank",
        "merge",
        merge(a=matrix(2, 7, (0, 4)), b=matrix(2, 7, (6, 0))),
        "adapter-misfit",
        "make no product",
        tensor=K_MODULE,
    ),
    in_merge("merge: NaN", 58, merge(a=NAN), "nonfinite", INFINITE, tensor=K, headers=False),
    in_merge(
        "merge: int8",
        65,
        merge(a=np.ones((2, 4), np.int8)),
        "quantised",
        "int8",
        tensor=f"{K_MODULE}.lora_A",
        headers=False,
    ),
    in_merge(
        "merge: another shape than its weight",
        "merge",
        merge(a=matrix(2, 7, (2, 5))),
        "adapter-misfit",
        "adds [6, 5] to a weight of [6, 4]",
        tensor=K,
    ),
    fine(
        "merge: another tensor beside",
        "merge",
        lambda: tensors(merge_arrays() | {"note": np.ones(3, FLOAT)}),
        place="merge",
    ),
]
BAD_FACTORS = [*ADAPTERS, *MERGES]
