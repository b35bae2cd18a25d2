"""Damage of any kind in a run folder costs at most a state, and a run resumes as it was."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rankscope.durable import damage, write_folder
from rankscope.errors import RankscopeError
from rankscope.training.config import Config
from rankscope.training.model import LanguageModel
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.start import _compare_environments, find_start
from rankscope.training.run_folder.state import (
    STATE_FORMAT,
    Position,
    iter_states,
    newest_state,
    write_state,
)
from rankscope.training.train import train
from tests.training.test_loop import entries, results

MakeConfig = Callable[..., Config]
CONTENTS = {
    "nothing": b"",
    "half": b'{"format": "rankscope-state-3", "fil',
    "too deep": b"[" * 100_000,
    "deep objects": b'{"files":' * 50_000,
    "a list": b"[1]",
    "a number": b"3",
    "not a number": b"NaN",
    "null": b"null",
    "bytes": bytes(range(256)),
    "UTF-16": '{"step": 1}'.encode("utf-16"),
    "a surrogate": rb'{"files": {"\ud800": 3}, "step": "\ud800"}',
    "a long number": b'{"step": ' + b"9" * 5000 + b"}",
}
MANIFESTS = CONTENTS | {
    "files of numbers": b'{"format": "rankscope-state-3", "files": {"state.json": 3}}',
    "a file without a name": b'{"files": {"": {"bytes": 1, "blake2b": ""}}}',
    "a name that is none": rb'{"files": {"\u0000": {}}}',
    "a name too long": json.dumps({"files": {"x" * 5000: {}}}).encode(),
    "a list of files": b'{"files": ["state.json"]}',
    "no format": b'{"files": {}}',
    "a format of numbers": b'{"format": 3, "files": {}}',
    "another format": b'{"format": "rankscope-state-s", "files": {}}',
}


def write_states(run: Path, *steps: int) -> None:
    for step in steps:
        files = {"state.json": json.dumps({"step": step}).encode()}
        write_folder(run / "state" / f"step-{step:08d}", files, kind=STATE_FORMAT)


@pytest.mark.parametrize("name", MANIFESTS)
def test_any_damage_of_a_manifest_leads_to_the_state_before(tmp_path: Path, name: str) -> None:
    write_states(tmp_path, 3, 20)
    (tmp_path / "state" / "step-00000020" / "MANIFEST.json").write_bytes(MANIFESTS[name])
    state, (warning,) = newest_state(tmp_path)
    assert state == tmp_path / "state" / "step-00000003"
    assert "step-00000020 is damaged (" in warning
    assert len(warning) < 500 and "\n" not in warning


def test_a_pipe_in_place_of_a_file_is_damage(tmp_path: Path) -> None:
    """Reading it would never end."""
    write_states(tmp_path, 3, 20)
    file = tmp_path / "state" / "step-00000020" / "state.json"
    file.unlink()
    os.mkfifo(file)
    assert damage(file.parent) == "state.json is not what was written"
    assert newest_state(tmp_path)[0] == tmp_path / "state" / "step-00000003"


def test_states_of_another_version_are_named_as_such(tmp_path: Path) -> None:
    for step in (3, 20):
        folder = tmp_path / "state" / f"step-{step:08d}"
        write_folder(folder, {"state.json": b"{}"}, kind="rankscope-state-2")
    with pytest.raises(RankscopeError, match="resume with the version that wrote it"):
        newest_state(tmp_path)


def test_what_is_no_usable_state_is_not_one_of_the_two_that_are_kept(
    tmp_path: Path, make_model: Callable[..., LanguageModel]
) -> None:
    """A damaged state of a later step is left for the run to replace when it gets there."""
    model = make_model()
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    write_states(tmp_path, 3, 10, 20)
    shutil.copytree(tmp_path / "state" / "step-00000020", tmp_path / "state" / "step-00000050")
    (tmp_path / "state" / "step-00000050" / "state.json").write_bytes(b"{")
    (tmp_path / "state" / "step-zz").mkdir()
    write_state(tmp_path, model, optimizer, Position(30), energies={})
    assert [path.name for path in iter_states(tmp_path)] == [
        *("step-00000050", "step-00000030", "step-00000020"),
    ]
    assert (tmp_path / "state" / "step-zz").is_dir()
    assert newest_state(tmp_path)[0] == tmp_path / "state" / "step-00000030"
    write_state(tmp_path, model, optimizer, Position(50), energies={})
    assert [path.name for path in iter_states(tmp_path)] == ["step-00000050", "step-00000030"]


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_line_of_the_log_is_dropped_and_no_other(tmp_path: Path, name: str) -> None:
    log = MetricsLog(tmp_path)
    lines = [json.dumps({"step": step, "loss": 1.0}).encode() + b"\n" for step in range(4)]
    log.path.write_bytes(lines[0] + lines[1] + CONTENTS[name] + b"\n" + lines[2] + lines[3])
    log.rewind(3)
    assert log.path.read_bytes() == b"".join(lines[:3])
    assert [step for step, _ in log.iter_lines()] == [0, 1, 2]


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_environment_is_a_warning(tmp_path: Path, name: str) -> None:
    (tmp_path / "environment.json").write_bytes(CONTENTS[name])
    (warning,) = _compare_environments(tmp_path, {"data_blake2b": "0"})
    assert "environment.json cannot be read, so the data cannot be compared" in warning


@pytest.mark.slow
def test_a_run_with_all_this_damage_resumes_equal(
    make_config: MakeConfig, read_log: Callable[[Path], list[dict[str, Any]]], tmp_path: Path
) -> None:
    whole, part = (make_config({"out": str(tmp_path / name)}) for name in ("whole", "part"))
    train(whole)
    train(part)
    run = Path(part.out)
    newest = run / "state" / "step-00000018"
    (newest / "MANIFEST.json").write_bytes(CONTENTS["too deep"])
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\n".join(CONTENTS.values()))
    (run / "environment.json").write_bytes(CONTENTS["a list"])
    (run / "state" / "step-zz").mkdir()
    assert train(part, resume=True).step == 18
    assert results(run) == results(tmp_path / "whole")
    assert entries(read_log(run)) == entries(read_log(tmp_path / "whole"))
    assert damage(newest) is None


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "metrics.jsonl"])
def test_a_pipe_in_the_run_folder_is_never_waited_for(
    make_config: MakeConfig, tmp_path: Path, name: str
) -> None:
    write_states(tmp_path, 3)
    os.mkfifo(tmp_path / name)
    if name == "environment.json":
        (warning,) = _compare_environments(tmp_path, {"data_blake2b": "0"})
        assert "environment.json cannot be read" in warning
        return
    with pytest.raises(RankscopeError, match="is not a regular file"):
        if name == "config.toml":
            find_start(make_config({"out": str(tmp_path)}), resume=True)
        MetricsLog(tmp_path).rewind(3)
