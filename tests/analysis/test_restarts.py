"""Merges that checkpoints count, from the folders to the matrices that are planned."""

import json
from pathlib import Path

import numpy as np
import pytest

from rankscope.analysis.plan import plan_run
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import open_run
from rankscope.components.consecutive import Consecutive
from rankscope.components.recipes import Difference
from tests.conftest import MODULES, random_factors, random_weights, write_model

SELECTION = Selection.of(components=["update", "cumulative_update"])


def write_run(path: Path, rng: np.random.Generator, restarts: dict[int, int]) -> None:
    for step, count in restarts.items():
        tensors = random_weights(rng)
        for module, (left, right) in random_factors(rng).items():
            tensors[f"{module}.lora_A.weight"] = right.astype(np.float32)
            tensors[f"{module}.lora_B.weight"] = left.astype(np.float32)
        folder = path / f"model_{step}"
        write_model(folder, tensors)
        (folder / "relora_config.json").write_text('{"r": 2, "lora_alpha": 4}')
        state = {"update_step": step, "n_lora_restarts": count}
        (folder / "training_state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("restarts", "updates", "total"),
    [
        ({1000: 0, 2000: 1, 3000: 3}, [1, 2], [1, 3]),
        ({1000: 4, 2000: 4, 3000: 5}, [0, 1], [0, 1]),
        ({1000: 3, 2000: 5, 3000: 2}, [2, 2], [2, 4]),  # resumed from step 2000
    ],
)
def test_updates_know_how_many_merges_they_span(
    restarts: dict[int, int], updates: list[int], total: list[int], tmp_path: Path,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    write_run(tmp_path, rng, restarts)
    plans = list(plan_run(open_run(tmp_path), SELECTION))
    for component, expected in (("update", updates), ("cumulative_update", total)):
        for plan, count in zip(plans[1:], expected, strict=True):
            found = [t.component for t in plan.tasks if t.component.kind == component]
            assert len(found) == len(MODULES)
            for one in found:
                recipe = one.recipe.change if isinstance(one.recipe, Consecutive) else one.recipe
                assert isinstance(recipe, Difference)
                assert (recipe.merges, recipe.restarts) == (0, count)
