"""What was skipped, on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rankscope.checkpoints.contents import Skip

PARTIAL, NOTHING_DONE = 3, 4


def tell_skips(skips: Sequence[Skip], *, file: str, most: int = 20) -> None:
    """Name the first of what was skipped, and the file that lists all."""
    for skip in skips[:most]:
        typer.echo(f"skipped: {skip}", err=True)
    if len(skips) > most:
        typer.echo(f"… and {len(skips) - most} more, all in {file}", err=True)


def end_with_skips(skips: Sequence[Skip], *, strict: bool) -> None:
    """Leave with the exit code of results that lack something, if they do."""
    if skips:
        raise typer.Exit(NOTHING_DONE if strict else PARTIAL)
