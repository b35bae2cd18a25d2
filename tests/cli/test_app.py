import errno
import gc
import io
import json
import os
import pty
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rankscope import durable
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.cli import main
from rankscope.cli.app import _with, app
from rankscope.cli.exit_codes import MEANINGS
from rankscope.cli.options import LAYOUT_NAMES
from rankscope.components.selection import ON_REQUEST
from tests.conftest import TinyRun, random_weights, write_model
from tests.reliability.commands import finished_command as rankscope

PROGRAM = [sys.executable, "-c", "from rankscope.cli import main; main()"]


@pytest.mark.slow
def test_analyze_prints_the_answer_and_writes_the_table(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    """As a program of its own, with worker processes."""
    done = subprocess.run(
        [*PROGRAM, "analyze", str(relora_run.path), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "PER" in done.stdout and "newly computed" in done.stdout
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "metrics.parquet", "metrics.csv", "training.csv", "skipped.jsonl", "analysis.json",
        "rows", "spectra",
    }  # fmt: skip


@pytest.mark.slow
def test_json_is_one_document_on_stdout(relora_run: TinyRun, tmp_path: Path) -> None:
    for schema, arguments in (
        (2, ("analyze", relora_run.path, "--out", tmp_path / "out", "--json")),
        (1, ("inspect", relora_run.path, "--json")),
    ):
        done = rankscope(*arguments)
        assert json.loads(done.stdout)["schema_version"] == schema
        assert done.stderr == ""


@pytest.mark.slow
def test_inspect_says_what_is_there(relora_run: TinyRun) -> None:
    done = rankscope("inspect", relora_run.path)
    assert done.returncode == 0
    for words in ("4 checkpoints", "rank 2, scale 2", "4 of size 4, 2 with keys", "24×16"):
        assert words in done.stdout


@pytest.mark.parametrize("command", ["analyze", "inspect", "figures"])
@pytest.mark.slow
def test_a_path_without_anything_is_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, code in ((tmp_path / "absent", 2), (tmp_path / "empty", 4)):
        done = rankscope(command, path)
        assert done.returncode == code
        assert done.stderr.startswith(f"rankscope: {path}: ")
        assert done.stderr.count("\n") == 1 and not done.stdout


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = rankscope("inspect", tmp_path / "absent", "--debug")
    assert done.returncode == 2 and "Traceback" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("analyze",),
        ("analyze", ".", "--roles", "nonsense"),
        ("analyze", ".", "--steps", "a:b"),
        ("analyze", ".", "--layers", "x"),
        ("analyze", ".", "--jobs", "0"),
        ("nonsense",),
        ("analyze", "run", "--steps", "40:50"),
        ("analyze", "run", "--layout", "nonsense"),
        ("analyze", "run", "--family", "nonsense"),
        ("analyze", "run", "--base", "nonsense"),
        ("analyze", "run", "--since", "nonsense"),
        ("analyze", "run", "--out", "run"),
        ("analyze", "run", "--out", "run/checkpoints/step-00000000/adapter"),
        ("evaluate", "run", "--blimp", "nonsense"),
        ("evaluate", "run", "--text", "nonsense"),
        ("data", "prepare", "nonsense", "--out", "new"),
        ("train", "nonsense.toml"),
        ("train", "config.toml", "--set", "method=nonsense"),
        ("train", "config.toml", "--set", "nonsense=1"),
    ],
)
def test_wrong_use_is_exit_2(
    arguments: tuple[str, ...],
    relora_run: TinyRun,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    relora_run.path.rename(relora_run.path.with_name("run"))
    (relora_run.path.parent / "config.toml").write_text('method = "full"\n')
    (relora_run.path.parent / "rankscope-results").mkdir()  # or workers would start at once
    monkeypatch.chdir(relora_run.path.parent)
    # In this process, which is quicker: without what main changes for good.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["rankscope", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert "nonsense" in shown.err or "nonsense" not in arguments[-1]


@pytest.mark.parametrize(("command", "is_rarer"), [("analyze", True), ("represent", False)])
def test_garbage_is_looked_for_less_often_where_there_is_little_and_never_at_the_end(
    command: str, is_rarer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that run models have tensors in their garbage, and would take more memory."""
    before = gc.get_threshold()
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["rankscope", command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert (gc.get_threshold()[0] > before[0]) == is_rarer
    assert gc.get_freeze_count() > len(gc.get_objects())


def read_in_vain() -> None:
    raise PermissionError(13, "Permission denied", "run/\x1b[2J")


def write_in_vain() -> None:
    durable.write_file(Path("/dev/null/out/metrics.csv"), b"")


def print_in_vain() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("fail", "code", "words"),
    [
        (read_in_vain, 4, "run/\\x1b[2J: cannot be read (Permission denied)"),
        (write_in_vain, 5, "a file is where a folder should be: choose another one"),
        (print_in_vain, 5, "cannot be written (No space left on device)"),
    ],
)
def test_an_error_of_the_system_says_what_it_was(
    fail: Callable[[], None],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr("rankscope.cli.app._with", lambda _: lambda **_: fail())
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().err
    assert (ended.value.code, shown.count("\n")) == (code, 1)
    assert shown.startswith("rankscope: ") and words in shown


@pytest.mark.slow
def test_skips_are_exit_3_and_with_strict_4(relora_run: TinyRun, tmp_path: Path) -> None:
    broken = relora_run.path / "checkpoints" / "step-00000020" / "model.safetensors"
    broken.write_bytes(b"")
    done = rankscope("analyze", relora_run.path, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert done.stderr == f"skipped: {broken}: is empty, not a safetensors file [empty]\n"
    done = rankscope("analyze", relora_run.path, "--out", tmp_path / "out", "--strict")
    assert done.returncode == 4


@pytest.mark.slow
def test_where_nothing_can_be_analysed_earlier_results_stay(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    rankscope("analyze", relora_run.path, "--out", tmp_path / "out")
    before = (tmp_path / "out" / "metrics.csv").read_bytes()
    for path in relora_run.path.glob("checkpoints/*/model.safetensors"):
        path.write_bytes(b"")
    done = rankscope(
        "analyze", relora_run.path, "--out", tmp_path / "out", "--components", "weight"
    )
    assert done.returncode == 4 and "no matrix could be analysed" in done.stderr
    assert (tmp_path / "out" / "metrics.csv").read_bytes() == before


def test_a_folder_below_a_file_is_exit_2(relora_run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = rankscope("analyze", relora_run.path, "--out", tmp_path / "file" / "out")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_an_interrupt_ends_it_at_once_and_leaves_no_process(
    number: signal.Signals, tmp_path: Path
) -> None:
    program = (
        "import signal, time, sys\n"
        "import rankscope.analysis.analyze as a\n"
        "from rankscope.cli import main\n"
        "def wait(*args, **options):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
        "a.analyze_runs = wait\n"
        "sys.argv = ['rankscope', 'analyze', sys.argv[1]]\n"
        "main()\n"
    )
    write_model(tmp_path / "step_1", random_weights(np.random.default_rng(0)))
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=50)  # less than it would sleep
    assert process.returncode == 128 + number
    assert "interrupted" in stderr and "Traceback" not in stderr


@pytest.mark.slow
def test_a_reader_that_leaves_gets_no_complaint(relora_run: TinyRun) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$0" -c "$1" inspect "$2" | head -1',
         sys.executable, PROGRAM[2], str(relora_run.path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("relora") and done.stderr == ""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_closed_standard_streams_hide_no_end_of_a_connection(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    """As some schedulers start it; a worker that kept the caller's end would never end."""
    out = tmp_path / "out"
    command = [*PROGRAM, "analyze", str(relora_run.path), "--out", str(out)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    assert subprocess.run(closed, check=False, timeout=60).returncode == 0
    assert (out / "metrics.csv").exists()
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(str(out).encode() in line for line in running)


@pytest.mark.slow
def test_a_bar_is_drawn_on_a_terminal_only(relora_run: TinyRun, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*PROGRAM, "analyze", str(relora_run.path), "--out", str(tmp_path / "out")],
        stderr=theirs, stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | {"TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    assert b"analysing" in os.read(ours, 100_000)
    assert "analysing" not in done.stdout


def test_help_names_the_commands_and_the_exit_codes() -> None:
    shown = rankscope("--help").stdout
    assert "analyze" in shown and max(map(len, shown.splitlines())) <= 80
    for code, meaning in MEANINGS.items():
        assert f"  {code:<8}  {meaning}\n" in shown


@pytest.mark.parametrize(
    "command", [each.callback.__name__ for each in app.registered_commands if each.callback]
)
def test_a_command_made_alone_has_the_same_help(command: str) -> None:
    alone, among_all = (
        CliRunner().invoke(program, [command, "--help"], prog_name="rankscope")
        for program in (_with([command]), app)
    )
    assert (alone.exit_code, alone.output) == (0, among_all.output)
    assert f"Usage: rankscope {command} [OPTIONS]" in alone.output


def test_the_version_is_that_of_the_package() -> None:
    assert rankscope("--version").stdout == f"{version('rankscope')}\n"


@pytest.mark.slow
def test_names_in_files_cannot_control_the_terminal(tmp_path: Path) -> None:
    weights = random_weights(np.random.default_rng(0))
    weights["odd\x1b]0;owned\x07.thing"] = weights["lm_head.weight"]
    write_model(tmp_path / "ru\x1b[31mn" / "step_1", weights)
    for command in ("inspect", "analyze"):
        done = rankscope(command, tmp_path, cwd=tmp_path)
        assert done.returncode == 0 and not set("\x1b\x07") & set(done.stdout + done.stderr)


def test_help_of_analyze_names_what_is_measured_on_request_only() -> None:
    lines = rankscope("analyze", "--help").stdout.split()
    shown = " ".join(lines).replace("ov- published", "ov-published")  # a line may end at the hyphen
    assert f"all but {', '.join(ON_REQUEST[:-1])} and {ON_REQUEST[-1]}." in shown


def test_help_names_every_layout() -> None:
    assert LAYOUT_NAMES.split(", ") == list(LAYOUTS)


def test_what_the_encoding_of_a_pipe_lacks_is_no_crash(
    relora_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe on Windows takes cp1252, which has neither σ nor →."""
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe, encoding="cp1252"))
    named = relora_run.path.rename(relora_run.path.with_name("σ→0"))
    monkeypatch.setattr(sys, "argv", ["rankscope", "inspect", str(named)])
    with pytest.raises(SystemExit) as ended:
        main()
    sys.stdout.flush()
    assert ended.value.code == 0
    assert b"??0" in pipe.getvalue() and b"llama-like" in pipe.getvalue()
