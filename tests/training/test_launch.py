"""Joining other processes, by the environment that torchrun sets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from rankscope.errors import RankscopeError
from rankscope.training.launch import check_shares, joined
from rankscope.training.processes import Processes

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set the environment of a process; nothing of torchrun's is left from outside."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)

    def set_variables(**values: str) -> None:
        for variable, value in values.items():
            monkeypatch.setenv(variable, value)

    yield set_variables
    assert not dist.is_initialized()


def test_without_torchrun_there_is_one_process_and_nothing_is_exchanged(
    environment: Callable[..., None],
) -> None:
    with joined("cpu") as processes:
        assert processes == ONE
        assert processes.is_first
        assert not dist.is_initialized()
        assert processes.any(True)
        assert not processes.any(False)
        assert processes.sum(0.1) == processes.mean(0.1) == 0.1
        value, tokens = object(), torch.arange(6).view(2, 3)  # the first cannot be sent anywhere
        assert processes.agreed(value) is value
        assert processes.result_of_first(lambda: value) is value
        processes.mean_gradients([nn.Parameter(torch.zeros(1))])
        processes.require_equal({"a": tokens}, "the tokens")
        assert torch.equal(torch.cat(processes.share(tokens, 1)), tokens)


def test_one_process_of_torchrun_is_like_none(environment: Callable[..., None]) -> None:
    environment(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
    with joined("cpu") as processes:
        assert processes == ONE


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE = 'two' .* whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0' .* at least 1"),
        ({"WORLD_SIZE": "2"}, "RANK = '' .* torchrun"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK = '-1'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK = 2 .* below WORLD_SIZE = 2"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "process 0 of 2 could not join .* torchrun"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_refused(
    environment: Callable[..., None], variables: dict[str, str], message: str
) -> None:
    environment(**variables)
    with pytest.raises(RankscopeError, match=message), joined("cpu"):
        pass


def test_more_processes_than_gpus_are_refused(environment: Callable[..., None]) -> None:
    gpus = torch.cuda.device_count()
    environment(WORLD_SIZE="999", RANK=str(gpus), LOCAL_RANK=str(gpus))
    with pytest.raises(RankscopeError, match=rf"torch finds {gpus} .* start at most"):
        joined("cuda").__enter__()


@pytest.mark.slow
def test_a_process_that_waits_in_vain_for_the_others_says_so(
    environment: Callable[..., None],
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment(RANK="1", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    with (
        pytest.raises(RankscopeError, match="process 1 of 2 could not join"),
        joined("cpu", timeout=timedelta(seconds=1)),
    ):
        pass


@pytest.mark.parametrize(
    ("sequences", "micro", "size"), [(8, 0, 2), (8, 2, 2), (8, 8, 1), (12, 3, 4), (7, 0, 7)]
)
def test_batches_that_divide_can_be_shared(sequences: int, micro: int, size: int) -> None:
    check_shares(sequences, micro, size)  # raises nothing
    batch = torch.arange(sequences)
    parts = [Processes(rank, size, ONE.device).share(batch, micro) for rank in range(size)]
    assert len({len(part) for own in parts for part in own}) == 1


@pytest.mark.parametrize(
    ("sequences", "micro", "size", "message"),
    [
        (10, 0, 4, "batch.sequences = 10 .* 4 processes.* multiple of 4$"),
        (8, 8, 2, "batch.sequences = 8 .* multiple of 2 x batch.micro_sequences = 16$"),
        (12, 4, 2, "batch.sequences = 12 .* multiple of 2 x batch.micro_sequences = 8$"),
        (1, 0, 2, "batch.sequences = 1 .* 2 processes"),
    ],
)
def test_batches_that_do_not_divide_are_refused(
    sequences: int, micro: int, size: int, message: str
) -> None:
    with pytest.raises(RankscopeError, match=message):
        check_shares(sequences, micro, size)
