"""The noise floor of updates whose merges were formed in the format of the weights."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from rankscope.checkpoints.contents import Adapter
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.components.recipes import Difference, Weight
from rankscope.metrics import numerical_rank
from rankscope.spectra.matrices import Dense
from rankscope.spectra.rounding import rounding_of
from rankscope.spectra.singular_values import spectrum

Matrix = NDArray[np.float64]
SHAPES = [(128, 128), (96, 256)]
SCALE = 1.7  # no power of two: the scaling of a product rounds as well


class Merged(NamedTuple):
    """A weight on disk before and after merges, and what they were meant to add."""

    earlier: Weight
    later: Weight
    added: Matrix

    def change(self, *, merges: int = 0, restarts: int = 0) -> Dense:
        matrix = Difference(self.later, self.earlier, merges, restarts).read()
        assert isinstance(matrix, Dense)
        return matrix

    def coverage(self, change: Dense) -> float:
        """Noise floor over the norm of the error that the merges made."""
        error = np.linalg.norm(np.asarray(change.values) - self.added, 2)
        return change.rounding.floor / float(error)


def merged(
    folder: Path,
    rng: np.random.Generator,
    *,
    shape: tuple[int, int],
    rank: int,
    merges: int,
    size: float,
    dtype: torch.dtype = torch.float32,
) -> Merged:
    """Merge random adapters, each ``size`` times the norm of the weight, as a trainer in torch."""

    def random(rows: int, columns: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(rows, columns)))

    weight = random(*shape)
    weight = now = (weight / torch.linalg.matrix_norm(weight, 2)).to(dtype)
    added = np.zeros(shape)
    for _ in range(merges):
        left, right = random(shape[0], rank), random(rank, shape[1])
        left *= size / SCALE / torch.linalg.matrix_norm(left @ right, 2)
        left, right = left.to(dtype), right.to(dtype)
        now = now + left @ right * SCALE
        added += SCALE * (left.double() @ right.double()).numpy()
    tensors = {"before": weight, "after": now}
    fresh = {"A": random(rank, shape[1]).to(dtype), "B": torch.zeros(shape[0], rank, dtype=dtype)}
    save_file(tensors | fresh, folder / "model.safetensors")
    found = open_tensors(folder / "model.safetensors")
    adapter = Adapter(found["A"], found["B"], SCALE)
    return Merged(Weight(found["before"], adapter), Weight(found["after"], adapter), added)


@pytest.mark.parametrize("rank", [4, 16, 64])
@pytest.mark.parametrize("merges", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.slow
def test_the_floor_of_float32_merges_gives_the_true_rank(
    rank: int, merges: int, shape: tuple[int, int], tmp_path: Path, rng: np.random.Generator
) -> None:
    for size in (10.0, 1.0, 0.1, 0.01):
        one = merged(tmp_path, rng, shape=shape, rank=rank, merges=merges, size=size)
        change = one.change(restarts=merges)
        assert 1 < one.coverage(change) < 3.5
        found = spectrum(change)
        assert numerical_rank(found.lower, found.noise_floor) == min(rank * merges, *shape)
        assert found.noise_source == "storage"


@pytest.mark.parametrize("rank", [16, 64])
def test_what_storing_the_sums_leaves_does_not_cover_a_float32_product(
    rank: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    one = merged(tmp_path, rng, shape=(128, 128), rank=rank, merges=1, size=10.0)
    assert one.coverage(one.change(merges=1)) < 1 < one.coverage(one.change(restarts=1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rank", [4, 64])
def test_the_floor_covers_merges_in_narrower_formats(
    dtype: torch.dtype, rank: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    for size in (10.0, 1.0, 0.1):
        for merges in (1, 3):
            one = merged(
                tmp_path, rng, shape=(96, 128), rank=rank, merges=merges, size=size, dtype=dtype
            )
            change = one.change(restarts=merges)
            assert 1 < one.coverage(change) < 3.5
            found = spectrum(change)
            assert numerical_rank(found.lower, found.noise_floor) <= min(rank * merges, 96)


def test_a_merge_on_record_is_one_rounding_of_the_sum(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    one = merged(tmp_path, rng, shape=(32, 48), rank=4, merges=1, size=1.0)
    before, after = (weight.tensor.read() for weight in (one.earlier, one.later))
    stored = [rounding_of(values, "float32") for values in (after, before)]
    for merges in (1, 3):
        expected = stored[0] * merges + stored[1]
        assert one.change(merges=merges).rounding.floor == expected.floor


def test_an_unrecorded_change_of_a_frozen_weight_counts_as_a_merge(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    one = merged(tmp_path, rng, shape=(32, 48), rank=16, merges=1, size=1.0)
    assert one.change().rounding.floor == one.change(restarts=1).rounding.floor
    assert one.change().rounding.floor > one.change(merges=1).rounding.floor


def test_a_weight_without_an_adapter_had_no_product_merged(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    one = merged(tmp_path, rng, shape=(32, 48), rank=16, merges=1, size=1.0)
    plain = Merged(Weight(one.earlier.tensor), Weight(one.later.tensor), one.added)
    assert plain.change(restarts=1).rounding.floor == one.change(merges=1).rounding.floor
    # Trained in full before it was frozen: no merge yet.
    begun = Merged(Weight(one.earlier.tensor), one.later, one.added)
    assert begun.change().rounding.floor == one.change(merges=1).rounding.floor
    assert begun.change(restarts=1).rounding.floor == one.change(restarts=1).rounding.floor
