"""``rankscope watch``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rankscope.addresses import is_address
from rankscope.cli.options import (
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
    from rankscope.watching.watch import WatchedStep


def watch(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", readable=False, help="Runs or trees of runs; they need not exist yet."
        ),
    ],
    out: ResultsFolder = Path("rankscope-results"),
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time between checks of the folders.")
    ] = 10.0,
    idle: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="End when nothing new has appeared for this long; by default, only when the "
            "training ends.",
        ),
    ] = None,
    to: Annotated[
        Literal["tensorboard", "wandb", "trackio"] | None,
        typer.Option(help="Also show columns of the table there, averaged by role."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Columns for --to, comma-separated; by default "
            "per,numerical_rank,condition_number_r.",
        ),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also keep the page of `rankscope report` up to date.")
    ] = False,
    components: ComponentChoice = None,
    roles: RoleChoice = None,
    layers: LayerChoice = None,
    steps: StepChoice = None,
    windows: WindowChoice = "steps",
    jobs: Jobs = None,
    engine: EngineChoice = "local",
    layout: LayoutName = None,
    family: FamilyName = None,
    trust_pickle: TrustPickle = False,
    base: BaseModel = None,
    strict: Strict = False,
) -> None:
    """Measure each checkpoint of a training as it appears.

    Prints one line per step and keeps the table up to date. Ends when a training by `rankscope
    train` ends, after --idle, or on Ctrl-C; the same command then continues where it stopped. At
    the end it prints the summary, and the folder holds what `rankscope analyze` writes.
    """
    from rankscope.cli.output import end_call, print_summary
    from rankscope.errors import RankscopeError
    from rankscope.results.columns import ANALYSIS_RECORD, ANALYSIS_SKIPS
    from rankscope.watching.mirrors import open_mirrors
    from rankscope.watching.watch import watch as watch_runs

    watched = watch_runs(
        runs,
        out=out,
        poll=poll,
        idle=idle,
        components=components,
        roles=roles,
        layers=layers,
        steps=steps,
        windows=windows,
        jobs=jobs,
        engine=engine,
        layout=layout,
        family=family,
        trust_pickle=trust_pickle,
        base=base,
    )
    with open_mirrors(to, out=out, columns=columns) as mirrors:
        for seen in watched:
            typer.echo(step_line(seen))
            if mirrors is not None:
                mirrors.write(seen.run, seen.step, seen.rows)
            if report and seen.is_last:
                _draw(out, [run for run in runs if is_address(run) or run.exists()])
    found = watched.analysis
    if found is None:
        raise RankscopeError("no checkpoint appeared")

    def print_record(record: dict[str, Any]) -> None:
        print_summary(record, named=found.selection.named)
        typer.echo(f"{record['rows']} matrices → {plain(str(out))}")

    end_call(
        found,
        record=out / ANALYSIS_RECORD,
        skips=out / ANALYSIS_SKIPS,
        print_record=print_record,
        nothing="no matrix could be analysed",
        strict=strict,
    )


def _draw(results: Path, runs: list[Path]) -> None:
    import matplotlib as mpl

    from rankscope.report.page import write_report

    mpl.use("agg")
    write_report(results, runs=runs)


def step_line(seen: WatchedStep) -> str:
    """One line on a step: PER and rank of its weights, updates, adapters and sums of merges."""
    from rankscope.analysis.measured_steps import iter_measured
    from rankscope.analysis.summary_lines import Lines
    from rankscope.results.columns import COLUMNS, TEXT, WHOLE
    from rankscope.results.summary_tables import MAIN, component_text, number_text
    from rankscope.results.typed_columns import Columns

    lines, parts = Lines(), []
    for found in iter_measured(Columns.of(seen.rows, COLUMNS, whole=WHOLE, text=TEXT)):
        lines.add(found)
    for line in lines.overall:
        if line.component in (*MAIN, "adapter"):
            rank, most = (number_text(value, ".0f") for value in (line.rank[1], line.max_rank))
            what = component_text(line.component, line.window)
            parts.append(f"{what} PER {line.per[1]:.3f}, rank {rank} of {most}")
    parts.append(f"{len(seen.rows)} matrices")
    return plain(f"{seen.run}  {seen.unit} {seen.step}: {'; '.join(parts)}")
