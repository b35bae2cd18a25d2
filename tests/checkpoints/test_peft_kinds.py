"""Adapters beyond plain LoRA: each delta is the one that PEFT adds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rankscope.checkpoints.contents import Contents, KroneckerAdapter
from rankscope.checkpoints.layouts import peft as layout
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.components.component import Moment
from rankscope.components.deltas import Rescaling, adapted, delta
from rankscope.components.formed import Formed
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import Dense, Kronecker
from rankscope.spectra.singular_values import spectra

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries at each other

WIDTH, HIDDEN = 16, 24
TARGETS = ["q_proj", "k_proj", "down_proj"]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=WIDTH, intermediate_size=HIDDEN, num_hidden_layers=2, vocab_size=32,
            num_attention_heads=4, num_key_value_heads=2,
        )
    )  # fmt: skip


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=12, n_layer=1, n_head=2, vocab_size=32, n_positions=8, bos_token_id=0,
            eos_token_id=0,
        )
    )  # fmt: skip


class Convolutions(torch.nn.Module):
    """Two convolutions by name, one of them with a kernel of a single place."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = torch.nn.Conv2d(4, 6, 3), torch.nn.Conv2d(6, 8, 1)


def saved(folder: Path, model: Any, config: Any) -> Any:
    """Save a model in ``base`` and a random adapter on it in ``adapter``; gives the latter."""
    if hasattr(model, "config"):
        model.save_pretrained(folder / "base")
        model = type(model).from_pretrained(folder / "base")
    found = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, value in found.named_parameters():
            if any(part in name for part in ("lora_", "vera_lambda", "hada_", "lokr_")):
                value.copy_(torch.randn_like(value))
                if "magnitude" in name:
                    value.abs_()
    found.save_pretrained(folder / "adapter")
    return found


def deltas(model: Any) -> dict[str, NDArray[Any]]:
    """What PEFT adds to each weight, as (outputs, inputs); of a convolution flattened."""
    found = {}
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            value = module.get_delta_weight("default").detach().numpy()
            if getattr(module, "fan_in_fan_out", False):
                value = value.T
            place = name.removeprefix("base_model.model.")
            found[place] = value.reshape(value.shape[0], -1)
    return found


def check(contents: Contents, expected: Mapping[str, NDArray[Any]]) -> None:
    """Every delta is the library's, no other is there, and nothing is skipped."""
    assert not contents.skips
    found = {p.module: p for p in contents.parameters.values() if p.adapter is not None}
    assert set(found) == set(expected)
    for module, parameter in found.items():
        assert parameter.adapter is not None
        values = delta(parameter.adapter).multiplied()
        assert values.shape == expected[module].shape == parameter.adapter.shape
        assert values == pytest.approx(expected[module], rel=1e-4, abs=1e-5)
    kinds = {one.kind for one in contents.account}
    assert "not understood" not in kinds and "part of" in kinds


CONFIGS = {
    "adalora": lambda: peft.AdaLoraConfig(
        init_r=6, target_r=3, lora_alpha=5, total_step=10, target_modules=TARGETS
    ),
    "adalora without alpha": lambda: peft.AdaLoraConfig(
        init_r=5, target_r=3, lora_alpha=0, total_step=10, target_modules=TARGETS
    ),
    "vera": lambda: peft.VeraConfig(r=4, target_modules=TARGETS, save_projection=True),
    "lokr": lambda: peft.LoKrConfig(r=8, alpha=3, target_modules=TARGETS),
    "lokr in four parts": lambda: peft.LoKrConfig(
        r=1, alpha=3, decompose_both=True, decompose_factor=4, target_modules=TARGETS
    ),
    "lokr with patterns": lambda: peft.LoKrConfig(
        r=2, alpha=3, rank_pattern={"k_proj": 1}, alpha_pattern={"down_proj": 7},
        target_modules=TARGETS,
    ),
    "loha": lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=TARGETS),
    "loha of full rank": lambda: peft.LoHaConfig(
        r=5, alpha=3, alpha_pattern={"k_proj": 1}, target_modules=TARGETS
    ),
    "rslora": lambda: peft.LoraConfig(
        r=3, lora_alpha=5, use_rslora=True, target_modules=TARGETS,
        rank_pattern={"k_proj": 2}, alpha_pattern={"q_proj": 9},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("has_base", [True, False])
@pytest.mark.slow
def test_the_delta_is_the_one_that_peft_adds(kind: str, has_base: bool, tmp_path: Path) -> None:
    model = saved(tmp_path, llama(), CONFIGS[kind]())
    expected = deltas(model)
    if not has_base:
        (tmp_path / "base").rename(tmp_path / "elsewhere")
        if kind == "vera":  # how many inputs each module has is then written nowhere
            contents = layout.read(tmp_path / "adapter", DEFAULT)
            assert {skip.reason for skip in contents.skips} == {"adapter-inputs"}
            assert not contents.parameters
            return
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    check(contents, expected)
    assert (contents.base is not None) == has_base
    assert [note.reason for note in contents.notes] == ([] if has_base else ["base-missing"])


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "v_proj"]])
def test_vera_stands_alone_if_its_modules_read_the_same(targets: list[str], tmp_path: Path) -> None:
    config = peft.VeraConfig(r=4, target_modules=targets, save_projection=True)
    expected = deltas(saved(tmp_path, llama(), config))
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    check(layout.read(tmp_path / "adapter", DEFAULT), expected)


