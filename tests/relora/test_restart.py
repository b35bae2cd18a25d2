from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import nn

from rankscope import relora
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.relora.adapted_model import adapted, factors_of
from tests.relora.models import IDS, MODELS, Perceptron, change, logits, loss_of, made, train


@pytest.mark.parametrize("name", MODELS)
def test_restarts_keep_the_function(name: str) -> None:
    model = relora.wrap(made(name), rank=2, alpha=6, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for cycle in (1, 2):
        train(model, optimizer)
        before = logits(model).detach()
        merged = relora.restart(model, optimizer, cycle=cycle)
        assert change(before, logits(model)) < 1e-6
        assert all(float(one.delta().norm()) > 0 for one in merged.values())
        assert all(0 < one.rounding < 1e-5 for one in merged.values())


def test_a_merge_is_the_exact_sum_rounded_once() -> None:
    """Each entry is the float32 nearest to W + scale·B·A, computed with 60 digits."""
    model = relora.wrap(made("gpt2"), rank=3, alpha=7, seed=1)
    train(model, torch.optim.AdamW(model.parameters(), lr=0.05))
    layers = adapted(model)
    before = {n: layer.base_layer.weight.detach().numpy().copy() for n, layer in layers.items()}
    factors = {n: [f.detach().numpy().copy() for f in factors_of(layers[n])[:2]] for n in layers}
    merged = relora.restart(model)
    for name, layer in list(layers.items())[:2]:
        a, b = factors[name]
        assert np.array_equal(merged[name].lora_A.numpy(), a)
        assert np.array_equal(merged[name].lora_B.numpy(), b)
        stored = layer.base_layer.weight.detach().numpy()
        with mpmath.workdps(60):
            for i, j in ((0, 0), (5, 3), (15, 7)):  # of Conv1D, stored (in, out)
                exact = sum(mpmath.mpf(float(b[j, k])) * float(a[k, i]) for k in range(3))
                exact = float(before[name][i, j]) + mpmath.mpf(7) / 3 * exact
                assert stored[i, j] == np.float32(float(exact))


def test_rounding_is_the_share_of_the_delta_that_storage_lost() -> None:
    model = relora.wrap(Perceptron().to(torch.bfloat16), rank=2, alpha=2e-3)
    layer = adapted(model)["first"]
    with torch.no_grad():
        factors_of(layer)[1].normal_(generator=torch.Generator().manual_seed(1))
    weight = layer.base_layer.weight.detach().double().numpy().copy()
    merged = relora.restart(model)["first"]
    delta = merged.scale * merged.lora_B.double().numpy() @ merged.lora_A.double().numpy()
    kept = layer.base_layer.weight.detach().double().numpy() - weight
    assert merged.rounding == pytest.approx(np.linalg.norm(kept - delta) / np.linalg.norm(delta))
    assert merged.rounding > 0.3  # of a delta this small, bfloat16 keeps little
    assert np.allclose(merged.delta().numpy(), delta, rtol=1e-12)


def test_a_new_adapter_shares_nothing_with_the_old_one() -> None:
    model = relora.wrap(made("llama"), rank=2, seed=1)
    seen = []
    for _ in range(3):
        seen.append({n: factors_of(one)[0].detach().clone() for n, one in adapted(model).items()})
        relora.restart(model)
        assert not any(factors_of(one)[1].any() for one in adapted(model).values())
    for name in seen[0]:
        rows = torch.cat([cycle[name] for cycle in seen])
        assert torch.linalg.matrix_rank(rows) == 6


def two_groups(model: nn.Module, kind: Callable[..., torch.optim.Optimizer]) -> Any:
    """The adapters in one group, all else in another with a rate of its own."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if ".lora_" in n], "lr": 0.02},
        {"params": [p for n, p in named if ".lora_" not in n], "lr": 0.001},
    ]
    return kind(groups)


KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "fused": lambda groups: torch.optim.AdamW(groups, fused=True),
    "foreach": lambda groups: torch.optim.Adam(groups, foreach=True, amsgrad=True),
    "momentum": lambda groups: torch.optim.SGD(groups, momentum=0.9),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, momentum=0.9, centered=True),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rprop": torch.optim.Rprop,
    "asgd": torch.optim.ASGD,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizer_forgets_the_adapters_and_nothing_else(kind: str) -> None:
    """After a restart it goes on as one that never saw the adapters, and else as it was."""
    model = relora.wrap(Perceptron(), rank=2, seed=1)
    optimizer = two_groups(model, KINDS[kind])
    train(model, optimizer, steps=3)
    groups = [list(map(id, group["params"])) for group in optimizer.param_groups]
    factors = {f for layer in adapted(model).values() for f in factors_of(layer)[:2]}
    others = {p: copy.deepcopy(s) for p, s in optimizer.state.items() if p not in factors}
    relora.restart(model, optimizer)
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == groups
    assert not factors & optimizer.state.keys()
    assert others and all(p.grad is None for p in factors)
    for parameter, state in others.items():
        for name, value in state.items():
            now = optimizer.state[parameter][name]
            assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value
    # The reference: the same model and a new optimizer, with the old state of the other group.
    other = copy.deepcopy(model)
    fresh = two_groups(other, KINDS[kind])
    saved = optimizer.state_dict()
    fresh.load_state_dict(copy.deepcopy(saved))
    for m, o in ((model, optimizer), (other, fresh)):
        train(m, o, steps=2)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_every_optimizer_of_torch_is_supported_or_refused() -> None:
    """A new kind in torch shows here: none may fail at the step after a restart."""
    for name, kind in vars(torch.optim).items():
        is_kind = inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer)
        if not is_kind or name in ("Optimizer", "SparseAdam"):
            continue
        model = relora.wrap(Perceptron(), rank=2, seed=1)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = kind([p for p in trained if p.dim() == 2 or name != "Muon"])
        if name == "LBFGS":
            with pytest.raises(WrongSettingError, match="LBFGS"):
                relora.restart(model, optimizer)
            continue
        train(model, optimizer, steps=2)
        if name == "Adagrad":
            with pytest.raises(WrongSettingError, match="Adagrad"):
                relora.restart(model, optimizer)
            continue
        relora.restart(model, optimizer)
        train(model, optimizer, steps=2)
        assert all(bool(torch.isfinite(p).all()) for p in model.parameters()), name


def test_an_optimizer_whose_state_is_elsewhere_is_refused_before_anything_changes() -> None:
    model = relora.wrap(Perceptron(), rank=2)
    copies = [p.detach().clone().requires_grad_() for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        factors_of(adapted(model)["first"])[1].fill_(1.0)
        before = [p.detach().clone() for p in model.parameters()]
    for optimizer in (torch.optim.AdamW(copies), object(), torch.optim.LBFGS(model.parameters())):
        with pytest.raises(WrongSettingError, match="`optimizer`"):
            relora.restart(model, optimizer)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@pytest.mark.filterwarnings("ignore")  # of torch's own deprecated parts
def test_zero_redundancy_optimizer_is_refused() -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = relora.wrap(Perceptron(), rank=2)
    sharded = ZeroRedundancyOptimizer.__new__(ZeroRedundancyOptimizer)
    with pytest.raises(WrongSettingError, match="ZeroRedundancyOptimizer"):
        relora.restart(model, sharded)


def test_the_optimizer_within_a_wrapper_is_found() -> None:
    class Wrapper:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    model = relora.wrap(Perceptron(), rank=2)
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer)
    relora.restart(model, Wrapper(optimizer))  # type: ignore[arg-type]
    assert not any(f in optimizer.state for f in factors_of(adapted(model)["first"])[:2])


def test_gradients_of_all_else_survive_amid_an_accumulation() -> None:
    """Two halves of a batch, a restart between: other parameters get the gradient of the whole."""
    model = relora.wrap(made("llama"), rank=2, seed=1)
    train(model, torch.optim.SGD(model.parameters(), lr=0.5))
    whole = copy.deepcopy(model)
    for one in (model, whole):
        one.zero_grad()
        loss_of(one, IDS[:1]).backward()
    relora.restart(model)
    for one in (model, whole):
        loss_of(one, IDS[1:]).backward()
    named = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and ".lora_" not in name:
            theirs = named[name].grad
            assert theirs is not None and parameter.grad is not None
            assert torch.allclose(parameter.grad, theirs, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_not_merged(value: float) -> None:
    model = relora.wrap(Perceptron(), rank=2)
    with torch.no_grad():
        factors_of(adapted(model)["second"])[1][3, 1] = value
        factors_of(adapted(model)["first"])[1].fill_(1.0)
    before = [p.detach().clone() for p in model.parameters()]
    for call in (relora.restart, relora.unwrap):
        with pytest.raises(RankscopeError, match=r"second.*NaN or infinity"):
            call(model)
    for a, b in zip(model.parameters(), before, strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())


def test_a_sum_beyond_the_type_of_its_weight_is_refused() -> None:
    model = relora.wrap(Perceptron().to(torch.float16), rank=1, alpha=1e4)
    with torch.no_grad():
        factors_of(adapted(model)["first"])[1].fill_(100.0)
    before = adapted(model)["first"].base_layer.weight.detach().clone()
    with pytest.raises(RankscopeError, match=r"beyond the numbers of float16"):
        relora.restart(model)
    assert torch.equal(adapted(model)["first"].base_layer.weight, before)


def test_an_adapter_that_peft_merged_is_not_merged_twice() -> None:
    model = relora.wrap(Perceptron(), rank=2)
    model.merge_adapter()
    with pytest.raises(RankscopeError, match="merged already"):
        relora.restart(model)


def test_cycles_count_up() -> None:
    model = relora.wrap(Perceptron(), rank=2)
    relora.restart(model, cycle=3)
    for cycle in (0, 3):
        with pytest.raises(WrongSettingError, match="cycle 3 has begun"):
            relora.restart(model, cycle=cycle)
    relora.restart(model)
    with pytest.raises(WrongSettingError, match="cycle 4 has begun"):
        relora.restart(model, cycle=4)


def test_the_model_is_found_in_what_holds_it() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = relora.wrap(Perceptron(), rank=2)

    holder = Module()
    assert relora.restart(holder).keys() == {"first", "second"}
    assert isinstance(relora.unwrap(holder), Perceptron)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_in_ddp_restarts_in_place(tmp_path: object) -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    store = torch.distributed.FileStore(f"{tmp_path}/store", 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        inner = relora.wrap(Perceptron(), rank=2, seed=1)
        model = nn.parallel.DistributedDataParallel(inner)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        alone = copy.deepcopy(inner)
        other = torch.optim.AdamW(alone.parameters(), lr=0.05)
        for one, its in ((model, optimizer), (alone, other)):
            for _ in range(2):
                train(one, its)
                relora.restart(one, its)
            train(one, its)
        for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    finally:
        torch.distributed.destroy_process_group()


def test_the_warm_up_is_the_one_of_the_trainer() -> None:
    from rankscope.training.config import Config
    from rankscope.training.config_file import config_from
    from rankscope.training.schedule import learning_rate_multiplier, timeline

    config: Config = config_from(
        {
            "method": "relora",
            "out": "run",
            "schedule.steps": 60,
            "schedule.restart_every": 20,
            "schedule.warmup_steps": 0,
            "schedule.restart_warmup_steps": 5,
            "schedule.decay": "linear",
            "schedule.minimum_ratio": 0.1,
        }
    )
    line = timeline(config)
    ours = relora.restart_warmup(every=20, length=5, times=lambda step: 0.1 + 0.9 * (1 - step / 60))
    for step in range(60):
        assert ours(step) == pytest.approx(learning_rate_multiplier(step, line), rel=1e-12)
    for every, length in ((0, 3), (3, -1)):
        with pytest.raises(WrongSettingError, match="`every`"):
            relora.restart_warmup(every=every, length=length)
