"""Options that select matrices, from text to `Selection`."""

from __future__ import annotations

import typer

from rankscope.analysis.plan import Selection, Windows
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.run import Checkpoint
from rankscope.checkpoints.steps import StepRange, check_range
from rankscope.components.selection import COMPONENTS
from rankscope.errors import RankscopeError


def parse_selection(
    *,
    components: str | None,
    roles: str | None,
    layers: str | None,
    steps: str | None,
    since: Checkpoint | None = None,
    windows: Windows = "steps",
) -> Selection:
    """Selection that the options ask for; None is the default of each.

    Raises
    ------
    typer.BadParameter
        If an option cannot be understood, or names something unknown.
    """
    try:
        return Selection.of(
            components=_names(components, COMPONENTS),
            roles=_names(roles, ROLES),
            layers=None if layers is None else _layers(layers),
            steps=None if steps is None else _steps(steps),
            since=since,
            windows=windows,
        )
    except RankscopeError as error:
        raise typer.BadParameter(str(error)) from None


def parse_steps(text: str | None) -> StepRange | None:
    """Range of steps that the option asks for; None for all of them.

    Raises
    ------
    typer.BadParameter
        If the option cannot be understood.
    """
    try:
        steps = None if text is None else _steps(text)
        check_range(steps)
    except RankscopeError as error:
        raise typer.BadParameter(str(error)) from None
    return steps


def _names(text: str | None, known: tuple[str, ...]) -> list[str] | None:
    if text is None:
        return None
    return list(known) if text == "all" else [name.strip() for name in text.split(",")]


def _layers(text: str) -> list[int]:
    """``0,3,6`` or ``0:4``, whose end is left out as in Python."""
    try:
        if ":" in text:
            first, end = text.split(":")
            return list(range(int(first or 0), int(end)))
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise RankscopeError(f"layers {text!r} are neither like 0,3,6 nor like 0:4") from None


def _steps(text: str) -> StepRange:
    """``FIRST:LAST:STRIDE``; the last step is included."""
    parts = text.split(":")
    try:
        if len(parts) == 1:
            return int(text), int(text), 1
        first, last, stride = (*parts, "")[:3]
        return int(first or 0), int(last) if last else None, int(stride or 1)
    except ValueError:
        raise RankscopeError(f"steps {text!r} are not like 0:20000:1000") from None