def test_vera_without_its_projections_is_refused_by_name(tmp_path: Path) -> None:
    config = peft.VeraConfig(r=4, target_modules=["q_proj"], save_projection=False)
    saved(tmp_path, llama(), config)
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    assert {skip.reason for skip in contents.skips} == {"vera-projection"}
    assert not [p for p in contents.parameters.values() if p.adapter]


def test_what_adalora_pruned_does_not_change_the_scale(tmp_path: Path) -> None:
    config = peft.AdaLoraConfig(
        init_r=6, target_r=2, lora_alpha=5, total_step=10, target_modules=TARGETS
    )
    model = saved(tmp_path, llama(), config)
    pattern = {
        name.removeprefix("base_model.model.").replace(".default", ""): [True, False] * 3
        for name, _ in model.named_parameters()
        if "lora_E" in name
    }
    model.peft_config["default"].rank_pattern = pattern
    model.base_model.resize_modules_by_rank_pattern(pattern, "default")
    model.save_pretrained(tmp_path / "adapter")
    expected = deltas(model)
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    check(contents, expected)
    assert {p.adapter.rank for p in contents.parameters.values() if p.adapter} == {3}


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_convolution_is_flattened_with_a_row_for_each_output(kind: str, tmp_path: Path) -> None:
    configs = {
        "lora": lambda: peft.LoraConfig(r=2, target_modules=["wide", "narrow"]),
        "loha": lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=["wide", "narrow"]),
        "lokr": lambda: peft.LoKrConfig(r=1, alpha=3, target_modules=["wide", "narrow"]),
    }
    model = saved(tmp_path, Convolutions(), configs[kind]())
    check(layout.read(tmp_path / "adapter", DEFAULT), deltas(model))


@pytest.mark.parametrize("config", [peft.LoHaConfig, peft.LoKrConfig])
def test_a_tucker_core_is_refused(config: Any, tmp_path: Path) -> None:
    saved(tmp_path, Convolutions(), config(r=1, use_effective_conv2d=True, target_modules=["wide"]))
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    assert [(s.tensor, s.reason) for s in contents.skips] == [("wide", "adapter-unsupported")]
    assert "Tucker core" in contents.skips[0].message and not contents.parameters


def test_singular_values_of_lokr_are_all_products(tmp_path: Path) -> None:
    saved(tmp_path, llama(), peft.LoKrConfig(r=8, alpha=3, target_modules=TARGETS))
    for parameter in layout.read(tmp_path / "adapter", DEFAULT).parameters.values():
        if parameter.adapter is None:
            continue
        matrix = delta(parameter.adapter)
        assert isinstance(matrix, Kronecker)
        (found,) = spectra(matrix)
        truth = np.linalg.svd(matrix.multiplied(), compute_uv=False)
        assert found.values == pytest.approx(truth[: found.max_rank], rel=1e-10)
        assert found.route == "kronecker" and found.max_rank == parameter.adapter.rank
        assert truth[found.max_rank :] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rows", [1, 6, 9])
