"""Folders as people keep them: the steps of each run, and a line for everything else."""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rankscope.checkpoints.discovery import open_run, open_runs, survey
from rankscope.checkpoints.survey import Survey
from rankscope.errors import RankscopeError
from tests.conftest import TinyRun, random_factors, random_weights, write_adapter, write_model

torch = pytest.importorskip("torch")


def write_file(path: Path, *, rows: int = 6, **beside: object) -> None:
    """Write a file with one matrix, in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = np.random.default_rng(len(path.name) + rows).normal(size=(rows, 4)).astype("f4")
    if path.suffix == ".npz":
        np.savez(path, fc=matrix)
    elif path.suffix == ".safetensors":
        save_file({"fc.weight": matrix}, path)
    else:
        weights = {"fc.weight": torch.from_numpy(matrix)}
        torch.save({"model_state_dict": weights, **beside}, path)


def write_hf(folder: Path, seed: int, *, step: int | None = None) -> None:
    """Write a model's folder, with the state of a Trainer where a step is given."""
    write_model(folder, random_weights(np.random.default_rng(seed)))
    if step is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))


def steps_of(found: Survey) -> dict[str, tuple[int, ...]]:
    return {run.name: run.steps for run in found.runs}


def uses_of(found: Survey, root: Path) -> dict[str, tuple[str, str, int | None]]:
    return {
        place.path.relative_to(root).as_posix(): (place.use, place.run, place.step)
        for place in found.places
    }


def named(lines: Iterable[object]) -> str:
    return "\n".join(map(str, lines))


@pytest.mark.parametrize(
    ("files", "runs"),
    [
        (["step_{}/model.pt"], {"run": "step"}),
        (["global_step_{}/actor/model.pt", "global_step_{}/critic/model.pt"],
         {"run/actor": "step", "run/critic": "step"}),
        (["checkpoint-{}/unet/net.safetensors", "checkpoint-{}/unet_ema/net.safetensors"],
         {"run/unet": "step", "run/unet_ema": "step"}),
        (["iter_{:07d}/mp_rank_00/model_optim_rng.pt"], {"run": "step"}),
        (["epoch_{}/generator.pth", "epoch_{}/discriminator.pth"],
         {"run/discriminator": "epoch", "run/generator": "epoch"}),
        (["checkpoints/name=0--val_loss=1.{}-step={}/weights/w.npz"], {"run": "step"}),
        (["{:06d}/state/net.pt"], {"run": "step"}),
        (["G_{}00.pth", "D_{}00.pth"], {"run/D": "step", "run/G": "step"}),
        (["actor_step_{}.pt", "critic_step_{}.pt"], {"run/actor": "step", "run/critic": "step"}),
        (["ckpt_{}.pt", "ckpt_{}_ema.pt"], {"run": "step", "run/ema": "step"}),
        (["step_{}.pt", "step_{}.safetensors"], {"run/pt": "step", "run/safetensors": "step"}),
        (["seed1_epoch{}.pt", "seed2_epoch{}.pt"], {"run/seed1": "epoch", "run/seed2": "epoch"}),
    ],
)  # fmt: skip
def test_a_step_may_be_in_a_folder_above_or_among_words(
    files: Sequence[str], runs: dict[str, str], tmp_path: Path
) -> None:
    root = tmp_path / "run"
    for name in files:
        for number in (1, 2, 10):
            write_file(root / name.format(*[number] * name.count("{")))
    found = survey([root])
    assert {run.name: run.unit for run in found.runs} == runs
    factor = 100 if "00.pth" in files[0] else 1
    assert set(steps_of(found).values()) == {(factor, 2 * factor, 10 * factor)}
    assert not found.skips and not found.notes
    for run in found.runs:
        assert [str(c.path) for c in run] == sorted((str(c.path) for c in run), key=len)
        assert all(c.contents.parameters for c in run)


