"""``rankscope report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rankscope.cli.arrow_memory import give_memory_back
from rankscope.cli.options import PublishedCurves
from rankscope.errors import WrongSettingError, plain


def report(
    results: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS", readable=False, help="A folder that `rankscope analyze` wrote."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write the page to.", show_default="RESULTS/report.html"
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="The runs that were analysed, or a tree of them, to add what `rankscope diagnose` "
            "finds; repeatable.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Title of the page.", show_default="the runs")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Treat runs whose names match alike as one, in the answer and the figures.",
        ),
    ] = None,
    published: PublishedCurves = False,
    only_answer: Annotated[
        bool, typer.Option("--answer", help="Print only the answer, in sentences.")
    ] = False,
) -> None:
    """Write one HTML page with the answer, findings, figures, numbers and methods.

    The page needs no other file and no network, so it can be mailed or kept beside a paper. Only
    RESULTS and the runs that --runs names are opened.
    """
    if only_answer:
        if out is not None or runs or title is not None or published:
            raise WrongSettingError(
                "--answer writes no page: leave out --out, --runs, --title and --published"
            )
        from rankscope.report.answer import answer

        for sentence in answer(results, group=group):
            typer.echo(f"• {plain(sentence)}")
        return
    from rankscope.cli.progress import progress_bar

    with progress_bar("drawing") as progress:
        import matplotlib as mpl

        from rankscope.report.page import write_report

        give_memory_back()
        mpl.use("agg")
        path = write_report(
            results,
            out,
            runs=runs or (),
            title=title,
            group=group,
            published=published,
            progress=progress,
        )
    typer.echo(plain(str(path)))
