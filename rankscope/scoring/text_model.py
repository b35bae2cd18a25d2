"""A language model with its tokenizer, as far as scoring needs to know them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TokenLosses = Callable[["Tensor", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class TextEncoder:
    """From text to token ids.

    Attributes
    ----------
    encode
        Token ids of each text, without special tokens.
    prefix
        Id that stands before every text, so that its first token has a probability too; None for
        none, and then the first token is not scored.
    prefix_name
        What that is, for the record: ``BOS <s>``, ``EOS <|endoftext|>``, ``none``.
    digest
        Of everything that the ids depend on.
    """

    encode: Callable[[Sequence[str]], list[list[int]]]
    prefix: int | None
    prefix_name: str
    digest: str


@dataclass(frozen=True)
class TextModel:
    """A causal language model, ready to score text; in eval mode.

    Attributes
    ----------
    token_losses
        Function of token ids (b, t + 1), int64, and of a mask (b, t): −ln p of those of
        ``tokens[:, 1:]`` where the mask is true, given all before them, in row-major order;
        float32 or better. What lies to the right of a token does not change its loss.
    encoder
        Its tokenizer.
    vocab_size
        Ids are below it.
    window
        Most tokens that it takes as input at once.
    tokens_at_once
        Input tokens of one batch, as suits memory and caches.
    device
        Where the token ids have to be.
    """

    token_losses: TokenLosses
    encoder: TextEncoder
    vocab_size: int
    window: int
    tokens_at_once: int
    device: str = "cpu"
