"""`Evidence`: what the checks of a run look at, read once and shared by all of them.

Headers and logs are read when it is made. Of tensors, samples are read when a check asks for them;
nothing is decomposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankscope.analysis.history import Step, iter_steps
from rankscope.analysis.request import Selection
from rankscope.checkpoints.checksums import sampling
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.merges import Merges, read_merges
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.checkpoints.training_log import read_training_log
from rankscope.diagnostics.finding import Finding, Place, Unchecked
from rankscope.errors import RankscopeError

if TYPE_CHECKING:
    import pandas as pd

TAKEN = (
    *("step", "layer", "role", "component", "name", "rows", "cols", "dtype", "status"),
    *("per", "per_error", "numerical_rank", "rank_utilisation"),
    *("condition_number_r", "signal_to_noise"),
)
"""Columns of the metrics table that checks take."""
SAMPLE = 2**14  # elements of a tensor that a check reads unless it finds something there
Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Moment:
    """A checkpoint that could be read, and what it holds."""

    checkpoint: Checkpoint
    contents: Contents

    @property
    def step(self) -> int:
        """Its step."""
        return self.checkpoint.step


@dataclass
class Evidence:
    """What is known of a run.

    Attributes
    ----------
    steps
        Every step with what its headers say, ascending.
    metrics, subspaces
        The run's rows in the results; None without results, and ``subspaces`` also where the
        analysis did not compare any.
    unread
        Tensors that could not be read when a check asked for them.
    """

    run: Run
    steps: tuple[Step, ...]
    merges: Merges
    log: list[dict[str, Any]]
    metrics: pd.DataFrame | None = None
    subspaces: pd.DataFrame | None = None
    unread: list[tuple[Skip, int]] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        run: Run,
        metrics: pd.DataFrame | None = None,
        subspaces: pd.DataFrame | None = None,
    ) -> Evidence:
        """Read the headers of every checkpoint, and the log."""
        asked = replace(Selection().asked, components=())
        steps = tuple(iter_steps(run, asked))
        merges = read_merges(run.merge_files)
        return cls(run, steps, merges, read_training_log(run), metrics, subspaces)

    @property
    def place(self) -> Place:
        """The run as a whole."""
        return Place(self.run.name, self.run.unit)

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """Checkpoints that could be read and hold matrices, ascending."""
        return tuple(
            Moment(self.run[step.step], step.contents)
            for step in self.steps
            if step.contents is not None and step.contents.parameters
        )

    @cached_property
    def pairs(self) -> tuple[tuple[Moment, Moment], ...]:
        """Each checkpoint and the next one of the same training."""
        breaks = {step.step for step in self.steps if step.breaks}
        return tuple(pair for pair in pairwise(self.moments) if pair[1].step not in breaks)

    @cached_property
    def restarts(self) -> tuple[int, ...]:
        """Steps of the restarts on record or in the log, ascending."""
        logged = {one["step"] for one in self.log if one.get("event") == "restart"}
        return tuple(sorted({*self.merges.steps, *logged}))

    @cached_property
    def warm_ups(self) -> tuple[int, ...]:
        """Steps at which the learning rate has a reason to warm up: restarts, changes of phase."""
        phases = {one["step"] for one in self.log if one.get("event") == "phase"}
        return tuple(sorted({*self.restarts, *phases}))

    def sampled(self, tensor: Tensor, step: int, *, most: int = SAMPLE) -> Values:
        """Elements from the middle of a tensor; none where it cannot be read or holds no floats."""
        size = int(np.prod(tensor.shape))
        start = max(size - most, 0) // 2
        return self.read(lambda: tensor.elements(start, min(start + most, size)), tensor, step)

    def read(self, reading: Callable[[], Values], tensor: Tensor, step: int) -> Values:
        """What ``reading`` reads of a tensor, without comparing checksums of whole files."""
        if tensor.dtype not in FLOATS:
            return np.empty(0)
        try:
            with sampling():
                return reading()
        except RankscopeError as error:
            path, name = error.path or tensor.paths[0], error.tensor or tensor.name
            self.unread.append((Skip(path, name, error.reason, error.message), step))
            return np.empty(0)


Check = Callable[[Evidence], Iterator[Finding | Unchecked]]


def rows_of(evidence: Evidence, component: str) -> pd.DataFrame | None:
    """Rows of the table that have numbers, of one component; None without results."""
    table = evidence.metrics
    if table is None:
        return None
    return table[(table["component"] == component) & (table["status"] == "ok")]


def needs_spectra(evidence: Evidence, code: str) -> Unchecked:
    """What to say where a check needs results and none were given."""
    return Unchecked(evidence.run.name, code, "needs spectra: give `results`")


def needs_subspaces(evidence: Evidence, code: str) -> Unchecked:
    """What to say where a check needs comparisons of subspaces and there are none."""
    if evidence.metrics is None:
        return needs_spectra(evidence, code)
    reason = "the results have no comparison of subspaces: analyze with `subspaces`"
    return Unchecked(evidence.run.name, code, reason)


def grouped(found: Mapping[str, list[int]]) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
    """Steps with the matrices that share exactly these steps, from the steps of each matrix."""
    by_steps: dict[tuple[int, ...], list[str]] = {}
    for name, steps in found.items():
        by_steps.setdefault(tuple(sorted(set(steps))), []).append(name)
    for shared in sorted(by_steps):
        yield shared, tuple(by_steps[shared])
