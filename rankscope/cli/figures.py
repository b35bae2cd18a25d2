"""``rankscope figures``, and the framework of scripts that draw one figure each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankscope.cli.arrow_memory import give_memory_back
from rankscope.cli.command import Command, in_options
from rankscope.cli.exit_codes import NOTHING_DONE, WRONG_USE
from rankscope.cli.options import PublishedCurves
from rankscope.errors import plain, require_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rankscope.results.results import Results

Folder = Annotated[
    Path,
    typer.Argument(
        metavar="RESULTS", readable=False, help="A folder that `rankscope analyze` wrote."
    ),
]
Venue = Annotated[
    str,
    typer.Option(
        metavar="VENUE",
        help="Width of the figures: a column of acl, iclr, icml, ieee or neurips, the text of "
        "acl-text, icml-text or ieee-text, or a number of inches.",
    ),
]
Names = list[str] | None


def figures(
    results: Folder,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder for the figures.", show_default="RESULTS/figures"
        ),
    ] = None,
    venue: Venue = "acl-text",
    only: Annotated[
        Names,
        typer.Option(
            metavar="NAME", help="Draw only this figure, such as per-weights; repeatable."
        ),
    ] = None,
    component: Annotated[
        Names,
        typer.Option(
            metavar="NAME",
            help="Draw only the figures of this component, such as cumulative_update; repeatable.",
        ),
    ] = None,
    run: Annotated[
        Names, typer.Option(metavar="NAME", help="Draw only this run; repeatable.")
    ] = None,
    role: Annotated[
        Names, typer.Option(metavar="NAME", help="Draw only this role, such as q; repeatable.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Draw runs whose names match alike as one, with a band over them: '(.*)-seed' "
            "makes replicates of full-seed1 and full-seed2.",
        ),
    ] = None,
    log_steps: Annotated[
        bool,
        typer.Option(
            "--log-steps", help="Steps on a log scale, linear from 0 to the first positive step."
        ),
    ] = False,
    published: PublishedCurves = False,
) -> None:
    """Draw every figure that the results have data for.

    Each is written as PDF and PNG, with its caption for LaTeX; figures without data are listed
    with what they lack. docs/figures.md says which figure answers which question.
    """
    from rankscope.cli.progress import progress_bar
    from rankscope.errors import RankscopeError

    with progress_bar("drawing") as progress:
        from rankscope.plots import log_steps as on_log_scale
        from rankscope.plots import paper_style, save_figure
        from rankscope.plots.gallery import gallery, selected
        from rankscope.results.figure_source import source_of

        opened = selected(_open(results), runs=run or (), roles=role or (), group=group)
        source = source_of(opened)
        chosen = gallery(opened, only=only or (), components=component or (), published=published)
        folder = results / "figures" if out is None else out
        require_folder(folder)
        written: list[Path] = []
        left_out: list[str] = []
        with paper_style(venue):
            for number, (name, figure) in enumerate(chosen.items()):
                if progress is not None:
                    progress(number / len(chosen), name)
                try:
                    drawn = figure(opened)
                except RankscopeError as error:
                    left_out.append(f"left out {name}: {error}")
                    continue
                if drawn is None:
                    left_out.append(f"left out {name}: the results hold no {figure.drawn_from}")
                    continue
                if log_steps:
                    on_log_scale(drawn)
                caption = figure.described(drawn, name, opened, source)
                written += save_figure(drawn, folder, name, caption=caption)
    for line in left_out:
        typer.echo(in_options(plain(line)), err=True)
    for path in written:
        typer.echo(plain(str(path)))
    if not written:
        raise RankscopeError("the results hold nothing that could be drawn", path=results)


def draw_as_script(script: str, draw: Callable[[Results], Figure]) -> None:
    """Run a script that draws one figure: ``python SCRIPT RESULTS [--out FOLDER] [--venue V]``.

    The figure is named after the script, and has a caption if `rankscope.plots.FIGURES` has the
    name. Errors that the user can fix are one line: the exit status
    is 2 for wrong use, and 4 if the results hold nothing to draw, which a script named after a
    figure in `rankscope.plots.FIGURES` need not check.
    """

    def command(
        results: Folder,
        out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the figure.")] = Path(
            "figures"
        ),
        venue: Venue = "acl-text",
    ) -> None:
        from rankscope.errors import RankscopeError
        from rankscope.plots import FIGURES, paper_style, save_figure
        from rankscope.results.figure_source import source_of

        name, code = Path(script).stem, WRONG_USE
        try:
            with paper_style(venue):
                require_folder(out)
                code = NOTHING_DONE
                opened = _open(results)
                known = FIGURES.get(name)
                if known is not None and not known.has_data(opened):
                    raise RankscopeError(f"the results hold no {known.drawn_from}")
                figure, caption = draw(opened), None
                if known is not None:
                    caption = known.described(figure, name, opened, source_of(opened))
                for path in save_figure(figure, out, name, caption=caption):
                    typer.echo(plain(str(path)))
        except RankscopeError as error:
            typer.echo(f"{Path(script).name}: {error}", err=True)
            raise typer.Exit(code) from None

    program = typer.Typer(add_completion=False)
    program.command(cls=Command)(command)
    program()


def _open(results: Path) -> Results:
    import matplotlib as mpl

    from rankscope.results.results import open_results

    # On a desktop, the default would open a window for every figure.
    give_memory_back()
    mpl.use("agg")
    return open_results(results)
