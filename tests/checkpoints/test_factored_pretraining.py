"""Models whose projections are products, and tensors that look like factors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.families.family_files import read_family
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.options import DEFAULT, Options
from rankscope.components.component import Component, Moment
from rankscope.components.selection import AT_CHECKPOINTS, COMPONENTS
from rankscope.components.windows import Window
from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.singular_values import singular_values

OUT, IN, RANK = 24, 32, 4
Q = "model.layers.1.self_attn.q_proj"
Array = NDArray[np.float32]
CONFIG = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}


@pytest.fixture
def normal(rng: np.random.Generator) -> Callable[..., Array]:
    return lambda *shape: rng.normal(size=shape).astype(np.float32)


def write(folder: Path, tensors: dict[str, NDArray[np.generic]], **settings: object) -> Path:
    """A folder as GaLore's trainer leaves it, with settings of SLTrain if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if settings:
        (folder / "splora_config.json").write_text(json.dumps(settings))
    return folder


def components(contents: Contents, before: Contents | None = None) -> dict[str, list[Component]]:
    moment = Moment(contents, before, before, Window(100, 200), Window(100, 200))
    return {name: list(found(moment)) for name, found in AT_CHECKPOINTS.items()}


def sltrain(normal: Callable[..., Array], places: NDArray[np.integer]) -> dict[str, Array]:
    return {
        f"{Q}.lora_A": normal(RANK, IN),
        f"{Q}.lora_B": normal(OUT, RANK),
        f"{Q}.sparse_index": places,  # type: ignore[dict-item]
        f"{Q}.sparse_value": normal(places.size),
    }


def sparse(tensors: dict[str, Array]) -> NDArray[np.float64]:
    """The sparse part as torch scatters it into the product, flattened row by row."""
    flat = np.zeros(OUT * IN)
    flat[tensors[f"{Q}.sparse_index"].astype(int)] = tensors[f"{Q}.sparse_value"]
    return flat.reshape(OUT, IN)


@pytest.mark.parametrize("whole", [np.int64, np.int32])
@pytest.mark.parametrize("trained", [None, 0.5])
def test_sltrain_is_its_scaled_product_plus_its_sparse_part(
    whole: type, trained: float | None, tmp_path: Path, normal: Callable[..., Array]
) -> None:
    places: np.ndarray[Any, np.dtype[np.integer[Any]]] = np.array(
        [0, 5, IN, 3 * IN + 1, OUT * IN - 1], whole
    )
    tensors = sltrain(normal, places)
    if trained is not None:
        tensors[f"{Q}.scaling"] = np.array([trained], np.float32)
    folder = write(tmp_path, tensors, r=RANK, lora_alpha=32)  # type: ignore[arg-type]
    contents = huggingface.read(folder, DEFAULT)
    (parameter,) = contents.parameters.values()
    scale = 8 if trained is None else np.tanh(trained)
    product = tensors[f"{Q}.lora_B"].astype(float) @ tensors[f"{Q}.lora_A"]
    matrix = components(contents)["weight"][0].recipe.read()
    assert isinstance(matrix, Dense)
    assert matrix.values == pytest.approx(scale * product + sparse(tensors))
    assert (parameter.name, parameter.role, parameter.layer) == (f"{Q}.weight", "q", 1)
    assert not contents.skips and not contents.notes
    assert {one.kind for one in contents.account} == {"part of"}
    assert len(contents.account) == len(tensors)


