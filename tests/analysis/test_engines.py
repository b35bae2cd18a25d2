"""Engines by name: what each needs, and what is used where it is missing."""

import sys
from collections.abc import Iterator

import pytest

import rankscope as rs
from rankscope.analysis import engines
from rankscope.analysis.engines import engine_of, processors
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from tests.conftest import TinyRun


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose torch finds no GPU."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield


def test_an_unknown_engine_is_refused_with_the_known_ones(relora_run: TinyRun) -> None:
    words = "unknown `engine` 'gpu': choose from local, cuda, dask"
    with pytest.raises(WrongSettingError, match=words):
        engine_of("gpu")  # type: ignore[arg-type]
    with pytest.raises(WrongSettingError, match=words):
        rs.analyze(relora_run.path, engine="gpu")  # type: ignore[arg-type]


@pytest.mark.slow
def test_without_a_gpu_worker_processes_give_the_same_bits(
    relora_run: TinyRun, no_gpu: None
) -> None:
    expected = rs.analyze(relora_run.path, jobs=1)
    with pytest.warns(RankscopeWarning, match="torch finds no GPU: worker processes"):
        found = rs.analyze(relora_run.path, jobs=1, engine="cuda")
    assert found.equals(expected)


def test_a_gpu_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rankscope.spectra.torch_backend", None)
    with pytest.raises(RankscopeError, match=r'needs torch: pip install "rankscope\[torch\]"'):
        engine_of("cuda")


def test_every_processor_has_a_worker_unless_a_number_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def local(jobs: int, start: bool) -> LocalWorkers:
        asked.append(jobs)
        return LocalWorkers(jobs)

    monkeypatch.setattr(engines, "ENGINES", {"local": local})
    engine_of("local")
    engine_of("local", 3)
    assert asked == [processors(), 3]


def test_workers_start_at_once_where_that_is_asked_for(workers: None) -> None:
    with engine_of("local", 1, start=True) as pool:
        assert isinstance(pool, LocalWorkers) and len(pool._workers) == 1
