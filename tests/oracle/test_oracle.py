"""Every number of an analysis, computed again from the files by code that shares nothing with it.

pytest -s tests/oracle                          # prints the largest relative error per column
"""

import math

import mpmath
import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.components.selection import COMPONENTS
from tests.oracle.columns import Report, compare
from tests.oracle.series import write_all
from tests.oracle.truth import Key, truths

pytestmark = pytest.mark.slow
ROLES = ["q", "k", "v", "o", "gate", "up", "down", "embed"]
# The largest relative error allowed in each column. A condition number is given only where its
# divisor is known to 1 %.
LIMITS = {
    "noise_floor": 1e-5,
    "per_gaussian": 1e-6,
    "condition_number": 5e-3,
    "condition_number_raw": 5e-3,
    "condition_number_r": 5e-3,
    "condition_number_90": 5e-3,
}
LIMIT = 1e-6


def place(row: pd.Series) -> Key:
    head = None if pd.isna(row["head"]) else int(row["head"])
    return Key(row["run"], int(row["step"]), row["component"], row["name"], head)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("oracle")
    runs = write_all(folder / "runs", np.random.default_rng(2307))
    out = folder / "out"
    components = [name for name in COMPONENTS if name != "gradient"]
    table = rs.analyze(list(runs.values()), out=out, components=components, roles=ROLES)
    assert "skipped" not in table.attrs
    rows = {place(row): row for _, row in table.iterrows()}
    expected = dict(truths(runs))
    assert set(rows) == set(expected)
    results, found = rs.open_results(out), Report()
    spectra = {}
    for component in table["component"].unique():
        values = results.spectra(component).sort_values("index", kind="stable")
        values["head"] = values["head"].astype("Int64")
        keys = ["run", "step", "name", "head"]
        for (run, step, name, head), part in values.groupby(keys, dropna=False):
            number = None if pd.isna(head) else int(head)
            spectra[Key(run, int(step), component, name, number)] = part
    for key, truth in expected.items():
        with mpmath.workdps(60):
            compare(found, key, truth, rows[key].to_dict(), spectra[key])
    return found


def test_no_interval_misses_the_truth(report: Report) -> None:
    assert not report.false
    assert report.rows > 300 and report.intervals > 3000


def test_every_text_and_count_is_right(report: Report) -> None:
    assert not report.wrong


def test_every_number_is_near_the_truth(report: Report) -> None:
    print(f"\n{report.rows} rows, {report.intervals} intervals, {len(report.false)} false")
    for column, error in sorted(report.largest.items()):
        print(f"{column:<24}{error:.1e}")
    assert all(math.isfinite(error) for error in report.largest.values())
    over = {c: e for c, e in report.largest.items() if e > LIMITS.get(c, LIMIT)}
    assert not over
