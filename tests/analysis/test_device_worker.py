"""The engine of a GPU, run on the processor through the same torch code."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from rankscope.analysis.jobs import AnalysisJob, Outcome, sent
from rankscope.analysis.plan import plan_run
from rankscope.analysis.request import Selection
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.analysis.worker import decompose
from rankscope.checkpoints.discovery import open_run
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.component import Component
from rankscope.components.consecutive import Consecutive
from rankscope.components.recipes import Difference, Weight
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure, Job
from rankscope.results.measured import Measured
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectrum, stack_spectra
from rankscope.spectra.spectrum import Spectrum
from tests.conftest import TinyRun
from tests.devices import DEVICES, torch

save_file = pytest.importorskip("safetensors.torch").save_file

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


def outcomes(jobs: list[AnalysisJob], device: str = "cpu") -> dict[int, Outcome]:
    from rankscope.analysis.device_worker import DeviceWorker

    with DeviceWorker(device, 2) as worker:
        return {job.plan: outcome for job, outcome in worker.run(iter(jobs))}


def spectra_in(outcome: Outcome) -> list[Spectrum]:
    """The spectra of an outcome that is nothing else."""
    assert isinstance(outcome, list)
    return [cast("Measured", one).spectrum for one in outcome]


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
            assert isinstance(measured, Measured) and isinstance(also, Measured)
            one, other = measured.spectrum, also.spectrum
            assert measured.row.keys() == also.row.keys()
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
            (got,) = spectra_in(found[i])
            assert got.status == expected.status
            assert got.values == pytest.approx(expected.values)


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

    backend = TorchBackend("cpu")
    monkeypatch.setattr("torch.linalg.eigvalsh", solve)
    matrices = [rng.normal(size=(5, 7)), bad, rng.normal(size=(5, 7))]
    grams = backend.grams([torch.from_numpy(one) for one in matrices])
    assert [gram.squares is None for gram in grams] == [False, True, False]


def test_the_library_of_a_device_is_loaded_before_there_are_threads(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch raises "lazy wrapper should be called at most once" where two threads load it."""
    callers: list[threading.Thread] = []

    def solve(gram: "torch.Tensor") -> "torch.Tensor":
        callers.append(threading.current_thread())
        return SOLVER(gram)

    monkeypatch.setattr("torch.linalg.eigvalsh", solve)
    outcomes(held(*(rng.normal(size=(40, 50)) for _ in range(3))))
    assert callers[0] is threading.main_thread() and len(callers) == 4
    assert threading.main_thread() not in callers[1:]


def test_batches_fit_the_driver_and_the_memory() -> None:
    from rankscope.spectra.torch_backend import BATCH, BATCH_BYTES, TorchBackend

    backend = TorchBackend("cpu")
    assert backend.batch_size((16, 900)) == BATCH
    assert backend.batch_size((96, 96)) == 1
    rows, columns = 32, 10**6
    assert backend.batch_size((rows, columns)) == BATCH_BYTES // (8 * rows * columns)
    assert backend.batch_size((2, 10**9)) == 1


def written_run(
    folder: Path, dtypes: str | tuple[str, str, str], rng: np.random.Generator
) -> list[SpectraTask]:
    """Three steps of one weight, written by safetensors through torch; tasks by step and kind."""
    values = rng.normal(size=(40, 50)) * 0.02
    formats = (dtypes,) * 3 if isinstance(dtypes, str) else dtypes
    for step, dtype in enumerate(formats, start=1):
        (folder / f"step-{step}").mkdir()
        values = values + rng.normal(size=values.shape) * 1e-3
        stored = torch.from_numpy(values).to(getattr(torch, dtype))
        file = folder / f"step-{step}" / "model.safetensors"
        save_file({"model.layers.0.self_attn.q_proj.weight": stored}, file)
    return [task for plan in plan_run(open_run(folder), Selection()) for task in plan.tasks]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("device", DEVICES)
