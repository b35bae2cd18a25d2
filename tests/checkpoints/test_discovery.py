"""Opening runs, and what is said of paths that are not one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.discovery import open_run, open_runs, survey
from rankscope.checkpoints.same_weights import identical_steps
from rankscope.errors import RankscopeError
from tests.conftest import TinyRun, random_factors, random_weights, write_adapter, write_model


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


def test_the_same_step_under_another_word_is_another_run(
    full_run: Path, rng: np.random.Generator
) -> None:
    write_model(full_run / "step_10", random_weights(rng))
    runs = open_runs([full_run])
    assert [(run.name, run.steps) for run in runs] == [("full", (5, 10, 100)), ("full/step", (10,))]


@pytest.mark.parametrize("names", [["last"], ["a-copy", "final"]])
def test_copies_of_a_step_under_another_name_are_left_out(names: list[str], full_run: Path) -> None:
    for name in names:
        shutil.copytree(full_run / "checkpoint-100", full_run / name)
    assert [c.path.name for c in open_run(full_run)][-1] == "checkpoint-100"
    shutil.rmtree(full_run / "checkpoint-100")
    found = survey([full_run])
    assert found.runs[0][100].path.name == names[0]
    assert [Path(note.path).name for note in found.notes] == names[1:] and not found.skips


def test_models_without_steps_are_runs_of_their_own(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("base", "tuned"):
        write_model(tmp_path / "models" / name, random_weights(rng))
    runs = open_runs([tmp_path])
    assert [run.name for run in runs] == ["models/base", "models/tuned"]
    assert all(run.checkpoints[0].step_source == "order" for run in runs)


def test_runs_of_one_name_get_different_names(tmp_path: Path, rng: np.random.Generator) -> None:
    for parent in ("a", "b"):
        write_model(tmp_path / parent / "run" / "step_1", random_weights(rng))
    names = [run.name for run in open_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])]
    assert names == ["a/run", "b/run"]
    twice = open_runs([tmp_path / "a", tmp_path / "a"])
    assert [run.name for run in twice] == ["run"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no checkpoint"),
        (lambda path: path.write_text("x"), "is not a file of weights"),
    ],
)
def test_what_is_not_a_run_is_refused(make: object, message: str, tmp_path: Path) -> None:
    make(tmp_path / "it")  # type: ignore[operator]
    with pytest.raises(RankscopeError, match=f"it: {message}"):
        open_run(tmp_path / "it")


def test_a_missing_step_is_answered_with_the_existing_ones(full_run: Path) -> None:
    with pytest.raises(RankscopeError, match="no step 7: steps 5, 10, 100"):
        open_run(full_run)[7]


def test_runs_and_checkpoints_show_themselves(relora_run: TinyRun) -> None:
    run = open_run(relora_run.path)
    assert repr(run) == "Run('relora', 4 checkpoints, steps 0, 10, 20, 30)"
    html = run._repr_html_()
    assert "16×16" in html and "merges</th><td>2" in html
    assert "<td>down</td>" in run[20]._repr_html_()


def test_epochs_are_a_series_in_the_order_of_their_numbers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = {name: random_weights(rng) for name in ("epoch-2", "epoch-10", "epoch-1")}
    for name, tensors in weights.items():
        write_model(tmp_path / "tuned" / name, tensors)
    write_model(tmp_path / "tuned" / "best", weights["epoch-2"])
    run = open_run(tmp_path / "tuned")
    assert (run.name, run.steps, run.unit) == ("tuned", (1, 2, 10), "epoch")
    assert [c.path.name for c in run] == ["epoch-1", "epoch-2", "epoch-10"]
    assert {c.step_source for c in run} == {"folder"}
    read = run[10].contents.parameters["lm_head.weight"].tensor
    assert read is not None and (read.read() == weights["epoch-10"]["lm_head.weight"]).all()


@pytest.mark.parametrize(
    "names",
    [
        ("full", "relora"),
        ("seed1", "seed2"),
        ("small-1", "small-2"),
        ("a", "b"),
        ("epoch-1", "part-2"),
    ],
)
def test_names_that_count_no_time_are_runs_to_compare(
    names: tuple[str, ...], tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in names:
        write_model(tmp_path / name, random_weights(rng))
    assert sorted(run.name for run in open_runs([tmp_path])) == sorted(names)


def test_two_ways_of_counting_are_two_runs(tmp_path: Path, rng: np.random.Generator) -> None:
    for name in ("epoch-1", "epoch-2", "checkpoint-500"):
        write_model(tmp_path / "run" / name, random_weights(rng))
    runs = open_runs([tmp_path / "run"])
    assert [(run.name, run.steps, run.unit) for run in runs] == [
        ("run", (1, 2), "epoch"),
        ("run/checkpoint", (500,), "step"),
    ]


def test_checkpoints_of_two_layouts_are_not_a_series(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    write_model(tmp_path / "epoch-1", random_weights(rng))
    write_adapter(tmp_path / "epoch-2", random_factors(rng), scale=1.0)
    assert [run.name for run in open_runs([tmp_path])] == ["epoch-1", "epoch-2"]


def test_every_stage_is_a_run_with_steps_of_its_own(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    names = (
        "stage1-step1000-tokens4B", "stage1-step2000-tokens8B",
        "stage2-ingredient1-step1000-tokens5B", "stage10-step1000", "step500-tokens2B",
    )  # fmt: skip
    for name in names:
        write_model(tmp_path / "olmo" / name, random_weights(rng))
    runs = open_runs([tmp_path])
    assert [(run.name, run.stage, run.steps) for run in runs] == [
        ("olmo", None, (500,)),
        ("olmo/stage1", "stage1", (1000, 2000)),
        ("olmo/stage2-ingredient1", "stage2-ingredient1", (1000,)),
        ("olmo/stage10", "stage10", (1000,)),
    ]
    assert [c.tokens for run in runs for c in run] == [
        2 * 10**9, 4 * 10**9, 8 * 10**9, 5 * 10**9, None,
    ]  # fmt: skip
    assert len(open_runs([tmp_path, tmp_path / "olmo"])) == 4
    with pytest.raises(RankscopeError, match="holds 4 runs"):
        open_run(tmp_path / "olmo")


def test_stages_of_runs_of_one_name_get_different_names(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for name in ("pretrain_iter_0001000", "anneal_iter_0001000"):
        for parent in ("a", "b"):
            write_model(tmp_path / parent / "run" / name, random_weights(rng))
    runs = open_runs([tmp_path / "a" / "run", tmp_path / "b" / "run"])
    assert len({run.name for run in runs}) == 4
    assert all(run.name.endswith(f"run/{run.stage}") for run in runs)


def test_a_given_link_is_followed_and_has_its_targets_step(full_run: Path, tmp_path: Path) -> None:
    (full_run / "checkpoint-100" / "trainer_state.json").unlink()
    (full_run / "latest").symlink_to("checkpoint-100")
    assert open_run(full_run / "latest").steps == (100,)
    (tmp_path / "link").symlink_to(full_run)
    assert (open_run(tmp_path / "link").name, open_run(tmp_path / "link").steps) == (
        "full",
        (5, 10, 100),
    )


def test_what_is_still_being_written_is_not_a_step(
    full_run: Path, rng: np.random.Generator
) -> None:
    write_model(full_run / "tmp-checkpoint-200", random_weights(rng))
    assert open_run(full_run).steps == (5, 10, 100)


def test_steps_that_hold_the_same_weights_are_found(
    full_run: Path, rng: np.random.Generator
) -> None:
    assert identical_steps(open_run(full_run)) == []
    same = random_weights(rng)
    for step in (20, 30):
        write_model(full_run / f"checkpoint-{step}", same)
    # The same weights in a file with another value beside them.
    write_model(full_run / "checkpoint-40", {})
    save_file(same, full_run / "checkpoint-40" / "model.safetensors", metadata={"step": "40"})
    shutil.copytree(full_run / "checkpoint-5", full_run / "checkpoint-50")
    (full_run / "checkpoint-50" / "trainer_state.json").unlink()
    assert identical_steps(open_run(full_run)) == [(5, 50), (20, 30, 40)]


def test_frozen_weights_under_other_adapters_are_not_the_same(relora_run: TinyRun) -> None:
    run = open_run(relora_run.path)
    assert identical_steps(run) == []
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        shutil.copy(run[20].path / name, run[30].path / name)
    assert identical_steps(open_run(relora_run.path)) == [(20, 30)]
    shutil.copy(run[0].path / "adapter/adapter_model.safetensors", run[30].path / "adapter")
    assert identical_steps(open_run(relora_run.path)) == []


def test_a_single_matrix_that_differs_makes_the_weights_differ(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    weights = random_weights(rng)
    write_model(tmp_path / "step_1", weights)
    weights["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"]
    write_model(tmp_path / "step_2", weights)
    assert identical_steps(open_run(tmp_path)) == []


def test_a_damaged_checkpoint_is_the_same_as_no_other(full_run: Path) -> None:
    for step in (5, 10):
        (full_run / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"not weights")
    assert identical_steps(open_run(full_run)) == []


def test_a_missing_base_is_refused_before_reading(tmp_path: Path, rng: np.random.Generator) -> None:
    write_model(tmp_path / "step_1", random_weights(rng))
    with pytest.raises(RankscopeError, match="gone: does not exist"):
        survey([tmp_path], base=tmp_path / "gone")
