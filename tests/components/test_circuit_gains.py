"""Gains, means and latent factors in circuits: spectra, intervals and floors from exact numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from rankscope.checkpoints.contents import GainedNorm
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.circuits import Circuits, CircuitsChange, Cut, Link
from rankscope.components.recipes import Weight
from rankscope.metrics import numerical_rank
from rankscope.spectra.singular_values import spectra
from tests.components.exact import Rational, exact, misses, singular_values

Matrix = NDArray[np.float64]
Arrays = Mapping[str, Matrix]
Write = Callable[..., dict[str, Tensor]]
COUNT, KV, SIZE, WIDTH = 4, 2, 3, 12
GROUP = COUNT // KV
FORMATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture
def on_disk(tmp_path: Path) -> Write:
    """Write arrays to a file in a format, gains in another, and list its tensors."""

    def write(
        arrays: Arrays, dtype: torch.dtype = torch.float64, gains: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        kinds = {name: gains or dtype if name.startswith("g") else dtype for name in arrays}
        save_file({k: torch.from_numpy(a.copy()).to(kinds[k]) for k, a in arrays.items()}, path)
        return dict(open_tensors(path))

    return write


def qk(found: Mapping[str, Tensor], *, offset: float = 0.0, is_centred: bool = False) -> Circuits:
    """The circuits of queries and keys with a norm after each, whose gain is ``gq`` or ``gk``."""
    norms = [
        GainedNorm(found[name], offset, is_centred) if name in found else None
        for name in ("gq", "gk")
    ]
    query = Link(Weight(found["q"]), Cut(COUNT, SIZE), norms[0], turned=True)
    return Circuits((query, Link(Weight(found["k"]), Cut(KV, SIZE), norms[1])), COUNT)


def latent(found: Mapping[str, Tensor], *, rank: int) -> Circuits:
    """The circuits of latent attention: queries of 3 + 1 entries, values of 2."""
    norms = GainedNorm(found["gq"]), GainedNorm(found["gk"])
    return Circuits(
        (
            Link(Weight(found["qa"]), Cut(1, found["qa"].shape[0]), norms[0], turned=True),
            Link(Weight(found["qb"]), Cut(COUNT, SIZE, step=SIZE + 1), turned=True),
            Link(Weight(found["kvb"]), Cut(COUNT, SIZE, step=SIZE + 2)),
            Link(Weight(found["kva"]), Cut(1, rank, step=rank + 1), norms[1]),
        ),
        COUNT,
    )


def arrays(rng: np.random.Generator, gain: int = SIZE) -> dict[str, Matrix]:
    of_all = gain != SIZE
    return {
        "q": rng.normal(size=(COUNT * SIZE, WIDTH)),
        "k": rng.normal(size=(KV * SIZE, WIDTH)),
        "gq": rng.normal(size=COUNT * SIZE if of_all else SIZE),
        "gk": rng.normal(size=KV * SIZE if of_all else SIZE),
    }


def latent_arrays(rng: np.random.Generator, q_rank: int, rank: int) -> dict[str, Matrix]:
    return {
        "qa": rng.normal(size=(q_rank, WIDTH)),
        "qb": rng.normal(size=(COUNT * (SIZE + 1), q_rank)),
        "kvb": rng.normal(size=(COUNT * (SIZE + 2), rank)),
        "kva": rng.normal(size=(rank + 1, WIDTH)),
        "gq": rng.normal(size=q_rank),
        "gk": rng.normal(size=rank),
    }


def defined(a: Arrays, head: int, *, offset: float = 0.0, is_centred: bool = False) -> Matrix:
    """The circuit of a head from its definition; of `Fraction` if the arrays are."""
    sides = []
    for name, index in (("q", head), ("k", head // GROUP)):
        rows, gain = slice(index * SIZE, (index + 1) * SIZE), a[f"g{name}"] + a["one"] * int(offset)
        by_head = len(gain) == SIZE
        side = a[name]
        if is_centred:
            span = a[name][rows] if by_head else a[name]
            side = side - sum(span) * a["one"] / (len(span) * a["one"])
        sides.append((gain if by_head else gain[rows])[:, None] * side[rows])
    return np.asarray(sides[0].T @ sides[1])


def defined_latent(a: Arrays, head: int) -> Matrix:
    """The circuit of latent attention, multiplied out from its definition."""
    rank = a["kvb"].shape[1]
    query = a["qb"][head * (SIZE + 1) :][:SIZE] @ (a["gq"][:, None] * a["qa"])
    key = a["kvb"][head * (SIZE + 2) :][:SIZE] @ (a["gk"][:, None] * a["kva"][:rank])
    return np.asarray(query.T @ key)


def exactly(found: Mapping[str, Tensor]) -> dict[str, Rational]:
    read = {name: exact(t.read().astype(np.float64)) for name, t in found.items()}
    return read | {"one": exact(np.ones((1, 1)))[0, 0]}


def test_circuits_have_the_spectra_that_were_prescribed(
    on_disk: Write, rng: np.random.Generator
) -> None:
    s = np.array([8.0, 1.0, 1e-9])
    a = arrays(rng)
    for group in range(KV):
        basis = np.linalg.qr(rng.normal(size=(WIDTH, SIZE)))[0]
        a["k"][group * SIZE :][:SIZE] = basis.T / a["gk"][:, None]
    for head in range(COUNT):
        basis = np.linalg.qr(rng.normal(size=(WIDTH, SIZE)))[0]
        a["q"][head * SIZE :][:SIZE] = (basis * s * (head + 1)).T / a["gq"][:, None]
    found = spectra(qk(on_disk(a)).read())
    assert len(found) == COUNT
    for head, one in enumerate(found):
        assert one.values == pytest.approx(s * (head + 1), rel=1e-5)
        assert one.max_rank == 3 and numerical_rank(one.lower, one.noise_floor) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gain", [SIZE, COUNT * SIZE])
@pytest.mark.parametrize(("offset", "is_centred"), [(0.0, False), (1.0, False), (0.0, True)])
def test_circuits_with_gains_stay_in_their_intervals(
    dtype: torch.dtype, gain: int, offset: float, is_centred: bool, on_disk: Write,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    found = on_disk(arrays(rng, gain), dtype)
    recipe = qk(found, offset=offset, is_centred=is_centred)
    assert recipe.fits
    for head, one in list(enumerate(spectra(recipe.read())))[2:3]:
        true = defined(exactly(found), head, offset=offset, is_centred=is_centred)
        assert not misses(one.lower, one.upper, singular_values(true))
        assert one.error < 1e-12


@pytest.mark.parametrize(("q_rank", "rank"), [(7, 5), (5, 2), (2, 7)])
def test_latent_circuits_stay_in_their_intervals_and_have_the_narrowest_rank(
    q_rank: int, rank: int, on_disk: Write, rng: np.random.Generator
) -> None:
    found = on_disk(latent_arrays(rng, q_rank, rank))
    recipe = latent(found, rank=rank)
    assert recipe.fits
    for head, one in list(enumerate(spectra(recipe.read())))[2:3]:
        assert one.max_rank == min(SIZE, q_rank, rank)
        true = singular_values(defined_latent(exactly(found), head))
        assert not misses(one.lower, one.upper, true)
        naive = np.linalg.svd(
            defined_latent({k: t.read() for k, t in found.items()}, head), compute_uv=False
        )
        assert one.values == pytest.approx(naive[: one.max_rank], rel=1e-9)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("gains", [None, "bfloat16"])
@pytest.mark.parametrize(("offset", "is_centred"), [(0.0, False), (1.0, False), (0.0, True)])
def test_the_floor_holds_the_rounding_of_every_part(
    dtype: str, gains: str | None, offset: float, is_centred: bool, on_disk: Write,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    a = arrays(rng) | {"one": np.float64(1)}
    a["gq"], a["gk"] = (a[name] * (0.05 if offset else 1) for name in ("gq", "gk"))
    stored = {name: values for name, values in a.items() if name != "one"}
    found = on_disk(stored, FORMATS[dtype], FORMATS[gains] if gains else None)
    recipe = qk(found, offset=offset, is_centred=is_centred)
    read = {name: t.read().astype(np.float64) for name, t in found.items()} | {"one": a["one"]}
    for head, one in enumerate(spectra(recipe.read())):
        now, true = (defined(x, head, offset=offset, is_centred=is_centred) for x in (read, a))
        error = np.linalg.norm(now - true, 2)
        assert error <= one.noise_floor <= 25 * error
        assert one.noise_source == "storage"
        assert one.significant_bits == {"float32": 24, "float16": 11, "bfloat16": 8}[gains or dtype]


def test_the_floor_of_latent_circuits_holds_the_rounding_of_every_part(
    on_disk: Write, rng: np.random.Generator
) -> None:
    a = latent_arrays(rng, 7, 5)
    found = on_disk(a, torch.bfloat16)
    read = {name: t.read().astype(np.float64) for name, t in found.items()}
    for head, one in enumerate(spectra(latent(found, rank=5).read())):
        error = np.linalg.norm(defined_latent(read, head) - defined_latent(a, head), 2)
        assert error <= one.noise_floor <= 40 * error


def test_a_gain_of_ones_is_not_taken_for_a_coarse_one(
    on_disk: Write, rng: np.random.Generator
) -> None:
    a = arrays(rng) | {"gq": np.ones(SIZE), "gk": np.ones(SIZE)}
    without = {name: a[name] for name in "qk"}
    for kinds in ((torch.float32, None), (torch.bfloat16, torch.float32)):
        for one, plain in zip(
            *(spectra(qk(on_disk(x, *kinds)).read()) for x in (a, without)), strict=True
        ):
            assert one.values == pytest.approx(plain.values, rel=1e-6)
            assert one.significant_bits == plain.significant_bits
            assert plain.noise_floor < one.noise_floor < 3 * plain.noise_floor


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_a_change_of_the_gain_alone_is_a_change_of_the_circuit(
    size: float, on_disk: Write, rng: np.random.Generator
) -> None:
    a = arrays(rng)
    b = a | {"gk": a["gk"] + size * rng.normal(size=SIZE)}
    before, after = on_disk(a), on_disk(b)
    changes = spectra(CircuitsChange(qk(after), qk(before)).read())
    for head, one in list(enumerate(changes))[2:3]:
        true = defined(exactly(after), head) - defined(exactly(before), head)
        assert not misses(one.lower, one.upper, singular_values(true))
        assert one.max_rank == 3 and one.error < 1e-12
    for one in spectra(CircuitsChange(qk(before), qk(on_disk(a))).read()):
        assert one.status == "zero"


def test_what_is_not_finite_costs_only_its_own_heads(
    on_disk: Write, rng: np.random.Generator
) -> None:
    a = arrays(rng)
    a["k"][0, 0] = np.nan
    found = spectra(qk(on_disk(a)).read())
    assert [one.status for one in found] == ["nonfinite"] * GROUP + ["ok"] * GROUP
    assert all(np.isfinite([one.error, one.noise_floor]).all() for one in found[GROUP:])
