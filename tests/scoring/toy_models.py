"""Models whose likelihoods are known in closed form, and the simplest tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rankscope.scoring.text_model import TextEncoder, TextModel

BYTES = 256
PREFIX = 256


def bytes_of(texts: Sequence[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


def pairs_of(texts: Sequence[str]) -> list[list[int]]:
    """Two bytes a token where there are two."""
    return [
        [
            pair[0] if len(pair) == 1 else PREFIX + 1 + pair[0] * BYTES + pair[1]
            for pair in (text.encode()[i : i + 2] for i in range(0, len(text.encode()), 2))
        ]
        for text in texts
    ]


def toy_model(
    losses: Callable[[Tensor], Tensor],
    *,
    encode: Callable[[Sequence[str]], list[list[int]]] = bytes_of,
    prefix: int | None = PREFIX,
    vocab_size: int = PREFIX + 1,
    window: int = 8,
    tokens_at_once: int = 64,
) -> TextModel:
    """Model from a function of token ids (b, t + 1) to losses (b, t)."""
    encoder = TextEncoder(encode, prefix, "toy", "toy")
    return TextModel(
        lambda tokens, counted: losses(tokens)[counted], encoder, vocab_size, window, tokens_at_once
    )


def uniform_losses(vocab_size: int = PREFIX + 1) -> Callable[[Tensor], Tensor]:
    return lambda tokens: torch.full(tokens[:, 1:].shape, np.log(vocab_size), dtype=torch.float64)


def bigram_table(seed: int = 0) -> NDArray[np.float64]:
    """−ln p of each token (columns) after each other one (rows)."""
    rows = np.random.default_rng(seed).dirichlet(np.ones(PREFIX + 1), size=PREFIX + 1)
    return -np.log(rows)


def bigram_losses(table: NDArray[np.float64]) -> Callable[[Tensor], Tensor]:
    known = torch.from_numpy(table)
    return lambda tokens: known[tokens[:, :-1], tokens[:, 1:]]


def context_losses(tokens: Tensor) -> Tensor:
    """Losses that depend on everything before a token, however far away."""
    places = torch.arange(1, tokens.shape[1] + 1)
    return (torch.cumsum((tokens % 7 + 1) * places, dim=1)[:, :-1] % 97).double()
