"""What a file has in the place of weights that lie elsewhere: empty tensors, and flattened ones.

A training that is spread over several processes gathers its weights before it saves them, or
should. Where it did not, ZeRO-3 leaves tensors without elements, and FSDP the parameters of a whole
unit in one row: what is there has names of a model, and no matrix of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from rankscope.checkpoints.files.opened_file import Opened
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import RankscopeError

EMPTY = (
    "the weights are empty, as ZeRO-3 leaves them where they are not gathered: make whole ones "
    "with zero_to_fp32.py, which DeepSpeed leaves beside its folder"
)
FLAT = (
    "holds flattened parameters, as FSDP leaves them, a unit in a row, without its shapes: "
    "save a full state dict, or a distributed checkpoint"
)
FLAT_NAMES = ("flat_param", "flat_parameter", "_flat_param", "_flattened_param")
TIMES_A_SIDE, AT_LEAST = 4, 100_000  # of a row that is no bias; elements, where no side is known


def whole(opened: Opened, path: str) -> Opened:
    """The same, if it holds weights; else as `check_shapes`."""
    check_shapes(opened.tensors, path)
    return opened


def check_shapes(tensors: Mapping[str, Tensor], path: str) -> None:
    """Refuse tensors that are what sharded training leaves of weights.

    Empty ones are taken for ZeRO-3's where no matrix is beside them. A row is taken for flattened
    parameters by its name; else where rows hold most of all numbers, and the longest is longer than
    any bias of the matrices could be. One that errs costs a model of vectors alone, of a hundred
    thousand elements each.

    Raises
    ------
    RankscopeError
        With the reason ``empty-weights`` or ``flattened``.
    """
    has_matrix = any(len(t.shape) > 1 and 0 not in t.shape for t in tensors.values())
    if not has_matrix and any(0 in t.shape for t in tensors.values()):
        raise RankscopeError(EMPTY, path=path, reason="empty-weights")
    rows = {n: t.shape[0] for n, t in tensors.items() if len(t.shape) == 1 and t.dtype in FLOATS}
    named = [n for n in rows if n.rpartition(".")[2].startswith(FLAT_NAMES)]
    others = [t.shape for t in tensors.values() if len(t.shape) > 1]
    longest = max(rows.values(), default=0)
    side = max((max(shape) for shape in others), default=0)
    limit = TIMES_A_SIDE * side if others else AT_LEAST
    holds_most = sum(rows.values()) > sum(map(math.prod, others))
    if named or (holds_most and longest > limit):
        raise RankscopeError(FLAT, path=path, reason="flattened")
