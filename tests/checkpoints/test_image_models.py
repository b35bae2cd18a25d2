"""Models of images as diffusers and timm write them: their maps are measured, and nothing else."""

import math

import pytest

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.regions import Part
from rankscope.checkpoints.tensors import StoredTensor

Shapes = dict[str, tuple[int, ...]]

UNET = "mid_block.attentions.0.transformer_blocks.0"
ATTENTION: Shapes = {
    f"{UNET}.attn1.to_q.weight": (64, 64),
    f"{UNET}.attn1.to_k.weight": (64, 64),
    f"{UNET}.attn1.to_v.weight": (64, 64),
    f"{UNET}.attn1.to_out.0.weight": (64, 64),
    f"{UNET}.attn2.to_q.weight": (64, 64),
    f"{UNET}.attn2.to_k.weight": (64, 24),  # the width of a text
    f"{UNET}.attn2.to_v.weight": (64, 24),
    f"{UNET}.attn2.to_out.0.weight": (64, 64),
}
UP, DOWN = f"{UNET}.ff.net.0.proj.weight", f"{UNET}.ff.net.2.weight"


def read(shapes: Shapes) -> Contents:
    """What becomes of tensors of these shapes."""
    held, place = {}, 0
    for name, shape in shapes.items():
        held[name] = StoredTensor("/nowhere", name, "float32", shape, place)
        place += 4 * math.prod(shape)
    return contents_of("any", held, {}, DEFAULT)


def test_attention_to_a_narrow_text_is_not_a_pair_of_factors() -> None:
    contents = read(ATTENTION)
    assert {one.name: one.role for one in contents.parameters.values()} == {
        name: "other" if "attn2" in name else role
        for name, role in zip(ATTENTION, "qkvoqkvo", strict=True)
    }
    assert not contents.skips


def test_factors_within_a_map_to_a_text_are_still_doubted() -> None:
    pair = {f"{UNET}.attn2.to_q.{side}": shape for side, shape in
            (("left_half", (64, 4)), ("right_half", (4, 64)))}  # fmt: skip
    contents = read(ATTENTION | pair)
    assert {skip.tensor for skip in contents.skips} >= {*pair, f"{UNET}.attn2.to_q.weight"}


@pytest.mark.parametrize("ratio", [1, 2])
def test_a_gate_of_diffusers_shows_in_the_sizes(ratio: int) -> None:
    contents = read(ATTENTION | {UP: (ratio * 96, 64), DOWN: (64, 96)})
    found = {one.role: one.shape for one in contents.parameters.values() if "ff" in one.name}
    inputs = {"up": (96, 64)} if ratio == 1 else {"up": (96, 64), "gate": (96, 64)}
    assert found == {**inputs, "down": (64, 96)}
    if ratio == 2:  # diffusers multiplies the first half with the activation of the second
        gate = contents.parameters[f"{UP}[gate]"].tensor
        assert isinstance(gate, Part) and gate.region.start == 96 * 64


def adapters(ratio: int, targets: Shapes) -> Shapes:
    """LoRA on a U-Net, without its base, as kohya writes it."""
    mlp = {UP: (ratio * 96, 64), DOWN: (64, 96)}
    flat = {
        "lora_unet_" + name.removesuffix(".weight").replace(".", "_"): shape
        for name, shape in {**targets, **mlp}.items()
    }
    return {
        f"{name}.{half}.weight": shape
        for name, (rows, columns) in flat.items()
        for half, shape in (("lora_down", (4, columns)), ("lora_up", (rows, 4)))
    }


@pytest.mark.parametrize("has_outputs", [True, False])
@pytest.mark.parametrize("ratio", [1, 2])
def test_an_adapter_alone_has_the_roles_of_its_sizes(ratio: int, has_outputs: bool) -> None:
    targets = {n: shape for n, shape in ATTENTION.items() if has_outputs or "to_out" not in n}
    contents = read(adapters(ratio, targets))
    assert contents.family == ("diffusers" if ratio == 1 else "diffusers_gated")
    roles = {one.role for one in contents.parameters.values()}
    expected = {*"qkv", "up", "down", "other"} | ({"gate"} if ratio == 2 else set())
    assert roles == expected | ({"o"} if has_outputs else set())


