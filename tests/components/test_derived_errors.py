"""Weights and deltas that are computed from several tensors carry the rounding of each of them."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from rankscope.checkpoints.account import roots
from rankscope.checkpoints.adapters.composed_tensors import (
    KhatriRao,
    PlusSparse,
    Product,
    ScaledRows,
)
from rankscope.checkpoints.contents import Adapter, KroneckerAdapter
from rankscope.checkpoints.derived import Masked, Normalised, SpectrallyNormalised
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.deltas import DeltaChange, Rescaling
from rankscope.components.recipes import Difference, Products, Recipe, Weight
from rankscope.spectra.singular_values import spectra
from rankscope.spectra.spectrum import Spectrum
from tests.components.exact import exact, misses, singular_values

M, N, R = 12, 10, 2
ALPHA = 1.5
Parts = Mapping[str, NDArray[Any]]
SHAPES = {
    "W": (M, N), "B": (M, R), "A": (R, N), "d": (R,), "b": (M,), "B2": (M, R), "A2": (R, N),
    "first": (4, 2), "second": (3, 5), "left": (3, R), "right": (R, 5), "rows": (M, 1),
    "columns": (1, N), "u": (M,), "v": (N,), "mask": (M, N), "soft": (M, N), "values": (7,),
}  # fmt: skip
PLACES = [3, 17, 29, 44, 60, 88, 119]


def root(x: Fraction) -> Fraction:
    """Square root to 80 digits."""
    with mpmath.workdps(90):
        value = mpmath.sqrt(mpmath.mpf(x.numerator) / x.denominator)
        return Fraction(int(value * mpmath.mpf(10) ** 80), 10**80)


def norms(matrix: NDArray[Any], axis: int) -> NDArray[Any]:
    """Norms of the rows (1) or columns (0), to divide by."""
    sums = (matrix * matrix).sum(axis=axis)
    found = np.array([root(x) for x in sums], dtype=matrix.dtype)
    return found[:, None] if axis == 1 else found[None, :]


def sparse(p: Parts) -> NDArray[Any]:
    found = np.zeros(M * N, dtype=p["values"].dtype)
    found = found + p["values"][0] * 0
    found[PLACES] = p["values"]
    return found.reshape(M, N)


def hadamard(p: Parts) -> NDArray[Any]:
    return (p["B"] @ p["A"]) * (p["B2"] @ p["A2"])


def kron(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    height, width = (a * b for a, b in zip(first.shape, second.shape, strict=True))
    return (first[:, None, :, None] * second[None, :, None, :]).reshape(height, width)


def weight(tensor: Tensor, *adapter: Any) -> Recipe:
    return Weight(tensor, *adapter)


# A recipe for stored parts, and the same matrix written out.
KINDS: dict[str, tuple[Callable[[Mapping[str, Tensor]], Recipe], Callable[[Parts], Any]]] = {
    "a weight that is a product": (
        lambda t: weight(Product(t["B"], t["A"], ALPHA)),
        lambda p: Fraction(ALPHA) * (p["B"] @ p["A"]),
    ),
    "a product under an adapter": (
        lambda t: weight(Product(t["B2"], t["A2"]), Adapter(t["A"], t["B"], ALPHA)),
        lambda p: p["B2"] @ p["A2"] + Fraction(ALPHA) * (p["B"] @ p["A"]),
    ),
    "a product with sparse entries": (
        lambda t: weight(PlusSparse(Product(t["B"], t["A"], ALPHA), t["places"], t["values"])),
        lambda p: Fraction(ALPHA) * (p["B"] @ p["A"]) + sparse(p),
    ),
    "AdaLoRA": (
        lambda t: Products((Adapter(ScaledRows(t["A"], t["d"]), t["B"], ALPHA),)),
        lambda p: Fraction(ALPHA) * (p["B"] @ (p["d"][:, None] * p["A"])),
    ),
    "VeRA": (
        lambda t: Products((Adapter(ScaledRows(t["A"], t["d"]), ScaledRows(t["B"], t["b"]), 1.0),)),
        lambda p: (p["b"][:, None] * p["B"]) @ (p["d"][:, None] * p["A"]),
    ),
    "LoHa": (
        lambda t: Products((
            Adapter(KhatriRao(t["A"], t["A2"], by_rows=True), KhatriRao(t["B"], t["B2"]), ALPHA),
        )),
        lambda p: Fraction(ALPHA) * hadamard(p),
    ),
    "LoKr": (
        lambda t: Products((KroneckerAdapter(t["first"], t["second"], ALPHA),)),
        lambda p: Fraction(ALPHA) * kron(p["first"], p["second"]),
    ),
    "LoKr of a product": (
        lambda t: Products((KroneckerAdapter(t["first"], Product(t["left"], t["right"]), ALPHA),)),
        lambda p: Fraction(ALPHA) * kron(p["first"], p["left"] @ p["right"]),
    ),
    "rows of LoKr": (
        lambda t: Products((KroneckerAdapter(t["first"], t["second"], ALPHA, (2, ((5, 1),))),)),
        lambda p: Fraction(ALPHA) * kron(p["first"], p["second"])[2:7],
    ),
    "LoKr on a weight": (
        lambda t: weight(t["W"], KroneckerAdapter(t["first"], t["second"], ALPHA)),
        lambda p: p["W"] + Fraction(ALPHA) * kron(p["first"], p["second"]),
    ),
    "DoRA": (
        lambda t: weight(t["W"], Adapter(t["A"], t["B"], ALPHA, t["rows"])),
        lambda p: dora(p, "rows", 1),
    ),
    "DoRA by columns": (
        lambda t: weight(t["W"], Adapter(t["A"], t["B"], ALPHA, t["columns"])),
        lambda p: dora(p, "columns", 0),
    ),
    "weight norm": (
        lambda t: weight(Normalised("w", t["W"], t["rows"])),
        lambda p: p["rows"] * p["W"] / norms(p["W"], 1),
    ),
    "part of weight norm": (
        lambda t: weight(
            Part(Normalised("w", t["W"], t["rows"]), Region.of((M, N)).part(4, ((4, 1),)))
        ),
        lambda p: (p["rows"] * p["W"] / norms(p["W"], 1))[4:8],
    ),
    "spectral norm": (
        lambda t: weight(SpectrallyNormalised("w", t["W"], t["u"], t["v"])),
        lambda p: p["W"] / (p["u"] @ p["W"] @ p["v"]),
    ),
    "pruning": (
        lambda t: weight(Masked("w", t["W"], t["mask"])),
        lambda p: p["W"] * p["mask"],
    ),
    "a soft mask": (
        lambda t: weight(Masked("w", t["W"], t["soft"])),
        lambda p: p["W"] * p["soft"],
    ),
}  # fmt: skip


# How much higher than what rounding brings a noise floor may be.
MOST = {"VeRA": 20, "LoHa": 8, "DoRA": 12, "DoRA by columns": 12, "weight norm": 8}


def dora(p: Parts, magnitude: str, axis: int) -> NDArray[Any]:
    total = p["W"] + Fraction(ALPHA) * (p["B"] @ p["A"])
    return np.asarray(p[magnitude] * total / norms(total, axis))


def made(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    parts = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    parts["mask"] = (parts["mask"] > 0).astype(np.float64)
    left, _, right = np.linalg.svd(parts["W"])
    parts["u"], parts["v"] = left[:, 0].copy(), right[0].copy()
    return parts


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., dict[str, Tensor]]:
    """Write arrays to a file in a format, rounded by torch, and list its tensors."""

    def write(dtype: torch.dtype, arrays: Parts) -> dict[str, Tensor]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        tensors = {k: torch.from_numpy(a).to(dtype) for k, a in arrays.items()}
        save_file(tensors | {"places": torch.tensor(PLACES)}, path)
        return dict(open_tensors(path))

    return write


def stored(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    return {k: t.read().astype(np.float64) for k, t in tensors.items() if k != "places"}


def fractions(parts: Parts) -> dict[str, NDArray[Any]]:
    return {name: exact(part) for name, part in parts.items()}


def only(recipe: Recipe) -> Spectrum:
    (found,) = spectra(recipe.read())
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_every_interval_holds_the_truth(
    kind: str,
    dtype: torch.dtype,
    on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:
    recipe, matrix = KINDS[kind]
    tensors = on_disk(dtype, made(rng))
    found = only(recipe(tensors))
    truth = singular_values(matrix(fractions(stored(tensors))))
    assert not misses(found.lower, found.upper, truth)
    assert found.upper[0] - found.lower[0] < 1e-11 * found.values[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_what_storing_the_parts_rounded_is_below_the_floor(
    kind: str,
    dtype: torch.dtype,
    on_disk: Callable[..., dict[str, Tensor]],
    rng: np.random.Generator,
) -> None:
    recipe, matrix = KINDS[kind]
    for _ in range(6):
        parts = made(rng)
        tensors = on_disk(dtype, parts)
        found = only(recipe(tensors))
        rounded = np.asarray(
            matrix(fractions(stored(tensors))) - matrix(fractions(parts)), np.float64
        )
        brought = float(np.linalg.norm(rounded, 2))
        assert found.noise_source == "storage"
        assert brought <= found.noise_floor <= MOST.get(kind, 16) * brought
        assert found.significant_bits == {torch.bfloat16: 8, torch.float16: 11}.get(dtype, 24)


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_knows_each_part_where_it_alone_is_coarse(
    kind: str, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    recipe, matrix = KINDS[kind]
    parts = made(rng)
    fine, coarse = (on_disk(dtype, parts) for dtype in (torch.float64, torch.bfloat16))
    names = {one.name for tensor in recipe(fine).tensors() for one in roots(tensor)}
    for name in names - {"places", "mask"}:
        tensors = fine | {name: coarse[name]}
        found = only(recipe(tensors))
        rounded = matrix(fractions(stored(tensors))) - matrix(fractions(parts))
        brought = float(np.linalg.norm(np.asarray(rounded, np.float64), 2))
        assert found.significant_bits == 8 and found.noise_source == "storage"
        assert brought <= found.noise_floor <= 60 * brought


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_knows_a_part_whose_numbers_are_subnormal(
    kind: str, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    """The spacing of float16 is the same from 2**-14 to zero: such numbers have fewer bits."""
    recipe, matrix = KINDS[kind]
    parts = made(rng)
    fine = on_disk(torch.float64, parts)
    names = {one.name for tensor in recipe(fine).tensors() for one in roots(tensor)}
    for name in names - {"places", "mask", "u", "v"}:  # u and v have norm 1
        small = parts | {name: np.ldexp(parts[name], -20)}
        tensors = on_disk(torch.float64, small) | {name: on_disk(torch.float16, small)[name]}
        found = only(recipe(tensors))
        rounded = matrix(fractions(stored(tensors))) - matrix(fractions(small))
        brought = float(np.linalg.norm(np.asarray(rounded, np.float64), 2))
        assert brought <= found.noise_floor, name


CHANGES: dict[str, Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Recipe]] = {
    "of a product": lambda t, s: Difference(
        Weight(Product(s["B"], s["A"], ALPHA)), Weight(Product(t["B"], t["A"], ALPHA))
    ),
    "of LoHa": lambda t, s: DeltaChange(*(
        Adapter(KhatriRao(x["A"], x["A2"], by_rows=True), KhatriRao(x["B"], x["B2"]), ALPHA)
        for x in (s, t)
    )),
    "of LoKr": lambda t, s: DeltaChange(*(
        KroneckerAdapter(x["first"], x["second"], ALPHA) for x in (s, t)
    )),
    "of DoRA": lambda t, s: Difference(*(
        Weight(t["W"], Adapter(x["A"], x["B"], ALPHA, x["rows"])) for x in (s, t)
    )),
    "of weight norm": lambda t, s: Difference(*(
        Weight(Normalised("w", x["W"], x["rows"])) for x in (s, t)
    )),
    "of a product with sparse entries": lambda t, s: Difference(*(
        Weight(PlusSparse(Product(x["B"], x["A"]), t["places"], x["values"])) for x in (s, t)
    )),
}  # fmt: skip
WRITTEN_OUT: dict[str, Callable[[Parts], Any]] = {
    "of a product": KINDS["a weight that is a product"][1],
    "of LoHa": KINDS["LoHa"][1],
    "of LoKr": KINDS["LoKr"][1],
    "of DoRA": KINDS["DoRA"][1],
    "of weight norm": KINDS["weight norm"][1],
    "of a product with sparse entries": lambda p: p["B"] @ p["A"] + sparse(p),
}


@pytest.mark.parametrize("size", [1.0, 1e-4, 0.0])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_stays_in_its_intervals_or_is_zero(
    kind: str, size: float, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    before, more = made(rng), made(rng)
    frozen = ("W",) if kind == "of DoRA" else ()
    after = {k: a if k in frozen else a + size * more[k] for k, a in before.items()}
    tensors = [on_disk(torch.float32, parts) for parts in (before, after)]
    found = only(CHANGES[kind](*tensors))
    if not size:
        assert found.status == "zero"
        return
    earlier, later = (WRITTEN_OUT[kind](fractions(stored(t))) for t in tensors)
    assert not misses(found.lower, found.upper, singular_values(later - earlier))
    assert found.noise_source == "storage"


@pytest.mark.parametrize("magnitude", ["rows", "columns"])
def test_what_dora_changes_is_not_rounding_of_its_base(
    magnitude: str, on_disk: Callable[..., dict[str, Tensor]], rng: np.random.Generator
) -> None:
    """The base is what it is, to the model too: only the adapter's rounding is in the change."""
    parts = made(rng)
    base = on_disk(torch.bfloat16, parts)["W"]
    held = base.read().astype(np.float64)
    length = np.linalg.norm(held, axis=1 if magnitude == "rows" else 0, keepdims=True)
    tensors = on_disk(
        torch.float32, parts | {"rows": length, "columns": length, "B": 0 * parts["B"]}
    )
    untrained = only(
        Rescaling(base, Adapter(tensors["A"], tensors["B"], ALPHA, tensors[magnitude]))
    )
    assert untrained.values[0] < untrained.noise_floor < 1e-6 * np.linalg.norm(held, 2)
    tensors = on_disk(torch.float32, parts)
    adapter = Adapter(tensors["A"], tensors["B"], ALPHA, tensors[magnitude])
    found = only(Rescaling(base, adapter))
    p = fractions(stored(tensors)) | {"W": exact(held)}
    truth = dora(p, magnitude, 1 if magnitude == "rows" else 0) - p["W"]
    assert not misses(found.lower, found.upper, singular_values(truth))
