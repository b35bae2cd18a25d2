"""Parts of fused tensors and of those with many axes, compared with modules that use them.

Each module below has the names and the mathematics of a library's own; torch's are torch's. What
the parts give must be what the module gives, so that no row of q can pass for one of k.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.options import DEFAULT

torch = pytest.importorskip("torch")
F = torch.nn.functional

WIDTH, HEADS, SIZE, HIDDEN, VOCABULARY = 16, 4, 4, 40, 24
Module = torch.nn.Module
Linear = torch.nn.Linear


def attention(q: Any, k: Any, v: Any, size: int) -> Any:
    """Softmax attention of (tokens, heads · size), every head for itself; keys may be shared."""
    q, k, v = (t.reshape(len(t), -1, size).transpose(0, 1) for t in (q, k, v))
    k, v = (t.repeat_interleave(len(q) // len(t), 0) for t in (k, v))
    weights = (q @ k.transpose(1, 2) / size**0.5).softmax(-1)
    return (weights @ v).transpose(0, 1).reshape(q.shape[1], -1)


class Block(Module):
    """What all blocks here have: a forward pass of the attention, and one of the MLP."""

    size = SIZE

    def attend(self, x: Any) -> Any:
        raise NotImplementedError

    def feed(self, x: Any) -> Any:
        raise NotImplementedError


def holding(**parts: Any) -> Module:
    module = Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def parameter(*shape: int) -> Any:
    return torch.nn.Parameter(torch.randn(*shape))


def linear(rows: int, columns: int) -> Any:
    return Linear(columns, rows, bias=False)


class Timm(Block):
    def __init__(self) -> None:
        super().__init__()
        self.attn = holding(qkv=linear(3 * WIDTH, WIDTH), proj=linear(WIDTH, WIDTH))
        self.mlp = holding(fc1=linear(HIDDEN, WIDTH), fc2=linear(WIDTH, HIDDEN))

    def attend(self, x: Any) -> Any:
        qkv = self.attn.qkv(x).reshape(len(x), 3, HEADS, SIZE).permute(1, 0, 2, 3)
        return self.attn.proj(attention(*(t.reshape(len(x), -1) for t in qkv), SIZE))

    def feed(self, x: Any) -> Any:
        return self.mlp.fc2(F.relu(self.mlp.fc1(x)))


class Lucidrains(Block):
    size = 6  # heads · size is not the width, as is usual there

    def __init__(self) -> None:
        super().__init__()
        inner = HEADS * self.size
        out = torch.nn.Sequential(linear(WIDTH, inner), torch.nn.Dropout(0))
        net = torch.nn.Sequential(
            torch.nn.LayerNorm(WIDTH, elementwise_affine=False), linear(HIDDEN, WIDTH),
            torch.nn.ReLU(), torch.nn.Dropout(0), linear(WIDTH, HIDDEN),
        )  # fmt: skip
        setattr(self, "0", holding(to_qkv=linear(3 * inner, WIDTH), to_out=out))
        setattr(self, "1", holding(net=net))

    def attend(self, x: Any) -> Any:
        own = getattr(self, "0")
        return own.to_out(attention(*own.to_qkv(x).chunk(3, dim=-1), self.size))

    def feed(self, x: Any) -> Any:
        return getattr(self, "1").net[1:](x)


class TorchEncoder(Block):
    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0, bias=False)
        for name, part in layer.named_children():
            setattr(self, name, part)

    def attend(self, x: Any) -> Any:
        return self.self_attn(x[:, None], x[:, None], x[:, None])[0][:, 0]

    def feed(self, x: Any) -> Any:
        return self.linear2(F.relu(self.linear1(x)))


class OpenClip(Block):
    def __init__(self) -> None:
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(WIDTH, HEADS, bias=False)
        self.mlp = holding(c_fc=linear(HIDDEN, WIDTH), c_proj=linear(WIDTH, HIDDEN))

    def attend(self, x: Any) -> Any:
        return self.attn(x[:, None], x[:, None], x[:, None])[0][:, 0]

    def feed(self, x: Any) -> Any:
        return self.mlp.c_proj(F.relu(self.mlp.c_fc(x)))


class Torchvision(OpenClip):
    def __init__(self) -> None:
        super().__init__()
        self.self_attention, self.attn = self.attn, None
        up, down = self.mlp.c_fc, self.mlp.c_proj
        self.mlp = torch.nn.Sequential(
            up, torch.nn.ReLU(), torch.nn.Dropout(0), down, torch.nn.Dropout(0)
        )

    def attend(self, x: Any) -> Any:
        return self.self_attention(x[:, None], x[:, None], x[:, None])[0][:, 0]

    def feed(self, x: Any) -> Any:
        return self.mlp(x)


class TransformerLens(Block):
    def __init__(self) -> None:
        super().__init__()
        maps = {f"W_{name}": parameter(HEADS, WIDTH, SIZE) for name in "QKV"}
        self.attn = holding(**maps, W_O=parameter(HEADS, SIZE, WIDTH), b_Q=parameter(HEADS, SIZE))
        self.mlp = holding(W_in=parameter(WIDTH, HIDDEN), W_out=parameter(HIDDEN, WIDTH))

    def attend(self, x: Any) -> Any:
        maps = self.attn.W_Q, self.attn.W_K, self.attn.W_V
        q, k, v = (torch.einsum("pd,hdk->phk", x, w).flatten(1) for w in maps)
        z = attention(q, k, v, SIZE).reshape(len(x), HEADS, SIZE)
        return torch.einsum("phk,hkd->pd", z, self.attn.W_O)

    def feed(self, x: Any) -> Any:
        return F.relu(x @ self.mlp.W_in) @ self.mlp.W_out


class Grouped(TransformerLens):
    """The same with fewer heads for keys and values, which are then called otherwise."""

    def __init__(self) -> None:
        super().__init__()
        del self.attn.W_K, self.attn.W_V
        self.attn._W_K, self.attn._W_V = parameter(2, WIDTH, SIZE), parameter(2, WIDTH, SIZE)

    def attend(self, x: Any) -> Any:
        maps = self.attn.W_Q, self.attn._W_K, self.attn._W_V
        q, k, v = (torch.einsum("pd,hdk->phk", x, w).flatten(1) for w in maps)
        z = attention(q, k, v, SIZE).reshape(len(x), HEADS, SIZE)
        return torch.einsum("phk,hkd->pd", z, self.attn.W_O)


class Grokking(Block):
    def __init__(self) -> None:
        super().__init__()
        maps = {f"W_{name}": parameter(HEADS, SIZE, WIDTH) for name in "QKV"}
        self.attn = holding(**maps, W_O=parameter(WIDTH, HEADS * SIZE))
        self.mlp = holding(W_in=parameter(HIDDEN, WIDTH), W_out=parameter(WIDTH, HIDDEN))

    def attend(self, x: Any) -> Any:
        maps = self.attn.W_Q, self.attn.W_K, self.attn.W_V
        q, k, v = (torch.einsum("hkd,pd->phk", w, x).flatten(1) for w in maps)
        return attention(q, k, v, SIZE) @ self.attn.W_O.T

    def feed(self, x: Any) -> Any:
        return F.relu(x @ self.mlp.W_in.T) @ self.mlp.W_out.T


class Modded(Block):
    """modded-nanogpt with three matrices in one parameter, and modules for the others."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = holding(qkv_w=parameter(3, WIDTH, WIDTH), c_proj=linear(WIDTH, WIDTH))
        self.mlp = holding(c_fc=linear(HIDDEN, WIDTH), c_proj=linear(WIDTH, HIDDEN))

    def attend(self, x: Any) -> Any:
        q, k, v = F.linear(x, self.attn.qkv_w.flatten(end_dim=1)).chunk(3, dim=-1)
        return self.attn.c_proj(attention(q, k, v, SIZE))

    def feed(self, x: Any) -> Any:
        return self.mlp.c_proj(F.relu(self.mlp.c_fc(x)))


