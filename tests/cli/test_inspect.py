import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.cli.descriptions import account_text, print_places, print_run
from tests.conftest import TinyRun, random_factors, random_weights, write_adapter, write_model
from tests.reliability.commands import finished_command as rankscope

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


@pytest.mark.slow
def test_it_shows_what_is_known_and_what_is_not(tmp_path: Path, rng: np.random.Generator) -> None:
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


@pytest.mark.slow
def test_what_will_be_skipped_is_told_with_its_reason(relora_run: TinyRun) -> None:
    path = relora_run.path / "checkpoints" / "step-00000030" / "adapter"
    lora = path / "adapter_model.safetensors"
    save_file({"base_model.model.nowhere.lora_A.weight": np.ones((2, 4), np.float32)}, lora)
    done = rankscope("inspect", relora_run.path)
    assert done.returncode == 3
    assert "skipped" in done.stdout and "has lora_A but no lora_B" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_steps_with_the_same_weights_are_named(tmp_path: Path, rng: np.random.Generator) -> None:
    weights = random_weights(rng)
    for step in (1, 2, 3):
        changed = {name: w * (2 if step == 3 else 1) for name, w in weights.items()}
        write_model(tmp_path / f"step_{step}", changed)
    assert described(tmp_path)["identical_steps"] == [[1, 2]]
    assert "steps 1, 2 hold the same weights" in rankscope("inspect", tmp_path).stdout


