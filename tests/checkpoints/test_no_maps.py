"""Vectors, norms, positions, masks and buffers: by shape and neighbours, not by pieces of names."""

import math
from dataclasses import replace
from typing import Any

import pytest

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families import no_maps
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.families.neighbours import Neighbours
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.tensors import DTYPES, StoredTensor

FC = "blocks.0.mlp.fc1.weight"


def read(tensors: dict[str, Any], dtype: str = "float32", family: Family | None = None) -> Contents:
    """What becomes of tensors by shape beside one linear map."""
    held, place = {}, 0
    for name, shape in {**tensors, FC: (64, 32)}.items():
        kept = "float32" if name == FC else dtype
        held[name] = StoredTensor("/nowhere", name, kept, shape, place)
        place += math.prod(shape) * DTYPES[kept][0] + 8
    return contents_of("any", held, {}, replace(DEFAULT, family=family))


@pytest.mark.parametrize(
    "name",
    [
        "layers.0.self_attention.layernorm_qkv.weight",
        "layers.0.layernorm_mlp.fc1_weight",
        "blocks.0.norm_attn_norm.attn.Wqkv.weight",
        "blocks.0.norm1.linear.weight",
        "blocks.0.adaln_norm.proj.weight",
        "normal_head.weight",
        "norm.weight",
        "layers.0.rmsnorm_proj.weight",
        "decoder.position_wise.weight",
        "pos_proj.weight",
        "pos_embed_mlp.2.weight",
        "pos_embed.0.weight",
        "linear_pos.weight",
        "positional_head.fc.weight",
        "segmentation.weight",
        "mask_head.weight",
        "unmasked.proj.weight",
        "causal_proj.weight",
        "rotary_proj.weight",
        "rope.proj.weight",
        "compose.weight",
        "typewriter_embed.weight",
        "token_embedding.weight",
        "tok_emb.weight",
        "bias_proj.weight",
        "unbiased.weight",
        "conv1d.weight",
        "cosine.weight",
        "embed_avg",
        "A_logits.weight",
        "b_proj.weight",
    ],
)
@pytest.mark.parametrize("shape", [(96, 32), (32, 32)])
def test_a_matrix_is_measured_whatever_letters_are_in_its_name(
    name: str, shape: tuple[int, int]
) -> None:
    contents = read({name: shape})
    assert set(contents.parameters) == {name, FC} and not contents.skips


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_embed", (1, 20, 32)),
        ("positional_embedding", (20, 32)),
        ("embeddings.position_embedding.weight", (20, 32)),
        ("pos_emb.weight", (20, 32)),
        ("encoder.pos_embedding", (1, 20, 32)),
        ("absolute_pos_embed", (1, 20, 32)),
        ("layers.0.attn.relative_position_bias_table", (169, 4)),
        ("layers.0.attn.rel_pos_h", (27, 8)),
        ("layers.0.attn.rel_pos_w.weight", (27, 8)),
        ("pos_encoder.pe", (20, 1, 32)),
        ("pos.pe", (20, 32)),
        ("transformer.wpe.weight", (20, 32)),
        ("decoder.embed_positions.weights", (20, 32)),
        ("pos_embed.W_pos", (40, 32)),
        ("embeddings.token_type_embeddings.weight", (2, 32)),
        ("bert.embeddings.segment_embedding.weight", (2, 32)),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 8)),
        ("decoder_pos_embed", (1, 20, 32)),
        ("patchPosEmbed.weight", (20, 32)),
        ("learned_positional_encoding.weight", (20, 32)),
        ("temporal_position_embeddings.embedding.weight", (20, 32)),
        ("position_embeddings.weights.0", (20, 1, 16)),
        ("image_pos_embed", (1, 32, 8, 8)),
        ("mem_pos_enc", (6, 1, 1, 32)),
        ("cls_token", (1, 1, 32)),
        ("query_tokens", (1, 8, 32)),
    ],
)
def test_positions_and_types_are_added_and_not_multiplied(
    name: str, shape: tuple[int, ...]
) -> None:
    contents = read({name: shape})
    assert list(contents.parameters) == [FC] and not contents.skips
    assert contents.left_out == (name,)


