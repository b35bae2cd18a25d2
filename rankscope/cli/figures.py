"""``rankscope figures``, and the frame of the scripts that draw one figure each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rankscope.results.results import Results

RESULTS = typer.Argument(metavar="RESULTS", help="A folder that `rankscope analyze` wrote.")
WIDTH = typer.Option(help="Inches, or one of acl, acl-text, iclr, icml, icml-text, neurips.")


def figures(
    results: Annotated[Path, RESULTS],
    out: Annotated[
        Path | None, typer.Option(help="Where to write.", show_default="RESULTS/figures")
    ] = None,
    width: Annotated[str, WIDTH] = "acl-text",
) -> None:
    """Draw every figure that RESULTS has data for, as PDF and PNG."""
    from rankscope.cli.progress import progress_bar
    from rankscope.errors import RankscopeError
    from rankscope.plots import DRAWN_FROM, FIGURES, paper_style

    opened = _open(results)
    folder = _folder(results / "figures" if out is None else out)
    written: list[Path] = []
    left_out: list[str] = []
    with paper_style(width), progress_bar("drawing") as progress:
        for number, (name, draw) in enumerate(FIGURES.items()):
            if progress is not None:
                progress(number / len(FIGURES), name)
            try:
                paths = _write(draw(opened), folder, name)
            except RankscopeError as error:
                left_out.append(f"left out {name}: {error}")
                continue
            written += paths
            if not paths:
                left_out.append(f"left out {name}: the results hold no {DRAWN_FROM[name]}")
    for line in left_out:
        typer.echo(line, err=True)
    for path in written:
        typer.echo(path)
    if not written:
        raise RankscopeError("the results hold nothing that could be drawn", path=results)


def draw_as_script(script: str, draw: Callable[[Results], Figure]) -> None:
    """Run a script that draws one figure: ``python SCRIPT RESULTS [--out FOLDER] [--width W]``.

    The figure has the script's name. What the user can put right is shown as one line, with exit
    status 4.
    """

    def command(
        results: Annotated[Path, RESULTS],
        out: Annotated[Path, typer.Option(help="Where to write.")] = Path("figures"),
        width: Annotated[str, WIDTH] = "acl-text",
    ) -> None:
        from rankscope.errors import RankscopeError
        from rankscope.plots import paper_style

        try:
            with paper_style(width):
                for path in _write(draw(_open(results)), _folder(out), Path(script).stem):
                    typer.echo(path)
        except RankscopeError as error:
            typer.echo(f"{Path(script).name}: {error}", err=True)
            raise typer.Exit(4) from None

    typer.run(command)


def _open(results: Path) -> Results:
    import matplotlib as mpl

    from rankscope.results.results import open_results

    # Where there is a screen, the default would open a window for every figure.
    mpl.use("agg")
    return open_results(results)


def _folder(path: Path) -> Path:
    from rankscope.errors import RankscopeError

    if path.exists() and not path.is_dir():
        raise RankscopeError("is a file: give a folder to write the figures into", path=path)
    return path


def _write(figure: Figure | None, folder: Path, name: str) -> list[Path]:
    """Write a figure and return where: nowhere for None."""
    from rankscope.plots import save_figure

    return [] if figure is None else save_figure(figure, folder, name)
