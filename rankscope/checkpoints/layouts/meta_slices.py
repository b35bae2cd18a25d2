"""Meta's Llama files, ``consolidated.NN.pth`` with ``params.json``: how each tensor was cut."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.joining import Cut, Rule

ROWS, COLUMNS = 0, 1
WHOLE = ("router", "gate", "router_DE")  # every process has all of it


def params_beside(folder: Path) -> Mapping[str, Any]:
    """What ``params.json`` says of the model; empty if it is not there, or of something else."""
    params = read_json(folder / "params.json")
    model = params.get("model", params)
    model = model if isinstance(model, dict) else {}
    return model if _count(model, "dim") and _count(model, "n_heads") else {}


def meta_rule(params: Mapping[str, Any]) -> Rule:
    """How a tensor of the model with these parameters was cut, by its name.

    Heads and hidden units were shared out: rows of wq, wk, wv, w1 and w3, columns of wo and w2. Of
    the embeddings Llama 1 and 2 shared out columns, Llama 3 rows, which the slice's width tells.
    """
    dim, heads = _count(params, "dim") or 0, _count(params, "n_heads") or 1
    size = _count(params, "head_dim") or dim // heads
    keys = (_count(params, "n_kv_heads") or heads) * size
    words, hidden = _count(params, "vocab_size"), _hidden(params)
    known = {
        "wq": Cut(ROWS, (heads * size, dim)),
        "wk": Cut(ROWS, (keys, dim)),
        "wv": Cut(ROWS, (keys, dim)),
        "wo": Cut(COLUMNS, (dim, heads * size)),
        "w1": Cut(ROWS, (hidden, dim)),
        "w2": Cut(COLUMNS, (dim, hidden)),
        "w3": Cut(ROWS, (hidden, dim)),
        "output": Cut(ROWS, (words, dim)),
    }

    def rule(name: str, shape: tuple[int, ...]) -> Cut | None:
        *_, module, kind = ("", *plain_name(name).split("."))
        if kind != "weight" or len(shape) != len(("rows", "columns")):
            return None
        if module == "tok_embeddings":
            return Cut(ROWS if shape[1] == dim else COLUMNS, (words, dim))
        return Cut(None, (None, dim)) if module in WHOLE else known.get(module)

    return rule


def _hidden(params: Mapping[str, Any]) -> int | None:
    """Units of the feed-forward layers, by Meta's formula; None where it lacks a number."""
    stated, multiple = _count(params, "hidden_dim"), _count(params, "multiple_of")
    if stated or not multiple:
        return stated
    hidden = 8 * (_count(params, "dim") or 0) // 3
    factor = params.get("ffn_dim_multiplier")
    if isinstance(factor, int | float) and factor > 0:
        hidden = int(factor * hidden)
    return -(-hidden // multiple) * multiple


def _count(params: Mapping[str, Any], key: str) -> int | None:
    """A number above zero; a vocabulary of -1 is not stated."""
    value = params.get(key)
    return value if type(value) is int and value > 0 else None
