"""A monitor measures what an analysis of checkpoints of the same steps does, to the last bit."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import rankscope as rs
from rankscope.errors import RankscopeWarning, WrongSettingError
from tests.monitoring.training import (
    adamw,
    backward,
    restart,
    save,
    save_merge,
    singular_values,
    small,
    wrapped,
)

CHANGES = "weight,base,adapter,update,cumulative_update"
KEY = ["step", "component", "name"]

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.slow]


def assert_same(
    live: Path, run: Path, *, components: str = CHANGES, roles: str = "q,o"
) -> pd.DataFrame:
    """Every column, and every bit of every spectrum."""
    there = rs.open_results(live)
    disk = rs.analyze(run, out=live.parent / "disk", components=components, roles=roles, jobs=1)
    measured = there.metrics[there.metrics["component"] != "gradient"]
    pd.testing.assert_frame_equal(
        *(t.sort_values(KEY).reset_index(drop=True) for t in (measured, disk)), check_exact=True
    )
    for name in components.split(","):
        own, other = (
            results.spectra(name) for results in (there, rs.open_results(live.parent / "disk"))
        )
        pd.testing.assert_frame_equal(own, other, check_exact=True)
    return disk


def test_full_training(tmp_path: Path) -> None:
    model, run = small(layers=1), tmp_path / "run"
    optimizer = adamw(model)
    components = "weight,update,cumulative_update"
    with rs.Monitor(
        model, tmp_path / "live", every=2, share=None, components=components, cosines=True
    ) as monitor:
        for step in range(7):
            if step:
                backward(model, step)
                optimizer.step()
            monitor.step(step)
            optimizer.zero_grad()
            if step % 2 == 0:
                save(model, run, step)
    disk = assert_same(tmp_path / "live", run, components=components, roles="all")
    assert set(disk["step"]) == {0, 2, 4, 6}
    assert disk["update_cosine"].notna().sum() == 2 * 5


@pytest.mark.parametrize(
    ("rounded", "dtype"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float32),  # whose merged weights keep the rounding of bfloat16
    ],
)
def test_training_with_restarts(tmp_path: Path, rounded: torch.dtype, dtype: torch.dtype) -> None:
    model, run = wrapped(small(layers=1).to(rounded).to(dtype)), tmp_path / "run"
    optimizer = adamw(model)
    with rs.Monitor(
        model, tmp_path / "live", every=1, share=None, components=CHANGES, roles="q,o", cosines=True
    ) as monitor:
        for step in range(7):
            if step:
                x = torch.randn(6, 12, generator=torch.Generator().manual_seed(step)).to(dtype)
                (model(x) - x.roll(1, 0)).square().mean().backward()
                optimizer.step()
            monitor.step(step)
            optimizer.zero_grad()
            save(model, run, step)
            if step in (2, 4):
                save_merge(model, run, step)
                restart(model, seed=step)
                monitor.restarted(step)
    disk = assert_same(tmp_path / "live", run)
    windows = disk[(disk["component"] == "update") & (disk["role"] == "q")].groupby("step")
    assert windows["window"].first().to_dict() == {
        1: "within", 2: "within", 3: "within", 4: "within", 5: "within", 6: "within"
    }  # fmt: skip
    assert set(disk[disk["component"] == "cumulative_update"]["window"]) == {
        "", "within", "cycle", "across"
    }  # fmt: skip
    cumulative = disk[(disk["component"] == "cumulative_update") & (disk["role"] == "q")]
    assert cumulative.groupby("step")["restarts"].first().to_dict()[6] == 2
    merged = disk[(disk["component"] == "base") & (disk["step"] == 6)]
    assert set(merged["significant_bits"]) == {24 if rounded == torch.float32 else 8}
    assert rs.open_results(tmp_path / "live").restarts == {"run": [2, 4]}


def test_whole_cycles(tmp_path: Path) -> None:
    """Only the steps of restarts are measured: each window is a whole cycle."""
    model, run = wrapped(small(layers=1)), tmp_path / "run"
    optimizer = adamw(model)
    with rs.Monitor(
        model, tmp_path / "live", every=3, share=None, components=CHANGES, roles="q,o", cosines=True
    ) as monitor:
        for step in range(7):
            if step:
                backward(model, step)
                optimizer.step()
            monitor.step(step)
            optimizer.zero_grad()
            if step % 3 == 0:
                save(model, run, step)
            if step == 3:
                save_merge(model, run, step)
                restart(model, seed=step)
                monitor.restarted(step)
    live = rs.open_results(tmp_path / "live").metrics
    assert_same(tmp_path / "live", run)
    updates = live[(live["component"] == "update") & (live["role"] == "q")]
    assert updates["window"].unique().tolist() == ["cycle", "within"]
    assert updates[updates["step"] == 3]["numerical_rank"].tolist() == [2]


def test_merges_in_the_format_of_the_weights_round_more(tmp_path: Path) -> None:
    floors = {}
    for in_float64 in (True, False):
        model = wrapped(small())
        out = tmp_path / str(in_float64)
        with rs.Monitor(model, out, every=1, share=None, components="update") as monitor:
            optimizer = adamw(model)
            for step in range(3):
                if step:
                    backward(model, step)
                    optimizer.step()
                monitor.step(step)
                if step == 1:
                    restart(model, seed=1)
                    monitor.restarted(step, in_float64=in_float64)
        table = rs.open_results(out).metrics
        floors[in_float64] = table[(table["step"] == 2) & (table["role"] == "q")]["noise_floor"]
    assert (floors[False].to_numpy() > 1.1 * floors[True].to_numpy()).all()


def test_gradients_are_those_that_the_optimizer_used(tmp_path: Path) -> None:
    """Accumulated over two batches and clipped; against numpy on the live `.grad`."""
    model = small()
    optimizer = adamw(model)
    with rs.Monitor(model, tmp_path / "out", every=1, share=None, components="gradient") as monitor:
        for step in (1, 2):
            backward(model, 2 * step)
            backward(model, 2 * step + 1)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            monitor.step(step)
            truth = {n: singular_values(p.grad) for n, p in model.named_parameters()}
            optimizer.zero_grad()
    total = sum((s**2).sum() for s in truth.values()) ** 0.5
    assert total == pytest.approx(0.1, rel=1e-4)
    spectra = rs.open_results(tmp_path / "out").spectra("gradient", step=2)
    assert set(spectra["name"]) == set(truth) and len(truth) == 10
    for name, own in spectra.groupby("name"):
        np.testing.assert_allclose(own["singular_value"], truth[name], rtol=1e-6, atol=1e-9)
    about = json.loads((tmp_path / "out" / "analysis.json").read_text())["runs"][0]["monitor"]
    assert "clipped if the loop clips" in about["gradient"]


def test_gradients_under_a_scaler_are_without_its_scale(tmp_path: Path) -> None:
    model, twin = small(), small()
    optimizer, scaler = adamw(model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    with rs.Monitor(model, tmp_path / "out", every=1, share=None, components="gradient") as monitor:
        x = torch.ones(2, 12)
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        monitor.step(1)
    twin(x).square().mean().backward()
    name, parameter = next(iter(twin.named_parameters()))
    spectra = rs.open_results(tmp_path / "out").spectra("gradient")
    own = spectra[spectra["name"] == name]["singular_value"]
    np.testing.assert_allclose(own, singular_values(parameter.grad), rtol=1e-5, atol=1e-8)


def test_a_loop_that_resets_gradients_first_is_told(tmp_path: Path) -> None:
    model = small()
    with rs.Monitor(model, tmp_path / "out", every=1, share=None) as monitor:
        monitor.step(0)
        backward(model, 1)
        model.zero_grad()
        with pytest.warns(RankscopeWarning, match="step 1 has no gradients: call `step` before"):
            monitor.step(1)


def test_the_order_of_measurement_and_restart_is_checked(tmp_path: Path) -> None:
    model = wrapped(small())
    with rs.Monitor(model, tmp_path / "out", every=1, share=None) as monitor:
        monitor.step(0)
        restart(model, seed=0)
        monitor.restarted(1)
        with pytest.warns(RankscopeWarning, match="step 1 is not measured: call `step` before"):
            monitor.step(1)
    assert set(rs.open_results(tmp_path / "out").metrics["step"]) == {0}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "`every` is 0"),
        ({"share": 0.0}, "`share` is 0.0"),
        ({"components": "ov"}, "unknown name 'ov' in `components`"),
        ({"roles": "router"}, "the model has no matrix"),
        ({"to": "paper"}, "unknown name 'paper' in `to`"),
    ],
)
def test_wrong_settings(tmp_path: Path, setting: dict[str, object], message: str) -> None:
    with pytest.raises(WrongSettingError, match=message):
        rs.Monitor(small(), tmp_path / "out", **{"every": 1, **setting})  # type: ignore[arg-type]


@pytest.mark.parametrize("step", ["a", 1.5, None, -1])
def test_what_is_no_step_is_refused_in_the_training_itself(step: object, tmp_path: Path) -> None:
    monitor = rs.Monitor(small(layers=1), tmp_path / "live", every=1)
    for say in (monitor.step, monitor.restarted):
        with pytest.raises(WrongSettingError, match=r"`step` is .*: give a whole number"):
            say(step)  # type: ignore[operator]
    monitor.close()


def test_a_resumed_run_continues_its_results(tmp_path: Path) -> None:
    """Killed after step 3, resumed from step 2: as one run, but for the update across the gap."""
    out, one = tmp_path / "out", tmp_path / "one"
    settings = {"every": 1, "share": None, "components": "weight,update,cumulative_update"}
    whole = small()
    optimizer = adamw(whole)
    with rs.Monitor(whole, one, **settings) as monitor:
        monitor.step(0)
        for step in range(1, 5):
            if step == 3:
                saved = copy.deepcopy(whole.state_dict()), copy.deepcopy(optimizer.state_dict())
            backward(whole, step)
            optimizer.step()
            monitor.step(step)
            optimizer.zero_grad()
    first = small()
    optimizer = adamw(first)
    with rs.Monitor(first, out, **settings) as monitor:
        monitor.step(0)
        for step in range(1, 4):
            backward(first, step)
            optimizer.step()
            monitor.step(step)
            optimizer.zero_grad()
    again = small(seed=9)
    optimizer = adamw(again)
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    monitor = rs.Monitor(again, out, **settings)
    monitor.step(2)
    for step in (3, 4):
        backward(again, step)
        optimizer.step()
        monitor.step(step)
        optimizer.zero_grad()
    with pytest.warns(RankscopeWarning, match="at step 2 to 3 are replaced"):
        monitor.close()
    tables = [rs.open_results(folder).metrics for folder in (out, one)]
    gap = (tables[1]["component"] == "update") & (tables[1]["step"] == 2)
    pd.testing.assert_frame_equal(tables[0], tables[1][~gap].reset_index(drop=True))


def test_other_runs_in_the_folder_keep_their_rows(tmp_path: Path) -> None:
    for run in ("one", "two"):
        with rs.Monitor(small(), tmp_path / "out", every=1, share=None, run=run) as monitor:
            monitor.step(0)
    table = rs.open_results(tmp_path / "out").metrics
    assert table["run"].value_counts().to_dict() == {"one": 10, "two": 10}
    assert rs.compare("one", "two", results=tmp_path / "out") is not None


def test_it_leaves_no_copies(tmp_path: Path, scratch: Path) -> None:
    model = small()
    settings = {"every": 1, "share": None, "components": "weight,update"}
    with rs.Monitor(model, tmp_path / "out", **settings, scratch=scratch) as monitor:
        for step in range(4):
            monitor.step(step)
        assert any(scratch.iterdir())
    assert not any(scratch.iterdir())
