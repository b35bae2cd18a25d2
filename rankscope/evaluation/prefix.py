"""The token before every text, which gives the first token a probability too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankscope.errors import RankscopeError, printable

AUTO, NONE, BOS, EOS = "auto", "none", "bos", "eos"
INSTEAD = 'set `prefix` to one of its tokens or ids, or to "none"'


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens.

    Attributes
    ----------
    ids
        Id of every token by its text, including special ones.
    bos, eos
        Ids of the tokens that begin and end a text; None where there is no such token.
    """

    ids: Mapping[str, int]
    bos: int | None
    eos: int | None

    def named(self, kind: str, token: int) -> str:
        """A token in words: ``EOS <|endoftext|>``."""
        text = next((text for text, number in self.ids.items() if number == token), str(token))
        return f"{kind} {printable(text)}"


def prefix_token(wanted: str, vocabulary: Vocabulary) -> tuple[int | None, str]:
    """Id of the token before every text, and that token in words, for the record.

    Parameters
    ----------
    wanted
        ``auto``: the token that begins a text, or if there is none, the one that ends it, which
        then separated documents in training; ``bos``, ``eos``: that one; ``none``; else a token by
        its text, or by its id if there is no such text.
    vocabulary
        The tokenizer's tokens.

    Raises
    ------
    RankscopeError
        If there is no such token.
    """
    bos, eos = vocabulary.bos, vocabulary.eos
    if wanted == NONE:
        return None, NONE
    # A token that is both separated documents: it is called EOS.
    if wanted == BOS or (wanted == AUTO and bos not in (None, eos)):
        return _special("BOS", "begins", bos, vocabulary)
    if wanted in (EOS, AUTO):
        return _special("EOS", "ends", eos, vocabulary)
    if (token := vocabulary.ids.get(wanted)) is not None:
        return token, vocabulary.named("token", token)
    if wanted.isdecimal() and int(wanted) in vocabulary.ids.values():
        return int(wanted), vocabulary.named(f"id {int(wanted)}", int(wanted))
    raise RankscopeError(
        f"the tokenizer has no token and no id {printable(wanted)!r} to put before every text: "
        f"{INSTEAD}"
    )


def _special(
    kind: str, verb: str, token: int | None, vocabulary: Vocabulary
) -> tuple[int | None, str]:
    if token is None:
        raise RankscopeError(
            f"neither the tokenizer nor the model's config says which token {verb} a text, "
            f"{kind}, to put before every text: {INSTEAD}"
        )
    return token, vocabulary.named(kind, token)