def test_what_is_stored_goes_to_the_device_as_its_file_holds_it(
    device: str,
    dtype: str,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = written_run(tmp_path, dtype, rng)
    expected = [decompose(task.recipe) for task in tasks]
    assert {type(task.recipe) for task in tasks} == {Weight, Difference, Consecutive}
    monkeypatch.setattr(StoredTensor, "read", lambda tensor: pytest.fail("was read for numpy"))
    found = outcomes([Job(i, task) for i, task in enumerate(tasks)], device)
    for i, results in enumerate(expected):
        (one,), (other,) = spectra_in(results), spectra_in(found[i])
        assert (other.dtype, other.status, other.route) == (one.dtype, "ok", one.route)
        assert other.significant_bits == one.significant_bits
        assert other.entries == pytest.approx(one.entries)
        assert other.noise_floor == pytest.approx(one.noise_floor, rel=2e-6, abs=0)
        assert (other.before is None) == (one.before is None)
        if one.before is not None and other.before is not None:
            assert other.before.value == pytest.approx(one.before.value)
        assert (other.cosine is None) == (one.cosine is None)
        if one.cosine is not None and other.cosine is not None:
            assert other.cosine.value == pytest.approx(one.cosine.value, abs=1e-12)
            assert other.cosine.bias == pytest.approx(one.cosine.bias, rel=1e-3)  # float16
        assert (other.lower <= one.upper).all() and (one.lower <= other.upper).all()


def test_a_damaged_file_costs_what_it_costs_on_the_processor(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Of an update, the weight before the last one: only the cosine is missing."""
    tasks = [replace(task, files=()) for task in written_run(tmp_path, "float32", rng)]
    path = tmp_path / "step-1" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    found = outcomes([Job(i, task) for i, task in enumerate(tasks)])
    for i, task in enumerate(tasks):
        expected, got = decompose(task.recipe), found[i]
        assert isinstance(got, Failure) == isinstance(expected, Failure)
        if isinstance(expected, Failure):
            assert got == expected
        else:
            (one,), (other,) = spectra_in(expected), spectra_in(got)
            assert (other.cosine is None) == (one.cosine is None)


def test_a_change_of_two_formats_names_both(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of three states the last two; the first has only a part in the cosine."""
    tasks = written_run(tmp_path, ("float64", "bfloat16", "float32"), rng)
    found = outcomes([Job(i, task) for i, task in enumerate(tasks)])
    for i, task in enumerate(tasks):
        (one,), (other,) = spectra_in(decompose(task.recipe)), spectra_in(found[i])
        assert other.dtype == one.dtype
        assert (other.significant_bits, other.status) == (one.significant_bits, one.status)
        assert other.noise_floor == pytest.approx(one.noise_floor, rel=2e-6, abs=0)


@pytest.mark.parametrize("refused", ["changed-while-reading", "too-large"])
def test_the_device_refuses_what_the_processor_does(
    refused: str, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = written_run(tmp_path, "float32", rng)
    if refused == "too-large":
        monkeypatch.setattr("rankscope.checkpoints.limits.memory_budget", lambda: 10_000)
    else:
        for path in tmp_path.glob("*/*"):
            path.write_bytes(path.read_bytes() + b" ")
    found = outcomes([Job(i, task) for i, task in enumerate(tasks)])
    for i, task in enumerate(tasks):
        expected = decompose(task.recipe, task.files)
        assert isinstance(expected, Failure) and expected.reason == refused
        assert found[i] == expected


def test_what_has_no_room_on_the_device_is_decomposed_on_the_processor(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.analysis.device_worker import DeviceWorker

    def no_room(gram: "torch.Tensor") -> "torch.Tensor":
        raise torch.OutOfMemoryError("CUDA out of memory")

    shapes = [(40, 50), (5, 7), (5, 7), (6, 4)]  # of which small ones go together
    matrices = [rng.normal(size=shape) for shape in shapes]
    with DeviceWorker("cpu", 1) as worker:
        monkeypatch.setattr("torch.linalg.eigvalsh", no_room)
        found = {job.plan: outcome for job, outcome in worker.run(held(*matrices))}
        alone = [worker.submit(job).result() for job in held(*matrices)]
    assert len(found) == len(matrices)
    for i, matrix in enumerate(matrices):
        for outcome in (found[i], alone[i]):
            assert (spectra_in(outcome)[0].values == spectrum(matrix).values).all()
