import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.cli.test_app import rankscope
from tests.conftest import TinyRun, random_weights, write_model

WIDTH, HEADS = 16, 4


def gpt2_weights(rng: np.random.Generator) -> dict[str, np.ndarray]:
    shapes = {
        "wte": (20, WIDTH),
        "wpe": (8, WIDTH),
        "h.0.attn.c_attn": (WIDTH, 3 * WIDTH),
        "h.0.attn.c_proj": (WIDTH, WIDTH),
        "h.0.mlp.c_fc": (WIDTH, 4 * WIDTH),
        "h.0.mlp.c_proj": (4 * WIDTH, WIDTH),
        "h.0.mystery": (5, 7),
    }
    return {f"{n}.weight": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def write_gpt2(folder: Path, rng: np.random.Generator, **entries: object) -> None:
    folder.mkdir(parents=True)
    config = {"model_type": "gpt2", "n_embd": WIDTH, "n_head": HEADS} | entries
    (folder / "config.json").write_text(json.dumps(config))
    save_file(gpt2_weights(rng), folder / "model.safetensors")


def described(*arguments: object) -> dict[str, object]:
    done = rankscope("inspect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    return dict(run)


def test_it_tells_layout_family_steps_roles_and_what_it_does_not_know(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (100, 20):
        write_gpt2(tmp_path / f"checkpoint-{step}", rng)
    run = described(tmp_path)
    assert (run["layout"], run["family"], run["layers"]) == ("huggingface", "gpt2", 1)
    assert [(s["step"], s["step_source"]) for s in run["steps"]] == [
        (20, "folder"),
        (100, "folder"),
    ]  # type: ignore[attr-defined]
    assert run["heads"] == {"count": HEADS, "kv_count": HEADS, "size": WIDTH // HEADS}
    roles = {line["role"]: line for line in run["matrices"]}  # type: ignore[attr-defined]
    assert set(roles) == {"q", "k", "v", "o", "up", "down", "embed", "other"}
    assert roles["up"] == {
        "role": "up", "layers": "0", "matrices": 1, "shapes": "64×16", "dtype": "float32"
    }  # fmt: skip
    assert run["unknown"] == ["h.0.mystery.weight"]
    assert run["left_out"] == ["wpe.weight"]


def test_what_will_be_skipped_is_told_with_its_reason(relora_run: TinyRun) -> None:
    path = relora_run.path / "checkpoints" / "step-00000030" / "adapter"
    lora = path / "adapter_model.safetensors"
    save_file({"base_model.model.nowhere.lora_A.weight": np.ones((2, 4), np.float32)}, lora)
    done = rankscope("inspect", relora_run.path)
    assert done.returncode == 0
    assert "skipped" in done.stdout and "has lora_A but no lora_B" in " ".join(done.stdout.split())


def test_steps_with_the_same_weights_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    for step in (1, 2, 3):
        changed = {name: w * (2 if step == 3 else 1) for name, w in weights.items()}
        write_model(tmp_path / f"step_{step}", changed)
    assert described(tmp_path)["identical_steps"] == [[1, 2]]
    assert "steps 1, 2 hold the same weights" in rankscope("inspect", tmp_path).stdout


def test_the_best_of_several_kinds_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = {"model": {"h.0.attn.c_proj.weight": torch.ones(4, 4)}, "model_args": {}, "iter_num": 3}
    torch.save(layer, tmp_path / "ckpt.pt")
    run = described(tmp_path)
    assert (run["layout"], run["also_readable_as"]) == ("nanogpt", ["torch"])


def test_a_family_in_a_file_overrules_what_is_told(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_gpt2(tmp_path / "step_1", rng)
    (tmp_path / "my.toml").write_text('name = "mine"\n[roles]\nmystery = "router"\n')
    run = described(tmp_path / "step_1", "--family", tmp_path / "my.toml")
    roles = {line["role"]: line["matrices"] for line in run["matrices"]}  # type: ignore[attr-defined]
    assert run["family"] == "mine" and roles["router"] == 1
    (tmp_path / "bad.toml").write_text('name = "mine"\nrols = 1\n')
    done = rankscope("inspect", tmp_path / "step_1", "--family", tmp_path / "bad.toml")
    assert done.returncode == 4 and "bad.toml: a family has no rols" in done.stderr
