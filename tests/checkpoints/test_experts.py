"""Mixtures of experts: every expert's matrix is the one that the model computes with."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, LatentHeads, Parameter
from rankscope.checkpoints.families.recognition import family_of
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.options import DEFAULT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

EXPERTS, WIDTH, HIDDEN = 3, 16, 12  # rows of 16 bytes, or torch cannot multiply them
COMMON = {
    "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 32, "head_dim": 4,
    "max_position_embeddings": 32, "num_experts_per_tok": 2,
}  # fmt: skip
DEEPSEEK = {
    "kv_lora_rank": 6, "q_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4,
    "v_head_dim": 6, "first_k_dense_replace": 0, "num_key_value_heads": 4, "head_dim": 4,
    "n_routed_experts": EXPERTS, "n_group": 1, "topk_group": 1, "n_shared_experts": 2,
}  # fmt: skip
SHARED = {"shared_expert_intermediate_size": 6}
MODELS: dict[str, dict[str, object]] = {
    "Mixtral": {"num_local_experts": EXPERTS},
    "Qwen2Moe": {"num_experts": EXPERTS, "decoder_sparse_step": 1} | SHARED,
    "Qwen3Moe": {"num_experts": EXPERTS, "decoder_sparse_step": 1},
    "Olmoe": {"num_experts": EXPERTS},
    "GraniteMoe": {"num_local_experts": EXPERTS},
    "DeepseekV3": DEEPSEEK,
    "DeepseekV2": DEEPSEEK,
    "GptOss": {"num_local_experts": EXPERTS},
}
FAMILIES = {
    "Mixtral": "mixtral", "Qwen2Moe": "experts", "Qwen3Moe": "experts", "Olmoe": "experts",
    "GraniteMoe": "granite_moe", "DeepseekV3": "deepseek", "DeepseekV2": "deepseek",
    "GptOss": "gpt_oss", "Llama4": "llama4",
}  # fmt: skip


def model_of(kind: str) -> "transformers.PreTrainedModel":
    """A model of one layer with random weights."""
    torch.manual_seed(1)
    entries = COMMON | MODELS.get(kind, {})
    if {"Qwen2Moe", "Qwen3Moe", "DeepseekV3", "DeepseekV2"} & {kind}:
        entries |= {"moe_intermediate_size": HIDDEN}
    if kind == "Llama4":
        config = transformers.Llama4TextConfig(
            **COMMON, num_local_experts=EXPERTS, intermediate_size_mlp=20, moe_layers=[0],
            pad_token_id=0,
        )  # fmt: skip
        model = transformers.Llama4ForCausalLM(config)
    else:
        config = getattr(transformers, f"{kind}Config")(**entries)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
    with torch.no_grad():  # some of these start from zero, or from memory as it was
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def saved(kind: str, folder: Path) -> Contents:
    model_of(kind).save_pretrained(folder)
    return huggingface.read(folder, DEFAULT)


def values(parameter: Parameter) -> np.ndarray:
    assert parameter.tensor is not None
    return np.asarray(parameter.tensor.read(), dtype=np.float64)


def by_place(contents: Contents) -> dict[tuple[str, int], Parameter]:
    """Parameters of the experts by role and expert."""
    found = contents.parameters.values()
    return {(p.role, p.expert): p for p in found if p.expert is not None}


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_experts_of_a_saved_model_compute_what_it_computes(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path)
    contents = huggingface.read(tmp_path, DEFAULT)
    assert contents.family == FAMILIES[kind]
    found = by_place(contents)
    assert set(found) == {(r, e) for r in ("gate", "up", "down") for e in range(EXPERTS)}
    assert all(p.layer == 0 for p in found.values())
    experts = next(m for n, m in model.named_modules() if n.endswith(".experts"))
    x = np.random.default_rng(0).normal(size=WIDTH)
    for i in range(EXPERTS):
        gate, up, down = (values(found[role, i]) for role in ("gate", "up", "down"))
        assert (gate.shape, down.shape) == ((HIDDEN, WIDTH), (WIDTH, HIDDEN))
        if kind == "GptOss":
            g = gate @ x + experts.gate_up_proj_bias[i, ::2].detach().numpy()
            u = up @ x + experts.gate_up_proj_bias[i, 1::2].detach().numpy()
            g, u = np.minimum(g, experts.limit), np.clip(u, -experts.limit, experts.limit)
            inner = (u + 1) * g / (1 + np.exp(-g * experts.alpha))
            expected = down @ inner + experts.down_proj_bias[i].detach().numpy()
        else:
            inner = gate @ x / (1 + np.exp(-(gate @ x))) * (up @ x)
            expected = down @ inner
        assert computed(experts, kind, i, x) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def computed(experts: "torch.nn.Module", kind: str, expert: int, x: np.ndarray) -> np.ndarray:
    """What the model's own module makes of ``x`` with this expert alone."""
    row = torch.tensor(x, dtype=torch.float32)[None]
    with torch.no_grad():
        if kind == "Llama4":
            return experts(row.repeat(EXPERTS, 1))[expert].numpy()
        return experts(row, torch.tensor([[expert]]), torch.ones(1, 1))[0].numpy()


