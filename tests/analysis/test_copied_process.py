import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rankscope.analysis.copied_process import ONE_THREAD

# In a process of its own, since that of the tests has threads.
SCRIPT = """
import os, sys, threading
from rankscope.analysis.copied_process import CopiedProcess, may_be_copied
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.component import Component
from rankscope.components.recipes import Weight
from rankscope.pipeline.engine import Job

tensors = [StoredTensor(sys.argv[1], f"w{i}", "float32", (40, 70), i * 11200) for i in range(3)]
jobs = [
    Job(i, SpectraTask(Component("weight", 0, "q", None, one.name, Weight(one)), str(i)))
    for i, one in enumerate(tensors)
]

def found(*, early):
    with LocalWorkers(2) as pool:
        reading, writing = os.pipe()
        if early:
            pool.start()
        os.close(writing)
        assert os.read(reading, 1) == b"", "a worker keeps a file of its caller open"
        os.close(reading)
        outcomes = {job.plan: outcome for job, outcome in pool.run(jobs)}
    (program,) = pool._programs
    try:
        os.waitpid(program._process.pid, 0)
        raise AssertionError("it has not ended with its connection")
    except ChildProcessError:
        pass
    measured = [outcomes[i][0] for i in range(3)]
    said = [(m.spectrum.values.tobytes(), m.spectrum.bounds, m.row) for m in measured]
    return isinstance(program._process, CopiedProcess), repr(said)

waiting = threading.Event()
thread = threading.Thread(target=waiting.wait)
thread.start()
with_thread, said = found(early=True)
waiting.set()
thread.join()
late, again = found(early=False)
early, by_copies = found(early=True)
assert said == again == by_copies, "a copy finds other numbers"
os.environ["OPENBLAS_NUM_THREADS"] = "2"
print(with_thread, late, early, may_be_copied())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="nothing is copied elsewhere")
def test_copies_find_what_programs_find_and_only_a_process_with_one_thread_is_copied(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(rng.standard_normal((3, 40, 70)).astype(np.float32).tobytes())
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env=os.environ | dict.fromkeys(ONE_THREAD, "1"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout.split() == ["False", "False", "True", "False"], ended.stderr


BUG = """
import gc
from rankscope.analysis import copied_process, worker

def fails(connections):
    raise ZeroDivisionError(f"a bug; frozen: {gc.get_freeze_count() > before}")

before = gc.get_freeze_count()

worker.serve = fails
copied_process.copied([]).wait()
print("ended; frozen:", gc.get_freeze_count() > before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="nothing is copied elsewhere")
def test_a_bug_in_a_copy_is_shown_and_ends_it() -> None:
    """Only the copy is kept from looking for garbage: the caller may live for long."""
    ended = subprocess.run(
        [sys.executable, "-c", BUG], capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "ended; frozen: False\n"
    assert "ZeroDivisionError: a bug; frozen: True" in ended.stderr
