"""``rankscope analyze``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from rankscope.analysis.engines import EngineName, engine_of
from rankscope.cli.options import BaseModel, FamilyName, LayoutName, TrustPickle
from rankscope.cli.output import end_with_skips, tell_notes, tell_skips


def analyze(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs, trees of runs, or checkpoints.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("rankscope-results"),
    components: Annotated[
        str | None,
        typer.Option(help="Which matrices, by comma: weight,update,adapter,... or all."),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option(help="Which roles, by comma: q,k,v,o,gate,up,down,... or all."),
    ] = None,
    layers: Annotated[str | None, typer.Option(help="Which layers: 0,3,6 or 0:4.")] = None,
    steps: Annotated[
        str | None, typer.Option(help="Which steps: FIRST:LAST:STRIDE, each may be left out.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    engine: Annotated[
        EngineName,
        typer.Option(help="Decompose in processes of this machine, on its GPU, or on a cluster."),
    ] = "local",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(hidden=True)] = "cpu",
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    base: BaseModel = None,
    since: Annotated[
        Path | None,
        typer.Option(help="Checkpoint that cumulative updates begin at, such as a base model."),
    ] = None,
    windows: Annotated[
        Literal["steps", "cycles"],
        typer.Option(help="What updates span: from step to step, or whole cycles of merges only."),
    ] = "steps",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    strict: Annotated[bool, typer.Option(help="Fail if anything was skipped.")] = False,
) -> None:
    """Measure every checkpoint of RUNs: PER, condition numbers and spectra of each matrix.

    Writes metrics.parquet and .csv, the spectra and analysis.json into --out. A second call
    computes only what is new or changed.
    """
    if device == "cuda":  # the old spelling
        engine = "cuda"
    # Into a new folder, so there is work: the workers load numpy while we do.
    workers = engine_of(engine, jobs, start=not out.exists())
    from rankscope.analysis.analyze import analyze_found
    from rankscope.analysis.origin import open_origin
    from rankscope.checkpoints.discovery import survey
    from rankscope.cli.progress import progress_bar
    from rankscope.cli.selection import parse_selection
    from rankscope.errors import RankscopeError
    from rankscope.results.columns import ANALYSIS_RECORD, ANALYSIS_SKIPS
    from rankscope.results.record import read_record

    selection = parse_selection(
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        since=None if since is None else open_origin(since, trust_pickle=trust_pickle),
        windows=windows,
    )
    there = survey(runs, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    with progress_bar("analysing") as progress:
        found = analyze_found(there, selection, out=out, engine=workers, progress=progress)
    if not found.measured:
        tell_notes(found.notes)
        tell_skips(found.skips)
        raise RankscopeError("no matrix could be analysed")
    record = read_record(out / ANALYSIS_RECORD)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        from rankscope.cli.output import print_summary

        print_summary(record, named=selection.named)
        typer.echo(f"{record['rows']} matrices, {found.computed} newly computed → {out}")
    tell_notes([*found.mended, *found.notes])
    tell_skips(found.skips, file=out / ANALYSIS_SKIPS)
    end_with_skips(found.skips, strict=strict)
