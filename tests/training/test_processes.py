from __future__ import annotations

import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.keyed import keyed_generator
from rankscope.training import processes as module
from rankscope.training.adapters.lora_linear import LoRALinear, iter_adapters, renew
from rankscope.training.config import ModelConfig
from rankscope.training.launch import joined
from rankscope.training.model import LanguageModel, is_projection
from rankscope.training.processes import Processes
from tests.training.several import run_processes

VOCABULARY, SEQUENCES = 31, 8
MICRO = (0, 1, 2, 4)  # sequences of a micro-batch; with two processes each has four
ONE = Processes(0, 1, torch.device("cpu"))


def new_a(rank: int, layer: nn.Module, *key: str | int) -> Tensor:
    a = torch.empty(rank, layer.get_parameter("weight").shape[1])
    return a.normal_(std=0.2, generator=keyed_generator(0, "lora_A", *key))


def make_model(dtype: torch.dtype) -> LanguageModel:
    """A model with adapters that have learned something, the same in every process."""
    shape = ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    model = LanguageModel(shape, VOCABULARY)
    for name, layer in list(model.named_modules()):
        if is_projection(f"{name}.weight"):
            weight = nn.Parameter(layer.get_parameter("weight").detach())
            parent, _, attribute = name.rpartition(".")
            wrapped = LoRALinear(weight, new_a(2, layer, name), scale=1.5)
            setattr(model.get_submodule(parent), attribute, wrapped)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.1, generator=keyed_generator(0, "weight", name))
    return model.to(dtype)


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def backward(model: LanguageModel, processes: Processes, *, micro: int, step: int = 0) -> float:
    """Leave the gradients of the whole batch's loss in the parameters; return that loss."""
    generator = keyed_generator(0, "batch", step)
    batch = torch.randint(VOCABULARY, (SEQUENCES, 13), generator=generator)
    parts, loss = processes.share(batch, micro), 0.0
    for part in parts:
        part_loss = model.loss(part) / len(parts)
        part_loss.backward()  # type: ignore[no-untyped-call]
        loss += part_loss.item()
    processes.mean_gradients(trained(model).values())
    return processes.mean(loss)


def gradients(processes: Processes, dtype: torch.dtype, *, micro: int) -> dict[str, Tensor]:
    model = make_model(dtype)
    loss = backward(model, processes, micro=micro)
    found = {name: p.grad for name, p in trained(model).items() if p.grad is not None}
    return {**found, "loss": torch.tensor(loss)}


def train_with_merges(processes: Processes, ranks: tuple[int, ...]) -> dict[str, Tensor]:
    """Three steps for each rank, with a merge and new adapters of that rank before them."""
    model, step = make_model(torch.float64), 0
    optimizer = torch.optim.AdamW(trained(model).values(), lr=1e-2)
    for cycle, rank in enumerate(ranks):
        for name, layer in iter_adapters(model):
            layer.merge()
            layer.reset(new_a(rank, layer, cycle, name), scale=1.5)
        renew(optimizer, model)
        processes.require_equal(model.state_dict(), f"the parameters of step {step}")
        for _ in range(3):
            backward(model, processes, micro=2, step=step)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    processes.require_equal(model.state_dict(), f"the parameters of step {step}")
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def refusal(tensors: dict[str, Tensor], processes: Processes) -> str | None:
    try:
        processes.require_equal(tensors, "the parameters of step 7")
    except RankscopeError as error:
        return str(error)
    return None


