"""What a run holds, in plain values, as ``inspect`` prints them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rankscope.addresses import shown
from rankscope.checkpoints.contents import Accounted, Contents, Skip
from rankscope.checkpoints.layouts import also_recognised
from rankscope.checkpoints.run import Checkpoint, Run, roles_of
from rankscope.checkpoints.same_weights import identical_steps


class Description:
    """A run in plain values, collected while its checkpoints are read one by one.

    It describes the last checkpoint that can be read, since adapters and gradients may come later.
    Accounts of earlier checkpoints are kept if they differ.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._last: tuple[Checkpoint, Contents] | None = None
        self._accounts: list[dict[str, Any]] = []

    def add(self, checkpoint: Checkpoint, contents: Contents) -> None:
        """Take the next checkpoint, in ascending order of steps."""
        if self._last is not None and _kinds(self._last[1]) != _kinds(contents):
            self._accounts.append(_account(*self._last))
        self._last = checkpoint, contents

    def described(self, skips: list[Skip], notes: list[Skip]) -> dict[str, Any]:
        """The run by its steps and its last checkpoint.

        ``accounts`` has one entry for each stretch of steps with the same account.
        """
        run = self._run
        description: dict[str, Any] = {
            "run": run.name,
            "path": shown(run.path),
            "unit": run.unit,
            "steps": [_step(run, checkpoint) for checkpoint in run],
            "merges": [path.name for path in run.merge_files],
            "identical_steps": identical_steps(run),
            "skips": [asdict(skip) for skip in skips],
            "notes": [asdict(note) for note in notes],
            "described_step": None,
        }
        if self._last is None:
            return description
        checkpoint, contents = self._last
        now = _account(checkpoint, contents)
        accounts = {"accounts": [*self._accounts, now]}
        also = also_recognised(checkpoint.path, checkpoint.layout)
        return description | {"also_readable_as": also} | now | accounts | _described(contents)


def _described(contents: Contents) -> dict[str, Any]:
    parameters = contents.parameters.values()
    columns = ("role", "layers", "matrices", "shapes", "dtype")
    return {
        "layout": contents.layout,
        "family": contents.family,
        "base": contents.base,
        "heads": None if contents.heads is None else asdict(contents.heads),
        "matrices": [dict(zip(columns, line, strict=True)) for line in roles_of(parameters)],
        "layers": len({p.layer for p in parameters if p.layer is not None}),
        "restarts": contents.restarts,
        "gradients": len(contents.gradients),
        "adapters": _adapters(contents),
        "unknown": [name for name, p in contents.parameters.items() if p.role == "other"],
        "left_out": list(contents.left_out),
    }


def _step(run: Run, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "step_source": checkpoint.step_source,
        "path": shown(checkpoint.path),
        "below": _below(run.path, checkpoint.path),
    }


def _below(run: Path, path: Path) -> str:
    """Path of a checkpoint relative to its run."""
    below = path.relative_to(run).as_posix() if path.is_relative_to(run) else shown(path)
    return path.name if below == "." else below


def _account(checkpoint: Checkpoint, contents: Contents) -> dict[str, Any]:
    """Every tensor of a checkpoint with its class, and the number of tensors in each class."""
    return {
        "described_step": checkpoint.step,
        "account": dict(Counter(one.kind for one in contents.account)),
        "tensors": [_tensor(checkpoint, one) for one in contents.account],
    }


def _tensor(checkpoint: Checkpoint, one: Accounted) -> dict[str, Any]:
    return {
        "name": one.tensor,
        "file": _below(checkpoint.path, Path(one.path)),
        "dtype": one.dtype,
        "shape": list(one.shape),
        "class": one.kind,
        "reason": one.reason,
    }


def _kinds(contents: Contents) -> frozenset[tuple[str, str, str, tuple[int, ...]]]:
    """What two equal accounts share: the tensors with their classes, whatever files they are in."""
    return frozenset((one.tensor, one.kind, one.dtype, one.shape) for one in contents.account)


def _adapters(contents: Contents) -> dict[str, Any] | None:
    adapters = [p.adapter for p in contents.parameters.values() if p.adapter is not None]
    if not adapters:
        return None
    return {
        "count": len(adapters),
        "ranks": sorted({adapter.rank for adapter in adapters}),
        "scales": sorted({a.scale for a in adapters if a.scale is not None}),
        "without_scale": sum(adapter.scale is None for adapter in adapters),
    }
