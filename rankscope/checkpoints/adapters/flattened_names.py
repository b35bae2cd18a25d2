"""Paths of modules that a trainer wrote with underscores for dots, as kohya does: read again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from rankscope.checkpoints.families.family import families

FLAT = re.compile(r"(?:lora|lycoris)_(?P<model>unet|te\d*|transformer|prior|dit)_(?P<path>\w+)")
INDEX = re.compile(r"_(\d+)(?=_|$)")


def unflattened(module: str) -> str:
    """Path with dots of a module whose dots were turned into underscores; any other as it is.

    ``lora_unet_down_blocks_0_attn1_to_q`` is ``unet.down_blocks.0.attn1.to_q``. Numbers stand
    between dots, and so do the names of projections that a family knows; which of the other
    underscores were dots is written nowhere, and they stay. So does that behind a number of the
    model (``te2``), which is not one of a block. Where it errs, a layer or a role is missing; the
    matrix is the same.
    """
    flat = FLAT.fullmatch(module)
    if flat is None:
        return module
    path = INDEX.sub(r".\1.", flat["path"]).replace("..", ".").strip(".")
    path = re.sub(r"\.(\d+)\._", r".\1.", path)
    last = path.rpartition(".")[2]
    known = max((e for e in _endings() if _ends(last, e)), key=len, default="")
    if known:
        kept = last.removesuffix(known.replace(".", "_")).rstrip("_")
        path = path.removesuffix(last) + ".".join(filter(None, (kept, known)))
    model = flat["model"]
    return f"{model}_{path}" if model[-1].isdigit() else f"{model}.{path}"


@cache
def _endings() -> frozenset[str]:
    """Ends of paths that have a role in any family, without those that hold a pattern."""
    return frozenset(_written(end for f in families().values() for end in (*f.roles, *f.fused)))


def _written(ends: Iterable[str]) -> Iterable[str]:
    return (end for end in ends if "*" not in end and not end.isdecimal())


def _ends(text: str, end: str) -> bool:
    flat = end.replace(".", "_")
    return text == flat or text.endswith(f"_{flat}")
