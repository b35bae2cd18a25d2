"""Workers whose caller is killed end within seconds and without a word, whatever they do."""

import os
import select
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rankscope.analysis.jobs import AnalysisJob
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.plan import SpectraTask
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.selection import Component
from rankscope.pipeline.engine import Job
from rankscope.spectra.matrices import Dense
from tests.reliability.killing import forked

PATIENCE = 30.0  # seconds; on a machine with nothing else to do it takes one


@dataclass(frozen=True)
class Endless:
    """A source that says who reads it, and then computes in single calls of many seconds."""

    folder: Path
    name: str
    is_endless: bool

    def read(self) -> Dense:
        (self.folder / self.name).touch()
        while self.is_endless:
            np.linalg.eigvalsh(np.ones((4000, 4000)))
        return Dense.stored(np.eye(3))

    def tensors(self) -> tuple[StoredTensor, ...]:
        return ()

    @property
    def work(self) -> float:
        return 1e9  # a chunk of its own


def compute(folder: Path, *, is_endless: bool) -> None:
    sources = [Endless(folder, name, is_endless) for name in ("one", "other")]
    jobs: list[AnalysisJob] = [
        Job(0, SpectraTask(Component("weight", 0, "q", None, source.name, source), source.name))
        for source in sources
    ]
    with LocalWorkers(2) as workers:
        list(workers.run(jobs))
        time.sleep(3600)  # with workers that wait for more


@pytest.mark.parametrize("is_endless", [True, False])
@pytest.mark.slow
def test_workers_of_a_killed_caller_end_quietly(tmp_path: Path, is_endless: bool) -> None:
    caller = forked(partial(compute, tmp_path, is_endless=is_endless))
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    time.sleep(0.2)
    caller.kill()
    os.waitpid(caller.pid, 0)
    # The pipe ends when the last process has ended that could write to it.
    ends, _, _ = select.select([caller.output], [], [], PATIENCE)
    assert ends, "workers are still there"
    assert os.read(caller.output, 10_000) == b""
