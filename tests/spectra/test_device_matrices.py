"""Stored matrices on a device: the numbers that the processor finds, from the bytes of the file."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rankscope.spectra import device_changes, device_matrices
from rankscope.spectra import entries as entries_module
from rankscope.spectra.entries import sparsity
from rankscope.spectra.formats import format_of, narrowest
from rankscope.spectra.matrices import Dense
from rankscope.spectra.rounding import rounding_of
from rankscope.spectra.shared_rounding import shared_rounding
from rankscope.spectra.singular_values import spectrum, stack_spectra
from rankscope.spectra.torch_backend import TorchBackend
from tests.devices import DEVICES, torch

pytestmark = pytest.mark.parametrize("device", DEVICES)
Make = Callable[[np.random.Generator], np.ndarray]


def bfloat16(values: np.ndarray) -> np.ndarray:
    """Cut to the upper half of float32's bits."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def normal(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(30, 70)) * 0.02


def ended(values: np.ndarray) -> np.ndarray:
    values[-1, -1] += values.dtype.type(2.0**-20)
    return values


MATRICES: dict[str, tuple[str, Make]] = {
    "float64": ("float64", normal),
    "float32": ("float32", lambda rng: normal(rng).astype(np.float32)),
    "float32 in float64": ("float64", lambda rng: normal(rng).astype(np.float32).astype(float)),
    "float16": ("float16", lambda rng: normal(rng).astype(np.float16)),
    "float16 in float32": ("float32", lambda rng: normal(rng).astype(np.float16).astype("f4")),
    "subnormal float16": ("float16", lambda rng: (normal(rng) * 1e-4).astype(np.float16)),
    "eleven bits too small for float16": (
        "float32",
        lambda rng: normal(rng).astype(np.float16).astype("f4") * np.float32(2.0**-40),
    ),
    "eleven bits too large for float16": (
        "float32",
        lambda rng: (rng.integers(1024, 2048, (20, 30)) * 2.0**6).astype(np.float32),
    ),
    "eleven bits between the smallest of float16": (
        "float32",
        lambda rng: ((2 * rng.integers(0, 1024, (20, 30)) + 1) * 2.0**-25).astype(np.float32),
    ),
    "more bits at its end alone": ("float32", lambda rng: ended(np.ones((300, 300), np.float32))),
    "bfloat16": ("bfloat16", lambda rng: bfloat16(normal(rng))),
    "twelve bits": (
        "float32",
        lambda rng: (rng.integers(2048, 4096, (20, 30)) * 2.0**-14).astype(np.float32),
    ),
    "bfloat16 in float32": ("float32", lambda rng: bfloat16(normal(rng))),
    "rows that differ in scale": (
        "float32",
        lambda rng: (normal(rng) * np.geomspace(1e-12, 1e12, 30)[:, None]).astype(np.float32),
    ),
    "huge float64": ("float64", lambda rng: normal(rng) * 1e300),
    "tiny float64": ("float64", lambda rng: normal(rng) * 1e-305),
    "tiny float32": ("float32", lambda rng: (normal(rng) * 1e-38).astype(np.float32)),
    "zero": ("float32", lambda rng: np.zeros((4, 6), np.float32)),
    "powers of two": ("float32", lambda rng: np.exp2(rng.integers(-3, 3, (9, 5))).astype("f4")),
    "one entry": ("float32", lambda rng: np.full((1, 1), 0.3, np.float32)),
    "one nonzero": ("bfloat16", lambda rng: np.eye(1, 9, 3, dtype=np.float32)),
}


def on_device(values: np.ndarray, dtype: str, device: str) -> Dense:
    tensor = torch.from_numpy(np.array(values)).to(device_matrices.TYPES[dtype])
    return device_matrices.stored(tensor.to(device), dtype)