@pytest.mark.parametrize("names", [["0", "1", "2"], ["seed1", "seed2"], ["lr-0.1", "lr-0.01"]])
def test_folders_of_a_sweep_are_not_folders_of_steps(names: list[str], tmp_path: Path) -> None:
    for name in names:
        write_file(tmp_path / name / "model.pt")
    assert steps_of(survey([tmp_path])) == {f"{name}/model.pt": (0,) for name in names}


def test_folders_that_hold_series_of_their_own_are_runs(tmp_path: Path) -> None:
    for part in (1, 2):
        for step in (10, 20):
            write_file(tmp_path / f"round_{part}" / f"step_{step}.pt")
    assert steps_of(survey([tmp_path])) == {"round_1": (10, 20), "round_2": (10, 20)}


def test_epochs_in_files_give_numbers_their_unit(tmp_path: Path) -> None:
    for folder, behind in (("epochs", 1), ("others", 70)):
        for number in (10, 20):
            write_file(tmp_path / folder / f"checkpoint_{number:04d}.pth", epoch=number + behind)
    found = survey([tmp_path])
    assert {run.name: run.unit for run in found.runs} == {"epochs": "epoch", "others": "step"}
    assert steps_of(found) == {"epochs": (10, 20), "others": (10, 20)}


def test_a_guessed_count_needs_files_of_one_size(tmp_path: Path) -> None:
    for number in (100, 200, 300):
        write_file(tmp_path / "steps" / f"mlp_{number}.safetensors")
        write_file(tmp_path / "widths" / f"mlp_{number}.safetensors", rows=number)
    found = survey([tmp_path])
    assert steps_of(found)["steps"] == (100, 200, 300) and len(found.runs) == 4
    (note,) = found.notes
    assert "widths: mlp_100.safetensors, mlp_200" in str(note) and "only in numbers" in str(note)


def test_runs_that_differ_only_in_a_number_are_noted(tmp_path: Path) -> None:
    for seed in range(5):
        write_file(tmp_path / f"seed{seed}.pt")
    found = survey([tmp_path])
    assert len(found.runs) == 5 and not found.skips
    assert "seed0.pt, seed1.pt, seed2.pt and 2 more differ only in numbers" in named(found.notes)


@pytest.mark.parametrize(
    ("name", "state", "joins"),
    [
        ("final", 350, True),
        ("best_model", 150, True),
        ("model_last", 350, True),
        ("", 350, True),
        ("final", 200, False),
        ("finish", None, False),
        ("", None, False),
        ("tuned-on-mail", 350, False),
    ],
)
@pytest.mark.parametrize("is_in_tree", [False, True])
def test_the_final_model_has_its_place_or_is_named(
    name: str, state: int | None, joins: bool, is_in_tree: bool, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    for step in (100, 200, 300):
        write_hf(root / f"checkpoint-{step}", step, step=step)
    write_hf(root / name, 7, step=state)
    found = survey([tmp_path if is_in_tree else root])
    (run,) = found.runs
    if joins:
        assert run.steps == tuple(sorted((100, 200, 300, state)))  # type: ignore[type-var]
        assert run[state].path == root / name and not found.notes  # type: ignore[index]
    else:
        assert run.steps == (100, 200, 300)
        (note,) = found.notes
        assert note.path == str(root / name) and "is left out" in note.message
        assert uses_of(found, root)[name or "."][0] == "left out"
    assert not found.skips


def test_a_final_model_of_another_kind_is_not_a_step(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (10, 20):
        write_adapter(tmp_path / f"checkpoint-{step}", random_factors(rng), scale=1.0)
    write_hf(tmp_path / "final", 1, step=30)
    found = survey([tmp_path])
    assert [run.steps for run in found.runs] == [(10, 20)]
    assert "final: is left out" in named(found.notes)


def test_a_copy_of_the_last_step_is_noted(tmp_path: Path) -> None:
    for step in (100, 200):
        write_hf(tmp_path / f"checkpoint-{step}", step)
    shutil.copytree(tmp_path / "checkpoint-200", tmp_path / "final")
    assert "final: is left out: it holds the same weights as checkpoint-200" in named(
        survey([tmp_path]).notes
    )


@pytest.mark.parametrize("kinds", [("pt", "html"), ("safetensors", "cut"), ("npz", "lfs")])
def test_what_cannot_be_read_keeps_its_step(kinds: tuple[str, str], tmp_path: Path) -> None:
    suffix, damage = kinds
    for step in (100, 200, 300):
        write_file(tmp_path / f"step_{step}.{suffix}")
    path = tmp_path / f"step_200.{suffix}"
    pointer = b"version https://git-lfs.github.com/spec/v1\nsize 1\n"
    content = {"html": b"<html>", "lfs": pointer, "cut": path.read_bytes()[:40]}[damage]
    path.write_bytes(content)
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200, 300)}
    with pytest.raises(RankscopeError, match=f"step_200.{suffix}: "):
        found.runs[0][200].read()
    assert found.runs[0][300].contents.parameters


