"""The tables of families, compared with the models that transformers builds."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.contents import Contents, Heads
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.families.family import Fused
from rankscope.checkpoints.families.family_files import families, read_family
from rankscope.checkpoints.families.heads import Towers, heads_of
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.families.parameters import FoundParameters, parameters_of
from rankscope.checkpoints.families.recognition import family_of
from rankscope.checkpoints.families.splitting import rows_of
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.errors import RankscopeError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS, HEADS, SIZE, WIDTH, HIDDEN, VOCABULARY = 2, 4, 8, 32, 48, 40
GATED = ("q", "k", "v", "o", "gate", "up", "down")
PLAIN = ("q", "k", "v", "o", "up", "down")
USUAL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
}
OLD = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
FALCON = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
GROUPED = {**USUAL, "num_key_value_heads": 2}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
BERT = {**USUAL, "is_decoder": True}


@dataclass(frozen=True)
class Case:
    """A model that transformers builds, and what is to be found in it."""

    model_type: str
    family: str
    config: dict[str, Any]
    roles: tuple[str, ...] = PLAIN
    kv_heads: int = HEADS
    alone: str = ""  # the family by keys alone, where it is another
    other: tuple[str, ...] = ()  # ends of modules that have no role
    masked: bool = False
    kept_whole: bool = False  # whether no split is known without the heads
    fixed: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.model_type}-{self.family}"


CASES = [
    Case("gpt2", "gpt2", OLD),
    Case("openai-gpt", "gpt2", OLD),
    Case("gpt_bigcode", "gpt_bigcode", {**OLD, "multi_query": True}, kv_heads=1,
         alone="nanogpt", kept_whole=True),
    Case("gpt_neox", "gpt_neox", USUAL, kept_whole=True),
    Case("gpt_neox_japanese", "gpt_neox", USUAL, kept_whole=True),
    Case("bloom", "bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS},
         kept_whole=True),
    Case("falcon", "falcon", {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
         kv_heads=2, alone="bloom", kept_whole=True),
    Case("falcon", "falcon_multi_query", {**FALCON, "multi_query": True}, kv_heads=1,
         alone="bloom", kept_whole=True),
    Case("falcon", "falcon_old", {**FALCON, "multi_query": False}, alone="bloom", kept_whole=True),
    Case("falcon", "falcon_old", {**FALCON, "multi_query": False, "alibi": True}, alone="bloom",
         kept_whole=True),
    Case("persimmon", "persimmon", USUAL, kept_whole=True),
    Case("opt", "opt", {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "ffn_dim": HIDDEN,
                        "num_attention_heads": HEADS, "word_embed_proj_dim": 16},
         other=("project_in", "project_out")),
    Case("xglm", "opt", {"d_model": WIDTH, "num_layers": LAYERS, "attention_heads": HEADS,
                         "ffn_dim": HIDDEN}),
    Case("biogpt", "opt", USUAL),
    Case("phi", "phi", GROUPED, kv_heads=2),
    Case("phi3", "phi3", {**GROUPED, **TOKENS}, GATED, kv_heads=2, kept_whole=True),
    Case("phi3", "phi3", {**USUAL, **TOKENS}, GATED),
    Case("glm", "glm", {**GROUPED, "head_dim": SIZE, "pad_token_id": 2}, GATED, kv_heads=2),
    Case("mpt", "mpt", {"d_model": WIDTH, "n_layers": LAYERS, "n_heads": HEADS}),
    Case("codegen", "codegen", {**OLD, "rotary_dim": 4}),
    Case("gptj", "gptj", {**OLD, "rotary_dim": 4}),
    Case("gpt_neo", "gpt_neo", {"hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": HEADS,
                                "attention_types": [[["global", "local"], 1]]}),
    Case("starcoder2", "starcoder2", GROUPED, kv_heads=2),
    Case("llama", "llama-like", GROUPED, GATED, kv_heads=2),
    Case("stablelm", "llama-like", GROUPED, GATED, kv_heads=2),
    Case("gemma2", "llama-like", {**GROUPED, "head_dim": 2 * SIZE}, GATED, kv_heads=2,
         fixed={"size": 2 * SIZE}),
    Case("cohere", "llama-like", {**GROUPED, "use_qk_norm": True}, GATED, kv_heads=2),
    Case("nemotron", "llama-like", {**GROUPED, "head_dim": SIZE}, kv_heads=2),
    Case("bert", "bert", BERT, masked=True, other=("predictions.transform.dense",)),
    Case("roberta", "bert", BERT, masked=True, other=("lm_head.dense",)),
    Case("electra", "bert", BERT, masked=True,
         other=("generator_predictions.dense", "embeddings_project")),
    Case("deberta-v2", "bert", USUAL, masked=True, other=("predictions.transform.dense",)),
    Case("mpnet", "bert", USUAL, masked=True, other=("lm_head.dense",)),
    Case("modernbert", "modernbert", {**USUAL, "pad_token_id": 2, "local_attention": 8}, GATED,
         masked=True, other=("head.dense",)),
    Case("distilbert", "distilbert", {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS,
                                      "hidden_dim": HIDDEN},
         masked=True, other=("vocab_transform",)),
]  # fmt: skip
FUSED = [case for case in CASES if families()[case.family].fused and case.family != "glm"]
GATES = [case for case in CASES if case.family in ("phi3", "glm", "modernbert")]

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], tuple[Any, Path]]:
    """Build the model of a case, once, and write it; its biases are zero."""
    made: dict[int, tuple[Any, Path]] = {}

    def build(case: Case) -> tuple[Any, Path]:
        if id(case) not in made:
            torch.manual_seed(0)
            config = transformers.AutoConfig.for_model(
                case.model_type, vocab_size=VOCABULARY, **case.config
            )
            kind = "AutoModelForMaskedLM" if case.masked else "AutoModelForCausalLM"
            model = getattr(transformers, kind).from_config(config).eval()
            for name, values in model.named_parameters():
                if values.ndim > 1:
                    torch.nn.init.normal_(values, std=0.3)
                elif name.endswith("bias"):
                    torch.nn.init.zeros_(values)
            folder = tmp_path_factory.mktemp(case.family)
            model.save_pretrained(folder)
            made[id(case)] = model, folder
        return made[id(case)]

    return build


def contents_of_model(folder: Path) -> Contents:
    return open_run(folder)[0].contents


def without_config(folder: Path, target: Path) -> Path:
    """The same weights without a config."""
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return target


@every_case
@pytest.mark.slow
def test_family_and_heads_are_those_of_the_config(case: Case, built: Any) -> None:
    contents = contents_of_model(built(case)[1])
    assert contents.family == case.family
    assert contents.heads == Heads(HEADS, case.kv_heads, case.fixed.get("size", SIZE))
    assert not contents.skips


@every_case
def test_every_matrix_is_accounted_for_once(case: Case, built: Any) -> None:
    model, folder = built(case)
    contents = contents_of_model(folder)
    stored = open_tensors(folder / "model.safetensors")
    read: dict[str, int] = dict.fromkeys(stored, 0)
    for parameter in contents.parameters.values():
        assert parameter.tensor is not None
        read[parameter.tensor.name] += parameter.tensor.read().size
    for name, tensor in stored.items():
        assert read[name] == (0 if name in contents.left_out else np.prod(tensor.shape))
    maps = [m for m in model.modules() if type(m).__name__.endswith(("Linear", "Conv1D"))]
    analysed = {p.module for p in contents.parameters.values() if p.role != "embed"}
    assert len(analysed) == len(maps) - model.config.tie_word_embeddings


@every_case
def test_every_layer_has_all_its_roles_once(case: Case, built: Any) -> None:
    parameters = contents_of_model(built(case)[1]).parameters.values()
    for layer in range(LAYERS):
        assert sorted(p.role for p in parameters if p.layer == layer) == sorted(case.roles)
    outside = {p.role for p in parameters if p.layer is None and not p.module.endswith(case.other)}
    others = [p for p in parameters if p.role == "other"]
    assert {"embed"} <= outside <= {"embed", "unembed"}
    assert all(p.module.endswith(case.other) for p in others) and len(others) == len(case.other)


@every_case
def test_keys_alone_identify_the_family_and_never_split_wrongly(
    case: Case, built: Any, tmp_path: Path
) -> None:
    folder = built(case)[1]
    found = contents_of_model(without_config(folder, tmp_path))
    known = contents_of_model(folder)
    assert found.family == (case.alone or case.family)
    assert found.heads is None
    fused = [p for p in found.parameters.values() if p.layer is not None and p.role == "other"]
    assert len(fused) == (LAYERS if case.kept_whole else 0)
    for name in found.parameters.keys() & known.parameters.keys():
        one, other = found.parameters[name], known.parameters[name]
        assert (one.layer, one.role) == (other.layer, other.role)
        assert one.tensor is not None and other.tensor is not None
        assert (one.tensor.read() == other.tensor.read()).all()
    if not case.kept_whole:
        assert found.parameters.keys() == known.parameters.keys()


@every_case
def test_attention_to_one_token_is_v_and_o_per_head(case: Case, built: Any) -> None:
    """With one position, what o is given are the values of each head's group, whatever q and k."""
    model, folder = built(case)
    contents = contents_of_model(folder)
    roles = {p.role: p for p in contents.parameters.values() if p.layer == LAYERS - 1}
    heads, seen = contents.heads, {}
    assert heads is not None
    value, output = roles["v"], roles["o"]
    assert value.shape[0] == heads.kv_count * heads.size
    assert output.shape[1] == heads.count * heads.size
    for role, parameter in (("v", value), ("o", output)):
        model.get_submodule(parameter.module).register_forward_hook(
            lambda _, given, result, role=role: seen.update({role: (given[0], result)})
        )
    with torch.no_grad():
        model(input_ids=torch.tensor([[5]]))
    x, given, written = (t.flatten().numpy() for t in (seen["v"][0], *seen["o"]))
    assert value.tensor is not None and output.tensor is not None
    values = (value.tensor.read() @ x).reshape(heads.kv_count, heads.size)
    spread = np.repeat(values, heads.count // heads.kv_count, axis=0).flatten()
    assert spread == pytest.approx(given, rel=1e-4, abs=1e-5)
    assert output.tensor.read() @ given == pytest.approx(written, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("case", FUSED, ids=str)
@pytest.mark.slow
def test_rows_of_a_fused_matrix_act_as_their_part(case: Case, built: Any) -> None:
    """Derivatives of the attention separate q, k and v, and the heads that they serve.

    What a position is given depends on its own values, where it is alone; on another position's
    keys besides, where there is one; and on no other position's queries.
    """
    model, folder = built(case)
    contents = contents_of_model(folder)
    parts = {
        p.role: p for p in contents.parameters.values()
        if p.layer == LAYERS - 1 and p.role in ("q", "k", "v", "o")
    }  # fmt: skip
    assert contents.heads is not None and len({parts[r].module for r in "qkv"}) == 1
    between = parts["q"].module, parts["o"].module
    (alone,) = derivatives(model, between, contents.heads, tokens=[5]).swapaxes(0, 1)
    other, own = derivatives(model, between, contents.heads, tokens=[5, 9]).swapaxes(0, 1)
    is_value = alone > 0
    is_key = (other > 0) & ~is_value
    is_query = (own > 0) & ~is_value & ~is_key
    weight = model.get_submodule(parts["q"].module).weight.detach().numpy()
    weight = weight.T if case.family == "gpt2" else weight
    for role, serves in (("q", is_query), ("k", is_key), ("v", is_value)):
        tensor = parts[role].tensor
        assert tensor is not None
        chosen = np.flatnonzero(serves.any(axis=1))
        by_head = sorted(chosen, key=lambda row: (int(np.argmax(serves[row])), row))
        assert (tensor.read() == weight[by_head]).all()
        served = serves[by_head].sum(axis=1)
        assert (served == (1 if role == "q" else HEADS // case.kv_heads)).all()
    assert len(weight) == sum(parts[role].shape[0] for role in "qkv")


def derivatives(
    model: Any, between: tuple[str, str], heads: Heads, *, tokens: list[int]
) -> np.ndarray:
    """How much what each head gives the last token depends on the fused map's rows at every token.

    Shape (rows, tokens, heads); ``between`` are the fused map and that of the heads' outputs.
    """
    seen: dict[str, Any] = {}

    def cut(module: Any, given: Any, result: Any) -> Any:
        seen["rows"] = result.detach().requires_grad_()
        return seen["rows"]

    hooks = [
        model.get_submodule(between[0]).register_forward_hook(cut),
        model.get_submodule(between[1]).register_forward_pre_hook(
            lambda _, given: seen.update(given=given[0])
        ),
    ]
    model(input_ids=torch.tensor([tokens]))
    for hook in hooks:
        hook.remove()
    rows, given = seen["rows"], seen["given"].reshape(len(tokens), heads.count, heads.size)
    found = np.zeros((rows.shape[-1], len(tokens), heads.count))
    for head in range(heads.count):
        for entry in given[-1, head]:
            (slope,) = torch.autograd.grad(entry, rows, retain_graph=True)
            found[:, :, head] += slope.reshape(len(tokens), -1).abs().T.numpy()
    return found


@pytest.mark.parametrize("case", GATES, ids=str)
def test_up_is_the_half_without_an_activation(case: Case, built: Any) -> None:
    model, folder = built(case)
    contents = contents_of_model(folder)
    roles = {p.role: p for p in contents.parameters.values() if p.layer == LAYERS - 1}
    fused, down = model.get_submodule(roles["up"].module), roles["down"].module
    weight, given = fused.weight.detach().numpy(), {}
    for role in ("gate", "up"):
        tensor = roles[role].tensor
        assert tensor is not None
        rows = torch.tensor((weight[:, None] == tensor.read()).all(-1).any(1))
        assert int(rows.sum()) == HIDDEN
        for factor in (1, 2):
            hooks = [
                fused.register_forward_hook(lambda *a, by=1 + (factor - 1) * rows: a[-1] * by),
                model.get_submodule(down).register_forward_pre_hook(
                    lambda _, inputs, key=(role, factor): given.update({key: inputs[0]})
                ),
            ]
            with torch.no_grad():
                model(input_ids=torch.tensor([[5, 9]]))
            for hook in hooks:
                hook.remove()
    assert torch.allclose(given["up", 2], 2 * given["up", 1])
    assert not torch.allclose(given["gate", 2], 2 * given["gate", 1])


SEQUENCES = [
    ("t5", "t5", {"d_model": WIDTH, "d_kv": SIZE, "d_ff": HIDDEN, "num_layers": LAYERS,
                  "num_heads": HEADS}, PLAIN, "EncDecAttention"),
    ("t5", "t5", {"d_model": WIDTH, "d_kv": SIZE, "d_ff": HIDDEN, "num_layers": LAYERS,
                  "num_heads": HEADS, "feed_forward_proj": "gated-gelu"}, GATED, "EncDecAttention"),
    ("bart", "opt", {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": LAYERS,
                     "encoder_attention_heads": HEADS, "decoder_attention_heads": HEADS,
                     "encoder_ffn_dim": HIDDEN, "decoder_ffn_dim": HIDDEN}, PLAIN, "encoder_attn"),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "family", "config", "roles", "cross"), SEQUENCES)
@pytest.mark.parametrize("stated", [True, False])
def test_attention_to_an_encoder_is_kept_apart(
    stated: bool, model_type: str, family: str, config: dict[str, Any], roles: tuple[str, ...],
    cross: str, tmp_path: Path,
) -> None:  # fmt: skip
    config = transformers.AutoConfig.for_model(model_type, vocab_size=VOCABULARY, **config)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(tmp_path)
    if not stated:
        (tmp_path / "config.json").unlink()
    contents = contents_of_model(tmp_path)
    assert contents.family == family
    for layer in range(LAYERS):
        for stack in ("encoder", "decoder"):
            own = [
                p for p in contents.parameters.values()
                if p.layer == layer and f"{stack}." in p.module and cross not in p.module
            ]  # fmt: skip
            assert sorted(p.role for p in own) == sorted(roles)
    crossing = [p for p in contents.parameters.values() if cross in p.module]
    assert len(crossing) == 4 * LAYERS and {p.role for p in crossing} == {"other"}
    outside = {p.role for p in contents.parameters.values() if p.layer is None}
    assert outside <= {"embed", "unembed"}


@pytest.mark.parametrize("tower", ["encoder.layers.{}.mlp.fc{}", "layers.{}.fc{}"])
def test_the_language_model_decides_the_family(tower: str, tmp_path: Path) -> None:
    one = np.ones((4, 4), np.float32)
    tensors = {
        f"model.language_model.layers.{i}.{name}.weight": one
        for i in range(2)
        for name in (
            *(f"self_attn.{letter}_proj" for letter in "qkvo"),
            *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
        )
    }
    for i in range(5):
        layer = f"model.tower.{tower.format(i, 1).rpartition('.')[0].removesuffix('.mlp')}"
        tensors |= {f"{layer}.self_attn.{name}_proj.weight": one for name in ("q", "k", "v", "out")}
        tensors |= {f"model.tower.{tower.format(i, j)}.weight": one for j in (1, 2)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert contents_of_model(tmp_path).family == "llama-like"


# Files that no library writes.


def nanogpt(rng: np.random.Generator, *, bias: bool) -> dict[str, np.ndarray]:
    """The ``model`` entry of a ckpt.pt of nanoGPT."""
    shapes = {"transformer.wte.weight": (VOCABULARY, WIDTH), "transformer.wpe.weight": (16, WIDTH)}
    for i in range(LAYERS):
        block = f"transformer.h.{i}"
        shapes |= {
            f"{block}.ln_1.weight": (WIDTH,),
            f"{block}.attn.c_attn.weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.c_proj.weight": (WIDTH, WIDTH),
            f"{block}.ln_2.weight": (WIDTH,),
            f"{block}.mlp.c_fc.weight": (4 * WIDTH, WIDTH),
            f"{block}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
        }
        if bias:
            shapes[f"{block}.attn.c_attn.bias"] = (3 * WIDTH,)
    shapes["transformer.ln_f.weight"] = (WIDTH,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def found_in(path: Path, config: dict[str, Any], *, tied: str = "") -> tuple[str, FoundParameters]:
    """The family and parameters of a file; ``tied`` is a second name of its embedding."""
    tensors = dict(open_tensors(path))
    if tied:
        tensors[tied] = tensors["transformer.wte.weight"]
    shapes = {n.removesuffix(".weight"): t.shape for n, t in tensors.items() if len(t.shape) > 1}
    family = family_of(config, shapes)
    return family.name, parameters_of(tensors, family, Towers(config, family))


@pytest.mark.parametrize("config", [{}, {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH}])
@pytest.mark.parametrize("bias", [False, True])
def test_nanogpt_has_the_names_of_gpt2_the_other_way_round(
    config: dict[str, Any], bias: bool, tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = nanogpt(rng, bias=bias)
    save_file(weights, tmp_path / "model.safetensors")
    name, found = found_in(tmp_path / "model.safetensors", config, tied="lm_head.weight")
    assert name == "nanogpt"
    assert not {"lm_head.weight", "transformer.wpe.weight"} & found.parameters.keys()
    for layer in range(LAYERS):
        own = {p.role: p for p in found.parameters.values() if p.layer == layer}
        assert set(own) == set(PLAIN)
        fused = weights[f"transformer.h.{layer}.attn.c_attn.weight"]
        for role, rows in zip("qkv", np.split(fused, 3), strict=True):
            assert own[role].tensor is not None
            assert (own[role].tensor.read() == rows).all()
        down = weights[f"transformer.h.{layer}.mlp.c_proj.weight"]
        assert (own["down"].tensor.read() == down).all()


def test_weights_the_other_way_round_overrule_the_config(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    save_file(nanogpt(rng, bias=True), tmp_path / "model.safetensors")
    name, _ = found_in(tmp_path / "model.safetensors", {"model_type": "gpt2", **OLD})
    assert name == "nanogpt"


def test_bigcode_without_multi_query_is_split_head_by_head(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = nanogpt(rng, bias=True)
    save_file(weights, tmp_path / "model.safetensors")
    config = {"model_type": "gpt_bigcode", "multi_query": False, **OLD}
    name, found = found_in(tmp_path / "model.safetensors", config)
    assert name == "gpt_bigcode_multi_head"
    fused = weights["transformer.h.1.attn.c_attn.weight"].reshape(HEADS, 3, SIZE, WIDTH)
    for i, role in enumerate("qkv"):
        (part,) = (p for p in found.parameters.values() if p.layer == 1 and p.role == role)
        assert part.tensor is not None
        assert (part.tensor.read() == fused[:, i].reshape(WIDTH, WIDTH)).all()


QKV = ("q", "k", "v")
MANY, FEW = Heads(4, 4, 8), Heads(4, 2, 8)


@pytest.mark.parametrize(
    ("fused", "shape", "heads", "split"),
    [
        (Fused(QKV), (96, 32), None, True),
        (Fused(QKV), (48, 32), None, False),  # 32 + 8 + 8: its thirds would mix q and k
        (Fused(QKV), (96, 32), MANY, True),
        (Fused(QKV), (96, 32), FEW, False),
        (Fused(QKV), (64, 32), FEW, True),
        (Fused(("q", "v", "k"), times=4), (96, 32), None, True),
        (Fused(("q", "v", "k"), times=4), (96, 32), MANY, True),
        (Fused(("q", "v", "k"), times=5), (96, 32), MANY, False),
        (Fused(QKV, "heads"), (96, 32), None, False),
        (Fused(QKV, "heads"), (64, 32), FEW, False),
        (Fused(QKV, "heads"), (96, 32), MANY, True),
        (Fused(QKV, "groups"), (64, 32), None, False),
        (Fused(QKV, "groups"), (96, 32), FEW, False),
        (Fused(QKV, "groups"), (64, 32), FEW, True),
        (Fused(("gate", "up")), (96, 32), None, True),
        (Fused(("gate", "up")), (96, 32), FEW, True),
        (Fused(("gate", "up")), (95, 32), FEW, False),
        (Fused((*QKV, "gate", "up")), (160, 32), FEW, True),
        (Fused((*QKV, "gate", "up")), (63, 32), FEW, False),
    ],
)
def test_rows_are_shared_out_whole_or_not_at_all(
    fused: Fused, shape: tuple[int, int], heads: Heads | None, split: bool
) -> None:
    rows = rows_of(fused, shape, heads)
    assert (rows is not None) == split
    every: list[int] = []
    for start, axes in (rows or {}).values():
        own = np.array([start])
        for size, stride in axes:
            own = (own[:, None] + np.arange(size) * stride).flatten()
        every += own.tolist()
    assert sorted(every) == list(range(shape[0] if split else 0))


@pytest.mark.parametrize(
    ("name", "is_left_out"),
    [
        ("model.layers.0.input_layernorm.weight", False),
        ("model.layers.0.self_attn.layernorm_qkv.weight", False),
        ("transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight", False),
        ("blocks.0.norm1.linear.weight", False),
        ("backbone.layers.0.mixer.A_log", True),
        ("decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", True),
        ("model.layers.0.mixer.in_proj.weight", False),
    ],
)
def test_what_is_not_a_linear_map_is_left_out(name: str, is_left_out: bool, tmp_path: Path) -> None:
    save_file({name: np.ones((6, 4), np.float32)}, tmp_path / "model.safetensors")
    contents = contents_of_model(tmp_path)
    assert (name in contents.left_out) == is_left_out
    assert (name in contents.parameters) != is_left_out


def test_a_single_row_is_not_a_matrix(tmp_path: Path) -> None:
    save_file({"score.weight": np.ones((1, 4), np.float32)}, tmp_path / "model.safetensors")
    assert contents_of_model(tmp_path).left_out == ("score.weight",)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({}, None),
        ({"num_attention_heads": 4}, None),
        ({"num_attention_heads": 5, "hidden_size": 32}, None),
        ({"num_attention_heads": 0, "hidden_size": 32}, None),
        ({"num_attention_heads": "4", "hidden_size": 32}, None),
        ({"text_config": "none", "multi_query": True}, None),
        ({"num_attention_heads": 4, "hidden_size": 32}, Heads(4, 4, 8)),
        ({"text_config": {"n_heads": 4, "dim": 32, "num_kv_heads": 2}}, Heads(4, 2, 8)),
        ({"n_head": 4, "n_embd": 32, "head_dim": 16}, Heads(4, 4, 16)),
        ({"n_head": 4, "n_embd": 32, "multi_query": True}, Heads(4, 1, 8)),
    ],
)
def test_heads_are_stated_or_unknown(config: dict[str, Any], heads: Heads | None) -> None:
    assert heads_of(config, read_family("generic")) == heads


# The tables themselves.


def test_every_table_is_read_under_its_name() -> None:
    folder = resources.files("rankscope.checkpoints.families") / "data"
    tables = [file for file in folder.iterdir() if file.name.endswith(".toml")]
    assert len(families()) == len(tables)
    for name, family in families().items():
        assert read_family(name) is family and family.description
        assert family.keys or family.model_types or name == "generic"


def test_config_or_keys_separate_families_of_one_model_type() -> None:
    by_type: dict[str, list[Any]] = {}
    for family in families().values():
        for model_type in family.model_types:
            by_type.setdefault(model_type, []).append(family)
    for model_type, found in by_type.items():
        told = {(json.dumps(dict(family.when)), tuple(family.keys)) for family in found}
        assert len(told) == len(found), model_type


def test_a_table_of_ones_own_is_used(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        'name = "mine"\n[config]\nheads = ["att.n"]\nwidth = ["size"]\n'
        '[roles]\nprojection = "o"\n[fused.mix]\nparts = ["q", "k", "v"]\nsplit = "heads"\n'
    )
    family = read_family(table)
    heads = heads_of({"att": {"n": 2}, "size": 6}, family)
    assert heads == Heads(2, 2, 3)
    mix = np.arange(18 * 6, dtype=np.float32).reshape(18, 6)
    (tmp_path / "run").mkdir()
    save_file(
        {"blocks.3.mix.weight": mix, "blocks.3.projection.weight": mix[:6]},
        tmp_path / "run" / "model.safetensors",
    )
    (tmp_path / "run" / "config.json").write_text(json.dumps({"att": {"n": 2}, "size": 6}))
    contents = open_run(tmp_path / "run", family=table)[0].contents
    assert contents.family == "mine"
    own = {p.role: p.tensor for p in contents.parameters.values()}
    assert set(own) == {"q", "k", "v", "o"}
    assert own["k"] is not None
    assert (own["k"].read() == mix[[3, 4, 5, 12, 13, 14]]).all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name = ", "is not valid TOML"),
        ("name = " + "9" * 5000, "is not valid TOML"),
        ("name = " + "[" * 5000, "is not valid TOML"),
        ("name = 1979-05-77", "is not valid TOML"),
        ('name = "x"\n[[norms]]\nq = "n"\nkind = "rms"\noffset = inf', "offset must be a number"),
        ("name = 3", "needs a name"),
        ('description = "no name"', "needs a name"),
        ('name = "x"\ncolour = "red"', "has unknown entries: colour"),
        ('name = "x"\nkeys = "q_proj"', "keys must be a list of strings"),
        ('name = "x"\nroles = ["q"]', "roles must be a table"),
        ('name = "x"\n[roles]\natt = "query"', "the role of 'att' is 'query': choose from q, k, v"),
        ('name = "x"\n[config]\nheads = "n"', "must be a list of strings"),
        (
            'name = "x"\n[config]\nlayers = ["n"]',
            "config may only have heads, kv_heads, head_size, width",
        ),
        ('name = "x"\n[fused]\nqkv = ["q"]', "'qkv' needs parts"),
        ('name = "x"\n[fused.qkv]\nsplit = "heads"', "'qkv' needs parts"),
        ('name = "x"\n[fused.qkv]\nparts = []', "'qkv': parts must be roles, each once"),
        ('name = "x"\n[fused.qkv]\nparts = ["q", "q"]', "'qkv': parts must be roles, each once"),
        ('name = "x"\n[fused.qkv]\nparts = ["q", "z"]', "'qkv': parts must be roles, each once"),
        (
            'name = "x"\n[fused.qkv]\nparts = ["q"]\nsplit = "rows"',
            "split must be one of blocks, heads",
        ),
        ('name = "x"\n[fused.qkv]\nparts = ["q"]\ntimes = 0', "times a whole number from 1"),
        ('name = "x"\n[fused.qkv]\nparts = ["q"]\nnumber = 2', "may only have parts, split, times"),
        (
            'name = "x"\n[fused.gu]\nparts = ["gate", "up"]\nsplit = "groups"',
            "the split groups needs the parts q, k",
        ),
    ],
)
def test_a_table_that_is_wrong_is_refused_in_one_line(
    table: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(table)
    with pytest.raises(RankscopeError) as raised:
        read_family(path)
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_family_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        RankscopeError, match=r"is neither a family nor a file: choose from .*llama-like"
    ):
        read_family("lama")


def test_every_role_that_a_table_gives_is_a_role() -> None:
    for family in families().values():
        parts = {part for fused in family.fused.values() for part in fused.parts}
        assert {*family.roles.values(), *parts} <= set(ROLES)