@pytest.mark.parametrize("name", ["pos_embed", "positional_encoding", "rel_pos_bias", "type_embed"])
def test_a_bias_shows_a_linear_map_despite_its_name(name: str) -> None:
    contents = read({f"{name}.weight": (96, 3), f"{name}.bias": (96,)})
    assert set(contents.parameters) == {f"{name}.weight", FC}


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("blocks.0.sa.heads.0.tril", (16, 16), "float32"),
        ("blocks.0.att.mask", (16, 16), "float32"),
        ("blocks.0.attn.causal_mask", (1, 1, 16, 16), "float16"),
        ("blocks.0.attn.bias", (1, 1, 16, 16), "float32"),
        ("blocks.0.attn.bias", (1, 1, 16, 16), "uint8"),
        ("blocks.0.attn.bias", (1, 1, 16, 16), "bool"),
        ("blocks.0.attn.mask", (40, 40), "bool"),
        ("blocks.0.attn.src_mask", (40, 40), "uint8"),
        ("blocks.0.attn.lower_triangle", (40, 40), "int8"),
        ("blocks.0.attn.relative_position_index", (49, 49), "int64"),
        ("blocks.0.attn.relative_position_index", (49, 49), "int32"),
        ("embeddings.position_ids", (1, 512), "int64"),
        ("anything.at_all", (4, 7), "int64"),
        ("anything.at_all", (4, 7), "bool"),
        ("step", (), "int64"),
        ("rotary.cos", (20, 8), "float32"),
        ("rotary_emb.cos_cached", (1, 1, 20, 8), "bfloat16"),
        ("freqs_cis", (20, 8), "float32"),
        ("freqs_cis", (20, 4), "complex64"),
        ("blocks.0.rope_cache", (20, 4), "complex64"),
        ("blocks.0.attn.cache_k", (2, 16, 4, 8), "float32"),
        ("blocks.0.attn.v_cache", (4, 16, 8), "bfloat16"),
        ("blocks.0.rope.cache", (20, 4, 2), "float32"),
        ("blocks.0.attn.alibi_slopes", (4, 1, 1), "float32"),
        ("blocks.0.attn.diagonal_decay", (1, 4, 16, 16), "float32"),
        ("whiten.running_cov", (16, 16), "float32"),
    ],
)
def test_buffers_cost_nothing(name: str, shape: tuple[int, ...], dtype: str) -> None:
    contents = read({name: shape}, dtype)
    assert list(contents.parameters) == [FC] and not contents.skips
    assert contents.left_out == (name,)


@pytest.mark.parametrize(
    "tensors",
    [
        {"n.norm.weight": (6, 8), "n.norm.bias": (6, 8)},
        {"n.ln.weight": (3, 6, 8), "n.ln.bias": (3, 6, 8)},
        {"attn.q_norm.weight": (4, 8), "attn.q_proj.weight": (32, 16)},
    ],
)
def test_a_bias_or_a_projection_identifies_a_gain(
    tensors: dict[str, tuple[int, ...]],
) -> None:
    contents = read(tensors)
    name = next(iter(tensors))
    assert name in contents.left_out and not contents.skips


@pytest.mark.parametrize(
    "tensors",
    [
        {"attn.b_Q": (4, 8), "attn.W_Q": (4, 32, 8)},
        {"attn.bq": (4, 8), "attn.wq": (32, 4, 8)},
        {"experts.gate_up_proj_bias": (4, 24), "experts.gate_up_proj": (4, 16, 24)},
        {"attn.bias_u": (4, 8), "attn.q.weight": (32, 32)},
        {"attn.attention_biases": (4, 49), "attn.q.weight": (32, 32)},
    ],
)
def test_biases_of_two_axes_are_biases(tensors: dict[str, tuple[int, ...]]) -> None:
    assert next(iter(tensors)) in read(tensors).left_out


