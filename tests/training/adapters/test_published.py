from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankscope.keyed import keyed_generator
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    renew,
    trained_parameters,
)
from rankscope.training.adapters.published import OldAdapters, PublishedLinear, keyed_dropout
from rankscope.training.config import Config, PublishedConfig
from rankscope.training.model import LanguageModel
from rankscope.training.probe import effective_gradients, evaluating
from rankscope.training.schedule import timeline

VOCABULARY, LR = 31, 1e-2
ALL: dict[str, bool | float] = {
    "zero_factors": True,
    "merge_without_scale": True,
    "factors_survive": True,
    "merge_in_bfloat16": True,
    "pruned_moments": 0.999,
    "dropout": 0.1,
    "zero_rate_step": True,
}


class Run:
    """A model, its optimizer and its cycles, with no loop around them."""

    def __init__(self, config: Config, tokens: Tensor) -> None:
        self.config, self.tokens, self.cycle = config, tokens, 0
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.model = LanguageModel(config.model, VOCABULARY)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LR, weight_decay=0.0)
        self.cycles = Cycles(config)
        self.begin({})

    def begin(self, merged: dict[str, Tensor]) -> None:
        self.cycles.begin(
            self.model,
            self.optimizer,
            effective_gradients(self.model, iter([self.tokens])),
            cycle=self.cycle,
            cycles=9,
            merged=merged,
            agree=lambda value: value,
        )
        self.cycle += 1

    def restart(self) -> None:
        self.begin(self.cycles.end(self.model))

    def learn(self, steps: int) -> None:
        for _ in range(steps):
            with keyed_dropout(self.model, self.config.relora.published, 3):
                loss = self.model.loss(self.tokens)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()

    def logits(self) -> Tensor:
        with torch.no_grad(), evaluating(self.model):
            logits: Tensor = self.model(self.tokens[:, :-1])
            return logits

    def factors(self) -> list[tuple[Tensor, Tensor]]:
        return [(x.lora_A.clone(), x.lora_B.clone()) for _, x in iter_adapters(self.model)]

    def weights(self) -> list[Tensor]:
        return [layer.weight.clone() for _, layer in iter_adapters(self.model)]


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(make_config: Callable[..., Config], tokens: Tensor) -> MakeRun:
    """Make a run with these switches and no others."""

    def make(**published: bool | float) -> Run:
        settings = {f"relora.published.{name}": value for name, value in published.items()}
        return Run(make_config(settings), tokens)

    return make


def linear(shape: tuple[int, int], rank: int, scale: float, **published: Any) -> PublishedLinear:
    """A layer whose adapter has learned something."""
    bound = 1 / math.sqrt(shape[1])
    weight = torch.empty(shape).uniform_(-bound, bound, generator=keyed_generator(3, "W"))
    a = torch.empty(rank, shape[1]).uniform_(-bound, bound, generator=keyed_generator(3, "A"))
    layer = PublishedLinear(
        nn.Parameter(weight), a, scale=scale, published=PublishedConfig(**published)
    )
    nn.init.normal_(layer.lora_B, generator=keyed_generator(3, "B"))
    return layer


def inputs(columns: int) -> Tensor:
    return torch.empty(50, columns).normal_(generator=keyed_generator(3, "x"))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.detach().flatten(), b.detach().flatten(), dim=0))


def relative(change: Tensor, of: Tensor) -> float:
    return float((change.norm() / of.norm()).detach())


def departures(run: Run) -> set[str]:
    """What a run does that ReLoRA as described does not, seen from outside over three cycles."""
    found = set()
    if timeline(run.config).learning_rate(0) == 0:
        found.add("zero_rate_step")
    run.learn(3)
    if not any(b.any() for _, b in run.factors()):
        found.add("zero_factors")
    run.restart()
    run.learn(6)
    before, old = run.logits(), run.factors()
    run.restart()
    if relative(run.logits() - before, of=before) > 0.02:  # bfloat16 alone stays below that
        found.add("merge_without_scale")
    if all(torch.equal(weight, weight.bfloat16().float()) for weight in run.weights()):
        found.add("merge_in_bfloat16")
    run.learn(1)
    if all(cosine(*pair) > 0.999 for (pair, _) in zipped(run.factors(), old)):
        found.add("factors_survive")
    if any(run.optimizer.state[x.lora_B]["step"] != 1 for _, x in iter_adapters(run.model)):
        found.add("pruned_moments")
    if not torch.equal(run.model(run.tokens[:, :-1]), run.logits()):
        found.add("dropout")
    return found


