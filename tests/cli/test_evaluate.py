"""``rankscope evaluate``: exit codes, and what it says where."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

import numpy as np
import pytest
import torch

from rankscope.cli import main
from rankscope.evaluation import model_engine
from rankscope.pipeline.seen_files import TICK
from tests.evaluation.models import DOCUMENTS, write_own_run
from tests.scoring.agreement import write_agreement


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str


Rankscope = Callable[..., Done]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "run"
    return write_own_run(folder, batch__sequence_length=64, log__validation_tokens=128).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    copytree(trained, tmp_path / "run")
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/MANIFEST.json"):
        manifest.unlink()  # what is changed here is changed on purpose
    return tmp_path / "run"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "novel.txt"
    path.write_text("".join(DOCUMENTS))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_agreement(tmp_path / "pairs")


@pytest.fixture
def rankscope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Rankscope]:
    """Run the program in this process: what it would load takes seconds."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["rankscope", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model may be opened."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(model_engine, "open_text_model", refuse)


def weights(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}" / "model.safetensors"


@pytest.mark.slow
def test_it_prints_a_table_a_task_and_writes_the_results(
    rankscope: Rankscope, run: Path, text: Path, pairs: Path, tmp_path: Path
) -> None:
    done = rankscope("evaluate", run, "--text", text, "--blimp", pairs, "--out", "out")
    assert (done.code, done.stderr) == (0, "")
    for words in (
        "novel: first → last",
        "perplexity",
        "blimp: first → last",
        "accuracy",
        "8 scores, 8 newly computed",
    ):
        assert words in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "evaluation.parquet", "evaluation.csv", "evaluation-skipped.jsonl", "evaluation.json",
        "scores",
    }  # fmt: skip
    done = rankscope("evaluate", run, "--text", text, "--blimp", pairs, "--out", "out")
    assert done.code == 0 and " 0 newly computed" in done.stdout


@pytest.mark.slow
def test_only_the_tasks_and_runs_of_the_call_are_printed(
    rankscope: Rankscope, run: Path, text: Path, pairs: Path
) -> None:
    rankscope("evaluate", run, "--text", text, "--out", "out")
    done = rankscope("evaluate", run, "--blimp", pairs, "--out", "out")
    assert "accuracy" in done.stdout and "novel" not in done.stdout


@pytest.mark.slow
def test_json_is_one_document_on_stdout(rankscope: Rankscope, run: Path) -> None:
    done = rankscope("evaluate", run, "--held-out", "--steps", "6", "--json")
    assert done.code == 0 and done.stderr == ""
    record = json.loads(done.stdout)
    assert record["schema_version"] == 1
    assert [one["steps"] for one in record["evaluations"]] == [[6]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--held-out", "--window", "0"), "--window"),
        (("--held-out", "--device", "tpu"), "--device"),
    ],
    ids=["window", "device"],
)
def test_wrong_use_is_exit_2(
    rankscope: Rankscope, run: Path, no_model: None, arguments: tuple[str, ...], words: str
) -> None:
    done = rankscope("evaluate", run, *arguments)
    assert done.code == 2 and words in done.stderr and not done.stdout