def test_an_empty_folder_of_a_step_keeps_its_step(tmp_path: Path) -> None:
    for step in (100, 200):
        write_hf(tmp_path / f"checkpoint-{step}", step)
        write_file(tmp_path / "inner" / f"step_{step}" / "model.pt")
    for name in ("checkpoint-300", "inner/step_300", "inner/logs"):
        (tmp_path / name).mkdir()
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200, 300), "inner": (100, 200, 300)}
    for run in found.runs:
        with pytest.raises(RankscopeError, match="300: holds no weights"):
            run[300].read()
    uses = uses_of(found, tmp_path)
    assert uses["checkpoint-300"] == ("unreadable", tmp_path.name, 300)
    assert uses["inner/step_300"] == ("unreadable", "inner", 300)
    assert uses["inner/logs"][0] == "left out"


def test_copies_of_a_step_are_read_once(tmp_path: Path) -> None:
    for step in (100, 200):
        write_hf(tmp_path / f"checkpoint-{step}", step, step=step)
    names = ("Copy of checkpoint-200", "checkpoint-200 (1)", "checkpoint-100_backup")
    for name in names:
        step = 100 if "100" in name else 200
        shutil.copytree(tmp_path / f"checkpoint-{step}", tmp_path / name)
    write_hf(tmp_path / "checkpoint-0200", 3, step=200)
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200)}
    assert [c.path.name for c in found.runs[0]] == ["checkpoint-100", "checkpoint-200"]
    assert {Path(note.path).name for note in found.notes} == set(names)
    assert all("holds the same weights" in note.message for note in found.notes)
    (skip,) = found.skips
    assert "checkpoint-0200: is step 200, and so is checkpoint-200, with different weights" in str(
        skip
    )


def test_nothing_at_the_top_hides_what_is_below(
    tmp_path: Path,
) -> None:
    for seed in (1, 2):
        for step in (100, 200):
            write_hf(tmp_path / f"seed{seed}" / f"checkpoint-{step}", step + seed, step=step)
    write_hf(tmp_path / "best model (old)", 5, step=200)
    write_hf(tmp_path / "final", 6)
    for name in ("ckpt_200_copy.pt", "net.pt", "seed1/loose.pt"):
        write_file(tmp_path / name)
    torch.save({"state": {}, "param_groups": []}, tmp_path / "optimizer.pt")
    for name in ("notes.ipynb", "README.md", "seed2/log.txt", "src/a.py", "src/inner/odd.pt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "seed2" / "empty").mkdir()
    (tmp_path / "latest").symlink_to("seed1")
    (tmp_path / ".cache").mkdir()
    found = survey([tmp_path])
    steps = steps_of(found)
    assert steps["seed1"] == steps["seed2"] == (100, 200)
    uses = uses_of(found, tmp_path)
    for path in tmp_path.rglob("*"):
        name = path.relative_to(tmp_path)
        around = {name.as_posix(), *(parent.as_posix() for parent in name.parents)}
        assert around & uses.keys() - {"."} or any(n.startswith(f"{name}/") for n in uses), name
    for name in ("optimizer.pt", "README.md", "latest", ".cache", "src/a.py", "seed2/empty"):
        assert uses[name][0] == "left out"
    assert all(place.reason for place in found.places if place.use in ("left out", "unreadable"))
    assert uses["src/inner/odd.pt"][0] == "step"  # of a run that cannot be read, and says so
    for name in ("final", "seed1/loose.pt", "best model (old)"):
        assert f"{tmp_path / name}:" in named(found.notes)
    assert not found.skips


def test_series_below_a_model_at_the_top_are_runs(tmp_path: Path) -> None:
    write_hf(tmp_path, 1)
    write_adapter(tmp_path / "adapter_a", random_factors(np.random.default_rng(0)), scale=1.0)
    for step in (1, 2):
        write_hf(tmp_path / "seed1" / f"checkpoint-{step}", step)
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (0,), "seed1": (1, 2)}
    assert uses_of(found, tmp_path)["adapter_a"] == ("part", tmp_path.name, None)


