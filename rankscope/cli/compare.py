"""``rankscope compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankscope.cli.command import in_options
from rankscope.errors import plain, require_folder

if TYPE_CHECKING:
    from rankscope.comparison.compare import Comparison

Form = Literal["terminal", "csv", "markdown", "latex"]
Run = Annotated[
    str, typer.Argument(metavar="RUN", help="A run or group in the results, or a folder.")
]


def compare(
    a: Run,
    b: Run,
    results: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Results that hold both runs; if it is not there, both are analysed into it.",
        ),
    ] = Path("rankscope-results"),
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Runs whose names match alike are replicates, and RUN names a group: '(.*)-seed' "
            "puts full-seed1 and full-seed2 into one.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Metrics to compare, comma-separated, such as per."),
    ] = None,
    table: Annotated[Form, typer.Option(help="How to print the differences.")] = "terminal",
    everything: Annotated[
        bool, typer.Option("--all", help="List all differences, not only those beyond chance.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option(
            help="Also compare the weights themselves, which reads both models, so give both runs "
            "as folders."
        ),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write the whole tables (CSV) and figures (PDF, PNG) there."
        ),
    ] = None,
) -> None:
    """Show what differs between two runs beyond chance, at equal step, loss and distance.

    The distance is that of the weights from where each run began, which needs results with
    cumulative updates. A difference counts if it exceeds its spread over layers, or over seeds if
    there are several, and the possible effect of arithmetic and storage. Matrices that the results
    already hold are not decomposed again. docs/comparing.md describes the comparison.
    """
    from rankscope.comparison.compare import compare as compared

    if out is not None:
        require_folder(out)
    columns = None if metrics is None else [name.strip() for name in metrics.split(",")]
    found = compared(a, b, results=results, group=group, columns=columns, weights=weights)
    _print(found, table, everything=everything)
    if table == "terminal":
        _print_sentences(found, results, group)
    for note in found.notes:
        typer.echo(f"note: {in_options(plain(note))}", err=True)
    if out is not None:
        for path in _written(found, out):
            typer.echo(plain(str(path)), err=table != "terminal")


def _print(found: Comparison, form: Form, *, everything: bool) -> None:
    from rankscope.cli.output import print_columns
    from rankscope.comparison import digest
    from rankscope.results.csv_tables import frame_as_csv

    if form == "csv":
        typer.echo(frame_as_csv(found.metrics).decode(), nl=False)
        return
    cells = digest.difference_cells(found, everything=everything)
    far = digest.distance_cells(found)
    if form != "terminal":
        shown = {"markdown": digest.as_markdown, "latex": digest.as_latex}[form]
        tables = ([tuple(map(plain, row)) for row in some] for some in (cells, far))
        typer.echo("\n\n".join(shown(some) for some in tables if len(some) > 1))
        return
    if len(cells) > 1:
        typer.echo(typer.style(plain(f"differences, {found.a} → {found.b}"), bold=True))
        print_columns(cells, left=4)
    if len(far) > 1:
        title = plain(f"distances of the weights, {found.a} and {found.b}")
        typer.echo(typer.style(title, bold=True))
        print_columns(far, left=3)


def _print_sentences(found: Comparison, results: Path, group: str | None) -> None:
    """What each run shows by itself, then how many differences there are."""
    from rankscope.comparison.digest import sentences
    from rankscope.report.answer import SINGLE_RUNS, answer

    said = answer(results, runs=(found.a, found.b), group=group)
    for line in [*(one for one in said if one != SINGLE_RUNS), *sentences(found)]:
        typer.echo(f"• {plain(line)}")


def _written(found: Comparison, out: Path) -> list[Path]:
    """Write both tables and the figures, and return their files."""
    from rankscope.durable import make_folder, write_file
    from rankscope.results.csv_tables import frame_as_csv

    files = {"differences.csv": found.metrics, "distances.csv": found.weights}
    make_folder(out)
    for name, table in files.items():
        write_file(out / name, frame_as_csv(table))
    return [*(out / name for name in files), *_drawn(found, out)]


def _drawn(found: Comparison, out: Path) -> list[Path]:
    """Draw the first metric of every component that has several common steps."""
    import matplotlib as mpl

    mpl.use("agg")
    from rankscope.plots import differences, paper_style, save_figure

    paths = []
    steps = found.metrics[found.metrics["at"] == "step"]
    with paper_style():
        for component, rows in steps.groupby("component"):
            if rows["step_a"].nunique() > 1:
                metric = "per" if "per" in set(rows["metric"]) else str(rows["metric"].iloc[0])
                figure = differences(
                    found.metrics, metric, component=str(component), names=(found.a, found.b)
                )
                name = f"difference-{metric}-{component}".replace("_", "-")
                paths += save_figure(figure, out, name)
    return paths
