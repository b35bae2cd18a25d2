"""Tasks: what to decompose, and the digest of all that its spectra depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from rankscope.analysis.history import Step
from rankscope.checkpoints.file_states import FileStates, State, state_of
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.components.component import Component
from rankscope.components.recipes import Recipe
from rankscope.errors import RankscopeError
from rankscope.results import spectra_store as store


@dataclass(frozen=True)
class SpectraTask:
    """One recipe to decompose.

    Attributes
    ----------
    key
        Digest of all that its spectra depend on.
    files
        The state of each file when this analysis first saw it: the location of the elements was
        read then, and holds only for that state.
    """

    component: Component
    key: str
    files: FileStates = ()

    @property
    def recipe(self) -> Recipe:
        """What to read and decompose."""
        return self.component.recipe

    @cached_property
    def work(self) -> float:
        """Approximate number of operations."""
        return self.recipe.work or 1.0


class _Read(NamedTuple):
    """The files of a task: their states, and what stands for each in a key."""

    states: FileStates
    prints: tuple[tuple[str, str], ...]


class SeenFiles:
    """The files of a run as they were when this call first saw them.

    Parameters
    ----------
    files
        Those that are seen now.
    """

    def __init__(self, files: Iterable[Path] = ()) -> None:
        self._states: dict[str, State | None] = {str(path): state_of(path) for path in files}
        self._read: dict[tuple[str, ...], _Read] = {}

    def add(self, step: Step) -> None:
        """Add the state that each file of a step had before its header was read."""
        states: Mapping[str, State] = {} if step.contents is None else step.contents.states
        for path, state in states.items():
            self._states.setdefault(path, state)

    def read_by(self, recipe: Recipe) -> _Read:
        """The files that a recipe reads, most of which read the same ones."""
        tensors = recipe.tensors()
        if len(tensors) == 1:
            paths = tensors[0].paths
        else:
            paths = tuple(dict.fromkeys(path for one in tensors for path in one.paths))
        if paths not in self._read:
            for path in paths:
                if path not in self._states:
                    self._states[path] = state_of(path)
            self._read[paths] = _Read(
                tuple((path, self._states[path]) for path in paths),
                tuple((repr(path), fingerprint_of(path)) for path in paths),
            )
        return self._read[paths]


def task_of(component: Component, seen: SeenFiles) -> SpectraTask:
    """The task of a component, whose files are added to those that were ``seen``."""
    files = seen.read_by(component.recipe)
    return SpectraTask(component, _key(component, files.prints), files.states)


def _key(component: Component, prints: Iterable[tuple[str, str]]) -> str:
    """Digest of the component with each file's fingerprint in place of its path.

    Its coordinates are stored with its spectra, and another family may give different ones.
    """
    recipe = repr(component.recipe)
    for path, digest in prints:
        recipe = recipe.replace(path, digest)
    text = f"{store.VERSION} {component._asdict() | {'recipe': recipe}}"
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def fingerprint_of(path: str) -> str:
    """Fingerprint of a file; one that cannot be read has none."""
    try:
        return fingerprint(path)
    except RankscopeError:
        return "unreadable"  # the worker that tries to read it says why
