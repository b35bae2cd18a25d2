from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankscope import relora
from rankscope.errors import WrongSettingError
from rankscope.relora.adapted_model import adapted, factors_of
from tests.relora.models import (
    IDS,
    MODELS,
    WIDTH,
    Perceptron,
    change,
    llama,
    logits,
    made,
    train,
)


def by_peft(model: nn.Module, config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what it still calls of transformers
        return get_peft_model(model, config)  # type: ignore[return-value]


BLOCK_LAYERS = {"llama": 7, "gpt2": 4, "qwen2": 7, "opt": 6, "bert": 6, "perceptron": 1}


@pytest.mark.parametrize("name", MODELS)
def test_wrapping_changes_no_logit(name: str) -> None:
    model = made(name)
    before = logits(model).detach()
    wrapped = relora.wrap(model, rank=2, alpha=6, seed=1)
    assert torch.equal(logits(wrapped), before)
    assert len(adapted(wrapped)) == 2 * BLOCK_LAYERS[name]


@pytest.mark.parametrize("name", MODELS)
def test_unwrapping_gives_the_plain_model_with_the_function(name: str) -> None:
    model = made(name)
    head = model.get_submodule("second") if name == "perceptron" else None
    if head is not None:
        head.requires_grad_(False)
    before = {n: (type(p), p.shape, p.requires_grad) for n, p in model.named_parameters()}
    classes = {n: type(m) for n, m in model.named_modules()}
    wrapped = relora.wrap(model, rank=2, alpha=6, seed=1)
    train(wrapped, torch.optim.AdamW(wrapped.parameters(), lr=0.05))
    trained = logits(wrapped).detach()
    plain = relora.unwrap(wrapped)
    assert plain is model
    assert {n: (type(p), p.shape, p.requires_grad) for n, p in plain.named_parameters()} == before
    assert {n: type(m) for n, m in plain.named_modules()} == classes
    assert change(trained, logits(plain)) < 1e-6
    relora.wrap(plain, rank=1)  # as if it had never been wrapped


def test_the_adapters_are_those_that_peft_itself_computes_with() -> None:
    """PEFT's own adapter with these factors, on a copy of the model, gives the same logits."""
    model = made("gpt2")
    other = by_peft(
        copy.deepcopy(model),
        LoraConfig(
            r=2, lora_alpha=6, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
        ),
    )
    wrapped = relora.wrap(model, rank=2, alpha=6, seed=1)
    train(wrapped, torch.optim.AdamW(wrapped.parameters(), lr=0.05))
    missing = other.load_state_dict(wrapped.state_dict())
    assert not missing.missing_keys and not missing.unexpected_keys
    assert torch.equal(logits(other), logits(wrapped))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_factors_have_the_type_of_their_weight(dtype: torch.dtype) -> None:
    wrapped = relora.wrap(Perceptron().to(dtype), rank=2)
    a, b, scale = factors_of(adapted(wrapped)["first"])
    assert a.dtype == b.dtype == dtype
    assert a.shape == (2, WIDTH) and not b.any() and scale == 1
    assert 0 < float(a.detach().double().abs().max()) <= WIDTH**-0.5


def test_a_depends_on_seed_and_name_alone() -> None:
    def drawn(model: nn.Module, seed: int, noise: int) -> dict[str, np.ndarray]:
        torch.manual_seed(noise)
        wrapped = relora.wrap(model, rank=2, seed=seed)
        return {n: factors_of(one)[0].detach().numpy() for n, one in adapted(wrapped).items()}

    first, again = drawn(llama(), 1, 0), drawn(llama(layers=3), 1, 99)
    for name, a in first.items():
        assert np.array_equal(again[name], a)
    assert len({a.tobytes() for a in first.values()}) == len(first)
    other = drawn(llama(), 2, 0)
    assert not any(np.array_equal(other[name], a) for name, a in first.items())


def test_global_generators_are_left_as_they_are() -> None:
    model = made("gpt2")
    before = torch.get_rng_state()
    wrapped = relora.wrap(model, rank=2)
    relora.restart(wrapped)
    relora.unwrap(wrapped)
    assert torch.equal(torch.get_rng_state(), before)


def test_everything_but_the_targets_is_trained_as_before() -> None:
    model = made("gpt2")
    model.get_parameter("transformer.wpe.weight").requires_grad_(False)
    wrapped = relora.wrap(copy.deepcopy(model), rank=2)
    trained = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    plain = {n.removeprefix("base_model.model.").replace(".base_layer", "") for n in trained}
    frozen = {f"{name}.weight" for name in adapted(wrapped)} | {"transformer.wpe.weight"}
    kept = {n for n in plain if ".lora_" not in n}
    assert kept == {n for n, _ in model.named_parameters()} - frozen
    alone = relora.wrap(model, rank=2, frozen="all")
    assert all(p.requires_grad == (".lora_" in n) for n, p in alone.named_parameters())


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["q_proj", "v_proj"], 4),
        (["model.layers.0.self_attn.q_proj"], 1),
        (r"model\.layers\.\d+\.mlp\..*_proj", 6),
        (r".*\.0\.self_attn\.[qk]_proj", 2),
        ("all-linear", 14),
        (["lm_head"], 1),
    ],
)
def test_targets_are_chosen_as_peft_chooses_them(targets: str | list[str], count: int) -> None:
    with torch.random.fork_rng():
        ours = adapted(relora.wrap(llama(tied=False), rank=2, targets=targets))
        mine = relora.unwrap(relora.wrap(llama(tied=False), rank=1))
        theirs = by_peft(mine, LoraConfig(r=2, target_modules=targets))  # type: ignore[arg-type]
    assert ours.keys() == adapted(theirs).keys() and len(ours) == count