def refusals(processes: Processes) -> dict[str, str | None]:
    """What `require_equal` says of tensors that differ in one respect between the processes."""
    odd = processes.rank == 1
    one, zero = torch.ones(3), torch.zeros(3)
    flipped = one.clone()
    flipped[2] += odd * torch.finfo(torch.float32).eps
    pairs = {
        "nothing": {"a": one, "b": zero},
        "nan": {"a": torch.full((), torch.nan)},
        "none": {},
        "bit": {"a": one, "b": flipped, "c": flipped},
        "sign": {"a": one, "b": -zero if odd else zero},
        "type": {"a": one, "b": zero.int() if odd else zero},
        "shape": {"a": one, "b": zero.view(1, 3) if odd else zero},
        "missing": {"a": one} if odd else {"a": one, "b": zero},
        "surplus": {"a": one, "b": zero} if odd else {"a": one},
    }
    return {name: refusal(tensors, processes) for name, tensors in pairs.items()}


def failing(processes: Processes, error: Exception) -> str:
    """What the processes see of an error that only the first has."""

    def work() -> None:
        assert processes.is_first
        raise error

    try:
        processes.result_of_first(work)
    except (RankscopeError, OSError) as caught:
        return f"{type(caught).__name__} {caught}"
    return ""


def nan_gradient(processes: Processes) -> Tensor:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, torch.nan if processes.rank == 1 else 1.0])
    processes.mean_gradients([parameter])
    return parameter.grad


def answers(processes: Processes) -> dict[str, Any]:
    """Everything that the tests ask of one process among several."""
    rank = processes.rank
    found: dict[str, Any] = {
        "is_first": processes.is_first,
        "any": [processes.any(rank == 1), processes.any(rank == 0), processes.any(False)],
        "sum": processes.sum(0.1 + rank),
        "mean": processes.mean(0.1 + rank),
        "agreed": processes.agreed({"rank": rank, "ranks": {"q_proj": 2 + rank}}),
        "result": processes.result_of_first(lambda: f"from {rank}"),
        "refused": failing(processes, RankscopeError("is taken", path="out", reason="taken")),
        "unwritable": failing(processes, PermissionError(13, "Permission denied", "out")),
        "nan": nan_gradient(processes),
        "refusals": refusals(processes),
        "merged": {ranks: train_with_merges(processes, ranks) for ranks in ((2, 2), (2, 4, 1))},
    }
    for dtype in (torch.float32, torch.float64):
        for micro in MICRO:
            found[f"{dtype} {micro}"] = gradients(processes, dtype, micro=micro)
    module.BUCKET = 100  # less than most parameters have
    found["small buckets"] = gradients(processes, torch.float64, micro=0)
    return found