@pytest.fixture(params=MATRICES)
def matrix(request: pytest.FixtureRequest, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    dtype, make = MATRICES[request.param]
    return make(rng), dtype


def test_rounding_and_sparsity_are_those_of_the_processor(
    matrix: tuple[np.ndarray, str], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries_module, "COUNTING_FROM", math.inf)  # the device sorts
    values, dtype = matrix
    found = on_device(values, dtype, device)
    expected = rounding_of(values, format_of(values, dtype))
    assert found.rounding.significant_bits == expected.significant_bits
    assert found.rounding.floor == pytest.approx(expected.floor, rel=2e-6, abs=0)
    held = device_matrices.held(torch.as_tensor(found.values))
    for error in (0.0, 1e-14 * float(np.abs(values).max()), float(np.abs(values).max())):
        entries, there = sparsity(values, error), device_matrices.sparsity(held, error)
        assert (there is None) == (entries is None)
        if entries is not None and there is not None:
            assert there == pytest.approx(entries, abs=1e-12)
        assert error or found.entries == there


def test_the_narrowest_format_is_that_of_the_processor(
    matrix: tuple[np.ndarray, str], device: str
) -> None:
    values, _ = matrix
    held = values if values.dtype == np.float64 else values.astype(np.float32)
    assert device_matrices.narrowest(torch.from_numpy(np.array(held)).to(device)) == narrowest(held)


def test_sums_of_powers_of_two_are_exact(device: str, rng: np.random.Generator) -> None:
    """By integers: 4**e of every entry, e within twelve powers of two."""
    values = np.exp2(rng.integers(-12, 0, (40, 60))) * rng.uniform(1, 2, (40, 60))
    found = on_device(values.astype(np.float32), "float32", device).rounding
    fours = [[4 ** (int(np.floor(np.log2(x))) + 12) for x in row] for row in values]
    unit = 2.0**-23 / found.unit  # in units of the largest power of two
    rows = np.array([sum(row) for row in fours], float) * (2.0**-12 * unit) ** 2 / 12
    columns = np.array([sum(column) for column in zip(*fours, strict=True)], float)
    assert (found.rows == rows).all()
    assert (found.columns == columns * (2.0**-12 * unit) ** 2 / 12).all()


def test_spectra_are_within_their_intervals(matrix: tuple[np.ndarray, str], device: str) -> None:
    values, dtype = matrix
    expected = spectrum(Dense.stored(values, dtype))
    (found,) = stack_spectra([on_device(values, dtype, device)], TorchBackend(device))
    assert (found.status, found.dtype) == (expected.status, expected.dtype)
    assert (found.lower <= expected.upper).all() and (expected.lower <= found.upper).all()
    assert found.noise_floor == pytest.approx(expected.noise_floor, rel=2e-6, abs=0)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_spectrum(
    wrong: float, device: str, rng: np.random.Generator
) -> None:
    values = normal(rng).astype(np.float32)
    values[2, 3] = wrong
    for dtype in ("float32", "bfloat16"):
        found = on_device(values, dtype, device)
        assert found.entries is None
        (one,) = stack_spectra([found], TorchBackend(device))
        assert one.status == "nonfinite"


def test_blocks_add_up(
    device: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = normal(rng).astype(np.float32)
    whole = on_device(values, "float32", device)
    monkeypatch.setattr(device_matrices, "BLOCK", 200)
    found = on_device(values, "float32", device)
    assert found.rounding.floor == pytest.approx(whole.rounding.floor, rel=1e-14)
    assert found.entries == pytest.approx(whole.entries, rel=1e-12)


def graded(
    rng: np.random.Generator, largest: float, smallest: float, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A matrix with the prescribed singular values, and these."""
    m, n = shape
    values = np.geomspace(largest, smallest, min(shape))
    left, _ = np.linalg.qr(rng.normal(size=(m, min(shape))))
    right, _ = np.linalg.qr(rng.normal(size=(n, min(shape))))
    return (left * values) @ right.T, values


@pytest.mark.parametrize("shape", [(60, 60), (90, 40), (40, 90)])
@pytest.mark.parametrize("smallest", [1e-4, 2e-6, 1e-12])
def test_every_route_encloses_prescribed_values(
    shape: tuple[int, int],
    smallest: float,
    device: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankscope.spectra.dense.INVERSE_FROM", 1)
    matrix, values = graded(rng, 1.0, smallest, shape)
    (found,) = stack_spectra([Dense.stored(matrix)], TorchBackend(device))
    assert found.route == {1e-4: "gram", 2e-6: "inverse", 1e-12: "qr-svd"}[smallest]
    formed = 8 * max(shape) * 2.0**-53  # the matrix itself was formed in float64
    assert (found.lower - formed <= values).all() and (values <= found.upper + formed).all()


@pytest.mark.parametrize("dtypes", [("float32",) * 3, ("bfloat16",) * 3, ("float64",) * 3])
@pytest.mark.parametrize("moved", [1e-5, 0.0])
def test_changes_are_those_of_the_processor(
    dtypes: tuple[str, ...], moved: float, device: str, rng: np.random.Generator
) -> None:
    """Not from our recipes: the cosine and the norms naively, in float64."""
    start = torch.from_numpy(normal(rng))
    steps = [torch.from_numpy(rng.normal(size=start.shape) * moved) for _ in range(2)]
    raw = [start, start + steps[0], start + steps[0] + steps[1]]
    first, shared, later = (
        values.to(device_matrices.TYPES[dtype]) for values, dtype in zip(raw, dtypes, strict=True)
    )
    states = [
        device_changes.State.stored(values.to(device), dtype)
        for values, dtype in zip((later, shared, first), dtypes, strict=True)
    ]
    found = device_changes.change_of(states, dtypes[0])
    change, before = (
        one.double().numpy()
        for one in (later.double() - shared.double(), shared.double() - first.double())
    )
    assert torch.equal(torch.as_tensor(found.values).cpu(), torch.from_numpy(change))
    assert found.before is not None
    assert abs(found.before.value - np.linalg.norm(shared.double().numpy())) <= found.before.error
    if not moved:
        assert found.cosine is None
        return
    sizes = np.linalg.norm(change), np.linalg.norm(before)
    assert found.cosine is not None
    assert found.cosine.value == pytest.approx(
        (change * before).sum() / sizes[0] / sizes[1], abs=1e-12
    )
    u, count = 2.0**-53, change.size
    assert found.error == pytest.approx(u * sizes[0], rel=1e-6, abs=0)
    of_norms = count / 2 + 4 + 1  # and what forming the changes rounded
    assert found.cosine.error == pytest.approx(
        (count + 8 + 2 * 2.1 * of_norms) * u, rel=1e-6, abs=0
    )
    held = [
        one.double().numpy() if dtypes[0] == "float64" else one.float().numpy()
        for one in (later, shared, first)
    ]
    kinds = [format_of(one, dtypes[0]) for one in held]
    bias = shared_rounding(held[2], held[1], held[0], kinds[1])
    assert found.cosine.bias == pytest.approx(bias / sizes[0] / sizes[1], rel=1e-9)
    assert found.entries == pytest.approx(sparsity(change, float(u * sizes[0])), abs=1e-12)
    rounding = rounding_of(held[0], kinds[0]) + rounding_of(held[1], kinds[1])
    assert found.rounding.floor == pytest.approx(rounding.floor, rel=2e-6, abs=0)


@pytest.mark.parametrize("unit", [1e-307, 1.0, 1e307])
@pytest.mark.parametrize("beside", [[], [np.nan], [np.inf, -np.inf]])
def test_norms_are_those_of_the_finite_entries(
    unit: float, beside: list[float], device: str
) -> None:
    finite = [3.0 * unit, -4.0 * unit, 12.0 * unit]
    values = torch.tensor([finite + beside], dtype=torch.float64, device=device)
    found = device_changes.norm_of(values)
    assert abs(found.value - math.hypot(*finite)) <= found.error < 1e-14 * found.value


def test_a_state_of_fewer_bits_than_its_neighbours_leaves_the_bias_open(
    device: str, rng: np.random.Generator
) -> None:
    """As on the processor: `rankscope.components.consecutive`."""
    first, later = (normal(rng).astype(np.float32) for _ in range(2))
    for shared, bias in ((bfloat16(first), None), (np.zeros_like(first), 0.0)):
        states = [
            device_changes.State.stored(torch.from_numpy(values).to(device), "float32")
            for values in (later, shared, first)
        ]
        cosine = device_changes.change_of(states, "float32").cosine
        assert cosine is not None and cosine.bias == bias
