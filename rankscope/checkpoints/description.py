"""What a run holds, in plain values: for ``inspect``, and for anybody who lists checkpoints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.layouts import also_recognised
from rankscope.checkpoints.run import Run, roles_of
from rankscope.checkpoints.same_weights import identical_steps


def describe(run: Run) -> dict[str, Any]:
    """Describe a run by its steps and its last checkpoint.

    The last and not the first, since adapters and gradients may come later. Reads headers, and a
    few numbers of every tensor, which tell whether two steps hold the same weights.

    Raises
    ------
    RankscopeError
        If that checkpoint is damaged.
    """
    last = run.checkpoints[-1]
    contents = last.contents
    return {
        "run": run.name,
        "path": str(run.path),
        "layout": contents.layout,
        "also_readable_as": also_recognised(last.path, last.layout),
        "family": contents.family,
        "steps": [
            {
                "step": c.step,
                "tokens": c.tokens,
                "step_source": c.step_source,
                "path": str(c.path),
            }
            for c in run
        ],
        "identical_steps": identical_steps(run),
        "merges": [path.name for path in run.merge_files],
        "described_step": last.step,
        "heads": None if contents.heads is None else asdict(contents.heads),
        "matrices": [
            dict(zip(("role", "layers", "matrices", "shapes", "dtype"), line, strict=True))
            for line in roles_of(contents.parameters.values())
        ],
        "layers": len({p.layer for p in contents.parameters.values() if p.layer is not None}),
        "restarts": contents.restarts,
        "gradients": len(contents.gradients),
        "adapters": _adapters(contents),
        "unknown": [name for name, p in contents.parameters.items() if p.role == "other"],
        "left_out": list(contents.left_out),
        "skips": [asdict(skip) for skip in contents.skips],
    }


def _adapters(contents: Contents) -> dict[str, Any] | None:
    adapters = [p.adapter for p in contents.parameters.values() if p.adapter is not None]
    if not adapters:
        return None
    return {
        "count": len(adapters),
        "ranks": sorted({adapter.rank for adapter in adapters}),
        "scales": sorted({a.scale for a in adapters if a.scale is not None}),
    }