def main(task: str, folder: Path) -> None:
    """What this file does when it is one of several processes."""
    if task == "answers":
        with joined("cpu", timeout=timedelta(seconds=60)) as processes:
            torch.save(answers(processes), folder / f"{processes.rank}.pt")
        return
    (folder / os.environ["RANK"]).touch()
    while len(list(folder.glob("[01]"))) < 2:  # a loaded machine does not start them together
        time.sleep(0.01)
    try:
        with joined("cpu", timeout=timedelta(seconds=3)) as processes:
            processes.sum(1.0)
            if processes.rank == 1:
                if task == "dies":
                    os._exit(9)
                time.sleep(60)
            processes.sum(1.0)
    except RankscopeError as error:
        print(f"[{error.reason}] {error}")
        raise SystemExit(4) from None


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The answers of each of two processes."""
    folder = tmp_path_factory.mktemp("two")
    for ended in run_processes(folder, "-W", "error", __file__, "answers", str(folder)):
        assert ended.code == 0, ended.output
        assert not ended.output
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_near(one: dict[str, Tensor], two: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name] - two[name]).norm() <= tolerance * two[name].norm(), name


@pytest.mark.parametrize("micro", MICRO)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.slow
def test_two_processes_have_the_gradient_of_the_whole_batch(
    both: list[dict[str, Any]], dtype: torch.dtype, tolerance: float, micro: int
) -> None:
    alone = gradients(ONE, dtype, micro=0)
    for answer in both:
        assert_near(answer[f"{dtype} {micro}"], alone, tolerance)
    assert all(norm > 0 for norm in (g.norm() for g in alone.values()))


@pytest.mark.slow
def test_the_mean_gradient_is_bitwise_equal_in_all_processes(
    both: list[dict[str, Any]],
) -> None:
    for key in [key for key in both[0] if key.startswith("torch.")]:
        first, second = both[0][key], both[1][key]
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_size_of_a_bucket_does_not_matter(
    both: list[dict[str, Any]],
) -> None:
    for answer in both:
        whole = answer[f"{torch.float64} 0"]
        assert_near(answer["small buckets"], whole, 1e-14)


@pytest.mark.parametrize("ranks", [(2, 2), (2, 4, 1)], ids=["same rank", "other ranks"])
def test_two_processes_train_the_same_model_as_one_across_merges(
    both: list[dict[str, Any]], ranks: tuple[int, ...]
) -> None:
    first, second = (answer["merged"][ranks] for answer in both)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_near(first, train_with_merges(ONE, ranks), 1e-9)


def test_a_gradient_not_finite_in_one_process_is_so_in_all(
    both: list[dict[str, Any]],
) -> None:
    for answer in both:
        assert answer["nan"].isnan().tolist() == [False, True]


def test_a_flag_of_any_process_is_seen_by_all(both: list[dict[str, Any]]) -> None:
    assert all(answer["any"] == [True, True, False] for answer in both)


def test_numbers_are_summed_over_the_processes(both: list[dict[str, Any]]) -> None:
    for answer in both:
        assert answer["sum"] == pytest.approx(0.1 + 1.1, rel=1e-15)
        assert answer["mean"] == answer["sum"] / 2


def test_what_the_first_process_has_is_what_all_have(both: list[dict[str, Any]]) -> None:
    assert [answer["is_first"] for answer in both] == [True, False]
    for answer in both:
        assert answer["agreed"] == {"rank": 0, "ranks": {"q_proj": 2}}
        assert answer["result"] == "from 0"


def test_an_error_of_the_first_process_ends_all(
    both: list[dict[str, Any]],
) -> None:
    for answer in both:
        assert answer["refused"] == "RankscopeError out: is taken"
        assert answer["unwritable"].startswith("PermissionError [Errno 13] Permission denied")


@pytest.mark.parametrize("same", ["nothing", "nan", "none"])
def test_equal_tensors_are_accepted(both: list[dict[str, Any]], same: str) -> None:
    assert all(answer["refusals"][same] is None for answer in both)


@pytest.mark.parametrize("difference", ["bit", "sign", "type", "shape", "missing", "surplus"])
def test_all_processes_name_the_first_tensor_that_differs(
    both: list[dict[str, Any]], difference: str
) -> None:
    for answer in both:
        message = answer["refusals"][difference]
        assert message.startswith("'b': differs between processes 0 and 1")
        assert "the parameters of step 7" in message
        assert "\n" not in message


@pytest.mark.parametrize("task", ["dies", pytest.param("hangs", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_process_that_is_gone_ends_the_others_with_one_line(tmp_path: Path, task: str) -> None:
    first, _ = run_processes(tmp_path, __file__, task, str(tmp_path))
    assert first.code == 4, first.output
    assert len(first.output.splitlines()) == 1
    assert first.output.startswith("[lost] process 0 of 2 ends because another one")


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("micro", [0, 1, 2])
def test_shares_are_a_partition_of_the_batch_in_its_order(size: int, micro: int) -> None:
    batch = torch.arange(SEQUENCES * 3).view(SEQUENCES, 3)
    parts = [Processes(rank, size, ONE.device).share(batch, micro) for rank in range(size)]
    assert torch.equal(torch.cat([torch.cat(own) for own in parts]), batch)
    expected = micro or SEQUENCES // size
    assert all(len(part) == expected for own in parts for part in own)


def test_a_parameter_without_a_gradient_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3\) has no gradient"):
        Processes(0, 2, ONE.device).mean_gradients([nn.Parameter(torch.zeros(2, 3))])


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