def test_depthwise_kernels_are_not_a_matrix_but_a_grey_first_layer_is() -> None:
    contents = read({
        "features.2.0.weight": (24, 8, 1, 1), "features.2.1.weight": (24, 1, 3, 3),
        "features.0.weight": (8, 1, 3, 3), "token_dwconv.weight": (8, 1, 5),
    })  # fmt: skip
    assert set(contents.left_out) == {"features.2.1.weight", "token_dwconv.weight"}
    assert contents.parameters["features.0.weight"].shape == (8, 9)


def test_axes_that_a_family_states_are_not_guessed_to_be_depthwise() -> None:
    shapes = {"layers.0.dwconv.weight": (8, 1, 5), "layers.0.up.weight": (16, 8)}
    assert "layers.0.dwconv.weight" in read(shapes).left_out
    stated = read(shapes, family=Family("own", axes={"dwconv": ("out", "in", "in")}))
    assert stated.parameters["layers.0.dwconv.weight"].shape == (8, 5)


@pytest.mark.parametrize("kernel", [4, 3])
@pytest.mark.parametrize("first", ["mamba.conv1d", "mixer.conv", "mixer.short_filter"])
def test_kernels_for_some_rows_of_a_projection_are_not_a_matrix(first: str, kernel: int) -> None:
    module = first.partition(".")[0]
    contents = read({
        f"layers.0.{first}.weight": (96, 1, kernel), f"layers.0.{first}.bias": (96,),
        f"layers.0.{module}.in_proj.weight": (168, 32),
        f"layers.0.{module}.out_proj.weight": (32, 64),
    })  # fmt: skip
    assert f"layers.0.{first}.weight" in contents.left_out


def test_first_layers_of_several_networks_are_matrices() -> None:
    shapes = {"0.weight": (8, 1, 5, 5), "2.weight": (16, 8, 5, 5), "5.weight": (64, 256)}
    contents = read({f"nets.{i}.{name}": shape for i in (0, 1) for name, shape in shapes.items()})
    assert contents.parameters["nets.1.0.weight"].shape == (8, 25)


@pytest.mark.parametrize("average", ["ema_w", "embed_avg", "moving_average"])
def test_averages_of_a_codebook_are_buffers(average: str) -> None:
    contents = read({f"quantize.{average}": (32, 16), "quantize.embedding.weight": (32, 16)})
    assert contents.left_out == (f"quantize.{average}",)
    assert "quantize.embedding.weight" in contents.parameters


@pytest.mark.parametrize("name", ["avg_pool.weight", "ema.fc.weight", "moving"])
def test_a_word_for_averages_alone_hides_no_matrix(
    name: str,
) -> None:
    assert name in read({name: (32, 16), "other.weight": (16, 32)}).parameters


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("fc.weight", (8, 8), "bool"),
        ("fc.weight", (8, 8), "int8"),
        ("fc.packed", (8, 8), "uint8"),
        ("fc.weight", (8, 8), "complex64"),
    ],
)
def test_numbers_that_may_be_weights_are_a_skip(
    name: str, shape: tuple[int, int], dtype: str
) -> None:
    contents = read({name: shape}, dtype)
    assert [skip.tensor for skip in contents.skips] == [name]
    message = contents.skips[0].message
    assert dtype in message and ("dequantised" in message) != dtype.startswith("complex")


