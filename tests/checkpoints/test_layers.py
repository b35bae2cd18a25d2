"""Layers follow from how names recur, whatever the words are."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.checkpoints.families.layers import Layers

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
GATED = (*ATTENTION, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
BERT = ("attention.self.query", "attention.output.dense", "intermediate.dense", "output.dense")
TIMM = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
GPT = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
TORCH = ("self_attn.in_proj_weight", "self_attn.out_proj", "linear1", "linear2")
RESIDUAL = ("conv1", "conv2")
T5 = ("layer.0.SelfAttention.q", "layer.0.SelfAttention.o", "layer.1.DenseReluDense.wo")
T5_DECODER = (*T5[:2], "layer.1.EncDecAttention.q", "layer.2.DenseReluDense.wo")
LUCIDRAINS = ("0.fn.to_qkv", "0.fn.to_out.0", "1.fn.net.0", "1.fn.net.3")
BOOK = ("att.W_query", "att.W_key", "att.W_value", "att.out_proj", "ff.layers.0", "ff.layers.2")
DIFFUSERS = ("attn1.to_q", "attn1.to_out.0", "attn2.to_q", "attn2.to_out.0", "ff.net.0.proj")
EXPERTS = (*ATTENTION, *(f"mlp.experts.{i}.{w}" for i in range(3) for w in ("up", "down")))
MIXTRAL = (*ATTENTION, *(f"block_sparse_moe.experts.{i}.w{j}" for i in range(4) for j in (1, 2)))

# One entry per kind of block: its path, and its modules; then the other modules of the model.
FLAT: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "Llama": ("model.layers.{}", GATED, ("model.embed_tokens", "lm_head")),
    "GPT-2": ("transformer.h.{}", GPT, ("transformer.wte",)),
    "GPT-NeoX": ("gpt_neox.layers.{}", ("attention.query_key_value", "mlp.dense_h_to_4h"), ()),
    "BERT": ("bert.encoder.layer.{}", BERT, ("bert.pooler.dense", "cls.predictions.decoder")),
    "wav2vec 2": ("wav2vec2.encoder.layers.{}", ATTENTION, ("lm_head",)),
    "Mixtral": ("model.layers.{}", MIXTRAL, ("lm_head",)),
    "Qwen MoE": ("model.layers.{}", EXPERTS, ()),
    "timm ViT": ("blocks.{}", TIMM, ("patch_embed.proj", "head")),
    "torchvision ViT": ("encoder.layers.encoder_layer_{}",
                        ("self_attention.in_proj_weight", "mlp.0", "mlp.3"), ("heads.head",)),
    "OpenCLIP": ("transformer.resblocks.{}", ("attn.in_proj_weight", "mlp.c_fc"), ("proj",)),
    "nn.Transformer": ("encoder.layers.{}", TORCH, ("classifier.0", "classifier.2")),
    "lucidrains ViT": ("transformer.layers.{}", LUCIDRAINS, ("mlp_head.1",)),
    "the book": ("trf_blocks.{}", BOOK, ("tok_emb", "out_head")),
    "TransformerLens": ("blocks.{}", ("attn.W_Q", "attn.W_O", "mlp.W_in"), ("embed.W_E",)),
    "flax": ("params.layers_{}", ("mlp.fc1", "mlp.fc2"), ("params.head",)),
    "flax ViT": ("Transformer.encoderblock_{}", ("MlpBlock_3.Dense_0", "MlpBlock_3.Dense_1"), ()),
    "diffusers DiT": ("transformer_blocks.{}", DIFFUSERS, ("proj_out",)),
    "a GNN": ("convs.{}", ("lin",), ("mlp.0", "mlp.2")),
    "a GNN of nets": ("convs.{}", ("nn.0", "nn.2"), ("lin",)),
    "Mamba": ("backbone.layers.{}", ("mixer.in_proj", "mixer.out_proj"), ("lm_head",)),
    "OLMo 1": ("transformer.blocks.{}", ("att_proj", "attn_out", "ff_proj", "ff_out"), ()),
    "heads one by one": ("blocks.{}", (*(f"sa.heads.{h}.key" for h in range(3)), "ff.net.0"), ()),
    "an adapter within": ("layers.{}", (*ATTENTION, "adapter.0", "adapter.2"), ()),
    "a pipeline": ("0.auto_model.encoder.layer.{}", BERT, ("2.linear",)),
    "MLP-Mixer": ("blocks.{}", ("mlp_tokens.fc1", "mlp_channels.fc1"), ("stem.proj",)),
    "T5's encoder": ("encoder.block.{}", T5, ("shared",)),
    "T5's decoder": ("decoder.block.{}", T5_DECODER, ("lm_head",)),
    "Megatron-core": ("decoder.layers.{}",
                      ("self_attention.linear_qkv", "mlp.linear_fc1"), ("output_layer",)),
    "unheard-of words": ("brain.cells.{}", ("mix.left", "mix.right", "feed.0", "feed.2"), ("out",)),
}  # fmt: skip

every_flat = pytest.mark.parametrize("name", FLAT)


def flat(name: str, count: int = 3) -> tuple[list[str], list[str]]:
    """Modules of the blocks, and those outside of them."""
    block, inner, outside = FLAT[name]
    return [f"{block.format(i)}.{m}" for i in range(count) for m in inner], list(outside)


@every_flat
def test_matrices_have_the_number_of_their_block(name: str) -> None:
    blocks, outside = flat(name)
    layers = Layers(blocks + outside)
    path, inner, _ = FLAT[name]
    for i in range(3):
        for module in inner:
            assert layers.of(f"{path.format(i)}.{module}") == i
            assert layers.block(f"{path.format(i)}.{module}") == path.format(i)
    assert {layers.of(module) for module in outside} <= {None}


@every_flat
def test_an_adapter_of_one_map_per_block_has_the_same_layers(name: str) -> None:
    path, inner, _ = FLAT[name]
    named = [m for m in inner if any(not p.isdigit() for p in m.split("."))]
    for module in named:
        names = [f"{path.format(i)}.{module}" for i in (1, 2, 4)]
        assert [Layers(names).of(n) for n in names] == [1, 2, 4]


NESTED: dict[str, tuple[list[str], list[str]]] = {  # blocks in their order; what lies beside them
    "Swin": ([f"layers.{s}.blocks.{b}" for s, n in enumerate((2, 2, 6)) for b in range(n)],
             ["layers.0.downsample.reduction", "layers.1.downsample.reduction", "head"]),
    "transformers' Swin": ([f"encoder.layers.{s}.blocks.{b}" for s in range(2) for b in range(2)],
                           ["encoder.layers.0.downsample.reduction", "pooler.dense"]),
    "DINOv2's chunks": ([f"blocks.{c}.{3 * c + b}" for c in range(3) for b in range(3)], []),
    "stages of one block": ([f"stages.{s}.blocks.0" for s in range(3)], []),
    "ALBERT": ([f"encoder.albert_layer_groups.{g}.albert_layers.{b}"
                for g in range(2) for b in range(2)], ["pooler"]),
    "an ensemble": ([f"models.{m}.layers.{b}" for m in range(2) for b in range(3)], []),
    "EfficientNet": ([f"blocks.{s}.{b}" for s, n in enumerate((1, 2, 2)) for b in range(n)],
                     ["conv_stem", "conv_head"]),
    "SDXL's U-Net": ([f"down_blocks.{s}.attentions.{a}.transformer_blocks.{b}"
                      for s in range(2) for a in range(2) for b in range(2)],
                     ["conv_in", "down_blocks.0.downsamplers.0.conv"]),
    "RegNet": ([f"s{s}.b{b}" for s, n in ((1, 1), (2, 2), (3, 3)) for b in range(1, n + 1)],
               ["stem.conv"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("inner", [TIMM, BERT, ("attn.qkv",), ("mlp.fc1", "mlp.fc2")])
def test_blocks_of_stages_are_counted_through(name: str, inner: tuple[str, ...]) -> None:
    blocks, outside = NESTED[name]
    layers = Layers([f"{block}.{m}" for block in blocks for m in inner] + outside)
    for index, block in enumerate(blocks):
        assert {layers.of(f"{block}.{m}") for m in inner} == {index}
    assert {layers.of(module) for module in outside} <= {None}


def test_a_residual_network_counts_its_blocks_through_the_stages() -> None:
    blocks = [f"layer{s}.{b}" for s in (1, 2, 3) for b in range(2)]
    names = [f"{block}.{conv}" for block in blocks for conv in RESIDUAL]
    layers = Layers([*names, "layer2.0.downsample.0", "conv1", "fc"])
    assert [layers.of(name) for name in names] == [i for i in range(6) for _ in RESIDUAL]
    assert layers.of("layer2.0.downsample.0") == 2
    assert layers.of("conv1") is layers.of("fc") is None


def test_blocks_of_a_unet_do_not_share_layers() -> None:
    blocks = [
        f"{way}_blocks.{s}.{kind}.{b}"
        for way in ("down", "up")
        for s in range(2)
        for kind in ("attentions", "resnets")
        for b in range(2)
    ]
    names = [
        f"{block}.{m}"
        for block in blocks
        for m in (
            (*(f"transformer_blocks.0.{d}" for d in DIFFUSERS), "proj_in")
            if "attentions" in block
            else (*RESIDUAL, "time_emb_proj")
        )
    ]
    layers = Layers([*names, "mid_block.resnets.0.conv1", "up_blocks.0.upsamplers.0.conv"])
    for way in ("down", "up"):
        own = {name: layers.of(name) for name in names if name.startswith(way)}
        assert set(own.values()) == set(range(8))
        for block in blocks:
            assert len({i for name, i in own.items() if name.startswith(f"{block}.")}) <= 1


def test_encoder_and_decoder_count_each_anew() -> None:
    names = [f"{s}.layers.{i}.fc1" for s in ("encoder", "decoder") for i in range(2)]
    assert [Layers(names).of(name) for name in names] == [0, 1, 0, 1]


def test_a_network_without_blocks_has_its_maps_for_layers() -> None:
    layers = Layers(["net.0", "net.2", "net.4", "log_std"])
    assert [layers.of(f"net.{i}") for i in (0, 2, 4)] == [0, 2, 4]
    assert layers.of("log_std") is None


def test_heads_that_are_sequences_have_no_layers_beside_blocks() -> None:
    names = [f"transformer.encoder.layers.{i}.{m}" for i in range(2) for m in TORCH]
    heads = ["bbox_embed.layers.0", "bbox_embed.layers.1", "mlp_head.0", "mlp_head.3"]
    layers = Layers(names + heads)
    assert {layers.of(head) for head in heads} == {None}


def test_layers_that_alternate_in_kind_are_layers() -> None:
    kinds = (("mamba.in_proj", "mlp.fc1"), ("attn.qkv", "mlp.fc1"))
    names = [f"layers.{i}.{m}" for i in range(4) for m in kinds[i % 2]]
    assert [Layers(names).of(name) for name in names] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_layer_alone_keeps_its_number() -> None:
    for path in ("layers.7", "model.layers.7", "h.7", "cells.7", "layers_7", "encoder_layer_7"):
        names = [f"{path}.{m}" for m in (*GATED, "ff.net.0", "ff.net.2")]
        assert {Layers(names).of(name) for name in names} == {7}


WORD = st.sampled_from(["model", "net", "wav2vec2", "backbone", "gpt2", "module", "x_1y", "enc"])
MODELS = st.sampled_from([*FLAT, *NESTED])


def modules_of(name: str) -> list[str]:
    if name in FLAT:
        return flat(name)[0]
    return [f"{block}.{m}" for block in NESTED[name][0] for m in TIMM]


@given(name=MODELS, prefix=st.lists(WORD, max_size=3))
def test_a_prefix_changes_no_layer(name: str, prefix: list[str]) -> None:
    modules, before = modules_of(name), "".join(f"{word}." for word in prefix)
    plain, below = Layers(modules), Layers([before + module for module in modules])
    assert [below.of(before + m) for m in modules] == [plain.of(m) for m in modules]


@given(name=MODELS, heads=st.lists(st.sampled_from([
    "lm_head", "classifier", "classifier.0", "head.fc", "mlp_head.1", "score.dense", "proj.2",
    "pooler.dense", "decoder_head.layers.0", "decoder_head.layers.1", "value.net.0", "stem.conv1",
]), max_size=4, unique=True), order=st.randoms())  # fmt: skip
def test_neither_a_head_nor_the_order_changes_a_layer(name: str, heads: list[str], order) -> None:  # type: ignore[no-untyped-def]
    modules = modules_of(name)
    plain = Layers(modules)
    shuffled = [*modules, *heads]
    order.shuffle(shuffled)
    more = Layers(shuffled)
    assert [more.of(m) for m in modules] == [plain.of(m) for m in modules]


@given(data=st.data(), name=st.sampled_from([*FLAT]))
@pytest.mark.slow
def test_an_adapter_has_the_layers_of_its_model(data: st.DataObject, name: str) -> None:
    path, inner, _ = FLAT[name]
    whole = Layers(flat(name)[0])
    some = data.draw(st.lists(st.sampled_from(inner), min_size=1, unique=True))
    names = [f"{path.format(i)}.{m}" for i in range(3) for m in some]
    if any(not part.isdigit() for m in some for part in m.split(".")):
        assert [Layers(names).of(n) for n in names] == [whole.of(n) for n in names]


@given(name=MODELS)
def test_no_two_blocks_of_a_tower_share_a_layer(name: str) -> None:
    modules = modules_of(name)
    layers = Layers(modules)
    by_layer: dict[int | None, set[str]] = {}
    for module in modules:
        by_layer.setdefault(layers.of(module), set()).add(layers.block(module))
    assert all(len(blocks) == 1 for blocks in by_layer.values())


def test_twenty_thousand_names_take_no_time_to_speak_of() -> None:
    names = [f"model.layers.{i}.mlp.experts.{j}.{w}" for i in range(61) for j in range(110)
             for w in ("gate_proj", "up_proj", "down_proj")]  # fmt: skip
    start = time.process_time()
    layers = Layers(names)
    assert {layers.of(name) for name in names} == set(range(61))
    assert time.process_time() - start < 5


def test_an_expert_that_is_a_tower_has_layers() -> None:
    names = [f"paligemma_with_expert.gemma_expert.model.layers.{i}.{m}"
             for i in range(3) for m in GATED]  # fmt: skip
    assert [Layers(names).of(name) for name in names] == [i for i in range(3) for _ in GATED]


def test_several_mlps_beside_an_attention_are_in_its_layer() -> None:
    mlps = [f"ffn.{j}.{m}.dense" for j in range(3) for m in ("intermediate", "output")]
    names = [f"encoder.layer.{i}.{m}" for i in range(2) for m in (*BERT, *mlps)]
    assert {n: Layers(names).of(n) for n in names} == {n: int(n.split(".")[2]) for n in names}
