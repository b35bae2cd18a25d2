"""What a Kronecker product changed by is formed only where both of its factors changed."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from rankscope.checkpoints.contents import KroneckerAdapter
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.deltas import DeltaChange
from rankscope.spectra.matrices import Dense, Kronecker, LowRank
from rankscope.spectra.singular_values import spectra
from tests.components.exact import exact, misses, singular_values

SCALE = 1.7
Write = Callable[..., Mapping[str, Tensor]]


@pytest.fixture
def on_disk(tmp_path: Path) -> Write:
    def write(first: NDArray[Any], second: NDArray[Any]) -> Mapping[str, Tensor]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        factors = {"first": first, "second": second}
        save_file({k: torch.from_numpy(a).to(torch.float32) for k, a in factors.items()}, path)
        return dict(open_tensors(path))

    return write


def adapter(factors: Mapping[str, Tensor], scale: float | None = SCALE) -> KroneckerAdapter:
    return KroneckerAdapter(factors["first"], factors["second"], scale)


def written_out(factors: Mapping[str, Tensor]) -> NDArray[Any]:
    first, second = (exact(factors[k].read().astype(np.float64)) for k in ("first", "second"))
    height, width = (a * b for a, b in zip(first.shape, second.shape, strict=True))
    product = (first[:, None, :, None] * second[None, :, None, :]).reshape(height, width)
    return np.asarray(Fraction(SCALE) * product)


@pytest.mark.parametrize("size", [1.0, 1e-5])
@pytest.mark.parametrize(
    ("moved", "kind"), [("first", Kronecker), ("second", Kronecker), ("both", Dense)]
)
def test_a_change_is_one_kronecker_product_where_one_factor_stayed(
    moved: str, kind: type, size: float, on_disk: Write, rng: np.random.Generator
) -> None:
    parts = {"first": rng.normal(size=(4, 2)), "second": rng.normal(size=(3, 5))}
    after = {
        name: part + size * rng.normal(size=part.shape) * (moved in (name, "both"))
        for name, part in parts.items()
    }
    earlier, later = on_disk(**parts), on_disk(**after)
    matrix = DeltaChange(adapter(later), adapter(earlier)).read()
    assert isinstance(matrix, kind)
    (found,) = spectra(matrix)
    truth = singular_values(written_out(later) - written_out(earlier))
    assert not misses(found.lower, found.upper, truth)
    assert found.upper[0] - found.lower[0] < 1e-11 * found.values[0]
    assert found.noise_source == "storage" and found.significant_bits == 24


def test_a_kronecker_product_that_stayed_is_zero(on_disk: Write, rng: np.random.Generator) -> None:
    factors = on_disk(rng.normal(size=(4, 2)), rng.normal(size=(3, 5)))
    (found,) = spectra(DeltaChange(adapter(factors), adapter(factors)).read())
    assert found.status == "zero" and not found.upper.any()


def test_an_unknown_scale_leaves_a_change_without_norms(
    on_disk: Write, rng: np.random.Generator
) -> None:
    """A matrix alone has none to mark it as known up to its scale; a product has."""
    sizes = ((4, 2), (3, 5))
    earlier, later = (on_disk(*(rng.normal(size=s) for s in sizes)) for _ in range(2))
    both = DeltaChange(adapter(later, None), adapter(earlier, None)).read()
    assert isinstance(both, LowRank)
    one = DeltaChange(
        KroneckerAdapter(earlier["first"], later["second"], None), adapter(earlier, None)
    ).read()
    assert isinstance(one, Kronecker)
    assert not any(found.is_scaled for matrix in (both, one) for found in spectra(matrix))


def test_a_change_of_scale_is_a_change(on_disk: Write, rng: np.random.Generator) -> None:
    factors = on_disk(rng.normal(size=(4, 2)), rng.normal(size=(3, 5)))
    (found,) = spectra(DeltaChange(adapter(factors, 2 * SCALE), adapter(factors)).read())
    assert not misses(found.lower, found.upper, singular_values(written_out(factors)))
