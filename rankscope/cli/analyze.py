"""``rankscope analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from rankscope.pipeline.call_results import CallResult


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
    recheck: Annotated[
        bool,
        typer.Option(
            "--recheck",
            help="Open every checkpoint, even if no file has changed in size or time since the "
            "last call.",
        ),
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Compute and store only the I-th of N shares, without a table; the same command "
            "without --shard then writes it.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Scheduler of the Dask cluster, such as tcp://10.0.0.1:8786; by default, that of "
            "Dask's configuration.",
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="How long the Dask cluster may be without workers before the rest is skipped; by "
            "default 10.",
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
    # A new folder means there is work to do: this process is copied before it has threads.
    starts = not out.exists()
    workers = engine_of(engine, jobs, start=starts, scheduler=scheduler, wait=wait)
    from rankscope.analysis.question import Question
    from rankscope.cli.output import end_call, end_shard, print_summary
    from rankscope.cli.progress import progress_bar
    from rankscope.results.columns import ANALYSIS_RECORD, ANALYSIS_SKIPS

    question = Question(
        paths=tuple(runs),
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        windows=windows,
        layout=layout,
        family=family,
        trust_pickle=trust_pickle,
        base=base,
        since=since,
        subspaces=subspaces,
        against=against,
    )
    if shard is not None:
        from rankscope.analysis.analyze_shard import answer_share
        from rankscope.analysis.shards import Shard

        share = Shard.of(shard)
        with progress_bar("analysing") as progress:
            done = answer_share(question, share, out=out, engine=workers, progress=progress)
        end_shard(done, out=out, as_json=as_json, strict=strict)
        return
    looked = question.recall(out).look()
    found: CallResult | None = None if recheck else question.recalled(out, looked)
    if found is None:
        from rankscope.analysis.analyze import answer

        with progress_bar("analysing") as progress:
            found = answer(
                question, out=out, engine=workers, progress=progress, before=looked, recheck=recheck
            )
    computed = found.computed

    def print_record(record: dict[str, Any]) -> None:
        print_summary(record, named=record["named"])
        typer.echo(f"{record['rows']} matrices, {computed} newly computed → {plain(str(out))}")

    end_call(
        found,
        record=out / ANALYSIS_RECORD,
        skips=out / ANALYSIS_SKIPS,
        print_record=None if as_json else print_record,
        nothing="no matrix could be analysed",
        strict=strict,
    )