def test_the_best_kind_is_taken_and_others_are_named(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer = {"model": {"h.0.attn.c_proj.weight": torch.ones(4, 4)}, "model_args": {}, "iter_num": 3}
    torch.save(layer, tmp_path / "ckpt.pt")
    run = described(tmp_path)
    assert (run["layout"], run["also_readable_as"]) == ("nanogpt", ["torch"])


@pytest.mark.slow
def test_a_family_in_a_file_overrules_recognition(tmp_path: Path, rng: np.random.Generator) -> None:
    write_gpt2(tmp_path / "step_1", rng)
    (tmp_path / "my.toml").write_text('name = "mine"\n[roles]\nmystery = "router"\n')
    run = described(tmp_path / "step_1", "--family", tmp_path / "my.toml")
    roles = {line["role"]: line["matrices"] for line in run["matrices"]}  # type: ignore[attr-defined]
    assert run["family"] == "mine" and roles["router"] == 1
    (tmp_path / "bad.toml").write_text('name = "mine"\nrols = 1\n')
    done = rankscope("inspect", tmp_path / "step_1", "--family", tmp_path / "bad.toml")
    assert done.returncode == 4 and "bad.toml: has unknown entries: rols" in done.stderr


@pytest.mark.slow
def test_the_middle_of_many_steps_is_counted(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (100, 200):
        write_model(tmp_path / "run" / f"checkpoint-{step}", random_weights(rng))
    run = described(tmp_path / "run")
    print_run(run)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["step", "from", "path"] in rows
    assert ["100", "folder", "checkpoint-100"] in rows
    first = run["steps"][0]  # type: ignore[index]
    run["steps"] = [dict(first, step=step, below=f"s{step}") for step in range(0, 3000, 10)]
    run["unit"] = "epoch"
    print_run(run)
    lines = capsys.readouterr().out
    assert "300 checkpoints: epochs 0, 10, 20 … 2990" in lines
    assert "294 more" in lines and " s20" in lines and " s2970" in lines and " s30" not in lines


@pytest.mark.slow
def test_tokens_that_a_name_states_are_shown(tmp_path: Path, rng: np.random.Generator) -> None:
    write_model(tmp_path / "step1000-tokens4B", random_weights(rng))
    write_model(tmp_path / "step2000-tokens8B", random_weights(rng))
    rows = [line.split() for line in rankscope("inspect", tmp_path).stdout.splitlines()]
    assert ["1000", "4e+09", "folder", "step1000-tokens4B"] in rows


def test_the_account_adds_up_to_the_tensors(tmp_path: Path, rng: np.random.Generator) -> None:
    tensors = random_weights(rng)
    write_model(tmp_path / "step_1", tensors)
    shown = rankscope("inspect", tmp_path / "step_1").stdout
    matrices = len(tensors) - 1
    words = f"{len(tensors)}: {matrices} matrices, 1 not a linear map; 0 not understood"
    assert f"tensors    {words}" in shown
    assert account_text({"matrix": 1, "part of": 1, "not understood": 3}) == (
        "5: 1 matrix, 1 part of a matrix; 3 not understood"
    )
    assert account_text({"not understood": 2}) == "2: none understood; 2 not understood"


def test_what_is_not_a_step_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [
        {"path": str(tmp_path / name), "use": use, "run": run, "step": step, "reason": reason}
        for name, use, run, step, reason in (
            ("a/checkpoint-1", "step", "a", 1, ""),
            ("a/checkpoint-1/optimizer.pt", "part", "a", 1, "an optimizer"),
            ("notes.ipynb", "left out", "", None, "holds no weights"),
            ("a/cut.pt", "unreadable", "a", 3, "is cut short"),
            *((f"log-{n:03}.txt", "left out", "", None, "is text") for n in range(40)),
        )
    ]
    print_places(places, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "a/checkpoint-1/optimizer.pt a at 1: an optimizer" in lines
    assert "notes.ipynb holds no weights" in lines and "a/cut.pt is cut short" in lines
    assert "… 34 more is text" in lines and "log-039.txt is text" in lines
    assert not any(line.startswith("a/checkpoint-1 ") for line in lines)


@pytest.mark.slow
def test_what_is_left_out_is_said_once(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("run", "run/checkpoint-1", "run/checkpoint-2"):
        write_model(tmp_path / name, random_weights(rng))
    for number in range(9):
        (tmp_path / f"table-{number}.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    shown = rankscope("inspect", tmp_path / "run").stdout
    assert "run itself" in shown and shown.count("states no step of the series") == 1
    shown = rankscope("inspect", tmp_path).stdout
    assert shown.count("table-8.h5") == 1 and "note " not in shown


@pytest.mark.slow
def test_exit_codes_say_what_would_be_skipped(tmp_path: Path, rng: np.random.Generator) -> None:
    for run in ("good", "bad"):
        for step in (1, 2):
            write_model(tmp_path / run / f"checkpoint-{step}", random_weights(rng))
    assert rankscope("inspect", tmp_path).returncode == 0
    for step in (1, 2):
        path = tmp_path / "bad" / f"checkpoint-{step}" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
    done = rankscope("inspect", tmp_path)
    assert done.returncode == 3 and done.stdout.count("is cut short") == 2
    assert "good" in done.stdout and "no checkpoint can be read" in done.stdout
    done = rankscope("inspect", tmp_path / "bad", "--json")
    assert done.returncode == 4 and len(json.loads(done.stdout)["skips"]) == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_missing_base_is_said_and_can_be_given(tmp_path: Path, rng: np.random.Generator) -> None:
    write_adapter(tmp_path / "lora" / "checkpoint-1", random_factors(rng), scale=2.0)
    write_model(tmp_path / "base", random_weights(rng))
    done = rankscope("inspect", tmp_path / "lora")
    assert done.returncode == 0 and "note " in done.stdout and "base model" in done.stdout
    run = described(tmp_path / "lora", "--base", tmp_path / "base")
    assert run["base"] == str(tmp_path / "base") and run["notes"] == []


@pytest.mark.slow
def test_a_damaged_step_is_marked_in_the_list_of_steps(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in range(1, 21):
        write_model(tmp_path / "run" / f"checkpoint-{step}", random_weights(rng))
    damaged = tmp_path / "run" / "checkpoint-9" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8])
    done = rankscope("inspect", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["runs"][0]["unreadable_steps"] == [9]
    lines = [line.split() for line in rankscope("inspect", tmp_path / "run").stdout.splitlines()]
    assert ["9", "folder", "checkpoint-9", "(cannot", "be", "read)"] in lines
    assert ["…", "5", "more"] in lines and ["…", "8", "more"] in lines


def test_a_step_that_nothing_states_is_explained(tmp_path: Path, rng: np.random.Generator) -> None:
    write_model(tmp_path / "base-model", random_weights(rng))
    shown = rankscope("inspect", tmp_path / "base-model").stdout
    assert "order: nothing states a step" in shown


@pytest.mark.slow
def test_a_state_without_a_manifest_is_not_a_run(
    relora_run: TinyRun, rng: np.random.Generator
) -> None:
    (relora_run.path / "config.toml").write_text('method = "relora"\n')
    write_model(relora_run.path / "state" / "step-00000030", random_weights(rng))
    done = rankscope("inspect", relora_run.path, "--json")
    assert done.returncode == 0
    (run,) = json.loads(done.stdout)["runs"]
    assert len(run["steps"]) == 4
