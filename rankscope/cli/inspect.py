"""``rankscope inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    path: Annotated[Path, typer.Argument(help="A run, a tree of runs, or a checkpoint.")],
    layout: Annotated[
        str | None, typer.Option("--format", help="Read as this layout: huggingface, peft.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what PATH holds: layout, steps, matrices, heads, adapters. Reads headers only."""
    import json

    from rankscope.checkpoints.description import describe
    from rankscope.checkpoints.discovery import open_runs

    described = [describe(run) for run in open_runs([path], layout=layout)]
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "runs": described}, indent=2))
        return
    from rankscope.cli.tables import print_description

    for run in described:
        print_description(run)
