"""``rankscope analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rankscope.analysis.engines import engine_of
from rankscope.cli.options import (
    AsJson,
    BaseModel,
    ComponentChoice,
    EngineChoice,
    FamilyName,
    Jobs,
    LayerChoice,
    LayoutName,
    ResultsFolder,
    RoleChoice,
    StepChoice,
    Strict,
    TrustPickle,
    WindowChoice,
)
from rankscope.errors import plain


def analyze(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            readable=False,
            help="Paths or addresses (hf:, s3:, https:) of runs, trees, or checkpoints.",
        ),
    ],
    out: ResultsFolder = Path("rankscope-results"),
    components: ComponentChoice = None,
    roles: RoleChoice = None,
    layers: LayerChoice = None,
    steps: StepChoice = None,
    jobs: Jobs = None,
    engine: EngineChoice = "local",
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    base: BaseModel = None,
    since: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Checkpoint from which cumulative updates are measured, such as a base model.",
        ),
    ] = None,
    windows: WindowChoice = "steps",
    subspaces: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Also compare singular subspaces of up to K dimensions with those at other steps.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS",
            help="Steps that subspaces are compared with: previous, first, last, comma-separated. "
            "By default previous,first.",
        ),
    ] = None,
    as_json: AsJson = False,
    strict: Strict = False,
) -> None:
    """Measure the weights and updates of every checkpoint.

    Prints a summary and writes the table (metrics.parquet and .csv), all singular values
    (spectra/) and analysis.json into the folder that --out names. A second call computes only what
    is new or changed.
    """
    # A new folder means there is work to do: the workers load numpy while we plan.
    workers = engine_of(engine, jobs, start=not out.exists())
    from rankscope.analysis.analyze import analyze_found
    from rankscope.analysis.origin import open_origin
    from rankscope.analysis.plan import Selection
    from rankscope.checkpoints.discovery import survey
    from rankscope.cli.output import end_call, print_summary
    from rankscope.cli.progress import progress_bar
    from rankscope.results.columns import ANALYSIS_RECORD, ANALYSIS_SKIPS

    selection = Selection.of(
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        since=None if since is None else open_origin(since, trust_pickle=trust_pickle),
        windows=windows,
        subspaces=subspaces,
        against=against,
    )
    met = survey(runs, layout=layout, family=family, trust_pickle=trust_pickle, base=base)
    with progress_bar("analysing") as progress:
        found = analyze_found(met, selection, out=out, engine=workers, progress=progress)

    def print_record(record: dict[str, Any]) -> None:
        print_summary(record, named=selection.named)
        typer.echo(
            f"{record['rows']} matrices, {found.computed} newly computed → {plain(str(out))}"
        )

    end_call(
        found,
        record=out / ANALYSIS_RECORD,
        skips=out / ANALYSIS_SKIPS,
        print_record=None if as_json else print_record,
        nothing="no matrix could be analysed",
        strict=strict,
    )
