"""Series of checkpoints written for a test, and an engine that needs no processes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rankscope.analysis.analyze import analyze_runs, answer
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.jobs import AnalysisJob, Outcome, sent
from rankscope.analysis.plan import Selection, Windows
from rankscope.analysis.question import Question
from rankscope.analysis.worker import decompose
from rankscope.checkpoints.discovery import survey
from tests.conftest import CONFIG, Tensors

SHAPES = {
    "layers.0.mlp.up_proj": (24, 16),
    "layers.0.mlp.down_proj": (16, 24),
    "layers.1.mlp.up_proj": (24, 16),
    "layers.1.mlp.down_proj": (16, 24),
}


class Inline(AbstractContextManager["Inline"]):
    """Decomposes where it is called."""

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        for job in jobs:
            yield job, decompose(*sent(job))

    def __exit__(self, *_: object) -> None:
        return None


def analysed(
    path: Path,
    *components: str,
    out: Path | None = None,
    since: Path | None = None,
    base: Path | None = None,
    windows: Windows = "steps",
    steps: tuple[int, int | None, int] | None = None,
) -> Analysis:
    """What an analysis of everything below ``path`` finds."""
    from rankscope.analysis.origin import open_origin

    start = None if since is None else open_origin(since)
    found = survey([path], base=base)
    selection = Selection.of(
        components=components or None, since=start, windows=windows, steps=steps
    )
    return analyze_runs(found, selection, out=out, engine=Inline())


def answered(question: Question, out: Path) -> Analysis:
    """The answer to a question about files that are no longer young."""
    time.sleep(0.04)
    return answer(question, out=out, engine=Inline())


def weights(rng: np.random.Generator, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Tensors:
    """Random weights under these names."""
    return {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def renamed(tensors: Tensors, prefix: str) -> Tensors:
    """The same tensors with a prefix in their names."""
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def write_step(
    run: Path,
    step: int,
    tensors: Tensors,
    *,
    config: Mapping[str, object] | None = None,
    log: Iterable[Mapping[str, object]] | None = None,
) -> Path:
    """Write a checkpoint as a Trainer does, with its log where one is given."""
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    if log is not None:
        state = {"global_step": step, "log_history": list(log)}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def singular_values(matrix: np.ndarray) -> np.ndarray:
    """By numpy, in float64."""
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def effective_rank(matrix: np.ndarray) -> float:
    """By numpy, in float64."""
    s = singular_values(matrix)
    p = s[s > 1e-12 * s[0]] / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()))