def zipped(
    new: list[tuple[Tensor, Tensor]], old: list[tuple[Tensor, Tensor]]
) -> list[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """For each adapter ``((A, old A), (B, old B))``."""
    return [((a, old_a), (b, old_b)) for (a, b), (old_a, old_b) in zip(new, old, strict=True)]


@pytest.mark.parametrize("switch", ALL)
@pytest.mark.slow
def test_each_switch_does_what_it_is_named_for_and_nothing_else(
    make_run: MakeRun, switch: str
) -> None:
    assert departures(make_run(**{switch: ALL[switch]})) == {switch}


def test_without_switches_nothing_departs_and_the_layers_are_the_plain_ones(
    make_run: MakeRun,
) -> None:
    run = make_run()
    assert all(type(layer) is LoRALinear for _, layer in iter_adapters(run.model))
    assert departures(run) == set()


def test_a_published_layer_without_switches_is_the_plain_layer(
    make_run: MakeRun,
) -> None:
    plain, published = make_run(), make_run(zero_rate_step=True)  # a switch of the schedule
    assert all(type(layer) is PublishedLinear for _, layer in iter_adapters(published.model))
    for run in (plain, published):
        run.learn(3)
        run.restart()
        run.learn(3)
    assert all(map(torch.equal, plain.model.parameters(), published.model.parameters()))


def test_zero_factors_are_dead_until_the_first_restart(make_run: MakeRun) -> None:
    run = make_run(zero_factors=True)
    weights, head = run.weights(), run.model.lm_head.weight.clone()
    for _ in range(4):
        run.model.loss(run.tokens).backward()  # type: ignore[no-untyped-call]
        for _, layer in iter_adapters(run.model):
            for factor in (layer.lora_A, layer.lora_B):
                assert factor.grad is not None
                assert not factor.grad.any()
                assert not factor.any()
        run.optimizer.step()
        run.optimizer.zero_grad()
    assert not torch.equal(run.model.lm_head.weight, head)  # the rest does learn
    run.restart()
    assert all(map(torch.equal, run.weights(), weights))
    run.learn(1)
    assert all(a.any() and b.any() for a, b in run.factors())


@pytest.mark.parametrize("scale", [0.25, 0.5, 2.0])
def test_a_merge_without_the_scale_changes_the_output_by_its_share(
    scale: float,
) -> None:
    layer = linear((9, 7), 3, scale, merge_without_scale=True)
    x = inputs(7)
    before = layer(x)
    added = before - x @ layer.weight.T
    layer.merge()
    layer.reset(torch.ones(3, 7), scale=scale)
    torch.testing.assert_close(before - layer(x), (1 - 1 / scale) * added)


def test_a_merge_without_a_scale_of_one_is_the_plain_merge() -> None:
    plain, published = linear((9, 7), 3, 1.0), linear((9, 7), 3, 1.0, merge_without_scale=True)
    plain.merge()
    published.merge()
    assert torch.equal(plain.weight, published.weight)


def test_surviving_factors_are_back_after_one_step(
    make_run: MakeRun,
) -> None:
    run = make_run(factors_survive=True)
    run.learn(6)
    old, weights = run.factors(), run.weights()
    deltas = [layer.delta() for _, layer in iter_adapters(run.model)]
    before = run.logits()
    run.restart()
    assert relative(run.logits() - before, of=before) < 1e-5  # the restart itself is a good one
    assert not any(b.any() for _, b in run.factors())
    run.learn(1)
    for (a, old_a), (b, old_b) in zipped(run.factors(), old):
        assert cosine(a, old_a) > 0.999
        assert (b - old_b).abs().max() <= LR * (1 + 1e-3)  # one step of Adam from where it was
        assert b.norm() > 0.5 * old_b.norm()
    for merged, weight, delta in zip(run.weights(), weights, deltas, strict=True):
        assert torch.equal(merged, (weight.double() + delta).float())
    assert relative(run.logits() - before, of=before) > 0.02  # the update counts twice


def test_surviving_factors_return_once_and_then_learn_on(make_run: MakeRun) -> None:
    run = make_run(factors_survive=True)
    run.learn(6)
    run.restart()
    run.learn(1)
    once = run.factors()
    run.learn(3)
    for (a, once_a), (b, once_b) in zipped(run.factors(), once):
        assert not torch.equal(a, once_a)
        assert not torch.equal(b, once_b)


@pytest.mark.parametrize(
    ("size", "least", "most"), [(0.1, 0.0, 0.05), (0.003, 0.3, 0.7), (0.001, 0.7, 1.0)]
)
def test_a_merge_in_bfloat16_loses_small_updates(size: float, least: float, most: float) -> None:
    error = {}
    for rounded in (False, True):
        layer = linear((384, 96), 16, 2.0, merge_in_bfloat16=rounded)
        layer.lora_B.data *= size * layer.weight.norm() / layer.delta().norm()
        before, delta = layer.weight.double().clone(), layer.delta()
        layer.merge()
        error[rounded] = relative(layer.weight.double() - before - delta, of=delta)
        rank = int(torch.linalg.matrix_rank(layer.weight.double() - before, rtol=1e-3))
        assert rank == (96 if rounded else 16)  # what is left looks full rank
    assert error[False] < 1e-3
    assert least < error[True] < most


def test_weights_of_a_merge_in_bfloat16_are_rounded_from_the_start(make_run: MakeRun) -> None:
    run, plain = make_run(merge_in_bfloat16=True), make_run()
    for weight, exact in zip(run.weights(), plain.weights(), strict=True):
        assert weight.dtype == torch.float32
        assert torch.equal(weight, exact.bfloat16().float())
    assert torch.equal(run.model.lm_head.weight, plain.model.lm_head.weight)


def restarted(
    layer: LoRALinear, part: float, *, seed: int = 3, cycle: int = 1
) -> tuple[dict[str, Tensor], torch.optim.Optimizer]:
    """Adam's state of A before a restart, where no entry is zero, and Adam after it."""
    model = nn.ModuleDict({"q_proj": layer})
    optimizer = torch.optim.AdamW(trained_parameters(model), lr=LR, weight_decay=0.0)
    generator = keyed_generator(3, "moments")
    for parameter in trained_parameters(model):
        optimizer.state[parameter] = {
            "step": torch.tensor(70.0),
            "exp_avg": torch.empty_like(parameter).normal_(generator=generator),
            "exp_avg_sq": torch.empty_like(parameter).uniform_(0.1, 1, generator=generator),
        }
    before = {key: value.clone() for key, value in optimizer.state[layer.lora_A].items()}
    old = OldAdapters(model, optimizer, PublishedConfig(pruned_moments=part))
    layer.reset(torch.ones_like(layer.lora_A), scale=layer.scale)
    renew(optimizer, model)
    old.restore_survivors(seed=seed, cycle=cycle)
    return before, optimizer


@pytest.mark.parametrize("part", [0.5, 0.9, 0.999])
def test_pruning_zeroes_its_share_of_each_moment_separately(
    part: float,
) -> None:
    layer = linear((32, 2000), 16, 2.0)
    before, optimizer = restarted(layer, part)
    after = optimizer.state[layer.lora_A]
    assert after["step"] == 70
    kept = {}
    for moment in ("exp_avg", "exp_avg_sq"):
        kept[moment] = after[moment] != 0
        assert torch.equal(after[moment], before[moment] * kept[moment])
        share, noise = kept[moment].double().mean().item(), math.sqrt(part * (1 - part) / 32000)
        assert share == pytest.approx(1 - part, abs=5 * noise)
    both = (kept["exp_avg"] & kept["exp_avg_sq"]).double().mean().item()
    expected = (1 - part) ** 2
    assert both == pytest.approx(expected, abs=5 * math.sqrt(expected / 32000))


def test_which_moments_are_pruned_depends_on_seed_and_cycle_alone() -> None:
    def kept(**key: int) -> Tensor:
        layer = linear((8, 200), 4, 2.0)
        _, optimizer = restarted(layer, 0.5, **key)
        kept: Tensor = optimizer.state[layer.lora_A]["exp_avg"] != 0
        return kept

    first = kept(seed=3, cycle=1)
    torch.rand(5)
    assert torch.equal(kept(seed=3, cycle=1), first)
    assert not torch.equal(kept(seed=3, cycle=2), first)
    assert not torch.equal(kept(seed=4, cycle=1), first)


def test_pruning_reaches_the_moments_of_adapters_only(make_run: MakeRun) -> None:
    run = make_run(pruned_moments=0.999)
    run.learn(4)
    others = [p for n, p in run.model.named_parameters() if "_proj." not in n]
    before = [{k: v.clone() for k, v in run.optimizer.state[p].items()} for p in others]
    run.restart()
    for parameter, state in zip(others, before, strict=True):
        assert all(torch.equal(run.optimizer.state[parameter][key], state[key]) for key in state)


def test_entries_of_which_the_second_moment_alone_was_pruned_jump() -> None:
    layer = linear((8, 200), 4, 2.0)
    _, optimizer = restarted(layer, 0.5)
    before = layer.lora_A.detach().clone()
    layer.lora_A.grad = torch.zeros_like(layer.lora_A)  # as it is while B = 0
    optimizer.step()
    assert (layer.lora_A - before).abs().max() > 1e3 * LR


def test_dropout_zeroes_inputs_of_the_adapter_and_scales_the_others_up() -> None:
    layer = linear((8, 8), 8, 2.0, dropout=0.25)
    with torch.no_grad():
        layer.lora_A.copy_(torch.eye(8))
        layer.lora_B.copy_(torch.eye(8))
    x = torch.ones(4000, 8)
    with keyed_dropout(layer, layer.published, 3, 0):
        dropped = (layer(x) - x @ layer.weight.T) / 2.0
    kept = dropped.abs() > 0.5
    torch.testing.assert_close(dropped, kept / 0.75, rtol=0, atol=1e-5)
    assert kept.double().mean().item() == pytest.approx(0.75, abs=5 * math.sqrt(0.19 / 32000))


def test_dropout_touches_neither_the_frozen_weight_nor_the_eval_mode() -> None:
    layer, plain = linear((9, 7), 3, 2.0, dropout=0.5), linear((9, 7), 3, 2.0)
    x = inputs(7)
    assert not torch.equal(layer(x), plain(x))
    layer.eval()
    assert torch.equal(layer(x), plain(x))
    layer.train()
    layer.reset(torch.ones(3, 7), scale=2.0)  # B = 0
    assert torch.equal(layer(x), x @ layer.weight.T)


def test_a_gradient_probe_sees_no_dropout(make_run: MakeRun) -> None:
    run, plain = make_run(dropout=0.5), make_run()
    for other in (run, plain):
        with torch.no_grad():
            for name, layer in iter_adapters(other.model):
                layer.lora_B.normal_(generator=keyed_generator(3, name))
    noisy, exact = (effective_gradients(r.model, iter([r.tokens])) for r in (run, plain))
    assert all(torch.equal(noisy[name], exact[name]) for name in exact)


def test_dropout_masks_depend_on_their_key_alone() -> None:
    layer, x = linear((9, 7), 3, 2.0, dropout=0.5), inputs(7)

    def output(*key: str | int) -> Tensor:
        with keyed_dropout(layer, layer.published, *key):
            y: Tensor = layer(x)
            return y

    first = output(1, 5, 0, 0)
    torch.rand(11)
    assert torch.equal(output(1, 5, 0, 0), first)
    for key in ((2, 5, 0, 0), (1, 6, 0, 0), (1, 5, 1, 0), (1, 5, 0, 1)):  # process, micro-batch
        assert not torch.equal(output(*key), first)


def test_layers_of_one_pass_have_masks_of_their_own() -> None:
    layer, x = linear((9, 7), 3, 2.0, dropout=0.5), inputs(7)
    with keyed_dropout(layer, layer.published, 1, 5):
        assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_global_generator_is_as_before(dropout: float) -> None:
    layer = linear((9, 7), 3, 2.0, dropout=dropout)
    before = torch.get_rng_state()
    with keyed_dropout(layer, layer.published, 1, 5):
        layer(inputs(7))
    assert torch.equal(torch.get_rng_state(), before)


def test_as_published_the_first_cycle_is_dead_and_the_second_learns(
    make_run: MakeRun,
) -> None:
    run = make_run(**ALL)
    first = run.weights()
    run.learn(4)
    before = run.logits()
    run.restart()
    assert torch.equal(run.logits(), before)  # no jump at the first merge
    assert all(map(torch.equal, run.weights(), first))
    # The new A lives for one gradient, which gives the surviving B = 0 its first step; the old
    # A = 0 learns from the step after that.
    run.learn(1)
    assert all(not a.any() and b.any() for a, b in run.factors())
    run.learn(1)
    assert all(a.any() and b.any() for a, b in run.factors())


def test_old_factors_are_written_back_once() -> None:
    layer = linear((8, 6), 2, 2.0)
    model = nn.ModuleDict({"q_proj": layer})
    optimizer = torch.optim.SGD(trained_parameters(model), lr=LR)
    old, new = layer.lora_A.detach().clone(), torch.ones_like(layer.lora_A)
    survivors = OldAdapters(model, optimizer, PublishedConfig(factors_survive=True))
    layer.reset(new, scale=layer.scale)
    survivors.restore_survivors(seed=3, cycle=1)
    optimizer.step()  # without a gradient
    assert torch.equal(layer.lora_A, old)
    layer.reset(new, scale=layer.scale)
    optimizer.step()
    assert torch.equal(layer.lora_A, new)
