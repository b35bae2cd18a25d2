"""Whole files of ``torch.save`` with tensors or tables that are not weights: families 49 to 57."""

from __future__ import annotations

import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tests.reliability.bad import Bad, K, Q, honest, matrix, npz, pt, tensors
from tests.reliability.bad_torch import bad, fine, lost, saved, weights

Q2, K2 = matrix(2, 0), matrix(2, 1)
BREAK = "does not continue"


def of(content: Callable[[], Any]) -> Callable[[], bytes]:
    """A file with this object."""
    return lambda: pt(content())


def k(make: Callable[[Any, Any], Any]) -> Callable[[], bytes]:
    """A file with honest queries, and keys made by torch of the honest matrix."""

    def saved_with() -> bytes:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pt({Q: torch.from_numpy(Q2), K: make(torch, torch.from_numpy(K2))})

    return saved_with


def quantised(torch: Any, keys: Any) -> Any:
    return torch.quantize_per_tensor(keys, 0.1, 0, torch.qint8)


def tied() -> dict[str, Any]:
    """The embedding of a model is also its output."""
    embedding = weights()[Q]
    return weights() | {"lm_head.weight": embedding, "model.embed_tokens.weight": embedding}


FORMATS: list[Bad] = [
    *(
        lost(
            dtype,
            65,
            k(lambda torch, keys, dtype=dtype: keys.to(getattr(torch, dtype))),
            "quantised",
            what,
        )
        for dtype, what in {
            "int8": "int8",
            "uint8": "uint8",
            "bool": "bool",
            "int64": "int64",
            "float8_e4m3fn": "FP8",
            "float8_e5m2": "FP8",
            "complex64": "complex64",
            "complex128": "complex128",
        }.items()
    ),
    lost(
        "float8_e8m0",
        66,
        k(lambda torch, keys: keys.abs().to(torch.float8_e8m0fnu)),
        "quantised",
        "FP8",
    ),
    lost(
        "complex half",
        67,
        k(lambda torch, keys: keys.to(torch.complex32)),
        "unreadable",
        "complex32",
    ),
    lost(
        "conjugate",
        67,
        k(lambda torch, keys: keys.to(torch.complex64).conj()),
        "unreadable",
        "conjugation",
    ),
    lost("quantised", 52, k(quantised), "quantised", "int8"),
    lost("meta", 51, k(lambda torch, keys: keys.to("meta")), "unreadable", "meta"),
    lost("sparse COO", 52, k(lambda torch, keys: keys.to_sparse()), "unreadable", "sparse"),
    lost("sparse CSR", 52, k(lambda torch, keys: keys.to_sparse_csr()), "unreadable", "sparse"),
    lost(
        "nested",
        52,
        k(lambda torch, keys: torch.nested.nested_tensor([keys, keys[:2]])),
        "unreadable",
        "nested",
    ),
    fine(
        "small view by stride 0",
        49,
        k(lambda torch, keys: keys[:1].expand(6, 4)),
        {Q: Q2, K: np.repeat(K2[:1], 6, 0)},
    ),
    fine("transposed", 50, k(lambda torch, keys: keys.T.contiguous().T)),
    fine(
        "every other", 50, k(lambda torch, keys: torch.stack([keys, keys], 2).reshape(6, 8)[:, ::2])
    ),
]
apart = partial(bad, cost="nothing", lines=2, breaks=True)
TABLES: list[Bad] = [
    bad(
        "a list",
        53,
        of(lambda: [*weights().values()]),
        "not-understood",
        "in a list",
        tensor="0",
        lines=3,
    ),
    bad(
        "a bare tensor",
        53,
        of(lambda: weights()[Q]),
        "not-understood",
        "in a list",
        tensor="0",
        lines=2,
    ),
    *(
        bad(
            f"{content!r}",
            53,
            of(lambda content=content: content),
            "no-state-dict",
            "table of tensors",
        )
        for content in ({}, [], 5, None, "weights", {"epoch": 3})
    ),
    apart(
        "keys that are numbers",
        53,
        of(lambda: dict(enumerate(weights().values()))),
        "break",
        BREAK,
        truth={"0": Q2, "1": K2},
    ),
    apart(
        "keys that are tuples",
        53,
        of(lambda: {(n, 1): t for n, t in weights().items()}),
        "break",
        BREAK,
        truth={str((n, 1)): a for n, a in honest().items()},
    ),
    fine("an ordered dict", 54, of(lambda: OrderedDict(weights()))),
    fine(
        "under model, beside an optimizer",
        54,
        of(lambda: {"model": weights(), "step": 2, "opt": {"state": {}, "param_groups": []}}),
    ),
    fine("under state_dict", 54, of(lambda: {"state_dict": weights(), "epoch": 1})),
    fine("tied", 55, of(tied)),
    fine("safetensors called torch", 57, tensors(honest())),
    fine("torch called safetensors", 57, saved, place="weights"),
    bad("numpy called torch", 57, npz(honest()), "other-kind", "not a torch file"),
    bad("a pickle called torch", 57, pickle.dumps(honest()), "cut-short", "not a torch file"),
]
BAD_TABLES: list[Bad] = [*FORMATS, *TABLES]