def test_no_other_rule_holds_for_what_is_called_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    words = sorted(
        no_maps.TABLES | no_maps.PLACES | no_maps.TURNS | no_maps.MASKS | no_maps.STATISTICS
    )
    modules = [*words, *(f"{a}_{b}" for a, b in zip(words, words[::-1], strict=True)), "norm", "b"]
    shapes: dict[str, tuple[int, ...]] = {f"l.{module}.weight": (8, 8) for module in modules}
    shapes |= {f"l.{module}.bias": (8, 8) if i % 3 else (8,) for i, module in enumerate(modules)}
    shapes |= {f"m.{module}.weight": (1, 1, 4, 4) for module in modules}
    tensors = {n: StoredTensor("/nowhere", n, "float32", s, 0) for n, s in shapes.items()}

    def judged() -> dict[str, str]:
        near = Neighbours(tensors)
        return {name: no_maps.why_no_map(name, tensor, near) for name, tensor in tensors.items()}

    found = judged()
    monkeypatch.setattr(no_maps, "_RULES_OF_WEIGHTS", no_maps._RULES)
    assert judged() == found
    weights = {why for name, why in found.items() if name.endswith("weight")}
    assert weights == {"", "the gain of a norm", "a table of positions or types"}


CONV = "features.{}.weight"


