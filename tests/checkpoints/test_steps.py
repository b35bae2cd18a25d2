"""The step of one checkpoint, from its name or a file beside it."""

import json
from pathlib import Path

import pytest

from rankscope.checkpoints.steps import (
    stage_in_name,
    step_in_name,
    step_of,
    tokens_in_name,
)
from rankscope.errors import RankscopeError

STATED = {
    "checkpoint-500": 500,
    "step_1000": 1000,
    "step-00002000": 2000,
    "global_step143000": 143000,
    "globalstep12": 12,
    "iter_0001000": 1000,
    "iteration7": 7,
    "ckpt_600": 600,
    "000600_ckpt": 600,
    "state_step000100": 100,
    "epoch=0-step=100": 100,
    "epoch=3-step=1200": 1200,
    "step1000-tokens4B": 1000,
    "stage1-step140000-tokens294B": 140000,
    "stage2-ingredient1-step1000-tokens5B": 1000,
    "step-001000-2BT": 1000,
    "pretrain_iter_0373000": 373000,
    "anneal_iter_0001000": 1000,
    "model_2000": 2000,
    "model_000600": 600,
    "2000": 2000,
    "0": 0,
    "step0": 0,
    "step1000-unsharded": 1000,
    "step143000": 143000,
    "update_500": 500,
    "ckpt-12": 12,
    "model.ckpt-1000": 1000,
    "iter-002000-ckpt": 2000,
    "step-000500-of-nothing": 500,
    "lc-4k-to-32k-step-4000": 4000,
    "Step 1000": 1000,
    "STEP_7": 7,
    "step_10k": 10000,
    "10000-steps": 10000,
    "10k-steps": 10000,
    "checkpoint_3_5000": 5000,
    "checkpoint_500_2": 500,
    "step_500_checkpoint_1": 500,
    "checkpoint-1-step-20": 20,
    "step_500_2024-05-11": 500,
    "20240511-step-30": 30,
    "llama-1b-step-30": 30,
    "exp/step_100": 100,
    "ckpt_600-00001-of-00002": 600,
    "20000000": 20000000,
}
NOT_STATED = [
    "model-00001-of-00006", "ckpt-00001-of-00002", "checkpoint-00001-of-00003",
    "pico-decoder-small-1", "llama-1b", "llama_1b", "Llama-3.2-1B", "Qwen2.5-0.5B", "phi-2",
    "pythia-70m", "ckpt-7b", "checkpoint-70m", "Step-3.5-Flash", "step-1.5", "gpt-4",
    "epoch=3.ckpt", "epoch=3", "epoch-3", "step", "step_", "step_-1", "step--1", "step_1e4",
    "latest", "final", "best", "main", "model", "model_", "model_best", "model-7", "v2", "v1.0",
    "max_steps_1000", "run_max_steps_1000", "warmup_steps_100", "lr-step-50", "num_updates_7",
    "checkpoint-2024-05-11", "checkpoint_20240511", "20240511", "step_20240510",
    "checkpoint_20240511_103000",
    "tmp-checkpoint-500", "checkpoint-500.tmp", "step_100-partial", "multistep3", "footstep_1",
    "sdxl-turbo-4-steps", "phi-3-ckpt", "tokens4B", "zero_pp_rank_0_mp_rank_00_optim_states",
    "mp_rank_00_model_states", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4", "seed1", "run-2",
    "step_" + "9" * 30, "9" * 19, "10" * 9 + "k-steps", "", "step_٣",
]  # fmt: skip


@pytest.mark.parametrize(("name", "step"), STATED.items())
def test_a_name_that_states_a_step_is_understood(name: str, step: int) -> None:
    assert step_in_name(name) == step


@pytest.mark.parametrize("name", NOT_STATED)
def test_digits_that_mean_something_else_are_not_a_step(name: str) -> None:
    assert step_in_name(name) is None


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("step1000-tokens4B", 4 * 10**9),
        ("stage1-step140000-tokens294B", 294 * 10**9),
        ("step0-tokens0B", 0),
        ("step-001000-2BT", 2 * 10**9),
        ("step-1-350MT", 350 * 10**6),
        ("step5-tokens1.5T", 15 * 10**11),
        ("step5-tokens4194304", 4194304),
        ("step5_100B-tokens", 10**11),
        ("step1000", None),
        ("llama-7b", None),
        ("token-step-5", None),
        ("step-5-2B", None),
        ("llama-3bt5", None),
    ],
)
def test_tokens_are_read_from_a_name(name: str, tokens: int | None) -> None:
    assert tokens_in_name(name) == tokens


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("stage1-step140000-tokens294B", "stage1"),
        ("Stage-1_step_5", "stage-1"),
        ("stage2-ingredient1-step1000-tokens5B", "stage2-ingredient1"),
        ("pretrain_iter_0373000", "pretrain"),
        ("pretraining-global_step100", "pretraining"),
        ("anneal_iter_0001000", "anneal"),
        ("lc-4k-to-32k-step-4000", "lc-4k-to-32k"),
        ("it-mid-training-step-4000", "it-mid-training"),
        ("stage1-epoch=2-step=100", "stage1"),
        ("step1000-tokens4B", None),
        ("global_step100", None),
        ("model-step-100", None),
        ("epoch=0-step=100", None),
        ("pretrained-step-100", None),
        ("decayed_step_100", None),
        ("stage1", None),
        ("stages-step-1", None),
        ("state_step000100", None),
        ("checkpoint-500", None),
    ],
)
def test_a_stage_precedes_the_step(name: str, stage: str | None) -> None:
    assert stage_in_name(name) == stage


@pytest.mark.parametrize("word", ["step", "stage", "epoch-", "tokens", "-_", "1", "checkpoint_"])
def test_a_name_of_any_length_is_read_at_once(word: str) -> None:
    name = word * 4000
    assert step_in_name(name) is stage_in_name(name) is None
    tokens_in_name(name)


@pytest.mark.parametrize(
    ("file", "state", "step"),
    [
        ("trainer_state.json", {"global_step": 77, "max_steps": 100, "epoch": 0.5}, 77),
        ("training_state.json", {"global_step": 616, "update_step": 77, "tokens_seen": 9}, 77),
        ("state.json", {"step": 77, "restarts": 1}, 77),
    ],
)
def test_optimizer_steps_in_a_file_count_before_the_name(
    file: str, state: dict[str, object], step: int, tmp_path: Path
) -> None:
    folder = tmp_path / "step_9"
    folder.mkdir()
    assert step_of(folder) == (9, "folder")
    (folder / file).write_text(json.dumps(state))
    assert step_of(folder) == (step, file)


@pytest.mark.parametrize("step", [-1, "7", 7.0, True, None, [7], 10**18])
def test_without_a_usable_step_in_files_the_name_decides(step: object, tmp_path: Path) -> None:
    folder = tmp_path / "step_9"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    assert step_of(folder) == (9, "folder")


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("{")
    with pytest.raises(RankscopeError, match=r"trainer_state\.json: is not valid JSON"):
        step_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "step"),
    [("ckpt_600.pt", 600), ("model_000600.pt", 600), ("epoch=0-step=100.ckpt", 100),
     ("model.ckpt-1000", 1000), ("model.step_7", 7), ("step_0010.pth.tar", 10),
     ("epoch=3.ckpt", None), ("model-00001-of-00002.safetensors", None)],
)  # fmt: skip
def test_the_suffix_of_a_file_is_not_part_of_its_name(
    name: str, step: int | None, tmp_path: Path
) -> None:
    (tmp_path / name).touch()
    assert step_of(tmp_path / name) == (None if step is None else (step, "folder"))
