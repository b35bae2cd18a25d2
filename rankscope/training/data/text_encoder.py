"""A tokenizer as scoring takes it: the ids that training gives the same text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from rankscope.errors import RankscopeError
from rankscope.scoring.text_model import TextEncoder
from rankscope.training.data.tokenizer import encoder_of


def text_encoder(stored: str, end_of_document: int) -> TextEncoder:
    """Encoder whose ids are those that training gives the same text.

    A model in training meets a document after the end of another one, so the end of a document
    stands before every text. It does not follow: a text that is scored may be part of a document.

    Parameters
    ----------
    stored
        The tokenizer, as ``tokenizer.json``.
    end_of_document
        Id of the token that ends a document.

    Raises
    ------
    RankscopeError
        If the tokenizer cannot be read, or has no token of that id.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(stored)
    except Exception as error:  # the library raises nothing more special
        reason = str(error).splitlines()[0]
        raise RankscopeError(f"cannot be read as a tokenizer.json: {reason}") from None
    name = tokenizer.id_to_token(end_of_document)
    if name is None:
        raise RankscopeError(
            f"the tokenizer has no token of id {end_of_document}, which is to end documents: give "
            "the one that the model was trained with"
        )
    encoder = encoder_of(tokenizer, stored, kind="file", end_of_document=end_of_document)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [ids[:-1].tolist() for ids in encoder.encode(texts)]

    return TextEncoder(encode, end_of_document, f"EOS {name}", ids_digest(stored, end_of_document))


@lru_cache(maxsize=4)  # of megabytes, asked for every checkpoint of a run
def ids_digest(stored: str, prefix: int | None) -> str:
    """Hash of all that the ids of a text depend on: the tokenizer, and what stands before."""
    return hashlib.blake2b(f"{prefix}\n{stored}".encode(), digest_size=16).hexdigest()
