"""`Run` and `Checkpoint`: what is on disk, opened without reading a tensor."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.file_states import states_below
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.links import links_within
from rankscope.checkpoints.manifest import check_sizes
from rankscope.checkpoints.merges import find_merges
from rankscope.checkpoints.name_words import Unit
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.errors import RankscopeError, cannot_be_read


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a run at one training step, on disk. It holds paths, never a tensor.

    Attributes
    ----------
    path
        Its folder or its file.
    step
        Optimizer steps completed, or whatever else the run counts (`Run.unit`).
    step_source
        Where the step was read: the name of a file beside the weights; a key beside them in their
        file; ``folder``, ``file`` or ``branch`` for its name; ``order`` if it is unknown.
    layout
        Name of the on-disk layout.
    options
        How to read it.
    tokens
        Tokens seen by then, if the name of the checkpoint states them.
    fault
        Why it cannot be read, if its name or first bytes show that; its step is known nevertheless.

    Examples
    --------
    >>> import rankscope as rs
    >>> checkpoint = rs.open_run("ckpts/relora")[20]
    >>> checkpoint.layout, checkpoint.step_source
    ('huggingface', 'state.json')
    >>> checkpoint.contents.parameters["model.layers.0.mlp.up_proj.weight"].adapter.rank
    2
    """

    path: Path
    step: int
    step_source: str
    layout: str
    options: Options = DEFAULT
    tokens: int | None = None
    fault: str = ""

    @cached_property
    def contents(self) -> Contents:
        """Parameters, adapters, gradients and heads; their headers are read on first use.

        Raises
        ------
        RankscopeError
            If a file of the checkpoint is missing or damaged.
        """
        return self.read()

    def read(self) -> Contents:
        """Read the headers without keeping them, which is best for many checkpoints."""
        if self.fault:
            raise RankscopeError(self.fault, path=self.path)
        states = states_below(self.path)
        try:
            with links_within(self.path, self.options.within):
                check_sizes(self.path)
                contents = LAYOUTS[self.layout].read(self.path, self.options)
        except OSError as error:
            raise cannot_be_read(error, self.path) from error
        return replace(contents, states=states)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(role)}</td><td>{count}</td><td>{html.escape(shapes)}</td>"
            f"<td>{html.escape(dtypes)}</td></tr>"
            for role, _, count, shapes, dtypes in roles_of(self.contents.parameters.values())
        )
        return (
            f"<b>step {self.step}</b> of {html.escape(str(self.path))} ({self.layout})"
            "<table><tr><th>role</th><th>matrices</th><th>shapes</th><th>dtype</th></tr>"
            f"{rows}</table>"
        )


@dataclass(frozen=True)
class Run:
    """One training: its checkpoints in the order of their steps, and the merges that it recorded.

    ``run[2000]`` is the checkpoint of step 2000; iterating gives all of them.

    Attributes
    ----------
    stage
        What distinguishes this run from others in the same folder: a stage of the training, or
        words and folders around its steps (``actor``, ``ema``).
    unit
        What its steps count.

    Examples
    --------
    >>> import rankscope as rs
    >>> run = rs.open_run("ckpts/relora")
    >>> run
    Run('relora', 4 checkpoints, steps 0, 10, 20, 30)
    >>> [checkpoint.path.name for checkpoint in run]
    ['step-00000000', 'step-00000010', 'step-00000020', 'step-00000030']
    >>> len(run.merge_files)
    2
    """

    name: str
    path: Path
    checkpoints: tuple[Checkpoint, ...]
    stage: str | None = None
    unit: Unit = "step"

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps of its checkpoints, ascending."""
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    @property
    def merge_files(self) -> tuple[Path, ...]:
        """The files that record its merges, in the order of their steps."""
        return find_merges(self.path)

    def __getitem__(self, step: int) -> Checkpoint:
        for checkpoint in self.checkpoints:
            if checkpoint.step == step:
                return checkpoint
        raise RankscopeError(f"has no step {step}: {listed(self.steps)}", path=self.path)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {len(self)} checkpoints, {listed(self.steps)})"

    def _repr_html_(self) -> str:
        facts = {
            "checkpoints": f"{len(self)}, {listed(self.steps)}",
            "merges": str(len(self.merge_files)),
            "folder": str(self.path),
        }
        rows = "".join(
            f"<tr><th>{key}</th><td>{html.escape(value)}</td></tr>" for key, value in facts.items()
        )
        first = self.checkpoints[0]._repr_html_()
        return f"<b>run {html.escape(self.name)}</b><table>{rows}</table>{first}"


def roles_of(parameters: Iterable[Parameter]) -> list[tuple[str, str, int, str, str]]:
    """Role, layers, number of matrices, shapes and dtypes: one line per role."""
    by_role: dict[str, list[Parameter]] = {}
    for parameter in parameters:
        by_role.setdefault(parameter.role, []).append(parameter)
    return [
        (
            role,
            ranges(p.layer for p in group),
            len(group),
            _listed_once("×".join(map(str, p.shape)) for p in group),
            _listed_once(p.dtype for p in group),
        )
        for role, group in sorted(by_role.items(), key=lambda one: ROLES.index(one[0]))
    ]


def ranges(layers: Iterable[int | None]) -> str:
    """Indices of layers in words: ``0–3, 5``."""
    known = sorted({layer for layer in layers if layer is not None})
    parts: list[list[int]] = []
    for layer in known:
        if parts and layer == parts[-1][-1] + 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(f"{p[0]}–{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _listed_once(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def listed(steps: tuple[int, ...]) -> str:
    """Steps in words, without the middle of a long series."""
    if len(steps) <= 6:
        return f"steps {', '.join(map(str, steps))}" if len(steps) != 1 else f"step {steps[0]}"
    return f"steps {steps[0]}, {steps[1]}, {steps[2]} … {steps[-1]}"
