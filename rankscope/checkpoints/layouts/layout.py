"""`Layout`: what each file of this folder provides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of

Step = tuple[int, str]  # optimizer steps completed, and where that was read


@dataclass(frozen=True)
class Layout:
    """One way in which checkpoints lie on disk.

    Attributes
    ----------
    description
        What writes it and how it is recognised, in one line.
    recognises
        Whether this path is a checkpoint of the layout. Looks at names of files and small JSON or
        YAML files; reads no tensor.
    read
        Read the headers of the checkpoint.
    step
        Its step and the source of that, from what is beside the weights, in them, or their name;
        None if nothing tells.
    is_file
        Whether a checkpoint is a single file and not a folder; None where it may be either.
    flaw
        What is amiss with a path that is nearly a checkpoint of the layout, and empty for others:
        said if that path is given and nothing is found there.
    """

    description: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Options], Contents]
    step: Callable[[Path], Step | None] = step_of
    is_file: bool | None = False
    flaw: Callable[[Path], str] = lambda _: ""
