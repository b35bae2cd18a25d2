"""The published tables: their counts, and what can be checked of them from outside."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.errors import WrongSettingError
from rankscope.published import Table, weiss2025
from rankscope.scoring.blimp import PHENOMENA
from rankscope.statistics.published_rows import SHAPES
from tests.documents import ROOT

WIDTHS, LAYERS, HEADS, KV_HEADS, RANK = {"tiny": 96, "small": 384}, 12, 12, 4, 16
DOWN_HEIGHT = 4  # hidden over width


@pytest.mark.parametrize("table", get_args(Table))
def test_every_table_can_be_read(table: Table) -> None:
    rows = weiss2025(table)
    assert len(rows) >= 22
    assert {"model", "step"} & {*rows.columns}
    there = weiss2025(table, model="relora", scale="tiny")
    assert 0 < len(there) < len(rows)
    assert set(there["model"]) == {"relora"}


@pytest.mark.parametrize("settings", [{"scale": "large"}, {"model": "gpt"}])
def test_an_unknown_choice_is_refused(settings: dict[str, str]) -> None:
    with pytest.raises(WrongSettingError, match="choose from"):
        weiss2025("blimp", **settings)  # type: ignore[arg-type]
    with pytest.raises(WrongSettingError, match=r"unknown `table` 'nothing'"):
        weiss2025("nothing")  # type: ignore[arg-type]


def test_the_package_holds_every_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["rankscope"]
    package = Path(str(files("rankscope")))
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {package / "published" / "data" / f"{name}.csv" for name in get_args(Table)} <= packed


def initial(matrix: str, width: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian matrix as the study has it at step 0, formed by its own definition."""
    if matrix == "swiglu.w_2":
        return rng.normal(size=(width, DOWN_HEIGHT * width))
    size = width // HEADS
    value, output = rng.normal(size=(KV_HEADS, size, width)), rng.normal(size=(width, HEADS, size))
    return np.hstack([value[h * KV_HEADS // HEADS] @ output[:, h] for h in range(HEADS)])


@pytest.mark.parametrize("scale", WIDTHS)
@pytest.mark.parametrize("matrix", ["swiglu.w_2", "ov_circuit"])
def test_the_first_values_are_those_of_gaussian_matrices_of_the_scale(
    matrix: str, scale: str, rng: np.random.Generator
) -> None:
    """The scale of weights is corrected: their condition numbers tell tiny from small."""
    many = [initial(matrix, WIDTHS[scale], rng) for _ in range(LAYERS)]
    kind = "ov-published" if matrix == "ov_circuit" else "down"
    assert SHAPES[scale, kind] == many[0].shape  # type: ignore[index]
    values = [np.linalg.svd(one, compute_uv=False) for one in many]
    kappa = np.array([s[0] / s[-1] for s in values])
    rows = weiss2025("spectra").query(
        "step == 0 and layers == 'all' and metric == 'condition_number' and doubt == ''"
    )
    rows = rows[(rows["matrix"] == matrix) & (rows["scale"] == scale)]
    assert set(rows["model"]) == {"decoder", "relora"}
    assert rows["value"].nunique() == 1  # of one seed
    error = 4 * kappa.std() * np.sqrt(2 / LAYERS)
    assert rows["value"].iloc[0] == pytest.approx(kappa.mean(), abs=error)


def test_the_doubtful_ranks_exceed_what_the_adapters_allow() -> None:
    rows = weiss2025("spectra").query(
        "tensor == 'lora_update' and metric == 'per' and step == 20000"
    )
    short = np.array(
        [min(SHAPES[place]) for place in zip(rows["scale"], rows["role"], strict=True)]
    )
    limits = np.minimum(RANK / short, 1)
    assert (rows["value"] > limits).sum() >= 4
    assert (rows["doubt"] == "holds rounding noise").all()


def test_accuracies_are_the_means_of_their_paradigms() -> None:
    rows = weiss2025("blimp")
    wide = rows.pivot(index=["step", "model", "scale"], columns="group", values="value")
    paradigms = wide.filter(like="uid:").dropna()
    assert paradigms.shape[1] == 67
    np.testing.assert_allclose(paradigms.mean(axis=1), wide.loc[paradigms.index, "all"], atol=1e-6)
    phenomena = [group for group in wide if group.startswith("phenomenon:")]
    assert len(phenomena) == 12
    assert not {f"phenomenon:{name}" for name in PHENOMENA} & set(phenomena)
    structure = [
        *("animate_subject_passive", "animate_subject_trans", "causative", "drop_argument"),
        *("inchoative", "intransitive", "passive_1", "passive_2", "transitive"),
    ]
    np.testing.assert_allclose(
        paradigms[[f"uid:{name}" for name in structure]].mean(axis=1),
        wide.loc[paradigms.index, "phenomenon:argument_structure"],
        atol=1e-6,
    )


def test_the_figure_and_the_file_of_one_measure_agree() -> None:
    """Single numbers of the study against the last point of the curves."""
    curves, single = weiss2025("blimp"), weiss2025("scalars")
    ends = curves.query("group == 'all' and step == 20000").set_index(["model", "scale"])["value"]
    printed = single.query("metric == 'blimp_mean_step20000'").set_index(["model", "scale"])
    np.testing.assert_allclose(ends, printed["value"].reindex(ends.index), atol=1e-6)
    assert isinstance(rs.published.weiss2025("loss"), pd.DataFrame)
