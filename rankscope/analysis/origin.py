"""Where cumulative updates begin: at a named checkpoint, a base model, or the first step.

The base model of an adapter comes before the first step, whether that step was saved or not.
Measured from it, an adapter and a full fine-tune of the same model are comparable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rankscope.addresses import is_address
from rankscope.checkpoints.contents import Contents, restarts_between
from rankscope.checkpoints.continuity import difference, same_names
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.layouts import layout_of
from rankscope.checkpoints.links import is_below
from rankscope.checkpoints.run import Checkpoint, Run, listed
from rankscope.errors import RankscopeError, WrongSettingError

BEFORE_ALL = -1  # as a step


@dataclass(frozen=True)
class Seen:
    """A checkpoint that later ones are measured from; ``restarts`` counts since the first."""

    step: int
    contents: Contents
    restarts: int = 0


def open_origin(path: str | Path, *, trust_pickle: bool = False) -> Checkpoint:
    """The one checkpoint at ``path``, where cumulative updates are to begin.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``path``, or more than one checkpoint.
    RankscopeError
        If what is there cannot be read.
    """
    try:
        run = open_run(path, trust_pickle=trust_pickle)
    except RankscopeError as error:
        if is_address(path) or Path(path).exists():
            raise
        raise WrongSettingError(f"{error.message}: `since` is a checkpoint", path=path) from None
    if len(run) != 1:
        raise WrongSettingError(
            f"holds {len(run)} checkpoints ({listed(run.steps)}): updates begin at one, so give "
            "its folder as `since`",
            path=path,
        )
    return run.checkpoints[0]


def origin_of(run: Run, first: Seen, since: Checkpoint | None) -> Seen:
    """Where cumulative updates begin in a run, or in its part that starts with ``first``.

    Raises
    ------
    RankscopeError
        If it cannot be read, or is another model.
    """
    start = since or _base(first.contents, run)
    if start is None:
        return first
    contents = start.read()
    same = same_names(first.contents, contents, bare=0)
    contents = contents if same is None else same[0]
    apart = difference(contents, first.contents)
    if apart:
        raise RankscopeError(
            f"cannot be the start of the updates of {run.name}: {apart}",
            path=start.path,
            reason="other-origin",
        )
    own = next((c.step for c in run if c.path.resolve() == start.path.resolve()), BEFORE_ALL)
    return Seen(own, contents, -restarts_between(contents, first.contents))


def _base(contents: Contents, run: Run) -> Checkpoint | None:
    """The base model of an adapter, where it was found."""
    folder = None if contents.base is None else Path(contents.base)
    layout = None if folder is None else layout_of(folder)
    if folder is None or layout is None:
        return None
    options = replace(run.checkpoints[0].options, layout=None)
    within = options.within
    if within is not None and (folder == options.base or not is_below(folder, within)):
        options = replace(options, within=folder)  # it was given too, or is beside what was
    return Checkpoint(folder, BEFORE_ALL, "order", layout, options)
