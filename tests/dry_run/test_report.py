from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rankscope.cli.train import train
from rankscope.dry_run.report import iter_dry_run
from rankscope.errors import RankscopeError
from rankscope.training.config_file import config_from

RELORA = {"method": "relora", "schedule.restart_every": 125, "model.vocab_size": 257}
PHASES = {
    "method": "phases",
    "phases.methods": ["full", "relora"],
    "phases.lengths": [200],
    "phases.rates": [1.0, 2.0],
    "schedule.restart_every": 100,
    "model.vocab_size": 257,
}


def text(settings: dict[str, Any], seconds: float = 0.0) -> str:
    return "\n".join(iter_dry_run(config_from(settings), timing_seconds=seconds))


@pytest.mark.parametrize("settings", [RELORA, PHASES, {"model.vocab_size": 257}])
def test_every_line_fits_and_every_section_is_there(settings: dict[str, Any]) -> None:
    lines = text(settings, seconds=0.2).splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line != line.rstrip() for line in lines)
    sections = {line for line in lines if line and not line.startswith(" ")}
    assert {"Parameters", "Memory", "Learning rate", "Disk", "Time"} <= sections
    assert ("Unlike the programs" in "\n".join(lines)) == ("method" in settings)


def test_phases_stand_beside_each_other() -> None:
    said = text(PHASES)
    heading = said.split("Parameters\n")[1].splitlines()[0]
    assert heading.split() == ["full", "relora"]
    assert "step 200: relora, learning rate 0.008" in said
    assert "7 restarts: 300, 400, 500, 600, 700, 800, 900" in said


def test_what_training_would_refuse_is_said(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    said = text(RELORA | {"out": str(tmp_path)}).replace("\n  ", " ")
    assert said.endswith("holds 'mine.txt': choose an empty folder as `out`")
    assert "would not start" not in text(RELORA | {"out": str(tmp_path / "new")})


def test_with_a_vocabulary_the_data_need_not_be_there() -> None:
    assert "not opened" in text(RELORA | {"data.source": "no/such/file.bin"})
    with pytest.raises(RankscopeError, match="no/such"):
        text(RELORA | {"data.source": "no/such/file.bin", "model.vocab_size": 0})


def test_a_run_for_a_missing_gpu_is_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    said = text(RELORA | {"device": "cuda", "precision": "bfloat16"}, seconds=1.0)
    assert "no GPU" in said and "not timed" in said


def test_too_large_a_batch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankscope.dry_run.report.device_memory", lambda device: 10_000_000)
    assert "too little, lower batch.micro_sequences" in text(RELORA)


def test_the_command_prints_and_writes_nothing(tmp_path: Path) -> None:
    app, path = typer.Typer(), tmp_path / "small.toml"
    app.command()(train)
    path.write_text("[model]\nhidden_size = 16\nintermediate_size = 24\nvocab_size = 257\n")
    result = CliRunner().invoke(app, [str(path), "--dry-run", "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.exception
    assert "tokens/s" in result.stdout and "in total on this device" in result.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]
