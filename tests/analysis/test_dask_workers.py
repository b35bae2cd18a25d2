import importlib.util
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import rankscope as rs
from rankscope.analysis import dask_task
from rankscope.analysis.analyze import answer
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.dask_workers import DaskWorkers
from rankscope.analysis.engines import engine_of
from rankscope.analysis.jobs import Outcome
from rankscope.analysis.question import Question
from rankscope.analysis.worker import decompose
from rankscope.pipeline.engine import Failure
from tests.analysis.series import Inline
from tests.conftest import TinyRun

PROGRAM = [sys.executable, "-c", "from rankscope.cli import main; main()"]

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("distributed") is None, reason="Dask is not installed"
    ),
    # Clusters within this process leave sockets of their own to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def analyze(run: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "analyze", str(run), "--out", str(out), "--engine", "dask", "--jobs", "2"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | environment,
    )


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_bits(relora_run: TinyRun, tmp_path: Path) -> None:
    done = analyze(relora_run.path, tmp_path / "dask")
    assert done.returncode == 0, done.stderr
    subprocess.run(
        [*PROGRAM, "analyze", str(relora_run.path), "--out", str(tmp_path / "local")],
        check=True,
        capture_output=True,
    )
    tables = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("dask", "local")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_scheduler_that_cannot_be_reached_is_one_line(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    done = analyze(
        relora_run.path,
        tmp_path / "out",
        DASK_SCHEDULER_ADDRESS="tcp://127.0.0.1:9",
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s",
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(
        "rankscope: the Dask scheduler cannot be reached"
    )


@contextmanager
def cluster_of(workers: int, folder: Path) -> Iterator[Any]:
    """A cluster within this process, of which nothing is left behind that tidies up later."""
    from dask.distributed import LocalCluster

    settings = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    settings |= {"local_directory": str(folder)}
    with LocalCluster(n_workers=workers, threads_per_worker=1, **settings) as cluster:
        yield cluster
    end = time.monotonic() + 30
    while left := [*folder.rglob("worker-*")]:  # a worker that left is not waited for
        assert time.monotonic() < end, left
        time.sleep(0.01)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with cluster_of(2, tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A cluster that has one worker, for a test that takes it away."""
    with cluster_of(1, tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


def asked(run: TinyRun, **settings: Any) -> Question:
    return Question(paths=(run.path,), roles="q,up", **settings)


def on(cluster: Any, question: Question, out: Path, **settings: Any) -> tuple[Analysis, list[str]]:
    """What an analysis on a cluster finds, and the warnings of rankscope."""
    engine = DaskWorkers(1, scheduler=cluster.scheduler_address, wait=0.001)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = answer(question, out=out, engine=engine, **settings)
    said = [str(one.message) for one in caught if issubclass(one.category, rs.RankscopeWarning)]
    return found, said


def test_the_workers_of_a_scheduler_find_the_same(
    cluster: Any, relora_run: TinyRun, tmp_path: Path
) -> None:
    question = asked(relora_run, subspaces=2)
    found, said = on(cluster, question, tmp_path / "dask")
    answer(question, out=tmp_path / "here", engine=Inline())
    assert not said and not found.skips
    for name in ("metrics.csv", "metrics.parquet", "subspaces.parquet"):
        assert (tmp_path / "dask" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_when_the_last_worker_goes_what_there_is_is_kept(
    emptied: Any, relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankscope.analysis.jobs.CHUNK_WORK", 1.0)  # a chunk for each job

    def leave(done: float, at: str) -> None:
        if done > 0.3:
            emptied.scale(0)
            while emptied.scheduler.workers:
                time.sleep(0.01)

    found, said = on(emptied, asked(relora_run, steps=[0, 10]), tmp_path, progress=leave)
    assert [line for line in said if "has no worker: waiting" in line and len(line) < 200]
    assert {skip.reason for skip in found.skips} == {"no-worker"}
    assert 0 < found.measured < len(found.rows) and (tmp_path / "metrics.csv").exists()
    again = answer(asked(relora_run, steps=[0, 10]), out=tmp_path, engine=Inline())
    assert again.computed == len(found.rows) - found.measured and not again.skips


def test_results_that_die_with_their_worker_are_waited_for_and_no_longer(
    cluster: Any, relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that was reported and is lost would be waited for without an end."""
    from distributed import Future

    fetch, lost = Future.result, list[Any]()

    def result(self: Any, timeout: Any = None) -> Any:
        assert timeout is not None
        if len(lost) < 2:
            lost.append(self)
            raise TimeoutError
        return fetch(self, timeout)

    monkeypatch.setattr(Future, "result", result)
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path / "out")
    assert len(lost) == 2 and not found.skips and not said

    def cancelled(self: Any, timeout: Any = None) -> Any:
        raise CancelledError

    monkeypatch.setattr(Future, "result", cancelled)
    found, _ = on(cluster, asked(relora_run, components="weight"), tmp_path / "lost")
    assert {skip.reason for skip in found.skips} == {"no-scheduler"} and found.measured == 0


def test_a_worker_that_does_not_see_the_files_is_named_once(
    cluster: Any, relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import get_worker

    seen, blind = dask_task.lacking, list[str]()

    def lacking(chunk: Any) -> str:
        blind.append(get_worker().address)  # the first that has work
        return chunk[0][1][0][0] if blind[-1] == blind[0] else seen(chunk)

    monkeypatch.setattr(dask_task, "lacking", lacking)
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path / "one")
    assert not found.skips  # the other worker does its work
    assert len(said) == 1 and "does not see this file: mount it" in said[0]
    monkeypatch.setattr(dask_task, "lacking", lambda chunk: chunk[0][1][0][0])
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path / "all")
    assert found.measured == 0 and {skip.reason for skip in found.skips} == {"not-on-worker"}
    assert len(found.skips) == 1 and socket.gethostname() in found.skips[0].message
    assert any(f"{socket.gethostname()} {len(found.rows)}" in line for line in said)


def test_a_file_that_is_gone_for_all_is_not_the_fault_of_a_worker(
    cluster: Any, relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_task, "lacking", lambda chunk: str(tmp_path / "gone"))
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path / "out")
    assert found.measured and not found.skips and not said


