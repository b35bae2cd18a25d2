"""What a checkpoint lacks that the one before it had, and the other way round."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.continuity import gaps
from rankscope.checkpoints.discovery import open_run
from tests.conftest import random_factors, random_weights, write_adapter, write_model

STEPS = {"weights": 10, "adapters": 20}


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A model, and then adapters without their base."""
    write_model(tmp_path / "checkpoint-10", random_weights(rng))
    write_adapter(tmp_path / "checkpoint-20", random_factors(rng), scale=2.0)
    return tmp_path


def gaps_between(run: Path, first: str, second: str) -> list[Skip]:
    earlier, later = (open_run(run)[STEPS[kind]].contents for kind in (first, second))
    steps = (f"step {STEPS[first]}", f"step {STEPS[second]}")
    return list(gaps(earlier, later, held=(), path="", steps=steps, has=lambda _: True))


@pytest.mark.parametrize("order", [("weights", "adapters"), ("adapters", "weights")])
def test_adapters_alone_beside_weights_are_a_gap_that_is_named(
    order: tuple[str, str], run: Path
) -> None:
    (skip,) = gaps_between(run, *order)
    assert skip.reason == "adapters-alone"
    assert skip.message.startswith("step 20 holds adapters without their weights, and step 10")


@pytest.mark.parametrize("kind", STEPS)
def test_two_of_a_kind_have_no_gap(kind: str, run: Path) -> None:
    assert not gaps_between(run, kind, kind)


def test_the_gap_is_a_skip_of_the_analysis(run: Path) -> None:
    import rankscope as rs

    with pytest.warns(rs.RankscopeWarning) as lines:
        table = rs.analyze(run, components=["update"], jobs=1)
    shutil.rmtree(run)
    assert table.empty and any("there is no update from one to the other" in str(w) for w in
                               [line.message for line in lines])  # fmt: skip
