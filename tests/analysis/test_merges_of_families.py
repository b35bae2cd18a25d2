"""Merges have the roles, layers and parts that the weights of their run have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import rankscope as rs
from tests.conftest import write_model

WIDTH, RANK = 8, 2
GPT2: dict[str, object] = {"model_type": "gpt2", "n_head": 2, "n_embd": WIDTH}
Array = NDArray[np.float32]
# A module of nobody's, which only a family file knows.
FAMILY = """
name = "mine"
[roles]
"mlp.wide" = "up"
[fused."core.mix"]
parts = ["q", "k", "v"]
"""


def random(rng: np.random.Generator, *shape: int) -> Array:
    return rng.normal(size=shape).astype(np.float32)


def write_merge(path: Path, modules: dict[str, tuple[int, int]], rng: np.random.Generator) -> None:
    tensors = {}
    for module, (rows, columns) in modules.items():
        tensors[f"{module}.lora_A"] = random(rng, RANK, columns)
        tensors[f"{module}.lora_B"] = random(rng, rows, RANK)
        tensors[f"{module}.scale"] = np.array([2.0])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def merged(table: pd.DataFrame) -> set[tuple[str, int, str]]:
    rows = table[table["component"].isin(["merge", "merged_total"])]
    return set(zip(rows["component"], rows["step"], rows["role"], strict=True))


@pytest.mark.parametrize("steps", [None, "20:"])
def test_a_merge_before_all_checkpoints_that_are_read_is_split(
    steps: str | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    module = "transformer.h.0.attn.c_attn"
    for step in (10, 30):
        tensors = {f"{module}.weight": random(rng, WIDTH, 3 * WIDTH)}
        write_model(tmp_path / f"run/checkpoints/step-{step:08d}", tensors, config=GPT2)
    for step in (5, 20):
        path = tmp_path / f"run/merges/step-{step:08d}.safetensors"
        write_merge(path, {module: (3 * WIDTH, WIDTH)}, rng)
    table = rs.analyze(
        tmp_path / "run", components=["weight", "merge", "merged_total"], steps=steps, jobs=1
    )
    at = (5, 20) if steps is None else (20,)
    assert merged(table) == {
        (component, step, role)
        for component in ("merge", "merged_total")
        for step in at
        for role in "qkv"
    }


def test_merges_follow_a_family_of_the_users(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "mine.toml").write_text(FAMILY)
    modules = {"h.0.core.mix": (3 * WIDTH, WIDTH), "h.0.mlp.wide": (2 * WIDTH, WIDTH)}
    for step in (10, 30):
        tensors = {f"{name}.weight": random(rng, *shape) for name, shape in modules.items()}
        write_model(tmp_path / f"run/checkpoints/step-{step:08d}", tensors, config={})
    write_merge(tmp_path / "run/merges/step-00000010.safetensors", modules, rng)
    table = rs.analyze(
        tmp_path / "run", components=["weight", "merge"], family=tmp_path / "mine.toml", jobs=1
    )
    assert merged(table) == {("merge", 10, role) for role in ("q", "k", "v", "up")}


def test_merges_of_a_tower_follow_the_family_of_the_tower(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """A language model whose vision tower has one fused tensor for q, k and v."""
    text = [f"language_model.model.layers.0.self_attn.{one}_proj" for one in "qkvo"]
    vision = "vision_tower.transformer.h.0.attn.c_attn"
    shapes = dict.fromkeys(text, (WIDTH, WIDTH))
    for step in (10, 30):
        tensors = {f"{name}.weight": random(rng, *shape) for name, shape in shapes.items()}
        tensors[f"{vision}.weight"] = random(rng, WIDTH, 3 * WIDTH)
        tensors["vision_tower.transformer.h.0.attn.c_proj.weight"] = random(rng, WIDTH, WIDTH)
        tensors["vision_tower.transformer.h.0.mlp.c_fc.weight"] = random(rng, WIDTH, 4 * WIDTH)
        tensors["vision_tower.transformer.h.0.mlp.c_proj.weight"] = random(rng, 4 * WIDTH, WIDTH)
        folder = tmp_path / f"run/checkpoints/step-{step:08d}"
        write_model(folder, tensors, config={"model_type": "llama", "num_attention_heads": 2})
    modules = {**shapes, vision: (3 * WIDTH, WIDTH)}
    write_merge(tmp_path / "run/merges/step-00000010.safetensors", modules, rng)
    table = rs.analyze(tmp_path / "run", components=["weight", "merge"], jobs=1)
    names = {
        kind: set(table.loc[table["component"] == kind, "name"]) for kind in ("weight", "merge")
    }
    assert names["merge"] == {
        name for name in names["weight"] if "mlp" not in name and "c_proj" not in name
    }
    assert len(names["merge"]) == 4 + 3