def test_a_bad_run_does_not_end_the_others(tmp_path: Path) -> None:
    for name in ("good/step_1", "good/step_2", "twice/step_1", "twice/step_01", "bad/step_1"):
        write_file(tmp_path / f"{name}.pt")
    write_hf(tmp_path / "state" / "checkpoint-7", 1)
    (tmp_path / "state" / "checkpoint-7" / "trainer_state.json").write_text("{")
    found = survey([tmp_path])
    assert steps_of(found) == {"bad": (1,), "good": (1, 2), "state": (7,), "twice": (1,)}
    assert "step_01.pt: is step 1, and so is step_1.pt" in named(found.skips)
    assert "trainer_state.json: is not valid JSON" in named(found.skips)


def test_results_of_rankscope_are_not_looked_into(tmp_path: Path) -> None:
    for step in (1, 2):
        write_file(tmp_path / "run" / f"step_{step}.pt")
    results = tmp_path / "rankscope-results"
    write_file(results / "spectra" / "step_1.npz")
    (results / "analysis.json").write_text("{}")
    found = survey([tmp_path])
    assert steps_of(found) == {"run": (1, 2)}
    assert uses_of(found, tmp_path)["rankscope-results"][0] == "left out"
    with pytest.raises(RankscopeError, match="holds results of rankscope"):
        open_run(results)


@pytest.mark.parametrize("at", [".", "run", "run/checkpoints", "run/checkpoints/step_1"])
def test_results_written_among_checkpoints_do_not_hide_them(tmp_path: Path, at: str) -> None:
    for step in (1, 2):
        write_hf(tmp_path / "run" / "checkpoints" / f"step_{step}", step)
    bare = steps_of(survey([tmp_path]))
    results = tmp_path / at
    write_file(results / "spectra" / "step_3.npz")
    write_file(results / "origins" / "step_4.npz")
    for name in ("analysis.json", "metrics.parquet"):
        (results / name).write_text("{}")
    assert steps_of(survey([tmp_path])) == bare == {"run": (1, 2)}
    assert open_run(tmp_path / "run").steps == (1, 2)


def test_links_are_not_followed_and_noted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for step in (1, 2):
        write_file(tmp_path / "scratch" / f"step_{step}.pt")
        (run / f"step_{step}.pt").symlink_to(tmp_path / "scratch" / f"step_{step}.pt")
    with pytest.raises(
        RankscopeError, match=r"2 links, such as step_1\.pt.*give what they lead to"
    ):
        open_run(run)
    found = survey([tmp_path])
    assert steps_of(found) == {"scratch": (1, 2)}
    assert "run: is left out: it holds only links (2)" in named(found.notes)
    assert open_run(run / "step_2.pt").steps == (2,)