BLOCK: Shapes = {
    "blocks.0.conv1.conv.weight": (48, 64, 1, 1),
    "blocks.0.conv3.conv.weight": (64, 48, 1, 1),
}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("scale_shift_table", (2, 64)),
        ("transformer_blocks.0.audio_scale_shift_table", (6, 64)),
        ("transformer_blocks.0.modulation_table", (6, 64)),
        ("pos_frequencies", (3, 4, 8)),
        ("stages.0.blocks.0.alpha", (4, 128)),
        ("stages.0.self_attn.pos_embed.height_rel", (23, 64)),
    ],
)
def test_tables_and_gains_are_not_maps(name: str, shape: tuple[int, ...]) -> None:
    contents = read(ATTENTION | {name: shape})
    assert name not in contents.parameters and not contents.skips


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("scale_shift.weight", (128, 64)),
        ("stages.0.alpha.weight", (4, 128)),
        ("blocks.0.norm1.modulation.weight", (384, 64)),
        ("pos_embed.proj.weight", (64, 32, 1, 1)),
        ("pos_embed.rel_proj.weight", (64, 32)),
    ],
)
def test_maps_with_such_names_are_measured(name: str, shape: tuple[int, ...]) -> None:
    timm: Shapes = {
        **{"blocks.0.attn.qkv.weight": (192, 64), "blocks.0.attn.proj.weight": (64, 64)},
        **{"blocks.0.mlp.fc1.weight": (96, 64), "blocks.0.mlp.fc2.weight": (64, 96)},
    }
    contents = read(timm | {name: shape})
    assert contents.family == "timm" and not contents.skips
    assert contents.parameters[name].shape == (shape[0], math.prod(shape[1:]))


SEPARATE: dict[str, Shapes] = {  # the last is that of the groups
    "letters": {
        "blocks.0.c1x1_a.conv.weight": (128, 64, 1, 1),
        "blocks.0.c1x1_c.conv.weight": (80, 128, 1, 1),
        "blocks.0.c3x3_b.conv.weight": (128, 4, 3, 3),
    },
    "parts": BLOCK | {"blocks.0.convs.0.weight": (24, 4, 3, 3)},
    "twice as many": BLOCK | {"blocks.0.conv2.conv.weight": (96, 24, 3, 3)},
    "behind its channels": {"gather.0.weight": (96, 1, 5, 5), "gather.1.weight": (96, 8, 1, 1)},
    "in a list": {
        "stem.0.weight": (32, 3, 3, 3),
        "dws.1.conv.weight": (16, 1, 5, 5),
        "dws.0.conv.weight": (16, 1, 5, 5),
    },
    "beside a gain": {
        "stem.0.weight": (32, 3, 3, 3),
        "last.scale.conv.weight": (96, 1, 1, 1),
        "last.full.0.conv.weight": (96, 1, 3, 3),
    },
}
MIXING: dict[str, Shapes] = {  # the last is one matrix
    "after another": BLOCK
    | {"blocks.0.conv0.weight": (24, 64, 3, 3), "blocks.0.conv2.weight": (48, 24, 3, 3)},
    "colours": {
        "conv1.weight": (96, 96, 1, 1),
        "conv2.weight": (96, 96, 1, 1),
        "conv0.weight": (96, 3, 11, 11),
    },
    "at the top": {
        "conv1.weight": (32, 3, 3, 3),
        "block1.skip.weight": (64, 64, 1, 1),
        "block2.skip.weight": (128, 64, 1, 1),
        "conv2.weight": (64, 32, 3, 3),
    },
    "one of several networks": {
        "discriminators.1.convs.0.weight": (32, 1, 5, 5),
        "discriminators.1.convs.1.weight": (64, 32, 5, 5),
        "discriminators.0.convs.1.weight": (64, 32, 5, 5),
        "discriminators.0.convs.0.weight": (32, 1, 5, 5),
    },
    "before a square": {
        "decoder.b.weight": (64, 64, 1, 1),
        "decoder.a.weight": (64, 32, 3, 3),
    },
    "two on grey": {
        "stem.conv2.conv.weight": (64, 1, 1, 1),
        "stem.conv1.conv.weight": (64, 1, 3, 3),
    },
    "words of a text": {"convs.1.weight": (16, 1, 4, 30), "convs.0.weight": (16, 1, 3, 30)},
}


@pytest.mark.parametrize("case", SEPARATE)
def test_kernels_of_groups_are_not_one_matrix(case: str) -> None:
    name = list(SEPARATE[case])[-1]
    contents = read(SEPARATE[case])
    assert name not in contents.parameters and not contents.skips


@pytest.mark.parametrize("case", MIXING)
def test_kernels_that_mix_all_channels_are_one_matrix(case: str) -> None:
    name = list(MIXING[case])[-1]
    assert name in read(MIXING[case]).parameters
