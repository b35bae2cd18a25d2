"""Faults put into checkpoints on disk, and what is found then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rankscope.diagnostics.diagnose import Diagnosis, diagnose
from rankscope.diagnostics.finding import Finding
from tests.conftest import MODULES, TinyRun

Array = NDArray[np.float32]


def edit(path: Path, change: Callable[[str, Array], NDArray[np.floating]]) -> None:
    """Replace every tensor of a safetensors file by what ``change`` makes of it."""
    tensors = {name: np.array(value) for name, value in load_file(path).items()}
    new = {name: np.ascontiguousarray(change(name, value)) for name, value in tensors.items()}
    save_file(new, path, metadata={"format": "pt"})


def model(run: TinyRun, step: int) -> Path:
    """The weights of a checkpoint."""
    return run.path / "checkpoints" / f"step-{step:08d}" / "model.safetensors"


def adapter(run: TinyRun, step: int) -> Path:
    """The adapters of a checkpoint."""
    return model(run, step).parent / "adapter" / "adapter_model.safetensors"


def set_merges(run: TinyRun, share: Callable[[int, str], NDArray[np.floating]]) -> None:
    """Rewrite the frozen weights so that each merge added ``share(step, module)`` instead."""
    weights = {name: value.astype(np.float64) for name, value in run.weights[0].items()}
    for step in (0, 10, 20, 30):
        edit(model(run, step), lambda name, old: weights.get(name, old).astype(np.float32))
        if step in run.merges:
            for module in MODULES:
                weights[f"{module}.weight"] = weights[f"{module}.weight"] + share(step, module)


def codes(found: Diagnosis) -> set[str]:
    """The codes of all findings."""
    return {finding.code for finding in found}


def only(found: Diagnosis, code: str) -> Finding:
    """The one finding of a kind, none of another kind being there."""
    assert codes(found) == {code}, repr(found)
    (finding,) = found
    return finding


def of(path: Path, code: str) -> Finding:
    """The only finding about a run."""
    return only(diagnose(path), code)
