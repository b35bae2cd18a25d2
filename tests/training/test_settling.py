from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from rankscope.keyed import keyed_generator
from rankscope.training.config import PhasesConfig
from rankscope.training.settling import Settling, projections, rank_of_update

kinds = pytest.mark.parametrize("kind", ["stable_rank", "effective_rank"])


def matrix(values: Sequence[float], shape: tuple[int, int] = (9, 6)) -> Tensor:
    """Return a matrix with these singular values and no others."""
    u, _ = torch.linalg.qr(normal((shape[0], len(values)), "U"))
    v, _ = torch.linalg.qr(normal((shape[1], len(values)), "V"))
    product: Tensor = u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.T
    return product


def normal(shape: tuple[int, int], name: str) -> Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=keyed_generator(3, name))


class Model(nn.Module):
    """Two projections and an embedding, whose updates have the spectra that a test prescribes."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(6, 9, bias=False, dtype=torch.float64)
        self.k_proj = nn.Linear(6, 9, bias=False, dtype=torch.float64)
        self.embed_tokens = nn.Embedding(9, 6, dtype=torch.float64)
        self.first = {name: weight.clone() for name, weight in projections(self).items()}

    @torch.no_grad()
    def update(self, q: Sequence[float], k: Sequence[float]) -> Model:
        """Set both updates since the beginning."""
        self.q_proj.weight.copy_(self.first["q_proj.weight"] + matrix(q))
        self.k_proj.weight.copy_(self.first["k_proj.weight"] + matrix(k))
        return self


def settings(switch: str = "stable_rank", *, earliest: int = 0) -> PhasesConfig:
    return PhasesConfig(
        methods=("full", "relora"),
        lengths=(1000,),
        switch=switch,
        probe_every=10,
        tolerance=0.05,
        earliest=earliest,
    )


def spectrum(rank: float) -> list[float]:
    """Of this stable rank, from 1 to 2."""
    return [1.0, math.sqrt(rank - 1)]


def settled(ranks: Sequence[float], *, earliest: int = 0) -> list[bool]:
    """After each look, 10 steps apart, at updates of these stable ranks, whether the phase ends."""
    model = Model()
    settling, found = Settling(settings(earliest=earliest), model, seen={}), []
    for look, rank in enumerate(ranks, start=1):
        settling.look(model.update(spectrum(rank), spectrum(rank)))
        found.append(settling.has_settled(10 * look))
    return found


@kinds
@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_k_equal_singular_values_have_rank_k_at_any_size(kind: str, k: int, size: float) -> None:
    update = size * matrix([1.0] * k)
    assert rank_of_update(update, kind) == pytest.approx(k, rel=1e-9)
    assert rank_of_update(update.T, kind) == pytest.approx(k, rel=1e-9)


def test_the_ranks_of_unequal_singular_values_are_as_defined() -> None:
    update = matrix([4.0, 2.0, 2.0])
    assert rank_of_update(update, "stable_rank") == pytest.approx(24 / 16)
    entropy = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert rank_of_update(update, "effective_rank") == pytest.approx(math.exp(entropy))


@kinds
def test_a_zero_update_has_rank_zero(kind: str) -> None:
    assert rank_of_update(torch.zeros(9, 6), kind) == 0


@kinds
def test_it_settles_once_the_ranks_have_stopped_changing(
    kind: str,
) -> None:
    model = Model()
    settling, found = Settling(settings(kind), model, seen={}), []
    for look, k in enumerate((1, 2, 3, 4, 4, 4, 4), start=1):
        settling.look(model.update([1.0] * k, [2.0] * k))
        found.append(settling.has_settled(10 * look))
    assert found == [False] * 5 + [True] * 2


def test_one_quiet_look_is_not_enough() -> None:
    assert settled([1.5, 1.5, 1.8, 1.8, 1.8]) == [False, False, False, False, True]


def test_three_looks_are_needed_at_least() -> None:
    assert settled([1.5] * 4) == [False, False, True, True]


def test_quiet_looks_before_the_earliest_step_count() -> None:
    assert settled([1.5] * 6, earliest=45) == [False] * 4 + [True] * 2


def test_it_settles_at_the_earliest_step_itself() -> None:
    assert settled([1.5] * 5, earliest=40) == [False] * 3 + [True] * 2


@pytest.mark.parametrize(("change", "calm"), [(1.04, True), (1.06, False), (0.96, True)])
def test_a_change_below_the_tolerance_is_none(change: float, calm: bool) -> None:
    assert settled([1.5, 1.5 * change, 1.5 * change**2])[-1] == calm


@pytest.mark.parametrize(
    ("q", "k", "mean"), [(1.08, 1.0, 0.04), (1.08, 0.92, 0.08), (1.0, 1.0, 0.0)]
)
def test_the_change_is_the_mean_of_absolute_relative_changes(
    q: float, k: float, mean: float
) -> None:
    model = Model()
    settling = Settling(settings(), model, seen={})
    settling.look(model.update(spectrum(1.2), spectrum(1.8)))
    change = settling.look(model.update(spectrum(1.2 * q), spectrum(1.8 * k)))
    assert change == pytest.approx(mean, abs=1e-9)


def test_the_sizes_of_updates_and_other_parameters_do_not_count() -> None:
    model = Model()
    settling = Settling(settings(), model, seen={})
    settling.look(model.update([1.0, 0.5], [2.0, 1.0]))
    with torch.no_grad():
        model.embed_tokens.weight += 5
    assert settling.look(model.update([10.0, 5.0], [0.2, 0.1])) == pytest.approx(0, abs=1e-9)
    assert settling.seen.keys() == {"q_proj.weight", "k_proj.weight", "quiet_looks"}


def test_looking_leaves_the_model_as_it_is() -> None:
    model = Model().update([1.0], [2.0])
    before = {name: p.clone() for name, p in model.named_parameters()}
    Settling(settings(), model, seen={}).look(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad


def test_what_was_seen_survives_a_resumption() -> None:
    ranks = [1.2, 1.4, 1.7, 1.7, 1.5, 1.5, 1.5]
    for pause in range(len(ranks)):
        model, resumed = Model(), Model()
        resumed.load_state_dict(model.state_dict())
        resumed.first = model.first
        through = Settling(settings(), model, seen={})
        changes = [through.look(model.update(spectrum(r), [1.0])) for r in ranks]
        before = Settling(settings(), resumed, seen={})
        again = [before.look(resumed.update(spectrum(r), [1.0])) for r in ranks[:pause]]
        stored = json.loads(json.dumps(before.seen))
        resumed.load_state_dict({**resumed.state_dict(), **resumed.first})
        after = Settling(settings(), resumed, seen=stored)
        again += [after.look(resumed.update(spectrum(r), [1.0])) for r in ranks[pause:]]
        assert again == changes
        assert after.seen == through.seen
        assert after.has_settled(70) == through.has_settled(70)


def test_updates_that_are_zero_never_settle() -> None:
    model = Model()
    settling = Settling(settings(), model, seen={})
    for look in range(1, 5):
        assert settling.look(model) == math.inf
        assert not settling.has_settled(10 * look)


def test_a_layer_without_an_update_is_left_out() -> None:
    model = Model()
    settling = Settling(settings(), model, seen={})
    changes = [settling.look(model.update(spectrum(r), [0.0])) for r in (1.2, 1.8, 1.8)]
    assert changes == [math.inf, pytest.approx(0.5), pytest.approx(0, abs=1e-9)]


def test_it_looks_at_multiples_of_the_interval_after_the_beginning() -> None:
    settling = Settling(settings(), Model(), seen={})
    assert [step for step in range(45) if settling.is_due(step)] == [10, 20, 30, 40]


def test_it_never_looks_when_the_phase_ends_by_its_length() -> None:
    settling = Settling(settings("steps"), Model(), seen={})
    assert not any(settling.is_due(step) for step in range(45))
