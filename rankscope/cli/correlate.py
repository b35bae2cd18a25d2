"""``rankscope correlate``."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankscope.cli.compare import Form
from rankscope.errors import plain

if TYPE_CHECKING:
    import pandas as pd

PLACE = ["role", "column", "task", "group", "metric", "scope", "n", "groups"]


def correlate(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS",
            readable=False,
            help="A folder that `rankscope analyze` and `evaluate` wrote.",
        ),
    ],
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Runs whose names match alike are replicates: '(.*)-seed' makes one group of "
            "full-seed1 and full-seed2. Correlations are then also within and between groups.",
        ),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(metavar="N", help="The step to compare at.", show_default="last common step"),
    ] = None,
    component: Annotated[
        str, typer.Option(metavar="NAME", help="Matrices whose ranks are correlated.")
    ] = "weight",
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="Rank metrics, comma-separated.")
    ] = "per,condition_number",
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Correlate with these metrics of features, as means over layers, not with "
            "performance: rankme_centred, alpha_req_centred, ... of `rankscope represent`.",
        ),
    ] = None,
    table: Annotated[Form, typer.Option(help="How to print the correlations.")] = "terminal",
) -> None:
    """Correlate rank with performance over runs, each of which is one point at one step.

    With --features, it correlates the rank of weights with that of features instead.

    With --group, it also correlates within and between the groups, such as the seeds of one method:
    the two may have opposite signs. Correlations over the steps of one run are in the figure
    rank-and-performance. docs/evaluation.md says what each of them shows.
    """
    from rankscope.results.results import open_results
    from rankscope.statistics.feature_measures import feature_measures
    from rankscope.statistics.run_correlation import correlate_runs

    opened = open_results(results)
    columns, asked = (
        [name.strip() for name in (given or "").split(",")] for given in (metrics, features)
    )
    measured = (
        opened.evaluation if features is None else feature_measures(opened.representations, asked)
    )
    rows = opened.rows(component=component)
    found = correlate_runs(
        opened.metrics if rows.empty else rows,  # the whole says what there is instead
        measured,
        columns=columns,
        component=component,
        step=step,
        group=group,
    )
    _print(found, table, results, of_features=features is not None)


def _print(found: pd.DataFrame, form: Form, results: Path, *, of_features: bool) -> None:
    from rankscope.cli.output import print_columns
    from rankscope.comparison import digest
    from rankscope.errors import RankscopeError
    from rankscope.results.csv_tables import frame_as_csv

    if found.empty:
        wanted = ("representations", "represent") if of_features else ("an evaluation", "evaluate")
        raise RankscopeError(
            f"needs both metrics and {wanted[0]}: `rankscope analyze` and `rankscope {wanted[1]}` "
            "write them into one folder",
            path=results,
        )
    if form == "csv":
        typer.echo(frame_as_csv(found), nl=False)
        return
    what = "features" if of_features else "performance"
    cells = _cells(found, what)
    if form != "terminal":
        shown = {"markdown": digest.as_markdown, "latex": digest.as_latex}[form]
        typer.echo(shown([tuple(map(plain, row)) for row in cells]))
        return
    where = f"{found['component'].iloc[0]} at step {found['step'].iloc[0]}"
    typer.echo(typer.style(plain(f"rank and {what} over runs, {where}"), bold=True))
    print_columns(cells, left=4)
    for line in _iter_sentences(found):
        typer.echo(f"• {plain(line)}")


def _cells(found: pd.DataFrame, what: str) -> list[tuple[str, ...]]:
    """The heading and one row per role, metric, measure (of performance, of features) and scope."""
    heading = ("role", "metric", what, "over", "n", "Spearman", "Kendall", "p")
    cells: list[tuple[str, ...]] = [heading]
    for place, rows in found.groupby(PLACE, sort=False):
        role, column, task, part, metric, scope, n, groups = map(str, place)
        by_method = {str(row["method"]): row for row in rows.to_dict("records")}
        over = {"all": "runs", "between": "groups", "within": f"runs within {groups} groups"}
        measure = f"{task} {metric}" if part == "all" else f"{task} {part} {metric}"
        cells.append(
            (
                *(role, column, measure, over[scope], n),
                *(_value(by_method[method]) for method in ("spearman", "kendall")),
                _number(by_method["spearman"]["p"], ".3f"),
            )
        )
    return cells


def _value(row: Mapping[Hashable, Any]) -> str:
    value = _number(row["value"], "+.2f")
    if math.isnan(row["ci_low"]):
        return value
    return f"{value} [{row['ci_low']:+.2f}, {row['ci_high']:+.2f}]"


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _iter_sentences(found: pd.DataFrame) -> Iterator[str]:
    """How many stand out, how many would by chance, and where groups and runs disagree."""
    from rankscope.statistics.run_correlation import SURE, reversals

    for scope, rows in found[found["method"] == "spearman"].groupby("scope", sort=False):
        known = rows[rows["p"].notna()]
        if len(known):
            where = {"all": "over runs", "between": "between groups", "within": "within groups"}
            yield (
                f"{where[str(scope)]}, {int((known['p'] < SURE).sum())} of {len(known)} have p < "
                f"{SURE}; chance alone would give about {SURE * len(known):.2g}, and roles of one "
                "run are not independent"
            )
    for row in reversals(found[found["method"] == "spearman"]).to_dict("records"):
        yield (
            f"Simpson's paradox: {row['column']} of {row['role']} and {row['metric']} correlate "
            f"{row['value']:+.2f} between groups and the other way within them; over all runs "
            "together the correlation describes neither"
        )
    if found["p"].isna().all():
        yield "no correlation has a p: it takes four runs or more, and groups with several runs"
