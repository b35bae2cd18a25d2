"""``rankscope inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankscope.cli.reading import FamilyName, LayoutName, TrustPickle


def inspect(
    path: Annotated[Path, typer.Argument(help="A run, a tree of runs, or a checkpoint.")],
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what PATH holds and how it is understood; nothing is decomposed.

    Layout, family, steps and where each came from, roles and layers with shapes and formats,
    heads, adapters and their scale, and what an analysis would skip, and why.
    """
    import json

    from rankscope.checkpoints.description import describe
    from rankscope.checkpoints.discovery import open_runs

    opened = open_runs([path], layout=layout, family=family, trust_pickle=trust_pickle)
    described = [describe(run) for run in opened]
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "runs": described}, indent=2))
        return
    from rankscope.cli.tables import print_description

    for run in described:
        print_description(run)