def test_names_that_are_ends_of_other_names_choose_only_the_default_layers() -> None:
    """BERT's head and blocks both have modules called ``dense``: only those in blocks count."""
    names = adapted(relora.wrap(made("bert"), rank=2))
    assert all(".layer." in name for name in names)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.whole = nn.Linear(8, 8)
        self.empty = nn.Linear(8, 8, device="meta")
        self.number = nn.Linear(8, 8)
        self.number.weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)
        self.lazy = nn.LazyLinear(8)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("first", "shares its weight"),
        ("attention.out_proj", "nn.MultiheadAttention"),
        ("normed", "reparametrised"),
        ("attention", "is of the class MultiheadAttention"),
        ("number", "int8"),
        ("empty", "has no values yet"),
        ("lazy", "has no values yet"),
    ],
)
def test_a_layer_that_would_be_damaged_is_refused(target: str, said: str) -> None:
    model = Shared()
    with pytest.raises(WrongSettingError, match=said):
        relora.wrap(model, rank=2, targets=[target])
    assert list(adapted(relora.wrap(model, rank=2))) == ["whole"]


@pytest.mark.parametrize("inside", [False, True])
def test_every_adapter_counts_where_no_gradient_is_wanted(inside: bool) -> None:
    """Torch's encoder reads the weights of its linear layers itself then."""
    encoder = nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, batch_first=True)
    model: nn.Module = nn.Sequential(encoder, nn.Linear(WIDTH, WIDTH)) if inside else encoder
    with pytest.raises(WrongSettingError, match=r"read by nn.TransformerEncoderLayer"):
        relora.wrap(model, rank=2, targets=["linear1"])
    if not inside:
        return
    wrapped = relora.wrap(model, rank=2)
    assert list(adapted(wrapped)) == ["1"]
    nn.init.ones_(factors_of(adapted(wrapped)["1"])[1])
    x = torch.ones(1, 3, WIDTH)
    wrapped.eval()
    with torch.no_grad():
        assert torch.allclose(wrapped(x), relora.unwrap(wrapped)(x), atol=1e-5)


def test_an_encoder_that_calls_its_layers_is_adapted() -> None:
    class Calling(nn.TransformerEncoderLayer):
        def forward(self, src: torch.Tensor, *_: object) -> torch.Tensor:  # type: ignore[override]
            return src + self.linear2(torch.relu(self.linear1(src)))

    assert len(adapted(relora.wrap(Calling(WIDTH, 2, 2 * WIDTH), rank=2))) == 2


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(4, 4), r"is a single layer \(Linear\).*give nn.Sequential"),
        (nn.DataParallel(nn.Sequential(nn.Linear(4, 4))), "is in DataParallel already"),
        (
            torch.compile(nn.Sequential(nn.Linear(4, 4)), backend="eager"),
            "is in OptimizedModule already.*first, then compile",
        ),
        (nn.Sequential(nn.Linear(4, 4, device="meta")), "adapter: has no values yet"),
        (nn.Sequential(nn.Linear(4, 4, dtype=torch.complex64)), "adapter: is stored as complex64"),
    ],
)
def test_what_cannot_be_wrapped_says_why(model: nn.Module, said: str) -> None:
    with pytest.raises(WrongSettingError, match=said):
        relora.wrap(model, rank=2)


def test_a_tied_head_is_refused_in_one_line() -> None:
    for targets in (["lm_head"], r"lm_head"):
        with pytest.raises(WrongSettingError) as caught:
            relora.wrap(llama(tied=True), rank=2, targets=targets)
        assert "lm_head" in str(caught.value) and "tied" in str(caught.value)
        assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


@pytest.mark.parametrize("targets", [["q_proj", "qproj"], "qproj", ["nothing"], "(", []])
def test_targets_that_fit_nothing_list_the_linear_layers(targets: str | list[str]) -> None:
    with pytest.raises(WrongSettingError) as caught:
        relora.wrap(llama(), rank=2, targets=targets)
    assert targets == "(" or "model.layers.*.mlp.down_proj" in str(caught.value)


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(WrongSettingError, match="no linear layer"):
        relora.wrap(nn.Embedding(3, 4), rank=2)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rank": 0}, "`rank` is 0"),
        ({"rank": WIDTH + 1}, "exceeds the smaller side of first, which is 24 x 16"),
        ({"rank": 2, "alpha": 0.0}, "`alpha` is 0"),
        ({"rank": 2, "alpha": float("nan")}, "`alpha` is nan"),
        ({"rank": 2, "seed": 1.5}, "`seed` is 1.5"),
        ({"rank": 2, "frozen": "some"}, "`frozen` is 'some'"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, float], said: str) -> None:
    with pytest.raises(WrongSettingError, match=said):
        relora.wrap(Perceptron(), **settings)  # type: ignore[arg-type]


def test_a_wrapped_model_is_not_wrapped_again() -> None:
    wrapped = relora.wrap(Perceptron(), rank=2)
    for model in (wrapped, wrapped.get_base_model()):
        with pytest.raises(WrongSettingError, match="adapters already"):
            relora.wrap(model, rank=2)
    with pytest.raises(WrongSettingError, match="wrap it first"):
        relora.restart(Perceptron())


def test_linear_layers_and_conv1d_may_be_mixed() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(40, 8)
            self.conv, self.linear = Conv1D(12, 8), nn.Linear(12, 40)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.linear(torch.tanh(self.conv(self.embed(ids))))

    wrapped = relora.wrap(Mixed(), rank=2)
    train(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.5))
    before = logits(wrapped).detach()
    relora.restart(wrapped)
    assert change(before, wrapped(IDS)) < 1e-6