WRONG_SETTINGS = [
    ((), "give --text or --blimp, or set --held-out"),
    (("--held-out", "--steps", "a:b"), "--steps 'a:b' is neither like 0,100,200 nor like"),
    (("--held-out", "--steps", "1:2:0"), "the stride of --steps is 0"),
    (("--held-out", "--steps", "5:3"), "no checkpoint at the requested --steps; available: run:"),
    (("--text", "absent.txt"), "--text 'absent.txt' matches nothing"),
    (("--text", "x=absent"), "--text 'x=absent' matches nothing"),
    (("--text", "novel.txt", "--text", "./novel.txt"), "cannot be called 'novel'"),
    (("--text", "blimp=novel.txt"), "cannot be called 'blimp'"),
    (("--text", "pairs.zip"), "is in none of the formats .txt"),
    (("--blimp", "absent.zip"), "absent.zip: does not exist"),
    (("--blimp", "novel.txt"), "novel.txt: is not a folder, nor a .jsonl or .zip file"),
    (("--blimp", "a=b.zip", "--blimp", "c=d.zip"), "--blimp was given 2 times: give one set"),
    (("--held-out", "--base", "novel.txt"), "novel.txt: is a file: --base must be the folder of a"),
    (("--held-out", "--base", "absent"), "absent: does not exist: --base must be the folder of a"),
    (("--held-out", "--tokenizer", "absent"), "absent: does not exist: --tokenizer"),
    (("--held-out", "--window", "8", "--stride", "9"), "--stride is 9 tokens and --window is 8"),
]


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        *((*case, 2) for case in WRONG_SETTINGS),
        (("--blimp", "pairs.zip"), "pairs.zip: cannot be unpacked", 4),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_settings_and_data_are_one_line_at_once(
    rankscope: Rankscope,
    run: Path,
    text: Path,
    tmp_path: Path,
    no_model: None,
    arguments: tuple[str, ...],
    words: str,
    code: int,
) -> None:
    (tmp_path / "pairs.zip").write_bytes(b"PK no archive")
    done = rankscope("evaluate", run, *arguments, "--out", "out")
    assert done.code == code and not done.stdout
    assert words in done.stderr and done.stderr.startswith("rankscope: ")
    assert done.stderr.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_missing_run_is_wrong_use_and_an_empty_one_holds_nothing(
    rankscope: Rankscope, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name, code in (("absent", 2), ("empty", 4)):
        done = rankscope("evaluate", name, "--held-out")
        assert done.code == code and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"rankscope: {name}: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prefix", "nonsense"), "no token and no id 'nonsense'"),
        (("--tokenizer", "novel.txt"), "novel.txt: cannot be read as a tokenizer"),
        (("--window", "65"), "--window is 65 tokens, but the model takes at most 64 at once"),
        (("--stride", "65"), "--stride is 65 tokens and --window is 64"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
@pytest.mark.slow
def test_with_nothing_scored_each_reason_is_said(
    rankscope: Rankscope,
    run: Path,
    text: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    done = rankscope("evaluate", run, "--text", text, *arguments, "--out", "out")
    assert done.code == 4 and not done.stdout
    *skipped, last = done.stderr.splitlines()
    assert last == "rankscope: no checkpoint could be evaluated"
    assert skipped and all(line.startswith("skipped: ") and words in line for line in skipped)
    assert len(skipped) == (1 if "--prefix" in arguments or "--tokenizer" in arguments else 4)
    listed = (tmp_path / "out" / "evaluation-skipped.jsonl").read_text().splitlines()
    assert len(listed) == len(skipped)


def test_text_that_is_not_utf8_is_one_line(rankscope: Rankscope, run: Path, text: Path) -> None:
    text.write_bytes("Zürich".encode("latin-1"))
    done = rankscope("evaluate", run, "--text", text)
    assert done.code == 4
    assert done.stderr.count("\n") == 2 and f"skipped: {text}: " in done.stderr


def test_skips_are_exit_3_and_with_strict_4(rankscope: Rankscope, run: Path) -> None:
    weights(run, 3).write_bytes(b"")
    line = f"skipped: {weights(run, 3)}: is empty, not a safetensors file [empty]\n"
    assert rankscope("evaluate", run, "--held-out")[::2] == (3, line)
    assert rankscope("evaluate", run, "--held-out", "--strict")[::2] == (4, line)


def test_a_run_without_held_out_text_is_a_skip(
    rankscope: Rankscope, run: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    copytree(run, other)
    (other / "config.toml").unlink()
    done = rankscope("evaluate", other, run, "--held-out")
    assert done.code == 3 and "accuracy" not in done.stdout
    assert done.stderr.startswith(f"skipped: {other}: has no config.toml")
    assert done.stderr.count("\n") == 1


def test_weights_without_a_model_are_a_skip(
    rankscope: Rankscope, text: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "step-10.npz", allow_pickle=False, **{"layers.0.q.weight": np.eye(3)})
    done = rankscope("evaluate", tmp_path / "step-10.npz", "--text", text)
    assert done.code == 4 and "layout numpy" in done.stderr
    assert done.stderr.endswith("rankscope: no checkpoint could be evaluated\n")


def test_a_file_in_the_way_of_results_is_exit_2(
    rankscope: Rankscope, run: Path, text: Path, no_model: None
) -> None:
    for out in (text, text / "out"):
        done = rankscope("evaluate", run, "--text", text, "--out", out)
        assert done.code == 2 and "is a file: --out must be a folder" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_figures_are_drawn_of_an_evaluation_alone(
    rankscope: Rankscope, run: Path, text: Path, pairs: Path, tmp_path: Path
) -> None:
    rankscope("evaluate", run, "--text", text, "--blimp", pairs, "--out", "out")
    done = rankscope("figures", "out", "--out", "figures")
    assert done.code == 0 and list((tmp_path / "figures").glob("*.png"))


@pytest.mark.slow
def test_where_nothing_is_new_neither_torch_nor_pandas_is_loaded(
    rankscope: Rankscope, run: Path, text: Path, pairs: Path
) -> None:
    arguments = ("evaluate", run, "--held-out", "--text", text, "--blimp", pairs, "--out", "out")
    time.sleep(2 * TICK / 1e9)  # what is younger may change once more without a trace
    assert rankscope(*arguments).code == 0
    code = (
        "import sys\nfrom rankscope.cli import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'pandas', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert " 0 newly computed" in done.stdout
    assert done.stdout.endswith("\n[]\n")
