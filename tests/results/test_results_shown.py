"""Results in a notebook and in a paper."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.latex_table import latex_table
from tests.analysis.series import analysed, weights, write_step


@pytest.fixture
def results(tmp_path: Path, rng: np.random.Generator) -> rs.Results:
    for step in (10, 20, 30):
        write_step(tmp_path / "a_run & <b>", step, weights(rng))
    analysed(tmp_path / "a_run & <b>", out=tmp_path / "out")
    return rs.open_results(tmp_path / "out")


def test_the_summary_is_text_and_html_with_the_same_numbers(results: rs.Results) -> None:
    text, shown = results.summary(), results._repr_html_()
    assert "weight: first → last step" in text and "PER: proportional effective rank" in text
    cells = [html.unescape(cell) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", shown)]
    assert len(cells) > 20 and all(cell in text for cell in cells)
    numbers = set(re.findall(r"0\.\d{3} → 0\.\d{3}", shown))
    assert numbers and numbers == set(re.findall(r"0\.\d{3} → 0\.\d{3}", text))
    assert "a_run &amp; &lt;b&gt;" in shown and "<b>: PER" not in shown


def test_a_folder_without_a_summary_says_so(results: rs.Results) -> None:
    record = results.path / "analysis.json"
    content = json.loads(record.read_text())
    del content["summary"], content["digest"]  # an older version wrote neither
    record.write_text(json.dumps(content))
    with pytest.raises(RankscopeError, match="holds no summary"):
        results.summary()


def test_a_latex_table_holds_means_by_role_and_step(results: rs.Results) -> None:
    lines = results.to_latex(digits=4).splitlines()
    assert r"\multicolumn{2}{c}{a\_run \& <b>}" in lines[3]
    assert lines[5] == r"role & 10 & 30 \\"
    own = results.metrics.query("component == 'weight' and role == 'up'")
    means = own.groupby("step")["per"].mean()
    assert rf"up & {means[10]:.4f} & {means[30]:.4f} \\" in lines
    every = results.to_latex(steps=[10, 20, 30], component="update").splitlines()
    assert r"role & 20 & 30 \\" in every


def test_a_latex_table_marks_bounds_noise_and_gaps() -> None:
    rows = pd.DataFrame(
        {
            "run": ["a", "a", "b", "b"], "step": [0, 9, 0, 9], "layer": 0, "role": "q",
            "component": "weight", "condition_number": [2e5, 3.0, np.inf, np.nan],
            "condition_number_status": ["lower-bound", "ok", "ok", "ok"],
            "per": 0.5, "per_resolved": [0.1, 0.5, 0.5, 0.5],
        }
    )  # fmt: skip
    (line,) = [one for one in latex_table(rows, "condition_number").splitlines() if one[0] == "q"]
    assert line == r"q & $\geq 2 \cdot 10^{5}$ & 3 & $\infty$ & -- \\"
    text = latex_table(rows)
    assert r"q & $0.50^{\ast}$ & 0.50 & 0.50 & 0.50 \\" in text and "% * rounding noise" in text
    with pytest.raises(WrongSettingError, match="`steps`"):
        latex_table(rows, steps=[5])
    with pytest.raises(WrongSettingError, match="unknown metric"):
        latex_table(rows, "nonsense")
