from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rankscope.cli.app import main
from rankscope.cli.train import _exit_code, train
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.training.config_file import load_config
from rankscope.training.ending import TrainingOutcome
from tests.reliability.commands import started_command

SMALL = """
method = "relora"
[model]
hidden_size = 16
intermediate_size = 24
[adapter]
rank = 2
[schedule]
steps = 12
warmup_steps = 2
restart_every = 4
[batch]
sequences = 4
sequence_length = 16
[log]
log_every = 1
eval_every = 6
save_every = 6
validation_tokens = 64
probe_sequences = 4
"""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Give the signals back that the command line takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(train)
    return app


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 100)
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def weights(run: Path) -> bytes:
    return (run / "checkpoints/step-00000012/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_is_trained_where_it_is_told(
    app: typer.Typer, config: str, text: str, tmp_path: Path
) -> None:
    out = tmp_path / "a=b [run]"
    result = CliRunner().invoke(app, [config, "--data", text, "--out", str(out)])
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "2 restarts" in result.stderr
    assert str(out) in result.stderr
    assert "validation loss" in result.stderr.splitlines()[-1]
    assert weights(out)


def test_the_shown_configuration_is_one(
    app: typer.Typer, config: str, text: str, tmp_path: Path
) -> None:
    options = [config, "--data", text, "--set", "schedule.steps=99", "--print-config"]
    result = CliRunner().invoke(app, options)
    shown = tmp_path / "shown.toml"
    shown.write_text(result.stdout)
    assert load_config(shown).schedule.steps == 99
    assert load_config(shown).data.source == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shown.toml", "small.toml", "text.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "schedule.step=9"], "did you mean 'schedule.steps'"),
        (["--set", "adapter.rank=999"], r"adapter.rank = 999 exceeds"),
        (["--data", "missing.txt"], "missing.txt"),
        (["--data", ""], "is not one of"),
        (["--set", "device=cuda"], "device = 'cuda'"),
        (["--init", "nowhere"], "nowhere: does not exist"),
        (["--set", "relora.published=everything"], "choose from none, lialin2023, weiss2025"),
    ],
)
def test_a_mistake_is_named(
    app: typer.Typer, config: str, tmp_path: Path, options: list[str], message: str
) -> None:
    out = ["--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [config, *out, *options])
    assert isinstance(result.exception, RankscopeError)
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["missing.toml"],
        ["CONFIG", "--set", "schedule.step=9"],
        ["CONFIG", "--set", "schedule.steps=0"],
        ["CONFIG", "--set", "adapter.rank=999"],
        ["CONFIG", "--set", "method=full", "--set", "schedule.restart_every=3"],
        ["CONFIG", "--init", "nowhere"],
    ],
)
def test_wrong_settings_and_missing_files_are_wrong_use(
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
) -> None:
    given = [config if option == "CONFIG" else option for option in options]
    monkeypatch.setattr(sys, "argv", ["rankscope", "train", *given, "--out", str(tmp_path / "x")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_in_use_is_refused_with_the_names_of_options(
    config: str,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    again = ["rankscope", "train", config, "--data", text, "--out", str(tmp_path / "run")]
    ends = []
    for arguments in ([*again, "--max-minutes", "0"], again):
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        ends.append((ended.value.code, capsys.readouterr().err.splitlines()[-1]))
    assert [code for code, _ in ends] == [0, 2]
    assert "continue with --resume" in ends[0][1]
    assert "continue it with --resume or choose another --out" in ends[1][1]


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (TrainingOutcome(3, "complete", ""), 0),
        (TrainingOutcome(3, "stopped", ""), 0),
        (TrainingOutcome(3, "unwritable", ""), 5),
        (TrainingOutcome(3, "non-finite", ""), 6),
        (TrainingOutcome(3, "interrupted", "", signal.SIGINT), 130),
        (TrainingOutcome(3, "interrupted", "", signal.SIGTERM), 143),
    ],
)
def test_the_command_knows_the_exit_codes(outcome: TrainingOutcome, code: int) -> None:
    assert _exit_code(outcome) == code


def test_another_method_is_one_line_and_a_run(
    app: typer.Typer, config: str, text: str, tmp_path: Path
) -> None:
    options = [config, "--data", text, "--out", str(tmp_path / "run"), "--set", "method=full"]
    with pytest.warns(RankscopeWarning, match="method = 'full' does not use its adapter.rank"):
        result = CliRunner().invoke(app, options)
    assert result.exit_code == 0
    assert weights(tmp_path / "run")
    assert not (tmp_path / "run" / "merges").exists()


def test_the_exit_code_is_that_of_the_training(
    app: typer.Typer, config: str, text: str, tmp_path: Path
) -> None:
    options = [config, "--data", text, "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, [*options, "--set", "schedule.learning_rate=1e38"])
    assert result.exit_code == 6


def test_without_torch_it_says_what_to_install(
    app: typer.Typer, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = CliRunner().invoke(app, [config])
    assert isinstance(result.exception, RankscopeError)
    assert 'pip install "rankscope[train]"' in str(result.exception)
    assert CliRunner().invoke(app, [config, "--print-config"]).exit_code == 0


@pytest.mark.slow
def test_an_interrupted_process_saves_and_resumes_to_the_same_weights(
    config: str, text: str, tmp_path: Path
) -> None:
    settings = {"schedule.steps": 60, "log.save_every": 20, "relora.probe_sequences": 4}
    settings |= {"log.save_before_restarts": "false"}
    long = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    start = ["train", config, "--data", text, "--threads", "1", *long]
    final = Path("checkpoints/step-00000060/model.safetensors")
    whole = tmp_path / "whole"
    assert started_command(*start, "--out", str(whole)).ended().code == 0
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        part = tmp_path / signal.Signals(number).name
        process = started_command(*start, "--out", str(part))
        log = part / "metrics.jsonl"
        while not log.exists() or log.read_bytes().count(b"\n") < 5:
            time.sleep(0.001)
        os.kill(process.pid, number)
        ended = process.ended()
        assert ended.code == code
        assert "interrupted, saved at step" in ended.said
        assert not (part / final).exists()
        resumed = started_command(*start, "--out", str(part), "--resume").ended()
        assert resumed.code == 0 and "validation loss" in resumed.said
        assert (part / final).read_bytes() == (whole / final).read_bytes()
