"""`write_report`: the results of an analysis as one HTML file that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rankscope.durable import write_file
from rankscope.errors import RankscopeError, WrongSettingError, require_folder
from rankscope.pipeline.calls import Paths, listed_paths
from rankscope.plots.gallery import gallery, selected
from rankscope.plots.style import paper_style
from rankscope.report.answer import answer
from rankscope.report.hover import hover_panels, svg_of
from rankscope.report.matrix_table import HEIGHT, WIDTH, matrix_rows
from rankscope.report.methods import methods
from rankscope.report.run_findings import RunFindings, run_findings
from rankscope.report.sources import account
from rankscope.results.columns import ANALYSIS_RECORD
from rankscope.results.figure_source import source_of
from rankscope.results.record import read_record
from rankscope.results.results import Results, open_results
from rankscope.statistics.markup import plain_text

REPORT_FILE = "report.html"
MOST_BYTES = 400_000  # of a figure: heavier ones, of very many lines, are left to PDF and PNG

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class PageFigure:
    """A figure of the page: its SVG, and what can be pointed at."""

    name: str
    title: str
    caption: str
    svg: Markup
    data: Markup


def write_report(
    results: str | Path | Results,
    out: str | Path | None = None,
    *,
    runs: Paths = (),
    title: str | None = None,
    group: str | None = None,
    published: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write one HTML file that holds the answer, findings, figures, numbers and methods.

    It refers to no other file and needs no network. Names of runs and files remain text whatever
    they contain, and no file that the results name is opened, since they may come from another
    machine.

    Parameters
    ----------
    results
        A folder that `analyze` wrote, or what `open_results` returns.
    out
        The file; ``report.html`` in the folder of the results by default.
    runs
        The runs that were analysed, or trees of them, to show what `diagnose` finds about them.
    title
        Title of the page; by default the names of the runs.
    group
        A pattern that groups runs into replicates, as in `rankscope.grouped`, in the answer and the
        figures; the rest of the page is about single runs.
    published
        Whether to draw over the curves of `rankscope.published.weiss2025`, where these are for
        matrices of the same shape, the same task or features of the same place.
    progress
        Called with the share of work done and the name of the next figure.

    Returns
    -------
    Path of the file.

    Raises
    ------
    WrongSettingError
        If ``out`` is a folder or below a file, a run does not exist or is not in the results, the
        pattern matches no run, or nothing comparable to these results was published.
    RankscopeError
        If the folder holds no results.

    Examples
    --------
    >>> import rankscope as rs
    >>> path = rs.write_report("results", "report.html", runs=["ckpts"])
    >>> page = path.read_text(encoding="utf-8")
    >>> "The weights use" in page, "Findings about the training" in page, "<script src" in page
    (True, True, False)
    """
    opened = results if isinstance(results, Results) else open_results(results)
    path = opened.path / REPORT_FILE if out is None else Path(out)
    if path.is_dir():
        raise WrongSettingError("`out` is a folder: give a file", path=path)
    require_folder(path.parent)
    given = listed_paths(runs)
    found = run_findings(opened, given) if given else None
    chosen = selected(opened, group=group)
    figures, left_out = _figures(chosen, progress, published=published)
    sentences = answer(opened, group=group)
    written = _page(opened, figures, left_out, answer=sentences, found=found, title=title)
    write_file(path, written.encode())
    return path


def _page(
    results: Results,
    figures: list[PageFigure],
    left_out: list[str],
    *,
    answer: list[str],
    found: RunFindings | None,
    title: str | None,
) -> str:
    read = account(results.path)
    rows, count = matrix_rows(results)
    record = read_record(results.path / ANALYSIS_RECORD)
    tables = (results.distinct(["run"]), results.evaluation, results.representations)
    named = pd.concat([table["run"].drop_duplicates() for table in tables])
    runs = list(dict.fromkeys(map(str, named)))
    kinds = zip(("Rank", "Performance", "Features"), tables, strict=True)
    what = next((kind for kind, table in kinds if len(table)), "Rank")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment.from_string(_asset("report.html.jinja")).render(
        title=title or f"{what} of {', '.join(runs[:4])}{' …' if len(runs) > 4 else ''}",
        style=Markup(_asset("report.css")),
        script=Markup(_asset("report.js")),
        answer=answer,
        alone=" and ".join(
            name
            for name, table in (("an evaluation", tables[1]), ("features", tables[2]))
            if len(table)
        ),
        standing_out=record.get("summary", {}).get("findings", []),
        found=found,
        figures=figures,
        left_out=left_out,
        rows=rows,
        count=count,
        curve=(WIDTH, HEIGHT),
        runs=list(dict.fromkeys(row.run for row in rows)),
        components=list(dict.fromkeys(row.component for row in rows)),
        roles=list(dict.fromkeys(row.role for row in rows)),
        account=read,
        methods=methods(results, read.versions) if len(tables[0]) else None,
    )


def _figures(
    results: Results, progress: Progress | None, *, published: bool
) -> tuple[list[PageFigure], list[str]]:
    """Every figure that the results have data for, and why others are not on the page."""
    import matplotlib.pyplot as plt

    drawn, left_out = [], []
    every, source = gallery(results, published=published), source_of(results)
    for number, (name, figure) in enumerate(every.items()):
        if progress is not None:
            progress(number / len(every), name)
        try:
            with paper_style("acl-text"):
                found = figure.with_caption(name, results, source)
        except RankscopeError as error:
            left_out.append(f"{name}: {error}")
            continue
        if found is None:
            continue
        made, caption = found
        try:
            svg = svg_of(made, name)
            if len(svg) > MOST_BYTES:
                left_out.append(f"{name}: too heavy for a page; draw it as PDF and PNG")
                continue
            panels = [asdict(panel) for panel in hover_panels(made)]
        finally:
            plt.close(made)
        about = {"unit": results.unit, "panels": panels}
        texts = (plain_text(caption.title), caption.description)
        drawn.append(PageFigure(name, *texts, Markup(svg), _json(about)))
    return drawn, left_out


def _json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", r"\u003c").replace("\u2028", r"\u2028"))


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _asset(name: str) -> str:
    return (files("rankscope.report") / "assets" / name).read_text(encoding="utf-8")
