import numpy as np
import pytest

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.merges import Merge, Merges, read_merge
from rankscope.components.component import Component, Moment
from rankscope.components.products import sum_of_products
from rankscope.components.selection import AT_CHECKPOINTS, AT_MERGES
from rankscope.components.windows import Window
from rankscope.spectra.matrices import Dense, LowRank
from tests.conftest import HEADS, KV_HEADS, MODULES, WIDTH, TinyRun

FIRST = next(iter(MODULES))


def components(
    run: TinyRun, component: str, step: int, previous: int | None = None, *, merges: int = 0
) -> dict[str, Component]:
    opened = open_run(run.path)
    before = None if previous is None else opened[previous].contents
    recorded = Merge(previous or 0, run.path, dict.fromkeys(MODULES))  # type: ignore[arg-type]
    window = None if previous is None else Window(previous, step, Merges((recorded,) * merges))
    moment = Moment(opened[step].contents, before, before, window, window)
    return {found.name: found for found in AT_CHECKPOINTS[component](moment)}


def dense(component: Component) -> np.ndarray:
    """The matrix itself, multiplied out if need be."""
    matrix = component.recipe.read()
    return matrix.multiplied() if isinstance(matrix, LowRank) else np.asarray(matrix.values)


def test_the_weight_is_the_frozen_one_plus_the_scaled_adapter(relora_run: TinyRun) -> None:
    found = components(relora_run, "weight", 20)
    for module in MODULES:
        expected = relora_run.weights[20][f"{module}.weight"] + relora_run.delta(20, module)
        assert dense(found[f"{module}.weight"]) == pytest.approx(expected, abs=1e-12)


def test_the_base_is_the_frozen_weight_alone(relora_run: TinyRun) -> None:
    found = components(relora_run, "base", 20)
    assert set(found) == {f"{module}.weight" for module in MODULES}
    assert (dense(found[f"{FIRST}.weight"]) == relora_run.weights[20][f"{FIRST}.weight"]).all()


def test_the_adapter_stays_factored(relora_run: TinyRun) -> None:
    recipe = components(relora_run, "adapter", 20)[f"{FIRST}.weight"].recipe
    matrix = recipe.read()
    assert isinstance(matrix, LowRank)
    assert matrix.multiplied() == pytest.approx(relora_run.delta(20, FIRST), abs=1e-12)


def test_an_update_is_the_difference_of_effective_weights(relora_run: TinyRun) -> None:
    for step, previous, merges in ((20, 10, 1), (30, 20, 1), (30, 10, 2)):
        found = components(relora_run, "update", step, previous, merges=merges)
        for module in MODULES:
            later, earlier = (
                relora_run.weights[s][f"{module}.weight"] + relora_run.delta(s, module)
                for s in (step, previous)
            )
            assert dense(found[f"{module}.weight"]) == pytest.approx(later - earlier, abs=1e-12)


def test_an_update_between_merges_is_known_from_the_factors(relora_run: TinyRun) -> None:
    matrix = components(relora_run, "update", 10, 0)[f"{FIRST}.weight"].recipe.read()
    assert isinstance(matrix, LowRank)
    assert matrix.inner == 2  # the adapter of step 0 is zero, and adds nothing
    assert matrix.multiplied() == pytest.approx(relora_run.delta(10, FIRST), abs=1e-12)


def test_updates_add_up_to_the_cumulative_update(relora_run: TinyRun) -> None:
    name = f"{FIRST}.weight"
    parts = [
        dense(components(relora_run, "update", later, earlier)[name])
        for earlier, later in ((0, 10), (10, 20), (20, 30))
    ]
    total = dense(components(relora_run, "cumulative_update", 30, 0)[name])
    assert np.sum(parts, axis=0) == pytest.approx(total, abs=1e-12)


def test_each_merge_in_between_adds_its_rounding(relora_run: TinyRun) -> None:
    floors = []
    for merges in (1, 4):
        found = components(relora_run, "update", 30, 10, merges=merges)
        matrix = found[f"{FIRST}.weight"].recipe.read()
        assert isinstance(matrix, Dense)
        floors.append(matrix.rounding.floor)
    assert 1 < floors[1] / floors[0] < 2


def test_each_head_reads_the_values_of_its_group(
    relora_run: TinyRun,
) -> None:
    found = components(relora_run, "ov", 20)["model.layers.1.self_attn.ov"]
    matrix = found.recipe.read()
    assert isinstance(matrix, LowRank) and found.heads == HEADS
    size, prefix = WIDTH // HEADS, "model.layers.1.self_attn"
    output, value = (
        relora_run.weights[20][f"{prefix}.{name}.weight"] + relora_run.delta(20, f"{prefix}.{name}")
        for name in ("o_proj", "v_proj")
    )
    products = matrix.multiplied()
    for head in range(HEADS):
        group = head // (HEADS // KV_HEADS)
        expected = (
            output[:, head * size : (head + 1) * size] @ value[group * size : (group + 1) * size]
        )
        assert products[head] == pytest.approx(expected, abs=1e-12)


def test_the_change_of_a_circuit_is_the_difference_of_the_products(relora_run: TinyRun) -> None:
    name = "model.layers.1.self_attn.ov"
    later, earlier = (
        components(relora_run, "ov", step)[name].recipe.read().multiplied()  # type: ignore[union-attr]
        for step in (20, 10)
    )
    found = components(relora_run, "ov_update", 20, 10)[name]
    matrix = found.recipe.read()
    assert isinstance(matrix, LowRank) and found.heads == HEADS
    assert matrix.inner == 2 * WIDTH // HEADS
    assert matrix.multiplied() == pytest.approx(later - earlier, abs=1e-12)
    assert components(relora_run, "ov_update", 20) == {}


def test_the_published_circuits_are_multiplied_the_other_way_round(relora_run: TinyRun) -> None:
    usual = components(relora_run, "ov", 20)["model.layers.0.self_attn.ov"].recipe.read()
    found = components(relora_run, "ov-published", 20)["model.layers.0.self_attn.ov"]
    assert isinstance(usual, LowRank) and found.heads == 0
    size = WIDTH // HEADS
    side_by_side = dense(found)
    assert side_by_side.shape == (size, HEADS * size)
    expected = usual.right[1] @ usual.left[1]
    assert side_by_side[:, size : 2 * size] == pytest.approx(expected, abs=1e-12)


def test_gradients_are_read_under_the_names_of_their_weights(relora_run: TinyRun) -> None:
    found = components(relora_run, "gradient", 10)
    assert set(found) == {f"{module}.weight" for module in MODULES}


def test_the_sum_of_merges_is_what_the_frozen_weight_gained(relora_run: TinyRun) -> None:
    merges = [read_merge(path) for path in open_run(relora_run.path).merge_files]
    assert [merge.step for merge in merges] == [10, 20]
    found = {c.name: c for c in AT_MERGES["merged_total"](merges, None)}
    for module in MODULES:
        name = f"{module}.weight"
        gained = relora_run.weights[30][name] - relora_run.weights[0][name].astype(np.float64)
        assert dense(found[name]) == pytest.approx(gained, abs=1e-5)
    last = {c.name: c for c in AT_MERGES["merge"](merges, None)}
    assert dense(last[f"{FIRST}.weight"]) == pytest.approx(relora_run.delta(20, FIRST))


def test_stacking_zero_terms_leaves_one() -> None:
    zero = LowRank(np.zeros((4, 2)), np.ones((2, 5)))
    assert sum_of_products([zero, zero]).inner == 2
    assert sum_of_products([zero, LowRank(np.ones((4, 1)), np.ones((1, 5)))]).inner == 1