@pytest.mark.parametrize(
    ("tensors", "left"),
    [
        # One kernel per channel behind another convolution: in a list, by a word, in a later stage.
        ({CONV.format(0): (16, 1, 3, 3), CONV.format(2): (16, 1, 3, 3),
          CONV.format(3): (16, 16, 1, 1)}, {CONV.format(2)}),
        ({"up.conv1.weight": (16, 16, 2, 2), "up.conv2.weight": (16, 1, 3, 3)},
         {"up.conv2.weight"}),
        ({"stages.0.block.conv.weight": (16, 8, 3, 3), "stages.1.down.conv.weight": (16, 1, 3, 3)},
         {"stages.1.down.conv.weight"}),
        ({"stem.conv.weight": (16, 3, 3, 3), "layer.0.conv.weight": (16, 1, 3, 3)},
         {"layer.0.conv.weight"}),
        ({"stem.weight": (8, 4, 3, 3), "a.conv.conv1.weight": (16, 1, 3, 3),
          "a.conv.pointwise.weight": (32, 16, 1, 1)}, {"a.conv.conv1.weight"}),
        # First layers on grey images: before blocks, before a map of single pixels, in several
        # networks, with kernels of several widths, one of sound.
        ({"conv1.weight": (16, 1, 7, 7), "layer1.0.conv1.weight": (16, 16, 1, 1),
          "layer1.0.conv2.weight": (16, 16, 3, 3)}, set()),
        ({"net.conv1.weight": (64, 1, 9, 9), "net.conv2.weight": (32, 64, 1, 1),
          "net.conv3.weight": (1, 32, 5, 5)}, set()),
        ({f"nets.{i}.conv1.weight": (16, 1, 5, 5) for i in range(3)}, set()),
        ({f"convs.{i}.weight": (16, 1, 3 + i, 24) for i in range(3)}, set()),
        ({"audio.conv1.weight": (16, 1, 3), "audio.conv2.weight": (16, 16, 3),
          "vision.patch.weight": (16, 3, 8, 8)}, set()),
        # Kernels of groups of channels, and not of a gate, a shuffle of pixels or an upsampling.
        ({"a.conv1.weight": (32, 64, 1, 1), "a.conv2.weight": (32, 2, 3, 3),
          "a.conv3.weight": (64, 32, 1, 1)}, {"a.conv2.weight"}),
        ({"encoder.pos_conv_embed.conv.weight": (64, 4, 19)},
         {"encoder.pos_conv_embed.conv.weight"}),
        ({"attn.conv_qk_grouped.weight": (96, 16, 2)}, {"attn.conv_qk_grouped.weight"}),
        ({"encode_positions.conv.weight": (64, 4, 128)}, {"encode_positions.conv.weight"}),
        ({"s.0.conv1_1x1.conv.weight": (64, 24, 1, 1), "s.0.conv2_kxk.conv.weight": (64, 32, 3, 3),
          "s.0.conv3_1x1.conv.weight": (256, 64, 1, 1), "s.0.se.fc.weight": (8, 64, 1, 1),
          "s.0.shortcut.conv.weight": (256, 24, 1, 1)}, {"s.0.conv2_kxk.conv.weight"}),
        ({"s1.b1.conv1.conv.weight": (32, 64, 1, 1), "s1.b1.conv2.conv.weight": (32, 2, 3, 3),
          "s1.b1.conv3.conv.weight": (64, 32, 1, 1)}, {"s1.b1.conv2.conv.weight"}),
        # Not the first of a list, and not one that is given what is before its block.
        ({"s.0.layers.0.conv.weight": (32, 64, 3, 3), "s.0.layers.1.conv.weight": (32, 32, 3, 3),
          "s.0.pool.0.conv.weight": (128, 96, 1, 1)}, set()),
        ({"b.0.one.weight": (64, 32, 1, 1), "b.0.three.weight": (64, 32, 3, 3),
          "b.0.next.weight": (64, 64, 3, 3)}, set()),
        ({"conv1.weight": (64, 16, 3), "conv2.weight": (64, 64, 3), "w": (9, 64)}, set()),
        # One kernel per head or per channel in an attention, also if no map has as many rows.
        ({"layer.0.attention.self.query.weight": (64, 64),
          "layer.0.attention.self.conv.weight": (4, 1, 65, 1)},
         {"layer.0.attention.self.conv.weight"}),
        ({"stem.weight": (8, 1, 3, 3), "cpe2.proj.weight": (16, 1, 3, 3)}, {"cpe2.proj.weight"}),
        ({"a.conv1.weight": (32, 8, 1, 1), "a.conv2.weight": (32, 16, 3, 3),
          "a.conv3.weight": (8, 16, 1, 1)}, set()),
        ({"tail.conv0.weight": (64, 16, 3, 3), "tail.conv1.weight": (64, 16, 3, 3),
          "tail.conv2.weight": (3, 16, 3, 3)}, set()),
        # Plain kernels whose block gives a multiple of their inputs after them or beside them.
        ({"b.0.conv1.weight": (32, 16, 3, 3), "b.0.conv2.weight": (64, 32, 3, 3),
          "b.0.conv3.weight": (64, 64, 3, 3)}, set()),
        ({"b.0.skip.weight": (32, 64, 1, 1), "b.0.conv1.weight": (128, 16, 3, 3),
          "b.0.conv2.weight": (128, 128, 3, 3)}, set()),
        ({"b.0.conv.weight": (64, 24, 5, 5), "b.0.mlp1.weight": (64, 64, 1, 1),
          "b.0.mlp2.weight": (64, 64, 1, 1)}, set()),
        ({"b.0.conv.weight": (64, 32, 3, 3), "b.0.fc1.weight": (8, 64, 1, 1),
          "b.0.fc2.weight": (64, 8, 1, 1)}, set()),
        ({"b.0.kernel.weight": (64, 32, 3, 3), "b.0.squeeze1.weight": (8, 64, 1, 1),
          "b.0.squeeze2.weight": (64, 8, 1, 1)}, set()),
        ({"b.0.conv9.weight": (32, 64, 1, 1), "b.0.conv10.weight": (32, 2, 3, 3),
          "b.0.conv11.weight": (64, 32, 1, 1)}, {"b.0.conv10.weight"}),
        ({"b.0.conv_pw.weight": (96, 24, 1, 1), "b.0.conv_dw.weight": (96, 8, 3, 3),
          "b.0.conv_pwl.weight": (24, 96, 1, 1)}, {"b.0.conv_dw.weight"}),
        # Networks whose names speak of positions or attention are of layers like any other.
        ({"position_net.conv1.weight": (64, 32, 3, 3), "position_net.conv2.weight": (128, 64, 3, 3),
          "position_net.fc.weight": (3, 128)}, set()),
        ({"pos_encoder.conv1.weight": (64, 1, 3, 3), "pos_encoder.conv2.weight": (128, 64, 3, 3)},
         set()),
        ({"attention_unet.inc.conv.0.weight": (64, 1, 3, 3),
          "attention_unet.inc.conv.3.weight": (64, 64, 3, 3)}, set()),
        ({"att.0.loc_conv.weight": (10, 1, 1, 201), "att.0.mlp_att.weight": (32, 10)}, set()),
        ({"self_attn.conv_lambda.weight": (16, 1, 9, 9, 1), "self_attn.qkv.weight": (96, 64, 1, 1)},
         set()),
    ],
    ids=["list", "words", "stage", "stem", "separable", "ResNet", "SRCNN", "ensemble", "text",
         "sound", "ResNeXt", "wav2vec 2", "grouped", "omniASR", "SE-ResNeXt", "RegNet", "HGNet",
         "Inception", "Whisper", "Nyströmformer", "CoaT", "gate", "shuffle", "VGG", "U-Net",
         "network in network", "weighed channels", "squeezed", "two digits", "dw", "positions",
         "positions of one", "attention U-Net", "location", "lambda"],
)  # fmt: skip
def test_channels_with_kernels_of_their_own_are_not_mixed_by_a_matrix(
    tensors: dict[str, tuple[int, ...]], left: set[str]
) -> None:
    assert {*read(tensors).left_out} == left


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resampler.latents", (64, 32)),
        ("projector.query", (64, 32)),
        ("embeddings.register_tokens", (4, 32)),
        ("level_embed", (4, 32)),
        ("layers.0.attn.q_l2_clip.scale", (4, 32)),
        ("layers.0.mixer.A_b_log", (64, 8)),
        ("layers.0.op.A_logs", (64, 8)),
        ("s4.kernel.log_A_real", (64, 8)),
        ("s4.kernel.A_imag", (64, 8)),
        ("generator.constant.input", (1, 32, 4, 4)),
    ],
)
def test_vectors_that_are_added_and_gains_are_not_maps(name: str, shape: tuple[int, ...]) -> None:
    assert read({name: shape}).left_out == (name,)


