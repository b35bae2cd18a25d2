"""Successive changes of weights with adapters: their cosine, and what rounding adds to it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Adapter, KroneckerAdapter
from rankscope.checkpoints.tensors import InOneFile
from rankscope.components.consecutive import Consecutive
from rankscope.components.deltas import DeltaChange
from rankscope.components.recipes import Difference, Weight
from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import LowRank
from rankscope.spectra.spectrum import Cosine

Matrix = NDArray[Any]
M, N, R, SCALE = 60, 50, 4, 2.0


@dataclass(frozen=True, eq=False)
class Held(InOneFile):
    """A tensor in memory."""

    values: Matrix
    dtype: str = "float32"
    path: str = "file"
    name: str = "tensor"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self) -> Matrix:
        return self.values


@dataclass(frozen=True, eq=False)
class Lost(Held):
    reason: str = "damaged"

    def read(self) -> Matrix:
        raise RankscopeError("is damaged", path=self.path, reason=self.reason)


def bfloat16(values: Matrix) -> Matrix:
    """Rounded to nearest in eight significant bits."""
    exponents = np.frexp(values)[1] - 8
    return np.ldexp(np.rint(np.ldexp(values, -exponents)), exponents).astype(np.float32)


def adapter(left: Matrix, right: Matrix, scale: float | None = SCALE) -> Adapter:
    return Adapter(Held(right), Held(left), scale)


def cosine(*states: Weight | Adapter | KroneckerAdapter) -> Cosine | None:
    """Of three states."""
    kind: Any = Difference if isinstance(states[0], Weight) else DeltaChange
    before, change = (kind(states[i + 1], states[i]) for i in (0, 1))
    return getattr(Consecutive(change, before).read(), "cosine", None)


def moved(rng: np.random.Generator, values: Matrix, size: float) -> Matrix:
    return values + size * rng.normal(size=values.shape)


def walk(rng: np.random.Generator, shape: tuple[int, int], size: float) -> list[Matrix]:
    states = [rng.normal(size=shape)]
    return [*states, *(states := [moved(rng, states[0], size)]), moved(rng, states[0], size)]


def test_the_cosine_is_that_of_what_the_model_multiplies_with(rng: np.random.Generator) -> None:
    weights, lefts, rights = (walk(rng, s, 0.1) for s in ((M, N), (M, R), (R, N)))
    states = list(zip(weights, lefts, rights, strict=True))
    found = cosine(*(Weight(Held(w), adapter(b, a)) for w, b, a in states))
    effective = [w + SCALE * b @ a for w, b, a in states]
    one, other = effective[1] - effective[0], effective[2] - effective[1]
    true = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
    assert found is not None and abs(found.value - true) < found.error + 1e-13 < 1e-11


def test_frozen_weights_are_not_formed(rng: np.random.Generator) -> None:
    weight, lefts, rights = rng.normal(size=(M, N)), walk(rng, (M, R), 1), walk(rng, (R, N), 1)
    states = [Weight(Held(weight), adapter(b, a)) for b, a in zip(lefts, rights, strict=True)]
    change = Consecutive(Difference(*states[:0:-1]), Difference(*states[1::-1])).read()
    assert isinstance(change, LowRank) and change.cosine is not None
    bare = cosine(*(state.adapter for state in states if isinstance(state.adapter, Adapter)))
    assert bare is not None and change.cosine.value == pytest.approx(bare.value, abs=1e-12)
    assert change.cosine.bias == pytest.approx(bare.bias)


def test_the_rounding_of_frozen_weights_is_in_neither_change(rng: np.random.Generator) -> None:
    weight = bfloat16(rng.normal(size=(M, N)))
    factors = [walk(rng, (M, R), 0.1), walk(rng, (R, N), 0.1)]
    states = [Weight(Held(weight.copy()), adapter(b, a)) for b, a in zip(*factors, strict=True)]
    found = cosine(*states)
    assert found is not None and found.bias is not None and abs(found.bias) < 1e-12


@pytest.mark.parametrize("size", [0.02, 0.003])
def test_the_bias_of_an_adapter_is_that_of_its_rounded_factors(
    rng: np.random.Generator, size: float
) -> None:
    """Simulated: B and A move independently, 20 times over."""
    cosines, biases = [], []
    for _ in range(20):
        exact = [walk(rng, (M, R), size), walk(rng, (R, N), size)]
        factors = [[bfloat16(values) for values in side] for side in exact]
        found = cosine(*(adapter(b, a) for b, a in zip(*factors, strict=True)))
        unrounded = cosine(*(adapter(b, a) for b, a in zip(*exact, strict=True)))
        assert found is not None and unrounded is not None and found.bias is not None
        cosines.append(found.value - unrounded.value)
        biases.append(found.bias)
    spread = np.std(cosines) / 20**0.5
    assert np.mean(biases) < -0.005
    assert np.mean(cosines) == pytest.approx(np.mean(biases), abs=4 * spread)


def test_the_biases_of_weight_and_adapter_add_up(rng: np.random.Generator) -> None:
    weights = [bfloat16(values) for values in walk(rng, (M, N), 0.01)]
    lefts = [bfloat16(values) for values in walk(rng, (M, R), 0.01)]
    rights = [bfloat16(values) for values in walk(rng, (R, N), 0.01)]
    whole = [Weight(Held(w), adapter(b, a)) for w, b, a in zip(weights, lefts, rights, strict=True)]
    alone = [Weight(Held(w)) for w in weights]
    bare = [adapter(b, a) for b, a in zip(lefts, rights, strict=True)]

    def numerator(found: Cosine | None, states: list[Matrix]) -> float:
        assert found is not None and found.bias is not None
        return found.bias * float(np.prod([np.linalg.norm(d) for d in np.diff(states, axis=0)]))

    deltas = [SCALE * b.astype(float) @ a for b, a in zip(lefts, rights, strict=True)]
    sums = [w + d for w, d in zip(weights, deltas, strict=True)]
    parts = numerator(cosine(*alone), weights) + numerator(cosine(*bare), deltas)
    assert numerator(cosine(*whole), sums) == pytest.approx(parts, rel=1e-5)


def test_a_restart_has_the_rounding_of_the_old_adapter(rng: np.random.Generator) -> None:
    """W is merged into and new factors begin: what was rounded is the adapter before the merge."""
    weight = rng.normal(size=(M, N)).astype(np.float32)
    left, right = walk(rng, (M, R), 0.5), walk(rng, (R, N), 0.5)
    left, right = ([bfloat16(values) for values in side] for side in (left, right))
    merged = (weight + SCALE * left[1].astype(float) @ right[1]).astype(np.float32)
    fresh = bfloat16(rng.normal(size=(M, R))), bfloat16(rng.normal(size=(R, N)))
    found = cosine(
        Weight(Held(weight), adapter(left[0], right[0])),
        Weight(Held(weight), adapter(left[1], right[1])),
        Weight(Held(merged), adapter(*fresh)),
    )
    assert found is not None and found.bias is not None
    errors = []
    for _ in range(200):  # rounding that the factors of that adapter may have had
        off = [
            np.ldexp(rng.uniform(-0.5, 0.5, x.shape), np.frexp(x)[1] - 8)
            for x in (left[1], right[1])
        ]
        error = SCALE * (off[0] @ right[1] + left[1] @ off[1])
        errors.append((error**2).sum())
    changes = (
        SCALE * (left[1].astype(float) @ right[1] - left[0].astype(float) @ right[0]),
        merged
        + SCALE * fresh[0].astype(float) @ fresh[1]
        - weight
        - SCALE * left[1].astype(float) @ right[1],
    )
    norms = np.prod([np.linalg.norm(change) for change in changes])
    assert found.bias == pytest.approx(-np.mean(errors) / norms, rel=0.02)


def test_where_the_rounding_is_not_known_the_cosine_has_no_bias(rng: np.random.Generator) -> None:
    exact = walk(rng, (M, N), 0.01)
    coarse = [Weight(Held(bfloat16(values))) for values in exact]
    fine = [Weight(Held(values.astype(np.float32))) for values in exact]
    for states, is_known in (
        ([coarse[0], fine[1], coarse[2]], True),
        ([fine[0], coarse[1], fine[2]], False),
    ):
        found = cosine(*states)
        assert found is not None and (found.bias is not None) == is_known


def test_an_unknown_scale_changes_nothing(rng: np.random.Generator) -> None:
    sides = [[bfloat16(x) for x in walk(rng, s, 0.01)] for s in ((M, R), (R, N))]
    known, unknown = (
        cosine(*(adapter(b, a, scale) for b, a in zip(*sides, strict=True)))
        for scale in (SCALE, None)
    )
    assert known is not None and unknown == pytest.approx(known, rel=1e-9)


@pytest.mark.parametrize("reason", ["damaged", "gone"])
def test_a_damaged_earlier_checkpoint_costs_only_the_cosine(
    rng: np.random.Generator, reason: str
) -> None:
    first, second, third = (Weight(Held(values)) for values in walk(rng, (5, 4), 0.1))
    lost = first._replace(tensor=Lost(np.zeros((5, 4)), reason=reason))
    recipe = Consecutive(Difference(third, second), Difference(second, lost))
    if reason == "damaged":
        change = recipe.read()
        assert not isinstance(change, Adapter) and getattr(change, "cosine", None) is None
        assert change.shape == (5, 4)
    else:  # it may be there again next time
        with pytest.raises(RankscopeError):
            recipe.read()


def test_kronecker_products_are_not_multiplied_out(rng: np.random.Generator) -> None:
    first, second = rng.normal(size=(2, 3)), walk(rng, (4, 2), 0.1)
    states = [KroneckerAdapter(Held(first), Held(values), 1.0) for values in second]
    assert cosine(*states) is None


def test_every_tensor_is_read_from_one_list(rng: np.random.Generator) -> None:
    states = [Weight(Held(values, name=str(i))) for i, values in enumerate(walk(rng, (5, 4), 1))]
    recipe = Consecutive(Difference(states[2], states[1]), Difference(states[1], states[0]))
    assert [tensor.name for tensor in recipe.tensors()] == ["2", "1", "0"]
