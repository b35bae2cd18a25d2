"""Laws of the manifest: nothing is measured of a checkpoint that is not as it was saved."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from rankscope.analysis.analyze import recall
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.plan import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.durable import write_folder
from rankscope.training.run_folder.checkpoint import CHECKPOINT_FORMAT
from tests.analysis.series import analysed, weights
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
def test_a_file_that_is_gone_or_of_another_size_is_found_without_reading_it(
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


def test_each_file_is_read_once_for_its_digest_and_an_unchanged_call_reads_none(
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
    analysed(run, out=tmp_path / "out")
    large = [size for size in sizes if size > 4096]
    assert sorted(large) == sorted(path.stat().st_size for path in files)
    sizes.clear()
    assert recall(tmp_path / "out", survey([run]), Selection()) is not None
    assert not [size for size in sizes if size > 4096]


def test_a_manifest_of_something_else_says_nothing(run: Path) -> None:
    for path in run.rglob("MANIFEST.json"):
        path.write_text(path.read_text().replace(CHECKPOINT_FORMAT, "another-1"))
    damaged(run, "model.safetensors")
    assert not analysed(run).skips
