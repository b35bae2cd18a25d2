"""Which token stands before every text, so that its first token has a probability too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rankscope.errors import RankscopeError, printable

AUTO, NONE, BOS, EOS = "auto", "none", "bos", "eos"
INSTEAD = "give --prefix TOKEN, one of its tokens or ids, or --prefix none"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer's tokens.

    Attributes
    ----------
    ids
        Id of every token by its text, special ones among them.
    bos, eos
        Ids of what begins a text and of what ends one; None where it has no such token.
    """

    ids: Mapping[str, int]
    bos: int | None
    eos: int | None

    def named(self, kind: str, token: int) -> str:
        """A token in words: ``EOS <|endoftext|>``."""
        text = next((text for text, number in self.ids.items() if number == token), str(token))
        return f"{kind} {printable(text)}"


def prefix_token(wanted: str, vocabulary: Vocabulary) -> tuple[int | None, str]:
    """Id of the token that stands before every text, and what that is, for the record.

    Parameters
    ----------
    wanted
        ``auto``: the token that begins a text, or where there is none the one that ends it, which
        then stood between the documents of the training; ``bos``, ``eos``: that one; ``none``; else
        a token by its text, or by its id if there is no such text.
    vocabulary
        The tokenizer's.

    Raises
    ------
    RankscopeError
        If there is no such token.
    """
    bos, eos = vocabulary.bos, vocabulary.eos
    if wanted == NONE:
        return None, NONE
    # A token that is both stood between documents: it is named by what it ends.
    if wanted == BOS or (wanted == AUTO and bos not in (None, eos)):
        return _special("BOS", "begins", bos, vocabulary)
    if wanted in (EOS, AUTO):
        return _special("EOS", "ends", eos, vocabulary)
    if (token := vocabulary.ids.get(wanted)) is not None:
        return token, vocabulary.named("token", token)
    if wanted.isdecimal() and int(wanted) in vocabulary.ids.values():
        return int(wanted), vocabulary.named(f"id {int(wanted)}", int(wanted))
    raise RankscopeError(
        f"the tokenizer has no token and no id {printable(wanted)!r} to stand before every text: "
        f"{INSTEAD}"
    )


def _special(
    kind: str, verb: str, token: int | None, vocabulary: Vocabulary
) -> tuple[int | None, str]:
    if token is None:
        raise RankscopeError(
            f"neither the tokenizer nor the model's config says which token {verb} a text ({kind}),"
            f" to stand before every one: {INSTEAD}"
        )
    return token, vocabulary.named(kind, token)
