import numpy as np
import pytest

from rankscope.spectra.bases import basis_of
from rankscope.spectra.intruders import TOP, Intruders, intruders_of
from rankscope.spectra.matrices import Dense
from tests.spectra.rotations import Matrix, orthonormal, pair

SHAPES = [(32, 32), (24, 48), (48, 24)]


def found(now: Matrix, before: Matrix, *, stored: str = "float64", most: int = 16) -> Intruders:
    dtype = np.dtype(stored)
    bases = [basis_of(Dense.stored(one.astype(dtype)), most) for one in (now, before)]
    assert bases[0] is not None and bases[1] is not None
    count = intruders_of(bases[0], bases[1])
    assert count is not None
    return count


def defined(now: Matrix, before: Matrix) -> int:
    """As PEFT defines it, on full decompositions."""
    u = [np.linalg.svd(one, full_matrices=False)[0] for one in (now, before)]
    return int((np.abs(u[1].T @ u[0][:, :TOP]).max(axis=0) < 0.5).sum())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spikes", [0, 1, 3])
def test_planted_spikes_are_counted(
    rng: np.random.Generator, shape: tuple[int, int], spikes: int
) -> None:
    before, _ = pair(rng, shape, np.linspace(3, 1, 24), {}, {})
    now = before.copy()
    for size in range(spikes):
        # A direction that is spread evenly over all that there were.
        left = np.linalg.svd(before)[0][:, :24] @ rng.choice([-1.0, 1.0], 24) / np.sqrt(24)
        now += (8 + size) * np.outer(left, orthonormal(rng, shape[1], 1))
    count = found(now, before)
    assert (count.certain, count.undecided) == (defined(now, before), 0)
    assert (count.certain > 0) == (spikes > 0)


def test_a_turned_vector_is_an_intruder_only_beyond_sixty_degrees(rng: np.random.Generator) -> None:
    planes = {(0, j): angle for j, angle in ((12, 0.5), (13, 0.5))}
    s = 2.0 ** -np.arange(24)
    before, now = pair(rng, (32, 32), s, planes, {})
    assert found(now, before).certain == defined(now, before) == 0


def test_within_a_cluster_before_nothing_is_certain(rng: np.random.Generator) -> None:
    s = np.full(24, 1.0)
    s[:2] = 5, 4
    before, _ = pair(rng, (24, 24), s, {}, {})
    spike = np.outer(np.eye(24)[0], np.eye(24)[1])
    count = found(before + 20 * spike, before)
    assert count.certain == 0 and count.undecided >= 1


def test_storage_makes_close_values_undecided(rng: np.random.Generator) -> None:
    s = 1 + 2.0**-27 * np.arange(24)[::-1]
    before, now = pair(rng, (24, 24), s, {}, {})
    exact, rounded = found(now, before), found(now, before, stored="float32")
    assert (exact.certain, exact.undecided) == (0, 0)
    assert exact.undecided_by_storage == 0 and rounded.undecided_by_storage == rounded.count


def test_all_ten_are_looked_at_and_no_more(rng: np.random.Generator) -> None:
    before, now = pair(rng, (24, 24), np.linspace(3, 1, 24), {}, {})
    assert found(now, before).count == TOP
    assert found(now, before, most=4).count == 4


def split(rng: np.random.Generator, gap: float) -> tuple[Matrix, Matrix]:
    """A matrix whose first six values are ``gap`` apart, and the same with these well apart."""
    u, v = orthonormal(rng, 24, 24), orthonormal(rng, 24, 24)
    s = np.linspace(2, 1, 24)
    s[:6] = 4 + gap * np.arange(6)[::-1]
    wide = s.copy()
    wide[:6] = 4 + np.arange(6)[::-1]
    return u * s @ v.T, u * wide @ v.T


def test_of_six_vectors_in_a_cluster_none_is_known_to_be_the_counterpart(
    rng: np.random.Generator,
) -> None:
    before, now = split(rng, 0.0)
    count = found(now, before)
    assert (count.certain, count.undecided) == (0, 6)


def test_a_cluster_that_only_storage_makes_is_undecided_by_storage(
    rng: np.random.Generator,
) -> None:
    before, now = split(rng, 2.0**-25)
    assert found(now, before) == Intruders(10, 0, 0, 0)
    assert found(now, before, stored="float32").undecided_by_storage >= 6
