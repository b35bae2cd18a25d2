"""Slices in folders of runs are one step of one run, wherever names state rank and step."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import save_file

from rankscope.checkpoints.discovery import open_run, open_runs, survey
from rankscope.checkpoints.survey import Survey
from rankscope.errors import RankscopeError

torch = pytest.importorskip("torch")
STEPS, RANKS = (100, 200, 1000), 2


def write(path: Path, *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = torch.Generator().manual_seed(seed)
    weights = {f"layers.{i}.fc.weight": torch.randn(8, 6, generator=drawn) for i in range(2)}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)


def uses_of(found: Survey, root: Path) -> dict[str, tuple[str, int | None]]:
    return {p.path.relative_to(root).as_posix(): (p.use, p.step) for p in found.places}


# A file for each step and rank, and the path that represents the step.
FORMS = {
    "ckpt_{step}_tp{rank}.pt": "ckpt_{step}_tp0.pt",
    "step_{step}/shard_{rank}.pt": "step_{step}",
    "rank-{rank:05d}-of-00002_step_{step}.pt": "rank-00000-of-00002_step_{step}.pt",
    "step_{step}/rank-{rank:05d}-of-00002.pt": "step_{step}",
    "step_{step}/rank-{rank:05d}-of-00002/model.pt": "step_{step}",
    "rank_{rank}/step_{step}.pt": "rank_0/step_{step}.pt",
    "rank_{rank}/{step}.pt": "rank_0/{step}.pt",
    "rank_{rank}/step_{step}/model.safetensors": "rank_0/step_{step}/model.safetensors",
    "rank_{rank}/checkpoints/step_{step}/w/a.pt": "rank_0/checkpoints/step_{step}/w/a.pt",
    "iter_{step:07d}/mp_rank_{rank:02d}/model_optim_rng.pt": "iter_{step:07d}",
    "step_{step}_rank_{rank}/model.safetensors": "step_{step}_rank_0/model.safetensors",
    "global_step_{step}/actor/model_world_size_2_rank_{rank}.pt": "global_step_{step}/actor",
    "checkpoints/step-{step}/rank{rank}/pytorch_model.bin": "checkpoints/step-{step}",
    "checkpoint_{step}_model_part-{rank}.pt": "checkpoint_{step}_model_part-0.pt",
}


@pytest.mark.parametrize("form", FORMS)
def test_slices_of_a_series_are_one_step_each_and_never_runs(form: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    for step in STEPS:
        for rank in range(RANKS):
            write(root / form.format(step=step, rank=rank), seed=step + rank)
    found = survey([root])
    (run,) = found.runs
    assert run.steps == STEPS and not found.skips and not found.notes
    assert [c.path for c in run] == [root / FORMS[form].format(step=step) for step in STEPS]
    uses = uses_of(found, root)
    for checkpoint in run:
        assert uses[checkpoint.path.relative_to(root).as_posix()] == ("step", checkpoint.step)
        with pytest.raises(RankscopeError, match="2 slices") as refused:
            checkpoint.read()
        assert refused.value.reason == "slices"
    for path in root.rglob("*"):
        name = path.relative_to(root)
        around = {name.as_posix(), *(parent.as_posix() for parent in name.parents)}
        has_line = around & uses.keys() - {"."} or any(n.startswith(f"{name}/") for n in uses)
        assert has_line, f"{name} has no line"
    assert {use for use, _ in uses.values()} <= {"step", "part"}


@pytest.mark.parametrize(
    ("forms", "runs"),
    [
        (["rank_{}/step_{}/actor.pt", "rank_{}/step_{}/critic.pt"], ["run/actor", "run/critic"]),
        (["seed1/rank_{}/step_{}.pt", "seed2/rank_{}/step_{}.pt"], ["seed1", "seed2"]),
        (["actor_rank_{}_step_{}.pt", "critic_rank_{}_step_{}.pt"], ["run/actor", "run/critic"]),
    ],
)
def test_slices_of_several_models_are_a_run_for_each_model(
    forms: Sequence[str], runs: Sequence[str], tmp_path: Path
) -> None:
    for form in forms:
        for rank in range(RANKS):
            for step in STEPS:
                write(tmp_path / "run" / form.format(rank, step))
    found = open_runs([tmp_path / "run"])
    assert {run.name: run.steps for run in found} == dict.fromkeys(runs, STEPS)


@pytest.mark.parametrize(
    "form",
    [
        "step_{}_rank_{}.pt",
        "step_{}/rank_{}.pt",
        "step_{}/actor/rank_{}.pt",
        "iter_{:07d}/mp_rank_{:02d}/model.pt",
        "ckpt-{}-tp{}.safetensors",
    ],
)
def test_a_step_that_lost_its_other_slices_is_not_a_model(form: str, tmp_path: Path) -> None:
    for step, rank in ((100, 0), (100, 1), (200, 0), (300, 0), (300, 1)):
        write(tmp_path / form.format(step, rank))
    run = open_run(tmp_path)
    assert run.steps == (100, 200, 300)
    with pytest.raises(RankscopeError, match="has 1 of 2 slices") as refused:
        run[200].read()
    assert refused.value.reason == "slices"


@pytest.mark.parametrize("form", ["step_{}_rank_0.pt", "step_{}/rank_0.pt", "rank_0/step_{}.pt"])
def test_a_file_that_only_the_first_process_saves_is_a_model(form: str, tmp_path: Path) -> None:
    for step in STEPS:
        write(tmp_path / form.format(step))
        (tmp_path / form.format(step)).parent.joinpath("rank_1.log").write_text("ready\n")
    run = open_run(tmp_path)
    assert run.steps == STEPS
    assert all(len(checkpoint.read().parameters) == 2 for checkpoint in run)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "weights/model.safetensors"])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_folder_of_one_rank_is_not_a_model(name: str, rank: int, tmp_path: Path) -> None:
    for one in range(RANKS):
        write(tmp_path / "run" / f"rank_{one}" / name)
    try:
        runs = open_runs([tmp_path / "run" / f"rank_{rank}"])
    except RankscopeError as error:
        assert "is one slice" in error.message and "2 slices" in error.message
    else:
        ((checkpoint,),) = runs
        with pytest.raises(RankscopeError, match="2 slices"):
            checkpoint.read()


def test_folders_named_after_the_rank_of_adapters_are_runs(
    tmp_path: Path,
) -> None:
    for rank in (4, 8, 16):
        for step in STEPS:
            write(tmp_path / f"rank_{rank}" / f"step_{step}.pt")
    found = survey([tmp_path])
    assert {run.name for run in found.runs} == {"rank_4", "rank_8", "rank_16"}
    assert all(checkpoint.read().parameters for run in found.runs for checkpoint in run)


def test_checkpoints_beside_slices_keep_their_place(tmp_path: Path) -> None:
    for step in STEPS:
        for rank in range(RANKS):
            write(tmp_path / f"step_{step}_rank_{rank}.pt")
    write(tmp_path / "final.pt")
    write(tmp_path / "other" / "step_5.pt")
    found = survey([tmp_path])
    assert {run.name: run.steps for run in found.runs} == {tmp_path.name: STEPS, "other": (5,)}
    assert uses_of(found, tmp_path)["final.pt"][0] == "left out"
    assert "final.pt" in "\n".join(map(str, found.notes))
