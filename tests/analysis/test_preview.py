"""``inspect`` shows what ``analyze`` will skip: the same, for the same reasons."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.analysis.preview import preview
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.survey import Place, Survey
from tests.analysis.series import SHAPES, analysed, renamed, weights, write_step
from tests.conftest import random_factors, random_weights, write_adapter

Damage = Callable[[Path, np.random.Generator], object]
MODEL = "checkpoint-200/model.safetensors"


def cut(run: Path, rng: np.random.Generator) -> None:
    path = run / MODEL
    path.write_bytes(path.read_bytes()[:-200])


def cut_in_its_header(run: Path, rng: np.random.Generator) -> None:
    path = run / MODEL
    path.write_bytes(path.read_bytes()[:60])


def emptied(run: Path, rng: np.random.Generator) -> None:
    (run / MODEL).write_bytes(b"")


def a_web_page(run: Path, rng: np.random.Generator) -> None:
    (run / MODEL).write_text("<!DOCTYPE html><html><body>not found</body></html>")


def a_pointer(run: Path, rng: np.random.Generator) -> None:
    (run / MODEL).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def a_missing_tensor(run: Path, rng: np.random.Generator) -> None:
    edited(run, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def another_shape(run: Path, rng: np.random.Generator) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    edited(run, lambda tensors: tensors.update({name: np.ones((7, 16), np.float32)}))


def another_number_of_heads(run: Path, rng: np.random.Generator) -> None:
    for folder in run.iterdir():
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"head_dim": 5}))


def stored_as_integers(run: Path, rng: np.random.Generator) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edited(run, lambda tensors: tensors.update({name: np.ones((24, 16), np.int8)}))


def other_names(run: Path, rng: np.random.Generator) -> None:
    write_step(run, 300, renamed(weights(rng), "another."))


def another_log(run: Path, rng: np.random.Generator) -> None:
    for step in (200, 300):
        log = [{"step": 50, "loss": float(step)}]
        write_step(run, step, random_weights(rng), log=log)


def half_an_adapter(run: Path, rng: np.random.Generator) -> None:
    folder = run / "checkpoint-300" / "adapter"
    write_adapter(folder, random_factors(rng), scale=2.0)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop("base_model.model.model.layers.0.mlp.up_proj.lora_A.weight")
    save_file(tensors, path)


def an_adapter_of_another_shape(run: Path, rng: np.random.Generator) -> None:
    factors = {"model.layers.0.mlp.up_proj": (np.ones((9, 2)), np.ones((2, 16)))}
    write_adapter(run / "checkpoint-300" / "adapter", factors, scale=2.0)


def a_merge_without_its_scale(run: Path, rng: np.random.Generator) -> None:
    (run / "merges").mkdir()
    save_file(
        {"x.lora_A": np.ones((2, 4), np.float32)}, run / "merges" / "step-00000200.safetensors"
    )


def a_checkpoint_without_matrices(run: Path, rng: np.random.Generator) -> None:
    save_file({"model.norm.weight": np.ones(16, np.float32)}, run / MODEL)


def a_missing_shard(run: Path, rng: np.random.Generator) -> None:
    (run / MODEL).unlink()
    listing = {
        "weight_map": {"model.layers.0.mlp.up_proj.weight": "model-00001-of-00002.safetensors"}
    }
    (run / "checkpoint-200" / "model.safetensors.index.json").write_text(json.dumps(listing))


def several_at_once(run: Path, rng: np.random.Generator) -> None:
    cut(run, rng)
    another_number_of_heads(run, rng)
    half_an_adapter(run, rng)


def edited(run: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(run / MODEL)
    change(tensors)
    save_file(tensors, run / MODEL)


DAMAGES: tuple[Damage, ...] = (
    cut, cut_in_its_header, emptied, a_web_page, a_pointer, a_missing_tensor, another_shape,
    another_number_of_heads, stored_as_integers, other_names, another_log, half_an_adapter,
    an_adapter_of_another_shape, a_merge_without_its_scale, a_checkpoint_without_matrices,
    a_missing_shard, several_at_once,
)  # fmt: skip


def write_run(path: Path, rng: np.random.Generator) -> Path:
    for step in (100, 200, 300):
        write_step(path, step, random_weights(rng))
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.slow
def test_what_an_analysis_skips_is_shown_before(
    damage: Damage, tmp_path: Path, rng: np.random.Generator
) -> None:
    damage(write_run(tmp_path / "tree" / "run", rng), rng)
    write_run(tmp_path / "tree" / "sound", rng)
    out = tmp_path / "out"
    analysed(tmp_path / "tree", out=out)
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    shown = preview(survey([tmp_path / "tree"]))
    assert skipped and sorted(map(str, shown["skips"])) == sorted(map(str, skipped))
    assert all("/run/" in skip["path"] for skip in skipped)
    notes = json.loads((out / "analysis.json").read_text())["notes"]
    assert shown["notes"] == notes


def test_nothing_is_shown_of_a_sound_run(tmp_path: Path, rng: np.random.Generator) -> None:
    shown = preview(survey([write_run(tmp_path / "run", rng)]))
    assert (shown["skips"], shown["notes"]) == ([], [])


def test_the_account_is_that_of_every_tensor(tmp_path: Path, rng: np.random.Generator) -> None:
    (run,) = preview(survey([write_run(tmp_path / "run", rng)]))["runs"]
    stored = load_file(tmp_path / "run" / "checkpoint-300" / "model.safetensors")
    tensors = {one["name"]: one for one in run["tensors"]}
    assert tensors.keys() == stored.keys() and len(tensors) == len(run["tensors"])
    assert run["account"] == Counter(one["class"] for one in run["tensors"])
    assert sum(run["account"].values()) == len(stored)
    norm, matrix = tensors["model.norm.weight"], tensors["model.layers.0.mlp.up_proj.weight"]
    assert (norm["class"], norm["shape"], norm["file"]) == (
        "no linear map", [16], "model.safetensors",
    )  # fmt: skip
    assert (matrix["class"], matrix["reason"], matrix["dtype"]) == ("matrix", "up", "float32")
    assert [one["described_step"] for one in run["accounts"]] == [300]


def test_a_changing_account_is_given_for_each_stretch(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (100, 200, 300, 400):
        tensors = weights(rng, SHAPES)
        if step in (200, 300):
            tensors.pop("layers.0.mlp.up_proj.weight")
        write_step(tmp_path, step, tensors)
    (run,) = preview(survey([tmp_path]))["runs"]
    assert [(one["described_step"], one["account"]) for one in run["accounts"]] == [
        (100, {"matrix": 4}), (300, {"matrix": 3}), (400, {"matrix": 4}),
    ]  # fmt: skip
    assert run["described_step"] == 400 and run["account"] == {"matrix": 4}


def test_the_last_readable_step_is_described(tmp_path: Path, rng: np.random.Generator) -> None:
    run = write_run(tmp_path / "run", rng)
    (run / "checkpoint-300" / "model.safetensors").write_bytes(b"")
    (shown,) = preview(survey([run]))["runs"]
    assert shown["described_step"] == 200
    assert [step["step"] for step in shown["steps"]] == [100, 200, 300]


def test_skips_and_notes_of_the_survey_come_first(tmp_path: Path, rng: np.random.Generator) -> None:
    runs = survey([write_run(tmp_path / "run", rng)]).runs
    skip, note = (Skip(str(tmp_path / x), "", x, f"is {x}") for x in ("twice", "a copy"))
    place = Place(tmp_path / "a copy", "left out", reason="is a copy")
    shown = preview(Survey(runs, (place,), (skip,), (note,)))
    assert [one["reason"] for one in shown["skips"]] == ["twice"]
    assert [one["reason"] for one in shown["notes"]] == ["a copy"]
    assert shown["places"] == [
        {"path": str(tmp_path / "a copy"), "use": "left out", "run": "", "step": None,
         "reason": "is a copy"}
    ]  # fmt: skip
