"""What scores depend on: all of it is in their key, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError
from rankscope.evaluation.benchmark import benchmarks_of
from rankscope.evaluation.evaluate_question import EvaluateQuestion
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.score_plans import (
    curve_of,
    model_digest,
    model_files,
    score_key,
)
from rankscope.pipeline.curves import Curve, curve_path
from rankscope.scoring.text_model import TextEncoder
from tests.evaluation.models import NO_ENCODER, write_own_run

CURVE = Curve("run", "/run", "novel", "scores/run/novel", {"kind": "text", "window": None})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_own_run(tmp_path_factory.mktemp("trained") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    shutil.copytree(trained, tmp_path / "run")
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/MANIFEST.json"):
        manifest.unlink()  # what is changed here is changed on purpose
    return open_run(tmp_path / "run")


def digest(run: Run, encoder: TextEncoder = NO_ENCODER) -> str:
    return model_digest(model_files(open_run(run.path)[6]), encoder)


def scale_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors[min(tensors)] *= 2
    save_file(tensors, path)


def change_setting(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"other": 1}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.safetensors", scale_a_tensor),
        ("adapter/adapter_model.safetensors", scale_a_tensor),
        ("config.json", change_setting),
        ("adapter/adapter_config.json", change_setting),
        ("modeling_own.py", lambda path: path.write_text("# another model")),
    ],
    ids=["weights", "adapter", "config", "adapter-config", "code"],
)
@pytest.mark.slow
def test_a_model_that_computes_otherwise_has_another_digest(
    run: Run, name: str, change: Callable[[Path], Any]
) -> None:
    before = digest(run)
    change(run[6].path / name)
    assert digest(run) != before


def test_another_tokenizer_gives_another_digest(run: Run) -> None:
    assert digest(run) != digest(run, replace(NO_ENCODER, digest="another"))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gradients.safetensors", scale_a_tensor),
        ("state.json", change_setting),
        ("optimizer.bin", lambda path: path.write_bytes(b"moments")),
    ],
    ids=["gradients", "state", "optimizer"],
)
def test_what_no_text_is_scored_with_does_not_matter(
    run: Run, name: str, change: Callable[[Path], Any]
) -> None:
    before = digest(run)
    change(run[6].path / name)
    assert digest(run) == before


def test_a_run_that_moved_is_still_the_same(run: Run, tmp_path: Path) -> None:
    before = digest(run)
    run.path.rename(tmp_path / "elsewhere")
    assert digest(open_run(tmp_path / "elsewhere")) == before


def test_a_damaged_checkpoint_has_no_digest(run: Run) -> None:
    (run[6].path / "model.safetensors").write_bytes(b"")
    with pytest.raises(RankscopeError, match="is empty"):
        digest(run)


def test_a_key_holds_the_settings_and_the_model() -> None:
    keys = {
        score_key(CURVE, "model"),
        score_key(CURVE, "other"),
        score_key(replace(CURVE, settings=CURVE.settings | {"window": 3}), "model"),
    }
    assert len(keys) == 3
    # Where the scores are has no part in it, so that folders can be moved.
    assert score_key(replace(CURVE, path="/x", folder="y", run="z"), "model") in keys


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "window": {"window": 8},
    "stride": {"window": 8, "stride": 4},
    "no-document-perplexity": {"document_perplexity": False},
    "max-documents": {"max_documents": 1},
    "prefix": {"options": OpenOptions(prefix="none")},
    "precision": {"options": OpenOptions(precision="bfloat16")},
    "tokenizer": {"options": OpenOptions(tokenizer=__file__)},
}


@pytest.mark.parametrize("name", ["novel", "../up", "ein Name", "a" * 300])
def test_every_run_task_and_setting_has_its_folder(tmp_path: Path, name: str) -> None:
    text = tmp_path / "novel.txt"
    text.write_text("Call me.")
    folders = set()
    for given in SETTINGS.values():
        settings = {"options": OpenOptions(), **given}
        options = settings.pop("options")
        (benchmark,) = benchmarks_of(EvaluateQuestion(paths=(), text=(text,), **settings))
        curve = curve_of(Run(name, tmp_path, ()), benchmark, options)
        folders.add(curve.folder)
        path = curve_path(tmp_path / "out", curve.folder, 7)
        path.parent.mkdir(parents=True)
        assert path.parent.resolve().is_relative_to(tmp_path / "out" / "scores")
    assert len(folders) == len(SETTINGS)


def test_the_device_makes_no_other_numbers(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("Call me.")
    (benchmark,) = benchmarks_of(EvaluateQuestion(paths=(), text=(tmp_path,)))
    run = Run("run", tmp_path, ())
    here = curve_of(run, benchmark, OpenOptions(device="cpu"))
    assert here == curve_of(run, benchmark, OpenOptions(device="cuda"))