def test_a_fused_kronecker_product_is_cut_anywhere(rows: int, tmp_path: Path) -> None:
    rng, module = np.random.default_rng(0), "transformer.h.0.attn.c_attn"
    first, second = rng.normal(size=(36 // rows, 3)), rng.normal(size=(rows, 4))
    tensors = {f"base_model.model.{module}.lokr_w{i}": w for i, w in ((1, first), (2, second))}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LOKR", "r": 8, "alpha": 3, "base_model_name_or_path": "gpt2"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    contents = layout.read(tmp_path, DEFAULT)
    parts = np.split(np.kron(first, second) * 3 / 8, 3)
    for role, expected in zip("qkv", parts, strict=True):
        part = contents.parameters[f"{module}.weight[{role}]"]
        assert isinstance(part.adapter, KroneckerAdapter) and part.adapter.shape == (12, 12)
        assert delta(part.adapter).multiplied() == pytest.approx(expected)
        assert isinstance(delta(part.adapter), Kronecker) == (12 % rows == 0)


@pytest.mark.parametrize("model", [llama, gpt2, Convolutions])
def test_dora_is_what_peft_merges(model: Any, tmp_path: Path) -> None:
    targets = {llama: [*TARGETS, "embed_tokens"], gpt2: ["c_attn", "c_fc"]}.get(model, ["wide"])
    config = peft.LoraConfig(r=3, lora_alpha=5, use_dora=True, target_modules=targets)
    adapted = saved(tmp_path, model(), config)
    if model is Convolutions:
        return check_dora_of_convolution(adapted, tmp_path)
    base = load_file(tmp_path / "base" / "model.safetensors")
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    assert not contents.skips and not contents.notes
    truth = {n: t.numpy() for n, t in adapted.merge_and_unload().state_dict().items()}
    components = {c.name: c for c in AT_CHECKPOINTS["adapter"](Moment(contents))}
    weights = {c.name: c for c in AT_CHECKPOINTS["weight"](Moment(contents))}
    assert components
    for name, component in components.items():
        stored, _, role = name.partition("[")
        place = stored if stored in base else stored.removeprefix("transformer.")
        before, after = base[place], truth[stored]
        if model is gpt2:
            before, after = before.T, after.T
        if role:
            index = "qkv".index(role[0])
            before, after = (np.split(value, 3)[index] for value in (before, after))
        source = component.recipe
        assert isinstance(source, Rescaling)
        assert source.read().values == pytest.approx(after - before, rel=1e-4, abs=1e-4)
        weight = weights[name].recipe.read()
        assert isinstance(weight, Dense)
        assert weight.values == pytest.approx(after, rel=1e-4, abs=1e-4)


def check_dora_of_convolution(model: Any, tmp_path: Path) -> None:
    """Without a base only B·A is there; with the weight, what PEFT merges."""
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    (parameter,) = contents.parameters.values()
    before = model.base_model.model.wide.base_layer.weight.detach().numpy().copy()
    after = model.merge_and_unload().wide.weight.detach().numpy()
    weight = Formed.read(before.reshape(6, -1), "float32")
    found = adapted(weight, parameter.adapter).values
    assert found == pytest.approx(after.reshape(6, -1), rel=1e-4, abs=1e-4)


def test_dora_alone_is_its_product_and_that_is_said(tmp_path: Path) -> None:
    model = saved(tmp_path, llama(), peft.LoraConfig(r=3, use_dora=True, target_modules=TARGETS))
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    contents = layout.read(tmp_path / "adapter", DEFAULT)
    check(contents, deltas(model))
    assert [note.reason for note in contents.notes] == ["base-missing", "dora"]
    components = list(AT_CHECKPOINTS["update"](Moment(contents, contents, None, Window(100, 200))))
    assert not components  # what B·A changed by is not what the weight changed by


@pytest.mark.parametrize("kind", ["IA3", "BOFT", "OFT", "HRA", "FOURIERFT", "HIRA", "NEW"])
def test_other_types_are_refused_by_their_own_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind}))
    save_file({"a.weight": np.ones((2, 2))}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(RankscopeError, match=f"of type {kind}, which is not read") as error:
        layout.read(tmp_path, DEFAULT)
    assert "low-rank" not in error.value.message and len(error.value.message) < 500


@pytest.mark.parametrize("entry", ["lora_alpha", "alpha"])
def test_an_unstated_scale_is_unknown_and_not_one(entry: str, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=3, target_modules=TARGETS)
    if entry == "alpha":
        config = peft.LoHaConfig(r=3, target_modules=TARGETS)
    saved(tmp_path, llama(), config)
    path = tmp_path / "adapter" / "adapter_config.json"
    entries = json.loads(path.read_text())
    del entries[entry]
    path.write_text(json.dumps(entries))
    contents = layout.read(tmp_path / "adapter", Options(base=tmp_path / "base"))
    adapters = [p.adapter for p in contents.parameters.values() if p.adapter]
    assert adapters and all(adapter.scale is None for adapter in adapters)
    assert [note.reason for note in contents.notes] == ["scale-unknown"]
    names = {c.name for c in AT_CHECKPOINTS["weight"](Moment(contents))}
    kinds = {
        c.kind
        for c in AT_CHECKPOINTS["weight"](Moment(contents))
        if contents.parameters[c.name].adapter
    }
    assert kinds == {"base"} and names == set(contents.parameters)
