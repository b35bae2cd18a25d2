from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rankscope.cli.app import app
from rankscope.errors import RankscopeError

PROGRAM = [sys.executable, "-c", "from rankscope.cli import main; main()"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"document {i} " * 20)
    return folder


def test_it_says_what_it_made(texts: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["data", "prepare", str(texts), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0
    assert "documents, 0.996 bytes a token" in result.stdout  # the end of one is none
    assert "held out" in result.stdout
    assert str(tmp_path / "out") in result.stdout
    assert result.stderr == ""


def test_json_is_one_document_that_describes_the_folder(texts: Path, tmp_path: Path) -> None:
    options = [str(texts), "--tokenizer", "bpe", "--vocab-size", "300", "--json"]
    result = CliRunner().invoke(app, ["data", "prepare", *options, "--out", str(tmp_path / "out")])
    shown = json.loads(result.stdout)
    stored = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert shown == stored | {"schema_version": 1, "out": str(tmp_path / "out")}


@pytest.mark.parametrize(
    "options", [["missing.txt"], ["texts", "--tokenizer", "words"], ["texts", "--vocab-size", "9"]]
)
def test_a_mistake_is_one_line_and_exit_4(texts: Path, tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run(
        [*PROGRAM, "data", "prepare", *options, "--out", "out"],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stderr.startswith("rankscope: ") and done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


def test_without_tokenizers_it_says_what_to_install(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    result = CliRunner().invoke(app, ["data", "prepare", str(texts), "--out", str(tmp_path / "o")])
    assert isinstance(result.exception, RankscopeError)
    assert 'pip install "rankscope[train]"' in str(result.exception)


def test_nothing_of_torch_is_loaded(texts: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from rankscope.cli import main\n"
        f"sys.argv = ['rankscope', 'data', 'prepare', {str(texts)!r}, '--out', 'out']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert (tmp_path / "out" / "tokens.json").exists()
