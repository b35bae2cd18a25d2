from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rankscope.training.cross_entropy import LOGIT_BYTES, next_token_loss, next_token_losses

TOKENS, WIDTH, WORDS = 24, 5, 11
CHUNKS = [1, 7 * 4 * WORDS, 24 * 4 * WORDS, None]  # a token, 7 of them, all, all


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 6, WIDTH, dtype=dtype, generator=generator).requires_grad_()
    head = torch.randn(WORDS, WIDTH, dtype=dtype, generator=generator).requires_grad_()
    return hidden, head, torch.randint(WORDS, (4, 6), generator=generator)


def from_all_logits(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, head).flatten(0, -2), targets.flatten())


@pytest.mark.parametrize("logit_bytes", CHUNKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_gradients_are_those_of_all_logits_at_once(
    logit_bytes: int | None, dtype: torch.dtype
) -> None:
    hidden, head, targets = problem(dtype)
    loss = next_token_loss(hidden, head, targets, logit_bytes=logit_bytes)
    wanted = from_all_logits(hidden, head, targets)
    torch.testing.assert_close(loss, wanted)
    # Part of a larger loss, as with several batches for one update.
    for found, expected in zip(
        torch.autograd.grad(loss / 3, (hidden, head)),
        torch.autograd.grad(wanted / 3, (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("logit_bytes", CHUNKS)
@pytest.mark.slow
def test_gradients_are_those_of_finite_differences(logit_bytes: int | None) -> None:
    hidden, head, targets = problem()
    assert torch.autograd.gradcheck(
        lambda hidden, head: next_token_loss(hidden, head, targets, logit_bytes=logit_bytes),
        (hidden, head),
    )


@pytest.mark.parametrize("logit_bytes", CHUNKS)
def test_the_loss_without_gradients_is_the_same(logit_bytes: int | None) -> None:
    hidden, head, targets = problem(torch.float32)
    loss = next_token_loss(hidden, head, targets, logit_bytes=logit_bytes)
    with torch.no_grad():
        torch.testing.assert_close(
            next_token_loss(hidden, head, targets, logit_bytes=logit_bytes), loss.detach()
        )


@pytest.mark.parametrize("logit_bytes", CHUNKS)
def test_the_loss_is_the_mean_of_the_losses_of_the_tokens(logit_bytes: int | None) -> None:
    hidden, head, targets = problem()
    losses = next_token_losses(
        hidden.flatten(0, 1), head, targets.flatten(), logit_bytes=logit_bytes
    )
    log_p = F.linear(hidden, head).log_softmax(-1).detach()
    torch.testing.assert_close(losses.view(4, 6), -log_p.gather(-1, targets[..., None])[..., 0])
    torch.testing.assert_close(losses.mean(), next_token_loss(hidden, head, targets).detach())
    assert not losses.requires_grad


def test_no_tokens_have_no_losses() -> None:
    hidden, head, targets = problem()
    assert next_token_losses(hidden[0, :0], head, targets[0, :0]).shape == (0,)


def test_it_gives_the_same_bits_again() -> None:
    hidden, head, targets = problem(torch.float32)
    runs = []
    for _ in range(2):
        loss = next_token_loss(hidden, head, targets, logit_bytes=1)
        runs.append((loss, *torch.autograd.grad(loss, (hidden, head))))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_a_head_that_is_not_trained_gets_no_gradient() -> None:
    hidden, head, targets = problem()
    head.requires_grad_(False)
    next_token_loss(hidden, head, targets).backward()  # type: ignore[no-untyped-call]
    assert head.grad is None
    assert hidden.grad is not None


class LargestTensor(TorchDispatchMode):
    """Watches how large the tensors get that operations return."""

    size = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        found = [t.nbytes for t in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(t)]
        self.size = max(self.size, *found, 0)
        return result


@pytest.mark.parametrize("training", [True, False])
def test_no_tensor_is_larger_than_inputs_and_a_chunk(training: bool) -> None:
    hidden, head = torch.randn(400, 8).requires_grad_(), torch.randn(1000, 8).requires_grad_()
    targets = torch.randint(1000, (400,))
    chunk = 10 * 4 * 1000
    with LargestTensor() as largest, torch.set_grad_enabled(training):
        loss = next_token_loss(hidden, head, targets, logit_bytes=chunk)
        if training:
            loss.backward()  # type: ignore[no-untyped-call]
    assert largest.size == max(chunk, head.nbytes) < 400 * 4 * 1000 / 10


def test_a_small_vocabulary_is_one_chunk() -> None:
    assert LOGIT_BYTES["cpu"] >= 16 * 256 * 4 * 257


@pytest.mark.parametrize("logit_bytes", CHUNKS)
def test_under_autocast_only_the_products_are_rounded(logit_bytes: int | None) -> None:
    hidden, head, targets = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(hidden, head, targets, logit_bytes=logit_bytes)
        with torch.no_grad():
            unwatched = next_token_loss(hidden, head, targets, logit_bytes=logit_bytes)
        logits = F.linear(hidden, head).float()
        wanted = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert loss.dtype == unwatched.dtype == torch.float32
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(unwatched, wanted)
    for found, expected in zip(
        torch.autograd.grad(loss, (hidden, head)),
        torch.autograd.grad(wanted, (hidden, head)),
        strict=True,
    ):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.03, atol=0.01)
