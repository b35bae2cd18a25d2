"""Distances of models whose matrices, rotations and subspaces were planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from scipy.stats import ortho_group

import rankscope as rs
from rankscope.comparison.distances import COLUMNS, distances, random_overlap_deviation
from tests.conftest import MODULES, random_weights, write_adapter, write_model

Q = "model.layers.0.self_attn.q_proj"
UP = "model.layers.1.mlp.up_proj"


def value(table: pd.DataFrame, measure: str, name: str = Q, component: str = "weight") -> Any:
    rows = table[(table["measure"] == measure) & (table["component"] == component)]
    (found,) = rows[rows["name"].str.startswith(name)].itertuples()
    return found


def model(folder: Path, weights: dict[str, NDArray[Any]]) -> Any:
    write_model(folder, weights)
    (checkpoint,) = rs.open_run(folder)
    return checkpoint


def test_the_distance_and_the_cosine_are_those_of_the_definition(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    here, there = random_weights(rng), random_weights(rng)
    there[f"{UP}.weight"] = (here[f"{UP}.weight"] * 1.25).astype(np.float32)
    table, notes = distances(model(tmp_path / "a", here), model(tmp_path / "b", there))
    assert not notes
    assert table.columns.tolist() == list(COLUMNS)
    for name in (Q, UP):
        x, y = (one[f"{name}.weight"].astype(np.float64) for one in (here, there))
        far = value(table, "relative_distance", name)
        assert far.value == pytest.approx(np.sqrt(((x - y) ** 2).sum() / (x**2).sum()), rel=1e-12)
        cosine = value(table, "cosine", name)
        truth = (x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())
        assert cosine.value == pytest.approx(truth, abs=1e-14)
    assert value(table, "relative_distance", UP).value == pytest.approx(0.25, abs=1e-6)


def test_what_unrelated_matrices_give_is_what_is_stated(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    table, _ = distances(
        model(tmp_path / "a", random_weights(rng)), model(tmp_path / "b", random_weights(rng))
    )
    far = table[table["measure"] == "relative_distance"]
    np.testing.assert_allclose(far["value"], far["null"], rtol=0.15)
    close = table[table["measure"] == "cosine"]
    ratio = close["value"] / close["null_deviation"]
    assert abs((ratio**2).mean() - 1) < 3 * np.sqrt(2 / len(ratio))
    assert (close["null"] == 0).all()


def test_rounding_is_within_the_error(tmp_path: Path, rng: np.random.Generator) -> None:
    """Two models that are one before they are rounded to 8 bits."""
    exact = random_weights(rng)
    bits = {name: x.view(np.uint32) for name, x in exact.items()}
    up = {name: (x + 0x8000 & 0xFFFF0000).view(np.float32) for name, x in bits.items()}
    down = {name: (x & 0xFFFF0000).view(np.float32) for name, x in bits.items()}
    near = {name: np.where(rng.random(up[name].shape) < 0.5, up[name], down[name]) for name in up}
    table, _ = distances(model(tmp_path / "a", up), model(tmp_path / "b", near))
    far = table[table["measure"] == "relative_distance"]
    assert (far["value"] > 1e-4).all()
    assert (far["value"] <= far["error"]).all()


def test_changes_since_a_common_start_are_compared(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    start = random_weights(rng)
    change = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in start.items()}
    here = {name: x + change[name] for name, x in start.items()}
    there = {name: x - 0.5 * change[name] for name, x in start.items()}
    a, b = model(tmp_path / "a", here), model(tmp_path / "b", there)
    begun = model(tmp_path / "0", start)
    table, _ = distances(a, b, start=(begun, begun))
    opposite = table[table["component"] == "cumulative_update"]
    np.testing.assert_allclose(opposite["value"], -1, atol=1e-5)
    other = model(tmp_path / "1", random_weights(rng))
    table, _ = distances(a, b, start=(begun, other))
    assert set(table["component"]) == {"weight"}


def adapter(folder: Path, factors: dict[str, Any], *, rank: int, base: str) -> Any:
    write_adapter(folder, factors, scale=2.0, rank=rank)
    config = folder / "adapter_config.json"
    text = config.read_text()
    config.write_text(text[:-1] + f', "base_model_name_or_path": "{base}"}}')
    (checkpoint,) = rs.open_run(folder)
    return checkpoint


def turned(rank: int, size: int, angles: list[float], rng: np.random.Generator) -> Any:
    """Bases of two subspaces of ``rank`` dimensions at chosen principal angles."""
    axes = ortho_group.rvs(size, random_state=rng)
    first, rest = axes[:, :rank], axes[:, rank : 2 * rank]
    return first, first * np.cos(angles) + rest * np.sin(angles)


def test_overlaps_of_two_adapters_are_those_of_the_planted_angles(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    columns, rows = [0.0, 0.4, 1.1], [0.2, np.pi / 2, np.pi / 2]
    here, there = {}, {}
    for module, (m, n) in MODULES.items():
        (u, u2), (v, v2) = (turned(3, k, angles, rng) for k, angles in ((m, columns), (n, rows)))
        mix, mix2 = (rng.normal(size=(3, 3)) for _ in range(2))
        here[module] = (u @ mix, np.linalg.inv(mix) @ v.T)
        there[module] = (u2 @ mix2, 3 * np.linalg.inv(mix2) @ v2.T)
    a = adapter(tmp_path / "a", here, rank=3, base="org/base")
    b = adapter(tmp_path / "b", there, rank=3, base="org/base")
    table, notes = distances(a, b)
    assert not notes
    for module in (Q, UP):
        left, right = here[module]
        left2, right2 = there[module]
        for measure, first, second, planted in (
            ("column_overlap", left, left2, columns),
            ("row_overlap", right.T, right2.T, rows),
        ):
            found = value(table, measure, module, "adapter")
            truth = np.mean(np.cos(subspace_angles(first, second)) ** 2)
            assert truth == pytest.approx(np.mean(np.cos(planted) ** 2))
            assert abs(found.value - truth) <= found.error
            assert found.error < 1e-3
            assert found.null == pytest.approx(3 / len(first))
        x, y = left @ right, left2 @ right2
        truth = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
        assert value(table, "cosine", module, "adapter").value == pytest.approx(truth, abs=1e-6)


def test_a_small_subspace_within_a_large_one_overlaps_wholly(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    large = {
        module: (rng.normal(size=(m, 4)), rng.normal(size=(4, n)))
        for module, (m, n) in MODULES.items()
    }
    small = {module: (left[:, :1], right[:1]) for module, (left, right) in large.items()}
    a = adapter(tmp_path / "a", large, rank=4, base="org/base")
    b = adapter(tmp_path / "b", small, rank=1, base="org/base")
    for pair in ((a, b), (b, a)):
        table, _ = distances(*pair)
        found = value(table, "column_overlap", Q, "adapter")
        assert found.value == pytest.approx(1, abs=1e-6)
        assert found.null == pytest.approx(4 / MODULES[Q][0])


def test_adapters_on_different_bases_are_not_compared(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    factors = {
        module: (rng.normal(size=(m, 2)), rng.normal(size=(2, n)))
        for module, (m, n) in MODULES.items()
    }
    a = adapter(tmp_path / "a", factors, rank=2, base="org/base")
    b = adapter(tmp_path / "b", factors, rank=2, base="org/other")
    table, notes = distances(a, b)
    assert table.empty
    assert notes == [
        f"{len(MODULES)} matrices have adapters on different bases, which are not compared"
    ]


def test_other_shapes_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    here, there = random_weights(rng), random_weights(rng)
    there[f"{Q}.weight"] = there[f"{Q}.weight"][:, :8]
    del there[f"{UP}.weight"]
    _, notes = distances(model(tmp_path / "a", here), model(tmp_path / "b", there))
    assert notes == ["2 matrices are in one of the models only, or of different shapes"]


@pytest.mark.parametrize(("p", "q", "d"), [(1, 1, 6), (2, 3, 12), (4, 4, 8)])
def test_overlaps_of_random_subspaces_scatter_as_stated(
    p: int, q: int, d: int, rng: np.random.Generator
) -> None:
    many = np.linalg.qr(rng.normal(size=(4000, d, q)))[0]
    overlaps = (many[:, :p, :] ** 2).sum(axis=(1, 2))
    assert overlaps.mean() == pytest.approx(p * q / d, rel=0.05)
    assert overlaps.std() == pytest.approx(random_overlap_deviation(p, q, d), rel=0.07)
    assert [random_overlap_deviation(p, 0, d), random_overlap_deviation(0, q, d)] == [0, 0]
