"""The study: its arms, its tables, its page, and a trial of all of it."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.reliability.commands import finished_command

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "studies" / "relora-small"
sys.path.insert(0, str(STUDY))

import arms  # noqa: E402
import page  # noqa: E402
import study  # noqa: E402
import tables  # noqa: E402
import training  # noqa: E402


def settings_of(scale_name, arm_name):
    import training
    from rankscope.training.config_file import load_config

    scale, arm = arms.read_scale(scale_name), arms.read_arms()[arm_name]
    words = training._arguments(arms.Run(arm_name, 4e-3, 1), scale, arm)
    return load_config(Path(words[1]), overrides=words[3:-2:2])


@pytest.mark.filterwarnings("ignore::rankscope.RankscopeWarning")
def test_every_published_switch_is_an_arm_of_its_own():
    pytest.importorskip("torch")
    from rankscope.training.config import PublishedConfig

    alone = {}
    for name in arms.read_arms():
        published = settings_of("demo", name).relora.published
        on = [field.name for field in fields(published) if getattr(published, field.name)]
        alone[name] = on
    switches = {field.name for field in fields(PublishedConfig)}
    assert set(alone["as-published"]) == switches
    assert sorted(on[0] for on in alone.values() if len(on) == 1) == sorted(switches)
    for name in ("full", "lora", "relora", "hybrid", "budget", "saturation"):
        assert alone[name] == []


@pytest.mark.filterwarnings("ignore::rankscope.RankscopeWarning")
@pytest.mark.parametrize("scale", ["demo", "quick", "tiny", "trial"])
def test_all_arms_differ_only_in_their_method(scale):
    settings = [settings_of(scale, arm) for arm in arms.read_scale(scale).rates]
    assert len({s.model for s in settings}) == len({s.batch for s in settings}) == 1
    assert len({s.schedule.steps for s in settings}) == 1
    assert len({s.data for s in settings}) == 1
    assert {s.adapter.scale(s.adapter.rank) for s in settings} == {2.0}


@pytest.mark.filterwarnings("ignore::rankscope.RankscopeWarning")
@pytest.mark.parametrize("arm", [*arms.read_arms()])
def test_checkpoints_are_saved_where_cycles_end_and_nowhere_else(arm):
    from rankscope.training.run_folder.saves import is_saved
    from rankscope.training.schedule import timeline

    settings = settings_of("demo", arm)
    times = timeline(settings)
    inner = range(1, settings.schedule.steps)
    saved = [step for step in inner if is_saved(step, settings.log, times)]
    cycles = [*range(125, 1000, 125)]
    ends = [step for step in inner if times.boundary(step) is not None]
    assert saved == (ends if len(ends) == len(cycles) else cycles)
    assert [step // 125 for step in saved] == list(range(1, 8))


def test_a_sweep_tries_the_middle_rates_first():
    runs = [*arms.iter_sweep(arms.read_scale("demo"))]
    listed = {arm: r for arm, r in arms.read_scale("demo").rates.items() if not isinstance(r, str)}
    assert len(runs) == len({run.name for run in runs}) == sum(map(len, listed.values()))
    assert {run.arm for run in runs[: len(listed)]} == set(listed)


def curves(**columns):
    return pd.DataFrame(columns)


def made_cycles():
    """Two runs whose PER falls linearly in the loss, and in the distance."""
    full = curves(
        run="full-1e-3-seed1",
        cycle=range(5),
        validation_loss=[5.0, 4.0, 3.0, 2.0, 1.0],
        distance=[0.0, 1.0, 2.0, 3.0, 4.0],
        per=[0.9, 0.8, 0.7, 0.6, 0.5],
    )
    other = curves(
        run="relora-1e-3-seed1",
        cycle=range(5),
        validation_loss=[5.0, 4.5, 4.0, 3.5, 2.5],
        distance=[0.0, 0.5, 1.0, 1.5, 2.5],
        per=[0.9, 0.88, 0.86, 0.84, 0.80],
    )
    return pd.concat([full, other], ignore_index=True)


def made_runs():
    return curves(
        run=["full-1e-3-seed1", "relora-1e-3-seed1"], arm=["full", "relora"], rate=1e-3, seed=1
    )


def test_ranks_are_compared_where_both_runs_have_come_to_one_loss():
    found = tables.equal_loss_table(made_cycles(), made_runs()).iloc[0]
    assert found[["loss", "per_full", "per"]].tolist() == pytest.approx([2.5, 0.65, 0.80])


def test_runs_that_share_no_loss_are_not_compared():
    cycles = made_cycles()
    cycles.loc[cycles["run"] == "relora-1e-3-seed1", "validation_loss"] += 10
    assert tables.equal_loss_table(cycles, made_runs()).empty


def test_full_rank_is_interpolated_to_the_distance_of_a_run_and_not_beyond():
    sweep = curves(arm="full", seed=1, distance=[1.0, 4.0, 16.0], per=[0.8, 0.6, 0.2])
    runs = curves(arm=["full", "a", "b"], rate=1e-3, seed=1, distance=[1.0, 2.0, 20.0], per=0.5)
    found = tables.equal_distance_table(sweep, runs)
    assert found["arm"].tolist() == ["a"]
    assert found["per_full"].tolist() == pytest.approx([0.7])


def test_an_arm_has_the_mean_and_the_ends_of_its_seeds():
    runs = curves(
        run=["a-1", "a-2", "a-3"], arm="a", rate=1e-3, seed=[1, 2, 3], per=[0.1, 0.2, 0.6]
    )
    row = tables.arm_table(runs).query("number == 'per'").iloc[0]
    assert row[["mean", "min", "max", "count"]].tolist() == pytest.approx([0.3, 0.1, 0.6, 3])


def test_the_page_is_what_its_template_makes_of_the_tables():
    scales = sorted(path.name for path in (STUDY / "tables").iterdir())
    assert page.render(STUDY, scales) == (STUDY / "README.md").read_text(encoding="utf-8")


def run_forked(command, *, stdout, run=subprocess.run, **settings):
    """Run a command of rankscope, without the seconds of a start."""
    words = command[len(training.RANKSCOPE) :]
    if words[0] == "evaluate":  # its threads would be torch's, which do not survive a fork
        return run(command, stdout=stdout, **settings)
    done = finished_command(*words)
    if stdout != subprocess.PIPE:
        stdout.write(done.stderr.encode())
    return done


@pytest.mark.slow
def test_a_trial_runs_to_the_end_and_leaves_nothing_to_train(tmp_path, monkeypatch):
    pytest.importorskip("torch")  # once, here: then no child has to load it
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run_forked)
    monkeypatch.setattr(sys, "argv", ["study.py", "trial", "--jobs", "1"])
    study.main()
    found = {path.stem: pd.read_csv(path) for path in tmp_path.glob("results/study/*/tables/*.csv")}
    runs = found["runs"]
    assert runs.groupby("arm")["seed"].apply(list).to_dict() == {
        arm: [1] for arm in arms.read_scale("trial").rates
    }
    # Recomputed from the checkpoints by numpy alone.
    assert runs["per"].tolist() == pytest.approx(
        [per_of(tmp_path / "ckpts/study/trial" / run) for run in runs["run"]], rel=1e-5
    )
    drawn = {path.stem for path in tmp_path.glob("results/study/*/figures/*.pdf")}
    assert {"over-training", "matched", "merges", "switches", "across-runs"} <= drawn
    scale, methods = arms.read_scale("trial"), arms.read_arms()
    assert all(training._is_done(run, scale, methods) for run in arms.iter_sweep(scale))


def per_of(run):
    """Mean PER over the matrices of a run's last checkpoint: frozen weights and live adapter."""
    from safetensors.numpy import load_file

    last = sorted((run / "checkpoints").iterdir())[-1]
    weights = load_file(last / "model.safetensors")
    adapter = {}
    if (last / "adapter").is_dir():
        import json

        adapter = load_file(last / "adapter" / "adapter_model.safetensors")
        config = json.loads((last / "adapter" / "adapter_config.json").read_text())
        scale = config["lora_alpha"] / config["r"]
    values = []
    for name, weight in weights.items():
        if "_proj" not in name:
            continue
        matrix = weight.astype(float)
        stem = "base_model.model." + name.removesuffix(".weight")
        if adapter:
            b, a = (adapter[f"{stem}.lora_{x}.weight"].astype(float) for x in "BA")
            matrix = matrix + scale * b @ a
        s = np.linalg.svd(matrix, compute_uv=False)
        p = s / s.sum()
        values.append(np.exp(-(p * np.log(p)).sum()) / len(s))
    return float(np.mean(values))


def test_the_readme_quotes_the_tables():
    demo = page.Numbers(tables.read_tables(STUDY / "tables" / "demo"))
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    as_published, full = (demo.mean(arm, "per", 2) for arm in ("as-published", "full"))
    assert f"ends at {as_published} where full rank has {full}" in text
    relora, full = (demo.at_rate(arm, 0.004, "per", 2) for arm in ("relora", "full"))
    assert f"than full rank ({relora} against {full})" in text
    relora = demo.mean("relora", "per", 2)
    at_one_distance = demo.tables["equal-distance"].query("arm == 'relora'")
    full = f"{at_one_distance['per_full'].mean():.2f}"
    assert f"fewer ({relora} against {full})" in text
