"""A language model with its tokenizer, as far as scoring needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

Ids = Sequence[int] | NDArray[np.integer[Any]]
TokenLosses = Callable[["Tensor", "Tensor"], "Tensor"]
ShareDone = Callable[[float], None]  # is called with the share of the work done


@dataclass(frozen=True, slots=True)
class Span:
    """Token ids of which the last ``counted`` are scored, given all before them.

    ``counted`` is less than the number of ids: nothing precedes the first.
    """

    ids: Ids
    counted: int


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer, as scoring uses it.

    Attributes
    ----------
    encode
        Token ids of each text, without special tokens.
    prefix
        Id of the token before every text, so that the first token has a probability too; None for
        none: the first token is then not scored.
    prefix_name
        That token's name, for the record: ``BOS <s>``, ``EOS <|endoftext|>``, ``none``.
    digest
        Digest of everything that the ids depend on.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    prefix: int | None
    prefix_name: str
    digest: str


@dataclass(frozen=True)
class Network:
    """The modules of a model, for callers that look inside.

    Attributes
    ----------
    module
        All of them.
    run
        Runs them on token ids (b, t), int64; what they compute at a token does not depend on later
        ones.
    """

    module: Module
    run: Callable[[Tensor], object]


@dataclass(frozen=True)
class TextModel:
    """A causal language model, ready to score text; in eval mode.

    Attributes
    ----------
    token_losses
        Function of token ids (b, t + 1), int64, and of a mask (b, t): −ln p of ``tokens[:, 1:]``
        where the mask is true, given all before them, in row-major order; float32 or better. Later
        tokens do not change a token's loss.
    encoder
        Its tokenizer.
    vocab_size
        Ids are below it.
    context
        Most tokens that it takes as input at once.
    tokens_at_once
        Input tokens per batch, to suit memory and caches.
    device
        Where the token ids must be.
    network
        What computes the losses; None where they are not those of a neural network.
    """

    token_losses: TokenLosses
    encoder: TextEncoder
    vocab_size: int
    context: int
    tokens_at_once: int
    device: str = "cpu"
    network: Network | None = None