class ModdedFour(Modded):
    def __init__(self) -> None:
        super().__init__()
        self.attn = holding(qkvo_w=parameter(4, WIDTH, WIDTH))

    def attend(self, x: Any) -> Any:
        w = self.attn.qkvo_w.view(4, WIDTH, WIDTH)
        q, k, v = F.linear(x, w[:3].flatten(end_dim=1)).chunk(3, dim=-1)
        return F.linear(attention(q, k, v, SIZE), w[3])


class ModdedFlat(ModdedFour):
    """As wide as four, read as four in a row; the maps of the MLP are bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = holding(qkvo_w=parameter(WIDTH, 4 * WIDTH))
        self.mlp = holding(c_fc=parameter(WIDTH, HIDDEN), c_proj=parameter(WIDTH, HIDDEN))

    def feed(self, x: Any) -> Any:
        return F.linear(F.relu(F.linear(x, self.mlp.c_fc.T)), self.mlp.c_proj)


class ModdedTall(ModdedFour):
    def __init__(self) -> None:
        super().__init__()
        self.attn = holding(qkvo_w=parameter(4 * WIDTH, WIDTH))
        self.mlp = holding(c_fc=parameter(HIDDEN, WIDTH), c_proj=parameter(HIDDEN, WIDTH))

    def feed(self, x: Any) -> Any:
        return F.linear(F.relu(F.linear(x, self.mlp.c_fc)), self.mlp.c_proj.T)


class Megatron(Block):
    """Groups of two heads share a key and a value, and their rows are adjacent."""

    groups = 2

    def __init__(self) -> None:
        super().__init__()
        rows = (HEADS + 2 * self.groups) * SIZE
        self.self_attention = holding(
            linear_qkv=linear(rows, WIDTH), linear_proj=linear(WIDTH, WIDTH)
        )
        self.mlp = holding(linear_fc1=linear(HIDDEN, WIDTH), linear_fc2=linear(WIDTH, HIDDEN))

    def mixed(self, x: Any, fused: Any, out: Any) -> Any:
        each = HEADS // self.groups
        rows = fused(x).reshape(len(x), self.groups, (each + 2) * SIZE)
        q, k, v = rows.split([each * SIZE, SIZE, SIZE], dim=2)
        return out(attention(*(t.reshape(len(x), -1) for t in (q, k, v)), SIZE))

    def attend(self, x: Any) -> Any:
        return self.mixed(x, self.self_attention.linear_qkv, self.self_attention.linear_proj)

    def feed(self, x: Any) -> Any:
        return self.mlp.linear_fc2(F.relu(self.mlp.linear_fc1(x)))


class MegatronGated(Megatron):
    def __init__(self) -> None:
        super().__init__()
        self.mlp.linear_fc1 = linear(2 * HIDDEN, WIDTH)

    def feed(self, x: Any) -> Any:
        gate, up = self.mlp.linear_fc1(x).chunk(2, dim=-1)
        return self.mlp.linear_fc2(F.relu(gate) * up)


class MegatronOld(Megatron):
    def __init__(self) -> None:
        super().__init__()
        own, mlp = self.self_attention, self.mlp
        self.self_attention = holding(query_key_value=own.linear_qkv, dense=own.linear_proj)
        self.mlp = holding(dense_h_to_4h=mlp.linear_fc1, dense_4h_to_h=mlp.linear_fc2)

    def attend(self, x: Any) -> Any:
        return self.mixed(x, self.self_attention.query_key_value, self.self_attention.dense)

    def feed(self, x: Any) -> Any:
        return self.mlp.dense_4h_to_h(F.relu(self.mlp.dense_h_to_4h(x)))


class TransformerEngine(Megatron):
    def __init__(self) -> None:
        super().__init__()
        own, mlp = self.self_attention, self.mlp
        own.linear_qkv.layer_norm_weight = torch.nn.Parameter(torch.ones(WIDTH))
        self.self_attention = holding(qkv=own.linear_qkv, proj=own.linear_proj)
        self.mlp = None
        self.layernorm_mlp = holding(
            fc1_weight=mlp.linear_fc1.weight, fc2_weight=mlp.linear_fc2.weight
        )

    def attend(self, x: Any) -> Any:
        return self.mixed(x, self.self_attention.qkv, self.self_attention.proj)

    def feed(self, x: Any) -> Any:
        own = self.layernorm_mlp
        return F.linear(F.relu(F.linear(x, own.fc1_weight)), own.fc2_weight)


class TransformerEngineGated(TransformerEngine):
    def __init__(self) -> None:
        super().__init__()
        self.layernorm_mlp.fc1_weight = parameter(2 * HIDDEN, WIDTH)

    def feed(self, x: Any) -> Any:
        gate, up = F.linear(x, self.layernorm_mlp.fc1_weight).chunk(2, dim=-1)
        return F.linear(F.relu(gate) * up, self.layernorm_mlp.fc2_weight)


class Book(Block):
    def __init__(self) -> None:
        super().__init__()
        maps = {f"W_{name}": linear(WIDTH, WIDTH) for name in ("query", "key", "value")}
        self.att = holding(**maps, out_proj=linear(WIDTH, WIDTH))
        self.att.register_buffer("mask", torch.ones(8, 8).triu(1))
        layers = torch.nn.Sequential(linear(HIDDEN, WIDTH), torch.nn.ReLU(), linear(WIDTH, HIDDEN))
        self.ff = holding(layers=layers)

    def attend(self, x: Any) -> Any:
        own = self.att
        return own.out_proj(attention(own.W_query(x), own.W_key(x), own.W_value(x), SIZE))

    def feed(self, x: Any) -> Any:
        return self.ff.layers(x)


class BookGated(Book):
    def __init__(self) -> None:
        super().__init__()
        self.ff = holding(fc1=linear(HIDDEN, WIDTH), fc2=linear(HIDDEN, WIDTH),
                          fc3=linear(WIDTH, HIDDEN))  # fmt: skip

    def feed(self, x: Any) -> Any:
        return self.ff.fc3(F.relu(self.ff.fc1(x)) * self.ff.fc2(x))


class MinGpt(Block):
    def __init__(self) -> None:
        super().__init__()
        maps = {name: linear(WIDTH, WIDTH) for name in ("query", "key", "value", "proj")}
        self.attn = holding(**maps)
        self.mlp = torch.nn.Sequential(linear(HIDDEN, WIDTH), torch.nn.ReLU(),
                                       linear(WIDTH, HIDDEN))  # fmt: skip

    def attend(self, x: Any) -> Any:
        own = self.attn
        return own.proj(attention(own.query(x), own.key(x), own.value(x), SIZE))

    def feed(self, x: Any) -> Any:
        return self.mlp(x)


GPT = {"tok_emb": (VOCABULARY, WIDTH), "head": (VOCABULARY, WIDTH), "pos_emb": (1, 9, WIDTH)}
LENS = {"embed.W_E": (VOCABULARY, WIDTH), "unembed.W_U": (WIDTH, VOCABULARY),
        "pos_embed.W_pos": (9, WIDTH)}  # fmt: skip
EARLY = {name: (n, m) for name, (m, n) in LENS.items()}
GROUPS = {"num_attention_heads": HEADS, "num_query_groups": 2, "hidden_size": WIDTH,
          "group_query_attention": True}  # fmt: skip
# Family → its block, the path of blocks, other modules, and the config that is needed to split.
BLOCKS: dict[str, tuple[type[Block], str, Mapping[str, tuple[int, ...]], dict[str, Any]]] = {
    "timm": (Timm, "blocks.{}", {"head.weight": (5, WIDTH)}, {}),
    "lucidrains": (Lucidrains, "transformer.layers.{}", {"mlp_head.1.weight": (5, WIDTH)}, {}),
    "torch_attention": (TorchEncoder, "encoder.layers.{}", {}, {}),
    "torch_attention/OpenCLIP": (OpenClip, "visual.transformer.resblocks.{}",
                                 {"visual.positional_embedding": (9, WIDTH)}, {}),
    "torch_attention/torchvision": (Torchvision, "encoder.layers.encoder_layer_{}", {}, {}),
    "transformer_lens": (TransformerLens, "blocks.{}", LENS, {}),
    "transformer_lens/grouped": (Grouped, "blocks.{}", LENS, {}),
    "transformer_lens_early": (Grokking, "blocks.{}", EARLY, {}),
    "modded_nanogpt": (Modded, "blocks.{}", {"lm_head.weight": (VOCABULARY, WIDTH)}, {}),
    "modded_nanogpt_output": (ModdedFour, "blocks.{}", {}, {}),
    "modded_nanogpt_flat": (ModdedFlat, "blocks.{}", {}, {}),
    "modded_nanogpt_tall": (ModdedTall, "blocks.{}", {}, {}),
    "megatron_core": (Megatron, "decoder.layers.{}", {}, GROUPS),
    "megatron_core_gated": (MegatronGated, "decoder.layers.{}", {}, GROUPS),
    "megatron_lm": (MegatronOld, "language_model.encoder.layers.{}", {}, GROUPS),
    "transformer_engine": (TransformerEngine, "layers.{}", {}, GROUPS),
    "transformer_engine_gated": (TransformerEngineGated, "layers.{}", {}, GROUPS),
    "llms_from_scratch": (Book, "trf_blocks.{}", {"tok_emb.weight": (VOCABULARY, WIDTH),
                          "pos_emb.weight": (9, WIDTH)}, {}),
    "llms_from_scratch_gated": (BookGated, "trf_blocks.{}", {}, {}),
    "mingpt": (MinGpt, "blocks.{}", GPT, {}),
}  # fmt: skip
INTERLEAVED = [name for name, (*_, config) in BLOCKS.items() if config]
every_family = pytest.mark.parametrize("name", BLOCKS)


def written(name: str, folder: Path, *, stated: bool = True) -> tuple[list[Block], Contents]:
    """Two blocks of a kind with random weights, and what is read of the file they are in."""
    kind, path, outside, config = BLOCKS[name]
    torch.manual_seed(3)
    blocks = [kind().eval() for _ in range(2)]
    tensors = {}
    for index, block in enumerate(blocks):
        for weight in block.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.5)
        for key, value in block.state_dict().items():
            tensors[f"{path.format(index)}.{key}"] = value.detach().contiguous().numpy().copy()
    rng = np.random.default_rng(0)
    tensors |= {key: rng.normal(size=shape).astype(np.float32) for key, shape in outside.items()}
    save_file(tensors, folder / "weights.safetensors")
    held = open_tensors(folder / "weights.safetensors")
    return blocks, contents_of("any", held, config if stated else {}, DEFAULT)


def by_role(contents: Contents, layer: int) -> dict[str, Parameter]:
    found = [p for p in contents.parameters.values() if p.layer == layer]
    roles = {p.role: p for p in found}
    assert len(roles) == len(found)
    return roles


def values(parameter: Parameter) -> Any:
    assert parameter.tensor is not None
    return torch.tensor(np.asarray(parameter.tensor.read(), dtype=np.float32))


@every_family
def test_what_the_parts_compute_is_what_the_module_computes(name: str, tmp_path: Path) -> None:
    blocks, contents = written(name, tmp_path)
    assert contents.family == name.partition("/")[0]
    x = torch.randn(5, WIDTH)
    for layer, block in enumerate(blocks):
        own = {role: values(p) for role, p in by_role(contents, layer).items()}
        mixed = attention(x @ own["q"].T, x @ own["k"].T, x @ own["v"].T, block.size) @ own["o"].T
        up = x @ own["up"].T
        inner = F.relu(x @ own["gate"].T) * up if "gate" in own else F.relu(up)
        with torch.no_grad():
            assert torch.allclose(mixed, block.attend(x), rtol=1e-4, atol=1e-4)
            assert torch.allclose(inner @ own["down"].T, block.feed(x), rtol=1e-4, atol=1e-4)


@every_family
def test_roles_are_those_of_a_block_without_positions_or_masks(name: str, tmp_path: Path) -> None:
    _, contents = written(name, tmp_path)
    for layer in range(2):
        expected = {"q", "k", "v", "o", "up", "down"}
        assert set(by_role(contents, layer)) - {"gate"} == expected
    outside = {p.name: p.role for p in contents.parameters.values() if p.layer is None}
    assert not [n for n in outside if any(w in n.lower() for w in ("pos", "mask", "b_q"))]
    assert not contents.skips
    embeds = {n for n in BLOCKS[name][2] if any(w in n for w in ("tok_emb", "W_E"))}
    assert {n for n, role in outside.items() if role == "embed"} == embeds


@pytest.mark.parametrize("name", INTERLEAVED)
def test_rows_by_head_stay_whole_without_a_number_of_heads(name: str, tmp_path: Path) -> None:
    blocks, contents = written(name, tmp_path, stated=False)
    assert contents.family == name
    (whole,) = (p for p in contents.parameters.values() if p.layer == 1 and p.role == "other")
    stored = next(v for n, v in blocks[1].state_dict().items() if "qkv" in n or "query_key" in n)
    assert torch.equal(values(whole), stored)


def test_an_axis_for_heads_needs_no_config(tmp_path: Path) -> None:
    _, contents = written("transformer_lens/grouped", tmp_path)
    found = by_role(contents, 0)
    assert found["o"].heads is not None and found["v"].heads is not None
    assert (found["o"].heads.count, found["o"].heads.size) == (HEADS, SIZE)
    assert found["v"].heads.kv_count == 2


@pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")
def test_attention_to_an_encoder_is_cut_and_keeps_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Transformer(WIDTH, HEADS, 2, 2, HIDDEN, bias=False)
    tensors = {n: v.numpy() for n, v in model.state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    contents = contents_of("any", open_tensors(tmp_path / "weights.safetensors"), {}, DEFAULT)
    for tower in ("encoder", "decoder"):
        for layer in range(2):
            own = [p for p in contents.parameters.values()
                   if p.layer == layer and p.module.startswith(f"{tower}.")]  # fmt: skip
            roles = sorted(p.role for p in own if p.role != "other")
            assert roles == ["down", "k", "o", "q", "up", "v"]
            crossing = [p for p in own if p.role == "other"]
            assert len(crossing) == (4 if tower == "decoder" else 0)
            assert all("multihead_attn" in p.module for p in crossing)
            assert {p.shape for p in crossing} <= {(WIDTH, WIDTH)}


def test_projections_of_other_widths_have_roles_by_their_names(tmp_path: Path) -> None:
    module = torch.nn.MultiheadAttention(
        WIDTH, HEADS, kdim=8, vdim=12, bias=False, add_bias_kv=True
    )
    tensors = {f"layers.{i}.self_attn.{n}": v.detach().numpy().copy()
               for i in range(2) for n, v in module.state_dict().items()}  # fmt: skip
    save_file(tensors, tmp_path / "weights.safetensors")
    contents = contents_of("any", open_tensors(tmp_path / "weights.safetensors"), {}, DEFAULT)
    assert {p.role: p.shape for p in contents.parameters.values()} == {
        "q": (WIDTH, WIDTH), "k": (WIDTH, 8), "v": (WIDTH, 12), "o": (WIDTH, WIDTH),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["timm", "torch_attention", "llms_from_scratch", "mingpt"])
def test_a_prefix_hides_no_family(name: str, tmp_path: Path) -> None:
    _, plain = written(name, tmp_path)
    tensors = {f"student.backbone.{n}": np.asarray(t.read())
               for n, t in open_tensors(tmp_path / "weights.safetensors").items()}  # fmt: skip
    save_file(tensors, tmp_path / "prefixed.safetensors")
    below = contents_of("any", open_tensors(tmp_path / "prefixed.safetensors"), {}, DEFAULT)
    roles: Callable[[Contents], list[tuple[int | None, str]]] = lambda contents: sorted(  # noqa: E731
        (-1 if p.layer is None else p.layer, p.role) for p in contents.parameters.values()
    )
    assert below.family == plain.family and roles(below) == roles(plain)
