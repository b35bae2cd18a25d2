"""Which two changes the cosine of an update is of, compared with the files themselves."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from rankscope.analysis.analyzed import Analysis
from tests.analysis.series import SHAPES, analysed, weights, write_step
from tests.conftest import MODULES, TinyRun, random_factors, write_adapter

NAME = "layers.0.mlp.up_proj.weight"


def found(analysis: Analysis, name: str = NAME) -> dict[int, float | None]:
    """Cosine by step, of the updates of a matrix."""
    rows = [row for row in analysis.rows if row["name"] == name and row["component"] == "update"]
    return {row["step"]: row["update_cosine"] for row in rows}


def cosine(one: ArrayLike, shared: ArrayLike, other: ArrayLike) -> float:
    """Of the two changes between three states."""
    a, b, c = (np.asarray(state, np.float64) for state in (one, shared, other))
    before, change = b - a, c - b
    return float((before * change).sum() / np.linalg.norm(before) / np.linalg.norm(change))


@pytest.fixture
def states(tmp_path: Path, rng: np.random.Generator) -> dict[int, dict[str, NDArray[np.float32]]]:
    """A series of four checkpoints in ``tmp_path``."""
    written = {step: weights(rng) for step in (100, 200, 300, 400)}
    for step, state in written.items():
        write_step(tmp_path, step, state)
    return written


def test_an_update_is_compared_with_the_one_that_ends_where_it_begins(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    rows = found(analysed(tmp_path, "update"))
    w = {step: state[NAME] for step, state in states.items()}
    assert rows == {
        200: None,
        300: pytest.approx(cosine(w[100], w[200], w[300]), abs=1e-12),
        400: pytest.approx(cosine(w[200], w[300], w[400]), abs=1e-12),
    }


def test_only_requested_steps_count(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    rows = found(analysed(tmp_path, "update", steps=(200, None, 100)))
    w = [states[step][NAME] for step in (200, 300, 400)]
    assert rows == {300: None, 400: pytest.approx(cosine(*w), abs=1e-12)}


def test_a_step_that_lacks_a_matrix_is_crossed_by_both_windows(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    for step in (200, 300):
        held = {name: w for name, w in states[step].items() if step == 300 or name != NAME}
        write_step(tmp_path, step, held)
    rows = found(analysed(tmp_path, "update"))
    w = [states[step][NAME] for step in (100, 300, 400)]
    assert rows == {300: None, 400: pytest.approx(cosine(*w), abs=1e-12)}


def test_a_gap_does_not_end_what_came_before_it(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    write_step(tmp_path, 300, {name: w for name, w in states[300].items() if name != NAME})
    rows = found(analysed(tmp_path, "update"))
    w = [states[step][NAME] for step in (100, 200, 400)]
    assert rows == {200: None, 400: pytest.approx(cosine(*w), abs=1e-12)}


def test_no_cosine_crosses_a_break(tmp_path: Path, rng: np.random.Generator) -> None:
    larger = {name: (2 * rows, 2 * cols) for name, (rows, cols) in SHAPES.items()}
    for step in range(100, 700, 100):
        write_step(tmp_path, step, weights(rng, SHAPES if step < 400 else larger))
    rows = found(analysed(tmp_path, "update"))
    assert {step: value is not None for step, value in rows.items()} == {
        200: False,
        300: True,
        500: False,
        600: True,
    }


def test_other_components_have_none(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    analysis = analysed(tmp_path, "weight", "cumulative_update", "gradient")
    assert {row["update_cosine"] for row in analysis.rows} == {None}


@pytest.mark.parametrize("windows", ["steps", "cycles"])
def test_across_restarts_it_is_that_of_the_weights_that_the_model_uses(
    relora_run: TinyRun, windows: str
) -> None:
    rows = analysed(relora_run.path, "update", windows=windows)  # type: ignore[arg-type]
    module = next(iter(MODULES))
    name = f"{module}.weight"
    effective = {
        step: state[name].astype(np.float64) + relora_run.delta(step, module)
        for step, state in relora_run.weights.items()
    }
    expected = {10: None, 20: (0, 10, 20), 30: (10, 20, 30)}
    steps = (10, 20) if windows == "cycles" else (10, 20, 30)
    assert found(rows, name) == {
        step: (at := expected[step])
        and pytest.approx(cosine(*(effective[one] for one in at)), abs=1e-12)
        for step in steps
    }


def test_adapters_without_their_base_have_one(tmp_path: Path, rng: np.random.Generator) -> None:
    factors = {step: random_factors(rng) for step in (1, 2, 3)}
    for step, pairs in factors.items():
        write_adapter(tmp_path / f"checkpoint-{step}", pairs, scale=3.0)
    module = next(iter(MODULES))
    analysis = analysed(tmp_path, "update")
    (name,) = {row["name"] for row in analysis.rows if module in row["name"]}
    products = [left @ right for left, right in (factors[step][module] for step in (1, 2, 3))]
    assert found(analysis, name) == {2: None, 3: pytest.approx(cosine(*products), abs=1e-12)}


def test_a_checkpoint_that_is_damaged_in_one_tensor_costs_one_cosine(
    tmp_path: Path, states: dict[int, dict[str, NDArray[np.float32]]]
) -> None:
    spoilt = dict(states[100]) | {NAME: np.full_like(states[100][NAME], np.nan)}
    write_step(tmp_path, 100, spoilt)
    analysis = analysed(tmp_path, "update")
    rows = [row for row in analysis.rows if row["name"] == NAME]
    assert [(row["status"], row["update_cosine"] is None) for row in rows] == [
        ("nonfinite", True),
        ("ok", True),
        ("ok", False),
    ]
