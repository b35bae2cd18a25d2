"""What the answer says of features: the numbers of the tables, with what they are of."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.report.answer_on_features import feature_sentences
from rankscope.report.methods import methods
from rankscope.results.columns import REPRESENTATIONS_FILE, SIMILARITIES_FILE
from rankscope.statistics.replicates import grouped
from tests.plots.made_features import alike, rankme, representations, similarities


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of results that `represent` alone wrote."""
    representations().to_parquet(tmp_path / REPRESENTATIONS_FILE)
    similarities().to_parquet(tmp_path / SIMILARITIES_FILE)
    return tmp_path


def test_results_of_features_alone_have_an_answer(folder: Path) -> None:
    ranks, similar, caution = rs.answer(folder)
    full, relora = (rankme(run, 200, 1) for run in ("full", "relora"))
    assert ranks == (
        f"After the last block, features of 64 tokens have RankMe {full:.1f} [{full - 0.5:.1f}, "
        f"{full + 0.5:.1f}] in full and {relora:.1f} [{relora - 0.5:.1f}, {relora + 0.5:.1f}] in "
        "relora at step 200, of 16 dimensions (15.5 for independent Gaussian features; in "
        "brackets, 95 % intervals over documents, which say nothing about other trainings)."
    )
    cka = alike(0, 1, 1, 2)
    assert f"{cka:.2f} [{cka - 0.01:.2f}, {cka + 0.01:.2f}] in full × relora;" in similar
    assert similar.startswith("At step 200, ") and "unbiased CKA" in similar
    assert caution.startswith("These are single runs")


def test_a_group_has_the_range_of_its_runs_and_no_interval() -> None:
    seeds = representations()
    seeds["run"] = "seed-" + seeds["run"]
    ranks, _ = feature_sentences(grouped(seeds, "(seed)"), similarities(), "step")
    low, high = (rankme(run, 200, 1) for run in ("full", "relora"))
    assert f"RankMe {low:.1f}–{high:.1f} in seed (2 runs)" in ranks and "[" not in ranks


def test_what_rounding_may_move_is_given_as_the_two_ends() -> None:
    ranks, _ = feature_sentences(representations(rankme_resolved=5.0), similarities(), "step")
    assert f"5.0–{rankme('full', 200, 1):.1f} in full" in ranks


def test_runs_that_read_other_tokens_are_not_compared_in_silence() -> None:
    table = representations()
    table.loc[table["run"] == "full", "probe"] = "q"
    ranks, _ = feature_sentences(table, similarities(), "step")
    assert "the runs read different tokens: do not compare them" in ranks


def test_a_run_without_a_number_is_not_passed_over_in_silence() -> None:
    table = representations()
    table.loc[table["run"] == "full", "rankme"] = np.nan
    ranks, _ = feature_sentences(table, similarities(), "step")
    assert ranks.endswith("; no number in full).") and "in relora at step" in ranks


def test_without_numbers_nothing_is_said() -> None:
    none = representations(rankme=np.nan)
    assert feature_sentences(none, similarities().iloc[:0], "step") == ["", ""]
    assert feature_sentences(none.iloc[:0], similarities().query("step < 0"), "step") == ["", ""]


def test_the_methods_describe_what_was_read(folder: Path) -> None:
    results = rs.open_results(folder)
    row = {"run": "full", "step": 0, "component": "weight", "name": "q"}
    vars(results)["metrics"] = pd.DataFrame([row])
    text = methods(results, {})
    vars(results)["representations"] = representations(tokens=pd.NA)
    assert not any("read" in paragraph for paragraph in methods(results, {}).paragraphs)
    assert any("read the same 64 tokens of novels" in paragraph for paragraph in text.paragraphs)
    keys = [reference.key for reference in text.references]
    assert keys[-2:] == ["Garrido et al. (2023)", "Kornblith et al. (2019)"]


def test_maps_are_turned_back_where_the_dark_page_inverts_its_figures() -> None:
    style = files("rankscope.report").joinpath("assets", "report.css").read_text("utf-8")
    dark = style[style.index("(prefers-color-scheme: dark)") :]
    assert dark.index(".drawing svg {") < dark.index(".drawing svg image { filter: invert(1)")
