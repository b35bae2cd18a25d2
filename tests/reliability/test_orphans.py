"""Workers whose caller is killed end within seconds and without a word, whatever they do."""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest

from rankscope.analysis.jobs import AnalysisJob
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.selection import Component
from rankscope.pipeline.engine import Job
from rankscope.spectra.matrices import Dense
from tests.reliability.killing import forked

Work = Literal["endless", "just done", "none"]
KILLED = "killed"
PATIENCE = 30.0  # seconds; on a machine with nothing else to do it takes one


@dataclass(frozen=True)
class Source:
    """A source that says that it is read. The work is endless, in single calls of many seconds;
    or done just after the caller is killed, so that there is nobody to tell."""

    folder: Path
    name: str
    work_left: Work

    def read(self) -> Dense:
        (self.folder / self.name).touch()
        while self.work_left == "endless":
            np.linalg.eigvalsh(np.ones((4000, 4000)))
        while self.work_left == "just done" and not (self.folder / KILLED).exists():
            time.sleep(0.01)
        return Dense.stored(np.eye(3))

    def tensors(self) -> tuple[StoredTensor, ...]:
        return ()

    @property
    def work(self) -> float:
        return 1e9  # a chunk of its own


def compute(folder: Path, work: Work) -> None:
    sources = [Source(folder, name, work) for name in ("one", "other")]
    jobs: list[AnalysisJob] = [
        Job(0, SpectraTask(Component("weight", 0, "q", None, source.name, source), source.name))
        for source in sources
    ]
    with LocalWorkers(2) as workers:
        list(workers.run(jobs))
        time.sleep(300)  # with workers that wait for more


@pytest.mark.parametrize("work", get_args(Work))
@pytest.mark.slow
def test_workers_of_a_killed_caller_end_quietly(tmp_path: Path, work: Work) -> None:
    caller = forked(partial(compute, tmp_path, work))
    while len(list(tmp_path.iterdir())) < 2:
        time.sleep(0.05)
    time.sleep(0.2)
    caller.kill()
    os.waitpid(caller.pid, 0)
    (tmp_path / KILLED).touch()
    # The pipe ends when the last process has ended that could write to it.
    ends, _, _ = select.select([caller.output], [], [], PATIENCE)
    assert ends, "workers are still there"
    assert os.read(caller.output, 10_000) == b""
