"""Maps in groups, whose stored rows are those of several matrices."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import open_run

torch = pytest.importorskip("torch")

FC = "head.fc.weight"
SQUEEZE = {"model_type": "squeezebert", "q_groups": 4, "output_groups": 2, "v_groups": 1}


def saved(
    folder: Path, shapes: dict[str, tuple[int, ...]], config: dict[str, Any]
) -> tuple[dict[str, NDArray[Any]], Contents]:
    rng = np.random.default_rng(0)
    shapes = {**shapes, FC: (6, 5)}
    tensors = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return tensors, open_run(folder)[0].contents


def blocks_of(contents: Contents, name: str) -> list[NDArray[Any]]:
    """The matrices of a tensor, in the order of their numbers."""
    found = [one for n, one in contents.parameters.items() if n.startswith(f"{name}[")]
    assert [one.expert for one in found] == [*range(len(found))]
    return [np.asarray(one.tensor.read()) for one in found if one.tensor is not None]


@pytest.mark.parametrize(
    ("name", "shape", "groups", "config"),
    [
        ("encoder.layers.0.attention.query.weight", (16, 4, 1), 4, SQUEEZE),
        ("encoder.layers.0.output.conv1d.weight", (16, 12, 1), 2, SQUEEZE),
        ("char_a3_module.tokenLearner.0.weight", (16, 2, 1, 1), 8, {"model_type": "mgp-str"}),
        ("bpe_a3_module.feat.weight", (16, 2, 1, 1), 8, {"model_type": "mgp-str"}),
        (
            "decoder.upsample.conv.weight",
            (16, 4, 3),
            4,
            {"model_type": "mimi", "upsample_groups": 4},
        ),
    ],
)
def test_groups_of_a_convolution_are_the_matrices_that_torch_multiplies_with(
    name: str, shape: tuple[int, ...], groups: int, config: dict[str, Any], tmp_path: Path
) -> None:
    tensors, contents = saved(tmp_path, {name: shape}, config)
    assert not contents.skips
    blocks = blocks_of(contents, name)
    assert len(blocks) == groups
    # One window of inputs, as long as the kernel: what comes out is all that the kernels do.
    inputs = np.random.default_rng(1).standard_normal((groups * shape[1], *shape[2:]), np.float32)
    convolve = torch.nn.functional.conv1d if len(shape) == 3 else torch.nn.functional.conv2d
    expected = convolve(
        torch.as_tensor(inputs[None]), torch.as_tensor(tensors[name]), groups=groups
    )
    parts = np.split(inputs, groups)
    found = [block @ part.ravel() for block, part in zip(blocks, parts, strict=True)]
    assert np.concatenate(found) == pytest.approx(expected.numpy().ravel(), abs=1e-5)


def test_each_group_of_heads_of_deepseek_has_an_output_projection(tmp_path: Path) -> None:
    name = "layers.0.attn.wo_a.weight"
    config = {"model_type": "deepseek_v4", "o_groups": 3}
    tensors, contents = saved(tmp_path, {name: (12, 5)}, config)
    heads = np.random.default_rng(1).standard_normal((3, 5))
    expected = np.einsum("gd,grd->gr", heads, tensors[name].reshape(3, 4, 5))
    found = [block @ one for block, one in zip(blocks_of(contents, name), heads, strict=True)]
    assert np.asarray(found) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("layers.0.attn.wo_a.weight", (12, 5), {"model_type": "deepseek_v4"}),
        ("encoder.layers.0.attention.query.weight", (16, 4, 1), {"model_type": "squeezebert"}),
        ("upsample.conv.weight", (16, 1, 4), {"model_type": "mimi", "upsample_groups": 16}),
    ],
)
def test_without_a_number_of_groups_or_with_single_channels_there_is_no_matrix(
    name: str, shape: tuple[int, ...], config: dict[str, Any], tmp_path: Path
) -> None:
    contents = saved(tmp_path, {name: shape}, config)[1]
    assert contents.left_out == (name,) and set(contents.parameters) == {FC}


def test_one_group_is_one_matrix_and_a_name_alone_is_no_sign(tmp_path: Path) -> None:
    value = "encoder.layers.0.attention.value.weight"
    contents = saved(tmp_path, {value: (16, 16, 1)}, SQUEEZE)[1]
    assert contents.parameters[value].role == "v" and contents.parameters[value].shape == (16, 16)
    query = "encoder.layer.0.attention.query.weight"
    feat = "char_a3_module.feat.weight"
    shapes = {query: (16, 16), feat: (16, 2, 1, 1)}
    plain = saved(tmp_path, shapes, {"model_type": "bert"})[1]
    assert plain.parameters[query].shape == (16, 16) and plain.parameters[feat].shape == (16, 2)


@pytest.mark.parametrize(
    ("name", "shape", "entry"),
    [
        ("layer.0.attention.query.weight", (16, 16), "q_groups"),
        ("layer.0.output.conv1d.weight", (16, 16, 1), "output_groups"),
        ("generator.upsample.conv.weight", (16, 8, 4), "upsample_groups"),
    ],
)
def test_entries_of_other_models_with_such_names_are_not_numbers_of_groups(
    name: str, shape: tuple[int, ...], entry: str, tmp_path: Path
) -> None:
    """Groups of queries that share a key, for example, which also need not divide the rows."""
    for groups in (4, 5):
        contents = saved(tmp_path, {name: shape}, {"model_type": "other", entry: groups})[1]
        assert not contents.skips and contents.parameters.keys() == {name, FC}


def test_rows_that_do_not_make_so_many_groups_are_not_measured(tmp_path: Path) -> None:
    name = "layers.0.attn.wo_a.weight"
    contents = saved(tmp_path, {name: (12, 5)}, {"model_type": "deepseek_v4", "o_groups": 5})[1]
    assert [(skip.tensor, skip.reason) for skip in contents.skips] == [(name, "config-mismatch")]
    assert "12 rows" in contents.skips[0].message and "5 groups" in contents.skips[0].message
