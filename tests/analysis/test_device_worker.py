"""The engine of a GPU, run on the processor through the same torch code."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from rankscope.analysis.jobs import AnalysisJob, Outcome, sent
from rankscope.analysis.plan import Selection, SpectraTask, plan_run
from rankscope.analysis.worker import decompose
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.selection import Component
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure, Job
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectrum, stack_spectra
from tests.conftest import TinyRun

torch = pytest.importorskip("torch")

SOLVER = torch.linalg.eigvalsh


@dataclass(frozen=True)
class Held:
    """A source in memory."""

    values: np.ndarray | None

    def read(self) -> Dense:
        if self.values is None:
            raise RankscopeError("is not there", path="file")
        return Dense.stored(self.values)

    def tensors(self) -> tuple[StoredTensor, ...]:
        return ()

    @property
    def work(self) -> float:
        return 1.0


def outcomes(jobs: list[AnalysisJob]) -> dict[int, Outcome]:
    from rankscope.analysis.device_worker import DeviceWorker

    with DeviceWorker("cpu", 2) as worker:
        return {job.plan: outcome for job, outcome in worker.run(iter(jobs))}


def held(*matrices: np.ndarray | None) -> list[AnalysisJob]:
    return [
        Job(i, SpectraTask(Component("weight", 0, "q", None, f"w{i}", Held(matrix)), str(i)))
        for i, matrix in enumerate(matrices)
    ]


@pytest.mark.slow
def test_a_run_gives_what_the_processor_gives(relora_run: TinyRun) -> None:
    plans = plan_run(open_run(relora_run.path), Selection())
    tasks = [task for plan in plans for task in plan.tasks]
    found = outcomes([Job(i, task) for i, task in enumerate(tasks)])
    assert len(found) == len(tasks)
    for i, task in enumerate(tasks):
        expected, got = decompose(*sent(Job(i, task))), found[i]
        assert isinstance(expected, list) and isinstance(got, list)
        for measured, also in zip(expected, got, strict=True):
            one, other = measured.spectrum, also.spectrum
            assert measured.metrics.keys() == also.metrics.keys()
            assert (one.status, one.route, one.shape) == (other.status, other.route, other.shape)
            resolved = one.lower > one.noise_floor
            assert other.values[resolved] == pytest.approx(one.values[resolved], rel=1e-10)


def test_shapes_and_faults_come_back_to_their_jobs(
    rng: np.random.Generator,
) -> None:
    matrices: list[np.ndarray | None] = [rng.normal(size=(6, 9)) for _ in range(5)]
    matrices += [None, np.full((6, 9), np.nan), np.ones((0, 3)), rng.normal(size=(40, 50))]
    matrices += [rng.normal(size=(6, 9)), rng.normal(size=(9, 6))]
    found = outcomes(held(*matrices))
    assert found[5] == Failure("unreadable", "is not there", "file", "")
    for i, matrix in enumerate(matrices):
        if matrix is not None:
            expected = spectrum(matrix)
            assert found[i][0].spectrum.status == expected.status  # type: ignore[index]
            assert found[i][0].spectrum.values == pytest.approx(expected.values)  # type: ignore[index]


@pytest.mark.parametrize(
    "fault",
    [
        lambda gram: gram.diagonal(dim1=1, dim2=2).sort(dim=1).values,
        lambda gram: SOLVER(gram).roll(1, dims=0),
        lambda gram: SOLVER(gram) * torch.cat([-torch.ones(1), torch.ones(gram.shape[1] - 1)]),
    ],
    ids=["diagonal", "batch permuted", "sign flipped"],
)
def test_a_faulty_driver_is_caught(
    fault: Callable[[object], object], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.spectra.torch_backend import TorchBackend

    matrices = [Dense.stored(rng.normal(size=(8, 20))) for _ in range(4)]
    monkeypatch.setattr("torch.linalg.eigvalsh", fault)
    found = stack_spectra(matrices, TorchBackend("cpu"))
    for one, matrix in zip(found, matrices, strict=True):
        assert one.route == "qr-svd"
        assert one.values == pytest.approx(np.linalg.svd(matrix.values, compute_uv=False))


def test_a_matrix_that_the_driver_fails_on_spoils_no_other(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.spectra.torch_backend import TorchBackend

    bad = rng.normal(size=(5, 7))

    def solve(gram: "torch.Tensor") -> "torch.Tensor":
        if any(torch.allclose(one, torch.from_numpy(bad @ bad.T)) for one in gram):
            raise torch.linalg.LinAlgError("did not converge")
        return SOLVER(gram)

    monkeypatch.setattr("torch.linalg.eigvalsh", solve)
    grams = TorchBackend("cpu").grams([rng.normal(size=(5, 7)), bad, rng.normal(size=(5, 7))])
    assert [gram.squares is None for gram in grams] == [False, True, False]


def test_batches_fit_the_driver_and_the_memory() -> None:
    from rankscope.spectra.torch_backend import BATCH, BATCH_BYTES, TorchBackend

    backend = TorchBackend("cpu")
    assert backend.batch_size((16, 900)) == BATCH
    assert backend.batch_size((96, 96)) == 1
    backend.solves_batches = True
    assert backend.batch_size((96, 96)) == BATCH
    rows, columns = 4096, 11008
    assert backend.batch_size((rows, columns)) == BATCH_BYTES // (8 * rows * columns)
    assert backend.batch_size((10**5, 10**5)) == 1
