"""Mutants of every kind of file: none makes a reader crash, hang, run code or open another file."""

import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.tensors import StoredTensor
from tests.reliability.fuzz import in_words, kept, tallies, today
from tests.reliability.fuzzing import bytes_level, json_level
from tests.reliability.fuzzing.guard import FALLEN, Trial
from tests.reliability.fuzzing.kinds import KINDS

MUTANTS = 10_000


@pytest.mark.slow
@pytest.mark.full_tier
def test_no_mutant_makes_a_reader_fall(capsys: pytest.CaptureFixture[str]) -> None:
    """If one does, it is in build/mutants, and its line says how to make it again."""
    seed = today()
    tried = list(tallies(seed, MUTANTS, jobs=os.cpu_count() or 1))
    with capsys.disabled():
        print(f"\n{in_words(tried, seed)}; python -m tests.reliability.fuzz --seed {seed}")
    lines = [line for tally in tried for line in kept(tally, seed, Path("build/mutants"))]
    assert not lines, "\n".join(lines)
    assert sum(tally.fates.total() for tally in tried) >= MUTANTS


def test_the_same_seed_makes_the_same_mutants(tmp_path: Path) -> None:
    kind = KINDS["config.json"]
    kind.write(tmp_path / "honest")
    one, other = (Trial("config.json", kind, seed) for seed in ("a", "b"))
    files = one.files(tmp_path / "honest")
    assert [one.mutant(files, n)[1] for n in range(20)] == [
        one.mutant(files, n)[1] for n in range(20)
    ]
    assert one.mutant(files, 0)[1] != other.mutant(files, 0)[1]


def test_mutants_of_json_are_mostly_json() -> None:
    """Otherwise a parser refuses them all, and nothing behind it is tried."""

    whole = 0
    for number in range(200):
        text = json_level.mutated(Random(number), b'{"a": {"b": [1, 2.5, "x"]}, "c": null}')
        with suppress(ValueError, RecursionError):
            whole += json.loads(text) is not text
    assert whole > 150


Plant = Callable[..., Any]


def crash(*_: Any, **__: Any) -> None:
    raise IndexError("planted")


def run_code(*_: Any, **__: Any) -> None:
    os.system("true")


def open_another(*_: Any, **__: Any) -> None:
    Path("/etc/hostname").open().close()


def compute_for_ever(*_: Any, **__: Any) -> None:
    while True:
        pass


def unpickle(*_: Any, **__: Any) -> None:
    pickle.loads(b"cos\ngetcwd\n.")


@pytest.mark.parametrize(
    ("plant", "fate"),
    [
        (crash, "crash"),
        (run_code, "outside"),
        (open_another, "outside"),
        (unpickle, "outside"),
        pytest.param(compute_for_ever, "killed", marks=pytest.mark.slow),
    ],
)
def test_a_planted_fault_is_seen(
    plant: Plant, fate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that does this for one mutant, the second, and is as it is for the others."""
    real, trial = StoredTensor.read, Trial("index.json", KINDS["index.json"], "planted", 10**9)
    monkeypatch.setattr(type(trial), "mutant", partial(_unchanged, trial))

    def read(tensor: StoredTensor) -> Any:
        if (
            Path(tensor.path).with_name("model.safetensors.index.json").stat().st_mtime_ns
            == 2 * 10**6
        ):
            plant()
        return real(tensor)

    monkeypatch.setattr(StoredTensor, "read", read)
    trial.kind.write(tmp_path / "honest")
    fates = {one.number: one.fate for one in trial.outcomes(range(1, 4), tmp_path)}
    assert fates == {1: "as before", 2: fate, 3: "as before"}


def _unchanged(trial: Trial, files: dict[Path, bytes], number: int) -> tuple[Path, bytes, Random]:
    path = next(iter(files))
    return path, files[path], Random(number)


def test_a_fault_in_the_layout_is_found_by_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index whose entries nothing checks: other readers open what it names, wherever that is."""

    def weight_map(index: Path) -> dict[str, str]:
        return dict(huggingface.read_json(index)["weight_map"])

    monkeypatch.setattr(huggingface, "_weight_map", weight_map)
    (tally,) = tallies("planted", 150, names=["index.json"], every=10**9)
    places = {one.where.partition(" ")[0] for one in tally.fallen}
    assert places & {"KeyError", "TypeError", "AttributeError"}
    assert all(one.fate in FALLEN and one.content for one in tally.fallen)


def test_bytes_are_mutated_at_every_length() -> None:
    for size in range(4):
        for number in range(50):
            bytes_level.mutated(Random(number), b"x" * size)