@pytest.mark.parametrize(("package", "stays"), [("numpy", True), ("rankscope", False)])
def test_another_version_on_a_worker_is_named(
    cluster: Any,
    relora_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    stays: bool,
) -> None:
    other = {**dask_task.versions(), package: "0.0.1"}
    monkeypatch.setattr(dask_task, "versions", lambda: other)
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path)
    lines = said if stays else [skip.message for skip in found.skips]
    assert all(f"has {package} 0.0.1, not " in line for line in lines) and lines
    assert bool(found.measured) is stays and (len(said) == 1)


def test_failures_are_counted_by_host(
    cluster: Any, relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(chunk: Any) -> list[Outcome]:
        failed = Failure("unreadable", "cannot be read", "file")
        return [failed if at % 2 else decompose(*one) for at, one in enumerate(chunk)]

    monkeypatch.setattr(dask_task, "decompose_all", half)
    found, said = on(cluster, asked(relora_run, components="weight"), tmp_path)
    failed = sum(row["status"] == "skipped:unreadable" for row in found.rows)
    host = socket.gethostname()
    assert failed and said == [f"failures by host of the Dask cluster: {host} {failed}"]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "tcp://", "a b"])
def test_a_scheduler_that_is_not_there_is_one_line(relora_run: TinyRun, address: str) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "0.2s"}),
        pytest.raises(rs.RankscopeError, match="cannot be reached") as caught,
    ):
        rs.analyze(relora_run.path, engine="dask", scheduler=address)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"scheduler": "tcp://x:1"}, {"wait": 1.0}])
def test_a_scheduler_is_for_dask_alone(setting: Any) -> None:
    with pytest.raises(rs.RankscopeError, match=f"`{next(iter(setting))}` is for a cluster"):
        engine_of("local", **setting)


@pytest.mark.parametrize("wait", [-1.0, float("nan"), float("inf")])
def test_a_wait_is_a_number_of_minutes(wait: float) -> None:
    with pytest.raises(rs.RankscopeError, match="`wait` is"):
        engine_of("dask", wait=wait)
