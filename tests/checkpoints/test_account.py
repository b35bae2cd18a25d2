"""Every tensor of a checkpoint has exactly one class, and the counts add up."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from safetensors.numpy import save_file

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.options import DEFAULT
from rankscope.checkpoints.tensors import DTYPES, FLOATS, StoredTensor
from tests.conftest import random_weights, write_model

torch = pytest.importorskip("torch")
nn = torch.nn

KINDS = ("matrix", "part of", "no linear map", "optimizer", "not understood")


def listed(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, StoredTensor]:
    """Tensors of a missing file, one after the other."""
    found, place = {}, 0
    for name, (dtype, shape) in tensors.items():
        found[name] = StoredTensor("/nowhere", name, dtype, shape, place)
        place += math.prod(shape) * DTYPES[dtype][0] + 8
    return found


def read(tensors: dict[str, Any], **config: Any) -> Contents:
    """What becomes of tensors by shape (of float32 then), or by format and shape."""
    full = {n: t if isinstance(t[0:1], tuple) and t and isinstance(t[0], str) else ("float32", t)
            for n, t in tensors.items()}  # fmt: skip
    return contents_of("any", listed(full), config, DEFAULT)


def classes(contents: Contents) -> dict[str, str]:
    return {one.tensor: one.kind for one in contents.account}


PARTS = (
    *("model", "layers", "blocks", "0", "1", "attn", "mlp", "experts", "router", "conv1", "norm"),
    *("pos_embed", "parametrizations", "weight_stack", "embeddings", "rotary_emb", "qkv"),
)
LEAVES = (
    *("weight", "bias", "weight_g", "weight_v", "weight_u", "weight_orig", "weight_mask", "mask"),
    *(
        "original",
        "original0",
        "original1",
        "0._u",
        "0._v",
        "qweight",
        "scales",
        "biases",
        "qzeros",
    ),
    *("pe", "tril", "kernel", "W_Q", "b_Q", "A_log", "running_mean", "weight_scale", "W"),
)
names = some.builds(
    lambda parts, leaf: ".".join((*parts, leaf)),
    some.lists(some.sampled_from(PARTS), max_size=4),
    some.sampled_from(LEAVES) | some.text("abcXY_019", min_size=1, max_size=6),
)
shapes = some.lists(some.sampled_from((0, 1, 2, 3, 4, 16, 64)), max_size=5).map(tuple)
tensors = some.dictionaries(
    names, some.tuples(some.sampled_from([*DTYPES] + 12 * ["float32"]), shapes), max_size=10
)


@settings(suppress_health_check=[HealthCheck.too_slow])  # says something of the machine only
@given(tensors, some.sampled_from([{}, {"num_layers": 2}, {"model_type": "llama"}]))
@pytest.mark.slow
def test_every_tensor_has_one_class_and_doubt_is_a_skip(
    held: dict[str, tuple[str, tuple[int, ...]]], config: dict[str, Any]
) -> None:
    contents = contents_of("any", listed(held), config, DEFAULT)
    assert sorted(one.tensor for one in contents.account) == sorted(held)
    counts = Counter(one.kind for one in contents.account)
    assert sum(counts[kind] for kind in KINDS) == len(held)
    said = {skip.message for skip in contents.skips}
    for one in contents.account:
        assert (one.dtype, one.shape) == held[one.tensor]
        if one.kind == "not understood":
            assert any(message in one.reason for message in said)
    for parameter in contents.parameters.values():
        assert parameter.tensor is not None and len(parameter.shape) == 2
        assert parameter.dtype in FLOATS


@given(some.text("abcdefghijklmnopqrstuvwxyz_.", min_size=1, max_size=12), shapes)
def test_a_weight_with_two_axes_is_a_matrix_whatever_its_name(
    module: str, shape: tuple[int, ...]
) -> None:
    name = f"net.x{module}q.weight"
    contents = read({name: shape})
    if len(shape) == 2 and min(shape) > 1:
        assert [p.role for p in contents.parameters.values()] == ["other"]
    if sum(size != 1 for size in shape) < 2 and 0 not in shape:
        assert classes(contents) == {name: "no linear map"} and not contents.skips


def test_a_tensor_under_two_names_is_measured_once(tmp_path: Path) -> None:
    weight = torch.randn(20, 16)
    torch.save({"wte.weight": weight, "lm_head.weight": weight}, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert [(one.kind, one.reason) for one in contents.account] == [
        ("matrix", "embed"),
        ("part of", "the same storage as wte.weight"),
    ]
    assert list(contents.parameters) == ["wte.weight"] and not contents.skips


def test_a_view_of_another_shape_is_another_matrix(tmp_path: Path) -> None:
    weight = torch.randn(20, 16)
    torch.save({"wte.weight": weight, "lm_head.weight": weight.T}, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert classes(contents) == {"wte.weight": "matrix", "lm_head.weight": "matrix"}


def test_names_that_differ_in_a_wrapper_lose_nothing_silently(tmp_path: Path) -> None:
    one, other = torch.randn(8, 8), torch.randn(8, 8)
    state = {"fc.weight": one, "_orig_mod.fc.weight": one, "module.fc.weight": other}
    torch.save(state, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert classes(contents) == {
        "fc.weight": "matrix",
        "_orig_mod.fc.weight": "part of",
        "module.fc.weight": "not understood",
    }
    (skip,) = contents.skips
    assert skip.tensor == "module.fc.weight" and "has the name of fc.weight" in skip.message


def test_what_a_layout_sets_aside_is_accounted_for() -> None:
    held = listed({"fc.weight": ("float32", (8, 8)), "exp_avg": ("float32", (8, 8))})
    moment = Classed(held.pop("exp_avg"), "optimizer", "a moment of Adam")
    contents = contents_of("any", held, {}, DEFAULT, aside=[moment])
    assert classes(contents) == {"fc.weight": "matrix", "exp_avg": "optimizer"}
    assert not contents.skips


def test_a_fused_tensor_is_one_entry_with_all_its_roles() -> None:
    block = "transformer.h.0"
    contents = read({
        f"{block}.attn.c_attn.weight": (48, 16), f"{block}.attn.c_proj.weight": (16, 16),
        f"{block}.mlp.c_fc.weight": (64, 16), f"{block}.mlp.c_proj.weight": (16, 64),
    })  # fmt: skip
    assert {one.tensor: one.reason for one in contents.account} == {
        f"{block}.attn.c_attn.weight": "q, k, v",
        f"{block}.attn.c_proj.weight": "o",
        f"{block}.mlp.c_fc.weight": "up",
        f"{block}.mlp.c_proj.weight": "down",
    }


def test_a_weight_is_not_what_the_model_uses_without_factors_that_do_not_fit() -> None:
    from rankscope.checkpoints.contents import Adapter

    held = listed({
        "fc.weight": ("float32", (8, 6)), "A": ("float32", (2, 6)), "B": ("float32", (9, 2)),
    })  # fmt: skip
    adapters = {"fc": Adapter(held.pop("A"), held.pop("B"), 1.0)}
    contents = contents_of("any", held, {}, DEFAULT, adapters=adapters)
    assert classes(contents) == {
        "fc.weight": "not understood", "A": "not understood", "B": "not understood",
    }  # fmt: skip
    assert not contents.parameters
    assert [skip.reason for skip in contents.skips] == ["adapter-misfit"]


def test_weights_that_zero_3_left_empty_are_said_to_be(tmp_path: Path) -> None:
    contents = read({"layers.0.fc.weight": (0,), "layers.0.fc.bias": (0,), "head.weight": (4, 4)})
    assert [(s.tensor, s.reason) for s in contents.skips] == [("layers.0.fc.weight", "empty")]
    assert "ZeRO-3" in contents.skips[0].message and list(contents.parameters) == ["head.weight"]


# Every way to store a model that rankscope reads.


def in_safetensors(folder: Path, weights: dict[str, Any]) -> None:
    save_file(weights, folder / "step_3.safetensors")


def in_torch(folder: Path, weights: dict[str, Any]) -> None:
    torch.save({n: torch.tensor(w) for n, w in weights.items()}, folder / "step_3.pt")


def in_numpy(folder: Path, weights: dict[str, Any]) -> None:
    np.savez(folder / "step_3.npz", **weights)


def in_hugging_face(folder: Path, weights: dict[str, Any]) -> None:
    write_model(folder / "checkpoint-3", weights)


def in_pieces(folder: Path, weights: dict[str, Any]) -> None:
    import torch.distributed.checkpoint as dcp

    state = {n: torch.tensor(w) for n, w in weights.items()}
    dcp.save(state, checkpoint_id=folder / "step-3", no_dist=True)


def in_lightning(folder: Path, weights: dict[str, Any]) -> None:
    state = {n: torch.tensor(w) for n, w in weights.items()}
    torch.save(
        {"state_dict": state, "pytorch-lightning_version": "2.5", "global_step": 3},
        folder / "epoch=0-step=3.ckpt",
    )


WRITERS: list[Callable[[Path, dict[str, Any]], None]] = [
    in_safetensors, in_torch, in_numpy, in_hugging_face, in_pieces, in_lightning,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of torch's writer
@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_accounts_for_each_tensor_of_its_files(
    write: Callable[[Path, dict[str, Any]], None], tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = random_weights(rng)
    weights["model.layers.0.odd"] = np.ones((4, 3, 5), np.float32)
    write(tmp_path, weights)
    contents = open_run(tmp_path)[3].contents
    found = {one.tensor.removeprefix("state_dict."): one for one in contents.account}
    assert {name: one.shape for name, one in found.items()} == {
        name: weight.shape for name, weight in weights.items()
    }
    kinds = Counter(one.kind for one in contents.account)
    assert kinds == {
        "matrix": sum(w.ndim == 2 for w in weights.values()),
        "no linear map": sum(w.ndim < 2 for w in weights.values()),
        "not understood": 1,
    }
    assert found["model.layers.0.odd"].kind == "not understood" and len(contents.skips) == 1


# Healthy models of plain torch: no skip, and only matrices that the model multiplies with.


class Embedded(nn.Module):
    """A vision transformer's front: patches, a token, and positions that are added."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 16))
        self.register_tokens = nn.Parameter(torch.zeros(1, 4, 16))
        self.patch_embed = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(16, 4, 32) for _ in range(2)])
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 10)


