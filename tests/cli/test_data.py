from __future__ import annotations

import json
import lzma
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rankscope.cli.app import app, main
from rankscope.errors import RankscopeError


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i}.txt").write_text(f"document {i} " * 20)
    return folder


def test_the_command_describes_the_folder(texts: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["data", "prepare", str(texts), "--out", str(tmp_path / "out")]
    )
    assert result.exit_code == 0
    assert "documents, 0.996 bytes per token" in result.stdout  # the end of one is none
    assert "held out" in result.stdout
    assert str(tmp_path / "out") in result.stdout
    assert result.stderr == ""


def test_json_is_one_document_that_describes_the_folder(texts: Path, tmp_path: Path) -> None:
    options = [str(texts), "--tokenizer", "bpe", "--vocab-size", "300", "--json"]
    result = CliRunner().invoke(app, ["data", "prepare", *options, "--out", str(tmp_path / "out")])
    shown = json.loads(result.stdout)
    stored = json.loads((tmp_path / "out" / "tokens.json").read_text())
    assert shown == stored | {"schema_version": 1, "out": str(tmp_path / "out")}


def test_one_document_is_counted_as_one(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("a line of a book\n" * 50)
    arguments = ["data", "prepare", str(tmp_path / "book.txt"), "--out", str(tmp_path / "out")]
    assert "1 document," in CliRunner().invoke(app, arguments).stdout


@pytest.fixture
def bad_inputs(texts: Path) -> Path:
    """A folder with texts and with inputs that cannot be prepared."""
    folder = texts.parent
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    (folder / "notes.csv").write_text("text\n")
    (folder / "cut.jsonl.xz").write_bytes(lzma.compress(b'{"text": "a"}\n' * 100)[:-9])
    (folder / "tokenizer.json").write_text("{")
    (folder / "blank.txt").write_text("")
    np.arange(300, dtype="<u2").tofile(folder / "ids.bin")
    np.save(folder / "ids.npy", np.arange(300, dtype="<u2"))
    return folder


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["missing.txt"], 2, "missing.txt: does not exist"),
        (["notes.csv"], 2, "notes.csv: is neither a folder nor"),
        (["empty"], 2, "empty: holds no file of .txt"),
        (["texts", "--tokenizer", "words"], 2, "unknown --tokenizer 'words'"),
        (["texts", "--tokenizer", "no.json"], 2, "no.json: does not exist"),
        (["texts", "--vocab-size", "9"], 2, "--vocab-size 9 is for token ids"),
        (["texts", "--validation-fraction", "2"], 2, "--validation-fraction 2.0 is not in"),
        (["texts", "--out", "full"], 2, "full: exists: choose another --out"),
        (["ids.bin", "--vocab-size", "300"], 2, "if --dtype is uint16 or uint32"),
        (["ids.npy"], 2, "as --vocab-size, or give their tokenizer.json as --tokenizer"),
        (["cut.jsonl.xz"], 4, "cut.jsonl.xz: cannot be read: Compressed file ended"),
        (["texts", "--tokenizer", "tokenizer.json"], 4, "cannot be read as a tokenizer.json"),
        (["blank.txt"], 4, "no document in the sources"),
        (["ids.npy", "--vocab-size", "299"], 4, "ids.npy: holds the token id 299"),
        (["texts", "--out", "notes.csv/out"], 2, "notes.csv: is a file: --out must be a folder"),
        (["texts", "--out", "/proc/out"], 5, "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_its_exit_code(
    bad_inputs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(bad_inputs)
    before = {path: path.stat().st_size for path in bad_inputs.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["rankscope", "data", "prepare", "--out", "out", *options])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's handlers stay
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as end:
        main()
    error = capfd.readouterr().err
    assert end.value.code == code
    assert message in error
    assert error.startswith("rankscope: ") and error.count("\n") == 1 and len(error) < 500
    assert {path: path.stat().st_size for path in bad_inputs.rglob("*")} == before


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