def test_matrices_with_an_axis_of_one_before_are_not_taken_for_vectors() -> None:
    """One expert that every token shares, as torchtitan has it; the maps between capsules."""
    contents = read({"layers.0.moe.shared_expert.w1": (1, 64, 32), "digits.W": (1, 36, 10, 16, 8)})
    assert "layers.0.moe.shared_expert.w1[0]" in contents.parameters
    assert [skip.tensor for skip in contents.skips] == ["digits.W"] and not contents.left_out


def test_what_a_head_of_rwkv_adds_for_the_token_itself_is_not_a_map() -> None:
    name = "blocks.0.att.time_faaaa"
    assert read({name: (4, 8)}, family=read_family("rwkv")).left_out == (name,)


def test_knots_and_gains_of_splines_are_not_maps() -> None:
    """The layers of efficient-kan and pykan; a grid without splines may be anything."""
    kan = {"l.grid": (16, 12), "l.base_weight": (8, 16), "l.spline_weight": (8, 16, 9),
           "l.spline_scaler": (8, 16)}  # fmt: skip
    contents = read(kan)
    assert contents.left_out == ("l.grid", "l.spline_scaler")
    assert set(contents.parameters) == {"l.base_weight", FC}
    pykan = {"a.grid": (16, 12), "a.coef": (16, 8, 9), "a.mask": (16, 8), "a.scale_sp": (16, 8)}
    assert read(pykan).left_out == ("a.grid", "a.mask", "a.scale_sp")
    assert "l.grid" in read({"l.grid": (16, 12), "l.base_weight": (8, 16)}).parameters


def test_a_query_beside_a_key_is_a_map_and_so_is_a_skip_that_is_no_state_space() -> None:
    tensors = {"attn.query": (32, 32), "attn.key": (32, 32), "other.D": (2, 32)}
    assert set(read(tensors).parameters) == {*tensors, FC}
    assert read({"mamba.D": (2, 32), "mamba.A_log": (2, 32, 8)}).left_out == (
        "mamba.D", "mamba.A_log",
    )  # fmt: skip