class Windowed(nn.Module):
    """Attention in windows, with a learnt bias for every offset."""

    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros(49, 4))
        self.register_buffer("relative_position_index", torch.zeros(16, 16, dtype=torch.int64))
        self.register_buffer("attn_mask", torch.zeros(16, 16, dtype=torch.bool))
        self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)


class Causal(nn.Module):
    """A decoder as lectures write it: positions, masks and sinusoids as buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding_table = nn.Embedding(40, 16)
        self.position_embedding_table = nn.Embedding(12, 16)
        self.key, self.value = nn.Linear(16, 8, bias=False), nn.Linear(16, 8, bias=False)
        self.register_buffer("tril", torch.ones(12, 12).tril())
        self.register_buffer("bias", torch.ones(1, 1, 12, 12))
        self.register_buffer("pe", torch.zeros(12, 1, 16))
        self.register_buffer("inv_freq", torch.zeros(4))
        self.register_buffer("cos_cached", torch.zeros(1, 1, 12, 8))


class Mobile(nn.Module):
    """Blocks with a kernel for each channel between two maps, as ConvNeXt and MobileNet have."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8))
        self.features = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 7, groups=24), nn.Conv2d(24, 8, 1))
            for _ in range(2)
        )
        self.up = nn.ConvTranspose1d(8, 4, 16)


