"""``rankscope analyze``."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankscope.cli.reading import BaseModel, FamilyName, LayoutName, TrustPickle
from rankscope.cli.skips import end_with_skips, tell_notes, tell_skips

if TYPE_CHECKING:
    from rankscope.analysis.engines import Engine


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
        Literal["local", "dask"], typer.Option(help="Processes of this machine, or a cluster.")
    ] = "local",
    device: Annotated[
        Literal["cpu", "cuda"], typer.Option(help="Where the local engine decomposes.")
    ] = "cpu",
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
    workers = _engine(engine, device, jobs, is_first=not out.exists())
    from rankscope.analysis.origin import open_origin
    from rankscope.analysis.record import RECORD, unchanged
    from rankscope.checkpoints.contents import Skip
    from rankscope.checkpoints.discovery import survey
    from rankscope.cli.progress import progress_bar
    from rankscope.cli.selection import parse_selection
    from rankscope.errors import RankscopeError
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
    record, computed = unchanged(out, there.runs, selection, (*there.skips, *there.notes)), 0
    mended: tuple[Skip, ...] = ()
    if record is None:
        from rankscope.analysis.analyze import analyze_runs

        with progress_bar("analysing") as progress:
            found = analyze_runs(
                there.runs,
                selection,
                out=out,
                engine=workers,
                progress=progress,
                skips=there.skips,
                notes=there.notes,
            )
        if not found.measured:
            tell_notes(found.notes)
            tell_skips(found.skips)
            raise RankscopeError("no matrix could be analysed")
        record, computed = read_record(out / RECORD), found.computed
        mended = found.mended
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        from rankscope.cli.tables import print_summary

        print_summary(record, named=selection.named)
        typer.echo(f"{record['rows']} matrices, {computed} newly computed → {out}")
    tell_notes([*mended, *(Skip(**note) for note in record["notes"])])
    skips = [Skip(**skip) for skip in record["skipped"]]
    tell_skips(skips, file=out / "skipped.jsonl")
    end_with_skips(skips, strict=strict)


def _engine(
    engine: str, device: str, jobs: int | None, *, is_first: bool
) -> AbstractContextManager[Engine]:
    """Engine for the options; the processor where there is no GPU."""
    from rankscope.analysis.engines import engine_of
    from rankscope.analysis.local_workers import LocalWorkers

    workers = engine_of("cuda" if device == "cuda" and _has_gpu(engine) else engine, jobs)
    if isinstance(workers, LocalWorkers):
        # They calculate; more threads of this process would only wait, and burn time doing so.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if is_first:
            workers.start()  # into a new folder, so there is work; they load numpy while we do
    return workers


def _has_gpu(engine: str) -> bool:
    if engine != "local":
        raise typer.BadParameter(f"--device cuda goes with --engine local, not with {engine}")
    from rankscope.errors import RankscopeError

    try:
        from rankscope.spectra.torch_backend import has_gpu
    except ModuleNotFoundError:
        raise RankscopeError('--device cuda needs torch: pip install "rankscope[torch]"') from None
    if not has_gpu():
        typer.echo("rankscope: torch finds no GPU, so the processor is used", err=True)
        return False
    return True
