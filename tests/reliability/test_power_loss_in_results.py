"""A call may lose its power at any time: no result is lost, and none is taken for another's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rankscope.results import record, results, vectors
from tests.conftest import write_full_run
from tests.reliability.power_loss.faults import Fault, altered, planted
from tests.reliability.power_loss.results import Calls, analyses, recorded_calls, violations
from tests.reliability.power_loss.sample import Sample

FAULTS = [
    altered(
        record,
        "the old record stays while tables change",
        "        remove_file(path)\n    for name",
        "        pass\n    for name",
    ),
    altered(
        record,
        "the removal of the record is not flushed",
        "        remove_file(path)\n    for name",
        "        path.unlink(missing_ok=True)\n    for name",
    ),
    altered(
        record,
        "the record is written before the tables",
        "    for name in changed:\n",
        "    write_file(path, json.dumps({**record, FILES: new}).encode())\n"
        "    for name in changed:\n",
    ),
    altered(
        vectors,
        "the store is written in place",
        "    write_file(path, save(kept, metadata={KEY: text}))",
        "    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    path.write_bytes(save(kept, metadata={KEY: text}))",
    ),
    altered(
        results,
        "tables without a record are opened in silence",
        "is_cut_short = (path",
        "is_cut_short = False and (path",
    ),
]


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Path:
    return write_full_run(tmp_path / "full", rng)


def recorded(run: Path, folder: Path) -> Calls:
    return recorded_calls(analyses(run), folder / "disk" / "out")


@pytest.mark.slow
def test_results_survive_a_loss_of_power(run: Path, tmp_path: Path) -> None:
    calls = recorded(run, tmp_path)
    assert list(violations(calls, Sample(every=2, resumed=30))) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_found(run: Path, tmp_path: Path, fault: Fault) -> None:
    with planted(fault):
        calls = recorded(run, tmp_path)
        assert any(violations(calls, Sample()))