class StateSpace(nn.Module):
    """A mixer as Mamba has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Module()])
        mixer = self.layers[0]
        mixer.in_proj, mixer.x_proj = nn.Linear(8, 32, bias=False), nn.Linear(16, 6, bias=False)
        mixer.conv1d = nn.Conv1d(16, 16, 4, groups=16)
        mixer.A_log, mixer.D = nn.Parameter(torch.zeros(16, 4)), nn.Parameter(torch.zeros(16))


class Quantiser(nn.Module):
    """A codebook that follows its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(8, 16))
        self.register_buffer("embed_avg", torch.randn(8, 16))
        self.register_buffer("cluster_size", torch.zeros(16))


MODELS: list[tuple[Callable[[], Any], set[str]]] = [  # and what is measured, by end of name
    (lambda: nn.Transformer(16, 2, 1, 1, 32), {"in_proj_weight", "out_proj.weight",
                                               "linear1.weight", "linear2.weight"}),
    (lambda: nn.Sequential(nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6), nn.Conv1d(6, 6, 3)),
     {"0.weight", "2.weight"}),
    (lambda: nn.Sequential(nn.Conv3d(3, 6, (2, 14, 14), bias=False), nn.LayerNorm([4, 5, 6])),
     {"0.weight"}),
    (lambda: nn.LSTM(8, 6, 2, bidirectional=True, proj_size=3), {
        f"weight_{kind}_l{i}{way}" for kind in ("ih", "hh", "hr") for i in (0, 1)
        for way in ("", "_reverse")}),
    (lambda: nn.MultiheadAttention(16, 4, kdim=8, vdim=6, add_bias_kv=True),
     {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}),
    (lambda: nn.Bilinear(6, 5, 4), {"weight"}),
    (Embedded, {"patch_embed.weight", "in_proj_weight", "out_proj.weight", "linear1.weight",
                "linear2.weight", "head.weight"}),
    (Windowed, {"qkv.weight", "proj.weight"}),
    (Causal, {"token_embedding_table.weight", "key.weight", "value.weight"}),
    (Mobile, {"stem.0.weight", "0.0.weight", "0.2.weight", "1.0.weight", "1.2.weight",
              "up.weight"}),
    (StateSpace, {"in_proj.weight", "x_proj.weight"}),
    (Quantiser, {"embed"}),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, at nested tensors
@pytest.mark.parametrize(("make", "measured"), MODELS)
def test_a_healthy_model_has_no_skip_and_no_false_matrix(
    make: Callable[[], Any], measured: set[str], tmp_path: Path
) -> None:
    state = make().state_dict()
    torch.save(state, tmp_path / "step_1.pt")
    contents = open_run(tmp_path)[1].contents
    assert not contents.skips
    found = {one.tensor for one in contents.account if one.kind == "matrix"}
    assert found == {name for name in state if any(name.endswith(end) for end in measured)}
    assert len(contents.account) == len(state)


def test_a_buffer_is_never_known_by_standing_still(tmp_path: Path) -> None:
    save_file({"frozen.weight": np.ones((6, 6), np.float32)}, tmp_path / "step_1.safetensors")
    contents = contents_of("any", open_tensors(tmp_path / "step_1.safetensors"), {}, DEFAULT)
    assert list(contents.parameters) == ["frozen.weight"]
