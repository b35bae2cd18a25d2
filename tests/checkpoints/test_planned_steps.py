"""How far a run was to go, by what it left in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rankscope as rs
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.training_log import configured_steps, planned_steps
from rankscope.results.figure_source import source_of


@pytest.mark.parametrize(
    ("files", "planned", "configured"),
    [
        ({"config.toml": "[schedule]\nsteps = 900\n"}, 900, 900),
        ({"config.toml": "[schedule]\nsteps = 900\n", "state": {"max_steps": 7}}, 900, 900),
        ({"state": {"max_steps": 1030, "global_step": 20}}, 1030, None),
        ({"state": {"max_steps": -1, "global_step": 20}}, None, None),
        ({"state": {"global_step": 20}}, None, None),
        ({"config.toml": "steps = [damaged"}, None, None),
        ({"config.toml": "schedule = 3\n"}, None, None),
        ({}, None, None),
    ],
)
def test_settings_come_first_and_then_the_trainers_state(
    full_run: Path,
    files: dict[str, Any],
    planned: int | None,
    configured: int | None,
) -> None:
    (full_run / "config.toml").unlink(missing_ok=True)
    run = open_run(full_run)
    for name, content in files.items():
        if name == "state":
            (run.checkpoints[-1].path / "trainer_state.json").write_text(json.dumps(content))
        else:
            (run.path / name).write_text(content)
    assert (planned_steps(run), configured_steps(run)) == (planned, configured)


def test_figures_of_the_results_name_a_run_that_ended_early(full_run: Path, tmp_path: Path) -> None:
    (full_run / "config.toml").write_text("[schedule]\nsteps = 900\n")
    rs.analyze(full_run, out=tmp_path / "results", components="weight", jobs=1)
    last = open_run(full_run).steps[-1]
    assert source_of(rs.open_results(tmp_path / "results")).early == {
        full_run.name: f"step {last} of 900"
    }
