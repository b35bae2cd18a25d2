"""Laws of the manifest: nothing is measured of a checkpoint that is not as it was saved."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.question import Question
from rankscope.durable import write_folder, write_listed_file
from rankscope.run_files import CHECKPOINT_FORMAT, MERGES_FORMAT
from tests.analysis.series import analysed, answered, weights
from tests.conftest import CONFIG

ALL = ("config.json", "model.safetensors", "gradients.safetensors")


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write three checkpoints as the trainer does."""
    for step in (0, 10, 20):
        files = {
            "config.json": json.dumps(CONFIG).encode(),
            "model.safetensors": save(weights(rng)),
            "gradients.safetensors": save(weights(rng)),
            "state.json": json.dumps({"step": step}).encode(),
        }
        folder = tmp_path / "run" / "checkpoints" / f"step-{step:08d}"
        write_folder(folder, files, kind=CHECKPOINT_FORMAT)
    return tmp_path / "run"


def damaged(run: Path, name: str) -> Path:
    path = run / "checkpoints" / "step-00000010" / name
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    return path


def measured(found: Analysis) -> set[tuple[str, int]]:
    return {(row["component"], row["step"]) for row in found.rows if row["status"] == "ok"}


def test_checkpoints_as_they_were_saved_have_no_skips(run: Path) -> None:
    assert not analysed(run).skips


@pytest.mark.parametrize("name", ALL)
def test_a_flipped_bit_is_one_skip_of_its_checkpoint(run: Path, name: str) -> None:
    path = damaged(run, name)
    found = analysed(run)
    (skip,) = found.skips
    assert (skip.reason, skip.path) == ("damaged", str(path))
    assert {("weight", 0), ("weight", 20), ("gradient", 20)} <= measured(found)
    lost = "gradient" if name == "gradients.safetensors" else "weight"
    assert (lost, 10) not in measured(found)


@pytest.mark.parametrize("change", ["cut", "gone"])
@pytest.mark.parametrize("name", ALL)
def test_a_missing_file_or_another_size_is_noticed_unread(
    run: Path, name: str, change: str
) -> None:
    path = run / "checkpoints" / "step-00000010" / name
    content = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(content + b" ")
    found = analysed(run)
    if (name, change) != ("model.safetensors", "gone"):  # which is no checkpoint any more
        assert "damaged" in {skip.reason for skip in found.skips}
    assert not {one for one in measured(found) if one[1] == 10}


def test_each_file_is_read_once_for_its_digest(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = hashlib.blake2b

    class Counted:
        def __init__(self, *args: object, **options: object) -> None:
            self._digest = real(*args, **options)  # type: ignore[arg-type]

        def update(self, data: bytes) -> None:
            sizes.append(len(data))
            self._digest.update(data)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    monkeypatch.setattr("rankscope.checkpoints.checksums.hashlib.blake2b", Counted)
    files = [*run.rglob("*.safetensors")]
    question = Question(paths=(run,))
    answered(question, tmp_path / "out")
    whole = sorted(path.stat().st_size for path in files)
    assert sorted(size for size in sizes if size in whole) == whole
    sizes.clear()
    assert question.recalled(tmp_path / "out") is not None
    assert not [size for size in sizes if size in whole]


def test_a_manifest_of_something_else_says_nothing(run: Path) -> None:
    for path in run.rglob("MANIFEST.json"):
        path.write_text(path.read_text().replace(CHECKPOINT_FORMAT, "another-1"))
    damaged(run, "model.safetensors")
    assert not analysed(run).skips


@pytest.fixture
def merged(run: Path, rng: np.random.Generator) -> Path:
    """Add the record of two merges, as the trainer writes them."""
    for step in (10, 20):
        tensors = {
            f"model.layers.0.mlp.up_proj.{name}": value
            for name, value in {
                "lora_A": rng.standard_normal((2, 16)),
                "lora_B": rng.standard_normal((24, 2)),
                "scale": np.array([2.0]),
            }.items()
        }
        path = run / "merges" / f"step-{step:08d}.safetensors"
        write_listed_file(path, save(tensors), kind=MERGES_FORMAT)
    return run


def test_a_flipped_bit_of_a_merge_is_one_skip(merged: Path) -> None:
    assert not analysed(merged).skips
    path = merged / "merges" / "step-00000020.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    (skip,) = analysed(merged).skips
    assert (skip.reason, skip.path) == ("damaged", str(path))


def test_merges_of_an_older_trainer_have_no_manifest_and_are_read(merged: Path) -> None:
    (merged / "merges" / "MANIFEST.json").unlink()
    found = analysed(merged)
    assert not found.skips
    assert ("merge", 20) in measured(found)


def test_a_merge_that_is_gone_is_in_no_sum(merged: Path) -> None:
    path = merged / "merges" / "step-00000010.safetensors"
    path.unlink()
    found = analysed(merged)
    (skip,) = found.skips
    assert skip.path == str(path) and "later ones" in skip.message
    assert not {one for one in measured(found) if one[0] == "merged_total"}
