"""What was skipped, and what is worth a line besides, on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rankscope.checkpoints.contents import Skip

PARTIAL, NOTHING_DONE = 3, 4
MOST = 20  # lines


def tell_skips(skips: Sequence[Skip], *, file: str | Path | None = None) -> None:
    """Name what was skipped, and the file that lists all where that is too much."""
    lines = in_brief(skips)
    for line in lines[:MOST]:
        typer.echo(f"skipped: {line}", err=True)
    if len(lines) > MOST:
        where = "" if file is None else f", all in {file}"
        typer.echo(f"… and {len(lines) - MOST} kinds more{where}", err=True)


def tell_notes(notes: Sequence[Skip]) -> None:
    """Say what is worth a line although nothing is missing."""
    lines = in_brief(notes)
    for line in lines[:MOST]:
        typer.echo(f"note: {line}", err=True)
    if len(lines) > MOST:
        typer.echo(f"… and {len(lines) - MOST} kinds of notes more", err=True)


def in_brief(skips: Sequence[Skip]) -> list[str]:
    """A line for each; of many, one for those of the same reason and words, with their number."""
    if len(skips) <= MOST:
        return [str(skip) for skip in skips]
    kinds: dict[tuple[str, str], list[Skip]] = {}
    for skip in skips:
        kinds.setdefault((skip.reason, skip.message), []).append(skip)
    return [
        str(alike[0]) + (f" (and {len(alike) - 1} more alike)" if len(alike) > 1 else "")
        for alike in kinds.values()
    ]


def end_with_skips(skips: Sequence[Skip], *, strict: bool) -> None:
    """Leave with the exit code of results that lack something, if they do."""
    if skips:
        raise typer.Exit(NOTHING_DONE if strict else PARTIAL)