@pytest.mark.parametrize("kind", FAMILIES)
def test_everything_else_of_a_saved_model_has_its_role(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    model.save_pretrained(tmp_path)
    contents = huggingface.read(tmp_path, DEFAULT)
    roles = {p.role for p in contents.parameters.values()}
    attention = {"q_a", "q_b", "kv_a", "kv_b"} if "Deepseek" in kind else {"q", "k", "v"}
    assert roles == attention | {"o", "gate", "up", "down", "router", "embed", "unembed"}
    assert not contents.skips
    (router,) = (p for p in contents.parameters.values() if p.role == "router")
    assert router.shape == (EXPERTS, WIDTH)
    held = model.state_dict()
    for name, parameter in contents.parameters.items():
        if name in held and held[name].ndim == 2:
            assert (values(parameter) == held[name].double().numpy()).all()
    kinds = ("norm", "bias", "shared_expert_gate", "sinks")
    assert all(any(kind in name for kind in kinds) for name in contents.left_out)


def test_latent_attention_has_heads_of_its_own_kind(tmp_path: Path) -> None:
    contents = saved("DeepseekV3", tmp_path)
    assert contents.heads == LatentHeads(count=4, kv_count=4, size=8, value_size=6, rotary=4)
    shared = [p for n, p in contents.parameters.items() if "shared_experts" in n]
    assert {p.role for p in shared} == {"gate", "up", "down"}
    assert {p.expert for p in shared} == {None}


@pytest.mark.parametrize("kind", FAMILIES)
def test_names_identify_experts_without_a_config(kind: str, tmp_path: Path) -> None:
    tensors = {n: t.contiguous().numpy() for n, t in model_of(kind).state_dict().items()}
    contents = read(tmp_path, tensors)
    assert contents.family in (FAMILIES[kind], "experts_stacked")
    stacks = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 3}
    assert len(stacks) == 2
    turned = kind in ("GptOss", "Llama4")
    for name, stack in stacks.items():
        for i in range(EXPERTS):
            whole = stack[i].T if turned else stack[i]
            if name.endswith("down_proj"):
                assert (values(contents.parameters[f"{name}[{i}]"]) == whole).all()
                continue
            halves = (whole[::2], whole[1::2]) if kind == "GptOss" else np.split(whole, 2)
            for role, half in zip(("gate", "up"), halves, strict=True):
                assert (values(contents.parameters[f"{name}[{i}][{role}]"]) == half).all()


def read(
    folder: Path, tensors: Mapping[str, np.ndarray], config: dict[str, object] | None = None
) -> Contents:
    save_file(dict(tensors), folder / "weights.safetensors")
    return contents_of("any", open_tensors(folder / "weights.safetensors"), config or {}, DEFAULT)


def test_qwens_with_eyes_store_their_stacks_turned(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    layer = "model.language_model.layers.0.mlp"
    tensors = {
        f"{layer}.experts.gate_up_proj": rng.normal(size=(EXPERTS, WIDTH, 2 * HIDDEN)),
        f"{layer}.experts.down_proj": rng.normal(size=(EXPERTS, HIDDEN, WIDTH)),
        f"{layer}.gate.weight": rng.normal(size=(EXPERTS, WIDTH)),
    }
    contents = read(tmp_path, tensors, {"model_type": "qwen3_vl_moe"})
    found = by_place(contents)
    stack = tensors[f"{layer}.experts.gate_up_proj"]
    assert (values(found["up", 2]) == stack[2][:, HIDDEN:].T).all()
    assert found["down", 1].shape == (WIDTH, HIDDEN)


def test_stacks_in_metas_names_are_as_the_model_multiplies_them(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    tensors = {
        "layers.0.moe.experts.w1": rng.normal(size=(EXPERTS, HIDDEN, WIDTH)),
        "layers.0.moe.experts.w2": rng.normal(size=(EXPERTS, WIDTH, HIDDEN)),
        "layers.0.moe.experts.w3": rng.normal(size=(EXPERTS, HIDDEN, WIDTH)),
        "layers.0.moe.router.gate.weight": rng.normal(size=(EXPERTS, WIDTH)),
        "layers.0.moe.shared_experts.w2.weight": rng.normal(size=(WIDTH, HIDDEN)),
        "layers.0.attention.wo.weight": rng.normal(size=(WIDTH, WIDTH)),
        "tok_embeddings.weight": rng.normal(size=(32, WIDTH)),
    }
    contents = read(tmp_path, tensors)
    assert contents.family == "meta_llama"
    found = by_place(contents)
    assert (values(found["gate", 1]) == tensors["layers.0.moe.experts.w1"][1]).all()
    assert (values(found["down", 2]) == tensors["layers.0.moe.experts.w2"][2]).all()
    assert contents.parameters["layers.0.moe.router.gate.weight"].role == "router"


def test_a_stack_of_experts_needs_no_known_role(tmp_path: Path, rng: np.random.Generator) -> None:
    stack = rng.normal(size=(EXPERTS, HIDDEN, WIDTH))
    contents = read(tmp_path, {"net.0.experts.mystery": stack})
    assert [(p.role, p.expert) for p in contents.parameters.values()] == [
        ("other", i) for i in range(EXPERTS)
    ]
    assert all((values(p) == stack[p.expert]).all() for p in contents.parameters.values())


def test_a_model_without_experts_is_another_family() -> None:
    attention = {f"model.layers.0.self_attn.{p}_proj": (8, 8) for p in "qkvo"}
    dense = attention | {"model.layers.0.mlp.down_proj": (8, 12)}
    sparse = attention | {
        "model.layers.0.mlp.gate": (4, 8),
        "model.layers.0.mlp.experts.0.down_proj": (8, 12),
    }
    assert family_of({}, dense).name == "llama-like"
    assert family_of({}, sparse).name == "experts"
