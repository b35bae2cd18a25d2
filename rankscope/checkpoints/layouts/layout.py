"""`Layout`: what each file of this folder provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.file_names import stem_of
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_in_name, step_of

Step = tuple[int, str]  # optimizer steps completed, and where that was read


@dataclass(frozen=True)
class Layout:
    """One way in which checkpoints are stored on disk.

    Attributes
    ----------
    description
        What writes it and how it is recognised, in one line.
    recognises
        Whether this path is a checkpoint of the layout. Looks at names of files, at small JSON and
        YAML files and at headers; reads no tensor.
    read
        Read the headers of the checkpoint.
    step
        Its step and where that is stated: beside the weights, in them, or in their name. None if
        nothing states it.
    is_file
        Whether a checkpoint is a single file rather than a folder; None where it may be either.
    flaw
        What is wrong with a path that is nearly a checkpoint of the layout; empty for others.
        Shown if that path is given and nothing is found there.
    """

    description: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Options], Contents]
    step: Callable[[Path], Step | None] = step_of
    is_file: bool | None = False
    flaw: Callable[[Path], str] = lambda _: ""


def step_in_file_name(path: Path) -> Step | None:
    """Step that the name of a file states."""
    step = step_in_name(stem_of(path))
    return None if step is None else (step, "file")
