import json
from pathlib import Path

import numpy as np
import pytest

from rankscope.checkpoints.discovery import open_run, open_runs
from rankscope.checkpoints.steps import step_in_name
from rankscope.errors import RankscopeError
from tests.conftest import TinyRun, random_weights, write_model


def test_a_tree_a_run_and_a_checkpoint_all_open(relora_run: TinyRun, full_run: Path) -> None:
    root = full_run.parent
    assert [(run.name, run.steps) for run in open_runs([root])] == [
        ("full", (5, 10, 100)),
        ("relora", (0, 10, 20, 30)),
    ]
    assert open_run(full_run).name == "full"
    single = open_run(full_run / "checkpoint-10")
    assert (single.name, single.steps) == ("checkpoint-10", (10,))


def test_the_series_of_a_run_opens_as_that_run(relora_run: TinyRun) -> None:
    run = open_run(relora_run.path / "checkpoints")
    assert (run.name, len(run.merge_files)) == ("relora", 2)


def test_opening_reads_no_weights(full_run: Path) -> None:
    for path in full_run.glob("*/model.safetensors"):
        path.write_bytes(b"not weights")
    assert open_run(full_run).steps == (5, 10, 100)
    with pytest.raises(RankscopeError, match="not a safetensors file"):
        _ = open_run(full_run)[10].contents


def test_steps_sort_as_numbers_and_tell_their_source(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("step_9", "step_10", "step_100", "notes"):
        write_model(tmp_path / name, random_weights(rng))
    run = open_run(tmp_path)
    assert run.steps == (9, 10, 100)
    assert {checkpoint.step_source for checkpoint in run} == {"folder"}


def test_a_state_file_is_trusted_above_the_name(tmp_path: Path, rng: np.random.Generator) -> None:
    write_model(tmp_path / "step_9", random_weights(rng))
    (tmp_path / "step_9" / "trainer_state.json").write_text(json.dumps({"global_step": 77}))
    run = open_run(tmp_path)
    assert run.steps == (77,) and run[77].step_source == "trainer_state.json"


def test_links_and_hidden_folders_do_not_count(full_run: Path, rng: np.random.Generator) -> None:
    (full_run / "latest").symlink_to("checkpoint-100")
    write_model(full_run / ".tmp-checkpoint-200", random_weights(rng))
    assert open_run(full_run).steps == (5, 10, 100)


def test_two_folders_of_one_step_are_refused(full_run: Path, rng: np.random.Generator) -> None:
    write_model(full_run / "step_10", random_weights(rng))
    with pytest.raises(RankscopeError, match="is step 10, and so is checkpoint-10"):
        open_run(full_run)


def test_models_without_steps_are_runs_of_their_own(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("base", "tuned"):
        write_model(tmp_path / "models" / name, random_weights(rng))
    runs = open_runs([tmp_path])
    assert [run.name for run in runs] == ["models/base", "models/tuned"]
    assert all(run.checkpoints[0].step_source == "order" for run in runs)


def test_runs_of_one_name_are_told_apart(tmp_path: Path, rng: np.random.Generator) -> None:
    for parent in ("a", "b"):
        write_model(tmp_path / parent / "run" / "step_1", random_weights(rng))
    names = [run.name for run in open_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])]
    assert len(set(names)) == 2
    twice = open_runs([tmp_path / "a", tmp_path / "a"])
    assert [run.name for run in twice] == ["run"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no checkpoint"),
        (lambda path: path.write_text("x"), "is a file"),
    ],
)
def test_what_is_no_run_is_refused(make: object, message: str, tmp_path: Path) -> None:
    make(tmp_path / "it")  # type: ignore[operator]
    with pytest.raises(RankscopeError, match=f"it: {message}"):
        open_run(tmp_path / "it")


def test_a_step_that_is_not_there_is_answered_with_those_that_are(full_run: Path) -> None:
    with pytest.raises(RankscopeError, match="no step 7: steps 5, 10, 100"):
        open_run(full_run)[7]


def test_runs_and_checkpoints_show_themselves(relora_run: TinyRun) -> None:
    run = open_run(relora_run.path)
    assert repr(run) == "Run('relora', 4 checkpoints, steps 0, 10, 20, 30)"
    html = run._repr_html_()
    assert "16×16" in html and "merges</th><td>2" in html
    assert "<td>down</td>" in run[20]._repr_html_()


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step-00002000", 2000), ("step_9", 9), ("checkpoint-500", 500), ("global_step12", 12),
        ("iter_0373000", 373000), ("epoch=0-step=100", 100),
        ("stage1-step140000-tokens294B", 140000),
        ("model_5000", 5000), ("2000", 2000), ("ckpt_12", 12), ("iteration7", 7),
        ("model-00001-of-00006", None), ("pico-decoder-small-1", None), ("llama_1b", None),
        ("Llama-3.2-1B", None), ("epoch=3", None), ("step_", None), ("step_-1", None),
        ("latest", None), ("step_" + "9" * 30, None),
    ],
)  # fmt: skip
def test_a_step_is_read_from_a_name_only_where_it_is_one(name: str, step: int | None) -> None:
    assert step_in_name(name) == step
