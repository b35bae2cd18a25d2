"""Compare the loss of the trainer with torch's linear_cross_entropy.

    python -m benchmarks.cross_entropy [--rounds 7]

Forward and backward pass, one thread, processor time. The three take turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from rankscope.training.cross_entropy import next_token_loss

CASES = ((4096, 96, 4096), (4096, 256, 4096), (2048, 256, 16384))  # tokens, hidden size, words
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of hidden states, head and targets
OURS = "rankscope"


def main() -> None:
    """Print milliseconds and the ratio to ours, for every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    for tokens, hidden_size, words in CASES:
        medians = {
            name: median(times)
            for name, times in measured(tokens, hidden_size, words, rounds=rounds).items()
        }
        print(f"{tokens:,} tokens, hidden size {hidden_size}, {words:,} words")
        for name, seconds in medians.items():
            print(f"  {name:32}{1e3 * seconds:8.0f} ms{seconds / medians[OURS]:8.2f} x")


def losses() -> dict[str, Loss]:
    """Ours, and torch's as it comes and with its options, where this version of torch has it."""
    theirs = getattr(F, "linear_cross_entropy", None)
    if theirs is None:  # torch before 2.13
        return {OURS: next_token_loss}
    chunked = partial(theirs, options=torch.nn.LinearCrossEntropyOptions())
    return {OURS: next_token_loss, "torch": theirs, "torch with options": chunked}


def measured(tokens: int, hidden_size: int, words: int, *, rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each loss in each round, after a round that is not counted."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, hidden_size, generator=generator).requires_grad_()
    head = (torch.randn(words, hidden_size, generator=generator) / 10).requires_grad_()
    targets = torch.randint(words, (tokens,), generator=generator)
    times: dict[str, list[float]] = {name: [] for name in losses()}
    for turn in range(rounds + 1):
        for name, loss in losses().items():
            began = time.process_time()
            torch.autograd.grad(loss(hidden, head, targets), (hidden, head))
            if turn:
                times[name].append(time.process_time() - began)
    return times


if __name__ == "__main__":
    main()
