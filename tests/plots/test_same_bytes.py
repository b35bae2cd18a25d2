"""The same results give the same files: in any order of the rows, at any time, for anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from rankscope import plots
from rankscope.report.hover import svg_of
from rankscope.results.figure_source import FigureSource
from tests.plots.conftest import SyntheticResults

NOTHING = FigureSource({}, {}, {}, {})
DRAW = """
import sys
from rankscope import plots
from rankscope.report.hover import svg_of
from tests.plots.conftest import synthetic_results
results = synthetic_results()
with plots.paper_style("acl"):
    table = results.metrics.query("role == 'v'")
    figure = plots.per(table, "update")
    plots.save_figure(figure, sys.argv[1], "per", caption="PER")
    open(sys.argv[1] + "/per.svg", "w").write(svg_of(figure, "per"))
"""


def of_one_role(results: SyntheticResults) -> SyntheticResults:
    def chosen(table: pd.DataFrame) -> pd.DataFrame:
        return table[table["role"] == "v"]

    return replace(
        results, metrics=chosen(results.metrics), all_spectra=chosen(results.all_spectra)
    )


def shuffled(results: SyntheticResults, seed: int) -> SyntheticResults:
    names = ("metrics", "training", "all_spectra", "evaluation", "subspaces")
    tables = {name: getattr(results, name).sample(frac=1, random_state=seed) for name in names}
    return replace(results, **tables)


def written(name: str, results: SyntheticResults) -> tuple[str, str]:
    """SVG and caption of a figure."""
    known = plots.FIGURES[name]
    with plots.paper_style("acl"):
        figure = known(results)  # type: ignore[arg-type]
        assert figure is not None
        caption = known.described(figure, name, results, NOTHING)  # type: ignore[arg-type]
        return svg_of(figure, name), str(caption)


@pytest.mark.parametrize(
    "name",
    [
        "per-weights",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in sorted({*plots.FIGURES} - {"per-weights"})
        ),
    ],
)
def test_the_order_of_the_rows_does_not_matter(name: str, results: SyntheticResults) -> None:
    chosen = of_one_role(results)
    if not plots.FIGURES[name].has_data(chosen):  # type: ignore[arg-type]
        pytest.skip("the synthetic results have no data for it")
    assert written(name, shuffled(chosen, 1)) == written(name, chosen)


@pytest.mark.slow
def test_neither_does_the_time_nor_who_draws(tmp_path: Path) -> None:
    files = []
    for place, (user, zone, seed) in enumerate((("ada", "UTC", "1"), ("bob", "Asia/Tokyo", "2"))):
        home = tmp_path / user
        home.mkdir()
        who = {"USER": user, "LOGNAME": user, "HOME": str(home), "TZ": zone}
        when = {"PYTHONHASHSEED": seed, "SOURCE_DATE_EPOCH": str(10**9 * (place + 1))}
        out = home / "figures"
        out.mkdir()
        subprocess.run(
            [sys.executable, "-c", DRAW, str(out)], env=os.environ | who | when, check=True
        )
        files.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert {*files[0]} == {"per.pdf", "per.png", "per.svg", "per.tex"}
    assert files[0] == files[1]
