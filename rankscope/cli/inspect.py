"""``rankscope inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankscope.cli.exit_codes import PARTIAL
from rankscope.cli.options import AsJson, BaseModel, FamilyName, LayoutName, TrustPickle


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            readable=False,
            help="Path or address (hf:, s3:, https:) of a run, a tree, or a checkpoint.",
        ),
    ],
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    base: BaseModel = None,
    as_json: AsJson = False,
) -> None:
    """Show what a path holds and how it is interpreted.

    Reads headers only. For each run: layout, family, steps and their files, the account of all
    tensors, roles and layers with shapes and formats, heads and adapters. For everything else: why
    it is left out. What an analysis would skip is listed with the reason, and the exit code is then
    3. docs/checkpoints.md describes every layout and family.
    """
    import json

    from rankscope.addresses import shown
    from rankscope.analysis.preview import preview
    from rankscope.checkpoints.discovery import survey
    from rankscope.errors import RankscopeError

    met = survey([path], layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    described = preview(met)
    if as_json:
        typer.echo(json.dumps(described, indent=2))
    else:
        _print(described, Path(shown(path)))
    if all(run["described_step"] is None for run in described["runs"]):
        raise RankscopeError("holds no checkpoint that can be read", path=path)
    if described["skips"]:
        raise typer.Exit(PARTIAL)


def _print(described: dict[str, Any], path: Path) -> None:
    from rankscope.cli.descriptions import USES, print_lines, print_places, print_run

    for run in described["runs"]:
        print_run(run)
    print_places(described["places"], path)
    said = [line for run in described["runs"] for line in (*run["notes"], *run["skips"])]
    named = {place["path"] for place in described["places"] if place["use"] in USES}
    notes = [
        line
        for line in described["notes"]
        if line["path"] not in named and line["reason"] != "left-out"
    ]
    print_lines(
        [line for line in notes if line not in said],
        [line for line in described["skips"] if line not in said],
    )