@pytest.mark.parametrize("places", [[-1], [OUT * IN]])
def test_a_position_outside_of_the_matrix_is_an_error(
    places: list[int], tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = sltrain(normal, np.array(places))
    contents = huggingface.read(write(tmp_path, tensors, r=RANK, lora_alpha=8), DEFAULT)  # type: ignore[arg-type]
    with pytest.raises(RankscopeError, match=r"sparse_index.*outside of a matrix"):
        components(contents)["weight"][0].recipe.read()


def test_sltrain_without_settings_is_a_product_of_unknown_scale(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = sltrain(normal, np.arange(7))
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    found = components(contents, contents)
    kinds = {name for name, held in found.items() if held}
    assert kinds == {"adapter", "update", "cumulative_update"}
    assert [note.reason for note in contents.notes] == ["scale-unknown"] and not contents.skips
    assert {one.kind for one in contents.account} == {"part of"} and len(contents.account) == 4


def test_loro_stays_factored_and_so_does_its_update(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    pairs = [(normal(IN, RANK), normal(OUT, RANK)) for _ in range(2)]
    read = []
    for step, (inner, outer) in zip((100, 200), pairs, strict=True):
        tensors = {f"{Q}.weight_in": inner, f"{Q}.weight_out": outer}
        write(tmp_path / f"model_{step}", tensors)  # type: ignore[arg-type]
        (tmp_path / f"model_{step}" / "training_state.json").write_text(
            json.dumps({"update_step": step})
        )
    read = [checkpoint.contents for checkpoint in open_run(tmp_path)]
    found = components(read[1], read[0])
    weight, update = (found[name][0].recipe.read() for name in ("weight", "update"))
    assert isinstance(weight, LowRank) and weight.inner == RANK and weight.shape == (OUT, IN)
    assert isinstance(update, LowRank) and update.inner == 2 * RANK
    before, after = (outer.astype(float) @ inner.T for inner, outer in pairs)
    assert weight.multiplied() == pytest.approx(after)
    assert update.multiplied() == pytest.approx(after - before)
    truth = np.linalg.svd(after - before, compute_uv=False)[: 2 * RANK]
    assert singular_values(update) == pytest.approx(truth)
    assert found["weight"][0].role == "q" and not found["adapter"]


def test_a_fused_product_is_cut_in_its_left_factor(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    module = "transformer.h.0.attn.c_attn"
    inner, outer = normal(8, 3), normal(24, 3)
    tensors = {f"{module}.weight_in": inner, f"{module}.weight_out": outer}
    save_file(tensors, tmp_path / "model.safetensors")
    contents = huggingface.read(tmp_path, DEFAULT)
    for role, rows in zip("qkv", np.split(outer.astype(float) @ inner.T, 3), strict=True):
        (component,) = (c for c in components(contents)["weight"] if c.role == role)
        matrix = component.recipe.read()
        assert isinstance(matrix, LowRank) and matrix.multiplied() == pytest.approx(rows)


def test_factors_with_an_activation_between_are_measured_by_themselves(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {f"{Q}.cola_a": normal(IN, RANK), f"{Q}.cola_b": normal(RANK, OUT)}
    tensors["model.layers.1.self_attn.v_proj.weight"] = normal(OUT, IN)
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    found = components(contents, contents)
    assert [c.role for c in found["weight"]] == ["v"]
    first, second = found["factor"]
    assert {c.name for c in found["factor"]} == {f"{Q}.cola_a", f"{Q}.cola_b"}
    assert {(c.role, c.layer) for c in found["factor"]} == {("q", 1)}
    shapes = {c.name[-1]: c.recipe.read().shape for c in (first, second)}
    assert shapes == {"a": (RANK, IN), "b": (OUT, RANK)}
    assert not contents.skips and {one.kind for one in contents.account} == {"matrix"}
    assert "factor" in COMPONENTS


def test_without_a_scale_the_weight_is_the_base_alone(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {
        f"{Q}.weight": normal(OUT, IN),
        f"{Q}.lora_A": normal(RANK, IN),
        f"{Q}.lora_B": normal(OUT, RANK),
        f"{Q}.candidates_A.0": normal(1, IN),
        f"{Q}.candidates_B": normal(OUT, 7),
    }
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    found = components(contents, contents)
    assert [c.kind for c in found["weight"]] == ["base"]
    assert len(found["adapter"]) == 1 and not found["update"]
    assert not contents.skips and [n.reason for n in contents.notes] == ["scale-unknown"]
    kinds = [one.kind for one in contents.account]
    assert sorted(kinds) == ["matrix", *["no linear map"] * 2, *["part of"] * 2]


def test_factors_beside_a_second_weight_are_left_out(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {f"{Q}.weight": normal(OUT, IN), f"{Q}.weight_in": normal(IN, RANK)}
    tensors[f"{Q}.weight_out"] = normal(OUT, RANK)
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert not contents.parameters
    assert [(skip.tensor, skip.reason) for skip in contents.skips] == [(Q, "two-weights")]
    assert {one.kind for one in contents.account} == {"not understood"}


PAIRS = {
    "left and right": ("left", (24, 4), "right", (4, 32)),
    "U and V": ("U", (24, 4), "V", (32, 4)),
    "numbers": ("w1", (4, 32), "w2", (24, 4)),
    "words": ("proj_out", (24, 4), "proj_in", (4, 32)),
    "layers": ("0.weight", (4, 32), "1.weight", (24, 4)),
    "named layers": ("down.weight", (4, 32), "up.weight", (24, 4)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_likely_factors_are_named_with_the_table_to_write(
    pair: str, tmp_path: Path, normal: Callable[..., Array]
) -> None:
    first, one, second, other = PAIRS[pair]
    tensors = {f"{Q}.{first}": normal(*one), f"{Q}.{second}": normal(*other)}
    folder = write(tmp_path / "model", tensors)  # type: ignore[arg-type]
    contents = huggingface.read(folder, DEFAULT)
    assert not contents.parameters
    assert {skip.tensor for skip in contents.skips} == set(tensors)
    assert {skip.reason for skip in contents.skips} == {"looks-like-factors"}
    message = contents.skips[0].message
    assert "24×32 matrix" in message or "32×24 matrix" in message
    # The table in the message makes them one matrix.
    table = message.partition("family file with ")[2].partition(" says")[0]
    header, _, entries = table.partition("] ")
    lines = entries.replace(", right", "\nright").replace(", makes", "\nmakes")
    lines = lines.replace(", transposed", "\ntransposed")
    text = f'name = "mine"\n[roles]\nq_proj = "q"\n{header}]\n{lines}\nscale = 1\n'
    (tmp_path / "mine.toml").write_text(text)
    options = Options(family=read_family(tmp_path / "mine.toml"))
    (parameter,) = huggingface.read(folder, options).parameters.values()
    assert parameter.role == "q" and sorted(parameter.shape) == [24, 32]


def test_a_weight_beside_likely_factors_is_uncertain_too(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {f"{Q}.weight": normal(24, 32), f"{Q}.up": normal(24, 2), f"{Q}.dn": normal(2, 32)}
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert not contents.parameters
    assert {skip.tensor for skip in contents.skips} == set(tensors)
    assert "makes = 'change'" in contents.skips[0].message


@pytest.mark.parametrize(
    "ends",
    [("A", "B"), ("lora.A", "lora.B"), ("W_a.weight", "W_b.weight"), ("down.weight", "up.weight")],
)
def test_an_adapter_by_hand_leaves_the_weight_that_it_changes_uncertain(
    ends: tuple[str, str], tmp_path: Path, normal: Callable[..., Array]
) -> None:
    shapes = {"linear.weight": (24, 24), ends[0]: (2, 24), ends[1]: (24, 2)}
    tensors = {f"{Q}.{end}": normal(*shape) for end, shape in shapes.items()}
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert not contents.parameters
    assert {skip.tensor for skip in contents.skips} == set(tensors)
    right, left = (end.removesuffix(".weight") for end in ends)
    table = f"left = {left!r}, right = {right!r}, makes = 'change'"
    assert all(skip.message.endswith(table) for skip in contents.skips)


@pytest.mark.parametrize("ends", [("left_factor", "right_factor"), ("A_mat", "B_mat")])
def test_parameters_that_differ_in_one_word_may_be_factors(
    ends: tuple[str, str], tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {f"blk.0.mix.{ends[0]}": normal(24, 4), f"blk.0.mix.{ends[1]}": normal(4, 32)}
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert {skip.reason for skip in contents.skips} == {"looks-like-factors"}


ORDINARY: dict[str, dict[str, tuple[int, ...]]] = {
    "bottleneck": {"mlp.fc1.weight": (4, 32), "mlp.fc2.weight": (32, 4)},
    "adapter of Houlsby": {"adapter.down.weight": (4, 32), "adapter.up.weight": (32, 4)},
    "skip of a bottleneck": {
        **{"ff.skip.weight": (32, 32), "ff.down.weight": (4, 32), "ff.up.weight": (32, 4)},
        **{"ff.down.bias": (4,), "ff.up.bias": (32,)},
    },
    "parts of a block": {"layers.0.hc_attn_fn": (24, 256), "layers.0.hc_ffn_fn": (24, 256)},
    "grouped values": {"attn.k_proj.weight": (8, 32), "attn.v_proj.weight": (8, 32)},
    "router": {"mlp.gate.weight": (4, 32), "mlp.up_proj.weight": (64, 32)},
    "latent attention": {"attn.q_a_proj.weight": (4, 32), "attn.q_b_proj.weight": (32, 4)},
    "recurrent": {"rnn.weight_ih_l0": (64, 32), "rnn.weight_hh_l0": (64, 16)},
    "two recurrent layers": {"rnn.weight_hh_l0": (64, 16), "rnn.weight_hh_l1": (64, 16)},
    "both directions": {"rnn.weight_hr_l0": (4, 16), "rnn.weight_hr_l0_reverse": (4, 16)},
    "recurrent cell": {"cell.weight_ih": (48, 16), "cell.weight_hh": (48, 16)},
    "autoencoder": {"W_enc": (8, 64), "b_enc": (64,), "W_dec": (64, 8), "b_dec": (8,)},
    "layers with a bias": {"w1": (64, 8), "b1": (64,), "w2": (8, 64), "b2": (8,)},
    "biases of stacks": {
        **{"sae.W_enc": (3, 8, 64), "sae.b_enc": (3, 64)},
        **{"sae.W_dec": (3, 64, 8), "sae.b_dec": (3, 8)},
    },
    "pruned": {"fc.weight_orig": (8, 32), "fc.weight_mask": (8, 32)},
    "positions": {"attn.rel_pos_h": (7, 16), "attn.rel_pos_w": (7, 16)},
    "two towers": {"image_projection": (32, 16), "text_projection": (24, 16)},
    "two wide towers": {"image_projection": (64, 16), "text_projection": (48, 16)},
    "two tables": {"user_emb": (64, 8), "item_emb": (48, 8)},
    "square beside wide": {"mix.left": (8, 8), "mix.right": (8, 16)},
    "low rank of full rank": {"mix.left": (8, 16), "mix.right": (16, 12)},
}


@pytest.mark.parametrize("model", ORDINARY)
def test_ordinary_layers_are_not_taken_for_factors(
    model: str, tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = {name: normal(*shape) for name, shape in ORDINARY[model].items()}
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert not [skip for skip in contents.skips if skip.reason == "looks-like-factors"]
    assert not [p for p in contents.parameters.values() if p.adapter or p.is_factor]


def test_two_projections_in_the_place_of_one_are_one_weight(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    """As SVD-LLM writes them."""
    names = ("q_u_proj", "q_v_proj", "o_u_proj", "o_v_proj")
    shapes = ((OUT, RANK), (RANK, IN)) * 2
    module = Q.rpartition(".")[0]
    tensors = {
        f"{module}.{name}.weight": normal(*shape) for name, shape in zip(names, shapes, strict=True)
    }
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert not contents.skips
    assert {p.module: p.role for p in contents.parameters.values()} == {
        f"{module}.q_proj": "q",
        f"{module}.o_proj": "o",
    }
    matrix = components(contents)["weight"][0].recipe.read()
    assert isinstance(matrix, LowRank)
    left, right = (tensors[f"{module}.{name}.weight"].astype(float) for name in names[:2])
    expected = np.linalg.svd(left @ right, compute_uv=False)[:RANK]
    assert singular_values(matrix)[:RANK] == pytest.approx(expected)


def rwkv(normal: Callable[..., Array]) -> dict[str, Array]:
    pairs = {f"{kind}{i}": (IN, RANK)[:: 3 - 2 * i] for kind in "wavg" for i in (1, 2)}
    linear = ("receptance", "key", "value", "output")
    return {
        **{f"blocks.0.att.{name}.weight": normal(IN, IN) for name in linear},
        **{f"blocks.0.att.{name}": normal(*shape) for name, shape in pairs.items()},
        "blocks.0.att.r_k": normal(4, IN // 4),
        "blocks.0.ffn.key.weight": normal(2 * IN, IN),
        "blocks.0.ffn.value.weight": normal(IN, 2 * IN),
    }


def test_the_low_rank_pairs_of_rwkv_are_products_or_factors(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    tensors = rwkv(normal)
    save_file(tensors, tmp_path / "rwkv.safetensors")
    contents = open_run(tmp_path / "rwkv.safetensors").checkpoints[0].contents
    found = components(contents)
    assert contents.family == "rwkv" and not contents.skips
    weights = {c.name: c for c in found["weight"]}
    for kind in "av":  # multiplied as they are
        matrix = weights[f"blocks.0.att.{kind}.weight"].recipe.read()
        assert isinstance(matrix, LowRank)
        product = (tensors[f"blocks.0.att.{kind}1"] @ tensors[f"blocks.0.att.{kind}2"]).T
        expected = np.linalg.svd(product.astype(float), compute_uv=False)[:RANK]
        assert singular_values(matrix)[:RANK] == pytest.approx(expected, rel=1e-5)
    assert {c.name for c in found["factor"]} == {f"blocks.0.att.{k}{i}" for k in "wg" for i in "12"}
    assert "blocks.0.att.r_k" in contents.left_out


def test_w1_and_w2_of_other_models_are_not_factors(
    tmp_path: Path, normal: Callable[..., Array]
) -> None:
    module = "layers.0.feed_forward"
    tensors = {f"{module}.w{i}.weight": normal(*shape) for i, shape in
               ((1, (OUT, IN)), (2, (IN, OUT)), (3, (OUT, IN)))}  # fmt: skip
    contents = huggingface.read(write(tmp_path, tensors), DEFAULT)  # type: ignore[arg-type]
    assert [p.module for p in contents.parameters.values()] == [f"{module}.w{i}" for i in (1, 2, 3)]
    assert not any(p.is_factor for p in contents.parameters.values())