@pytest.mark.parametrize(("target", "costs"), [("elsewhere", True), ("gone", True), ("run", False)])
def test_a_link_for_a_step_is_a_skip_unless_its_target_is_read(
    target: str, costs: bool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for step in (1, 3):
        write_hf(run / f"checkpoint-{step}", step)
    write_hf(tmp_path / "elsewhere" / "checkpoint-2", 2)
    leads_to = run / "checkpoint-3" if target == "run" else tmp_path / target / "checkpoint-2"
    (run / "checkpoint-2").symlink_to(leads_to)
    (run / "data").symlink_to(tmp_path / "elsewhere")
    found = survey([run])
    assert steps_of(found) == {"run": (1, 3)} and not found.notes
    assert [Path(skip.path).name for skip in found.skips] == ["checkpoint-2"] * costs


def test_unreadable_files_are_named_by_kind(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for step in (1, 2):
        (tmp_path / f"step_{step}.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
        (tmp_path / "deep" / f"model-{step}.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(
        RankscopeError, match=r"(?s)model-1\.gguf.*GGUF.*step_1\.h5.*HDF5"
    ) as caught:
        survey([tmp_path])
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["net_{}.pt.bak", "net_{}.pt.backup", "net_{}.pth.copy"])
def test_a_copy_by_its_last_suffix_is_one(name: str, tmp_path: Path) -> None:
    suffix = Path(name.removesuffix(Path(name).suffix)).suffix
    for step in (100, 200):
        write_file(tmp_path / f"net_{step}{suffix}")
    shutil.copy(tmp_path / f"net_100{suffix}", tmp_path / name.format(100))
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200)} and not found.skips
    assert "holds the same weights as net_100" in named(found.notes)


@pytest.mark.parametrize(
    "held", [{"rng": torch.get_rng_state()}, {"order": torch.arange(9)}, {"last_epoch": 3}]
)
def test_what_a_training_keeps_beside_its_steps_is_not_a_series(
    held: object, tmp_path: Path
) -> None:
    for step in (100, 200):
        write_file(tmp_path / f"model_step_{step}.pt")
        torch.save(held, tmp_path / f"beside_step_{step}.pt")
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200)} and not found.skips
    assert named(found.notes).count("beside_step_") == 2


def test_a_step_without_weights_among_others_keeps_its_place(tmp_path: Path) -> None:
    for step in (100, 300):
        write_file(tmp_path / f"model_step_{step}.pt")
    torch.save({"last_epoch": 3}, tmp_path / "model_step_200.pt")
    found = survey([tmp_path])
    assert steps_of(found) == {tmp_path.name: (100, 200, 300)}
    with pytest.raises(RankscopeError, match="not hold a table of tensors"):
        found.runs[0][200].read()


def test_a_given_folder_of_a_step_gives_its_step(tmp_path: Path) -> None:
    write_file(tmp_path / "step_300" / "model.pt")
    for path in (tmp_path, tmp_path / "step_300"):
        assert open_run(path).steps == (300,)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MANIFEST.json", {"format": "rankscope-state-2"}),
        ("state.json", {"step": 30, "adam_steps": {}}),
    ],
)
def test_what_the_trainer_resumes_from_is_part_of_its_run(
    name: str, content: dict[str, object], relora_run: TinyRun
) -> None:
    state = relora_run.path / "state" / "step-00000030"
    write_hf(state, 1)
    (state / name).write_text(json.dumps(content))
    found = survey([relora_run.path])
    assert steps_of(found) == {"relora": (0, 10, 20, 30)} and not found.notes
    uses = uses_of(found, relora_run.path)
    assert uses["merges"][0] == uses["state"][0] == "part"


@pytest.mark.parametrize("steps", [{1: 100, 2: 200}, {1: 100, 2: 100}, {1: 100, 2: None}])
def test_what_files_state_counts_where_all_do_and_rise(
    steps: dict[int, int | None], tmp_path: Path
) -> None:
    for epoch, step in steps.items():
        write_hf(tmp_path / f"epoch_{epoch}", epoch, step=step)
    (run,) = open_runs([tmp_path])
    if list(steps.values()) == [100, 200]:
        assert (run.steps, run.unit) == ((100, 200), "step")
    else:
        assert (run.steps, run.unit) == ((1, 2), "epoch")
