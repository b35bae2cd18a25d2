"""From documents to the token ids of a corpus, and the same ids for scoring text.

Tokenizers are the library's, see `rankscope.training.data.tokenizer`. A `CorpusTokenizer` is one of
them together with the token that ends a document. Scoring takes it as a
`rankscope.scoring.text_model.TextEncoder`, which `text_encoder` makes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankscope.errors import RankscopeError, WrongSettingError, printable
from rankscope.groups import iter_groups
from rankscope.scoring.text_model import TextEncoder
from rankscope.training.data.token_files import Tokens
from rankscope.training.data.tokenizer import (
    BYTES,
    END_OF_DOCUMENT,
    USUAL_ENDS,
    TokenizerKind,
    byte_tokenizer,
    train_bpe,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[Sequence[str]], list[Tokens]]  # ids of each text, without special tokens

PIECE = 1 << 17  # characters
GROUP = 1 << 21  # characters: some for every core, each of which takes about 100 bytes meanwhile
_END_OF_LINE = re.compile(r"(?<=\S)\n")


@dataclass(frozen=True)
class CorpusTokenizer:
    """A tokenizer and the token that ends every document of a corpus.

    Attributes
    ----------
    kind
        Where it comes from.
    stored
        The tokenizer, as ``tokenizer.json``.
    vocab_size
        Largest id + 1.
    end_of_document
        Id of the token that ends a document.
    encode_texts
        Ids of each text, without that token.
    """

    kind: TokenizerKind
    stored: str
    vocab_size: int
    end_of_document: int
    encode_texts: Encode

    @classmethod
    def of_bytes(cls) -> CorpusTokenizer:
        """Tokenizer whose ids are the bytes of the UTF-8 text; it needs no training."""
        return cls("bytes", byte_tokenizer().to_str(), BYTES + 1, BYTES, _byte_ids)

    @classmethod
    def learned_from(cls, documents: Iterable[str], vocab_size: int) -> CorpusTokenizer:
        """Tokenizer of byte pairs learned from the documents."""
        tokenizer = train_bpe(documents, vocab_size)
        end = tokenizer.get_vocab()[END_OF_DOCUMENT]
        return cls._of_library(tokenizer, tokenizer.to_str(), kind="bpe", end_of_document=end)

    @classmethod
    def read(cls, path: Path | str, end_of_document: str | None = None) -> CorpusTokenizer:
        """Tokenizer of a ``tokenizer.json``.

        Parameters
        ----------
        path
            The file, as the library tokenizers and transformers write it.
        end_of_document
            The token that ends a document; by default the first of `USUAL_ENDS` that it has.

        Raises
        ------
        WrongSettingError
            If there is no such file, or the tokenizer has no such token.
        RankscopeError
            If the file cannot be read.
        """
        if not Path(path).exists():
            raise WrongSettingError("does not exist, but is given as the tokenizer", path=path)
        try:
            stored = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise _unreadable(error, path) from None
        tokenizer = _open(stored, path)
        names = USUAL_ENDS if end_of_document is None else (end_of_document,)
        known = [i for name in names if (i := tokenizer.token_to_id(name)) is not None]
        if not known:
            raise WrongSettingError(
                f"has no token {' or '.join(names)} to end documents with: name the token that "
                "does, which `rankscope data prepare` takes as `end_of_document`",
                path=path,
            )
        return cls._of_library(tokenizer, stored, kind="file", end_of_document=known[0])

    @classmethod
    def _of_library(
        cls, tokenizer: Tokenizer, stored: str, *, kind: TokenizerKind, end_of_document: int
    ) -> CorpusTokenizer:
        vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        encode_texts = encoding_by(tokenizer, stored)
        return cls(kind, stored, vocab_size, end_of_document, encode_texts)

    def encode(self, documents: Sequence[str]) -> list[Tokens]:
        """Ids of each document, the end of the document last."""
        end = np.array([self.end_of_document], dtype=np.min_scalar_type(self.end_of_document))
        return [np.append(ids, end) for ids in self.encode_texts(documents)]


def text_encoder(stored: str, end_of_document: int) -> TextEncoder:
    """Encoder for scoring that gives a text the ids that it has in a corpus.

    A model in training meets a document after the end of another one, so the end of a document
    comes before every text. It does not come after: a text may be a part of a document.

    Parameters
    ----------
    stored
        The tokenizer, as ``tokenizer.json``.
    end_of_document
        Id of the token that ends a document.

    Raises
    ------
    RankscopeError
        If the tokenizer cannot be read or has no token of that id.
    """
    tokenizer = _open(stored)
    name = tokenizer.id_to_token(end_of_document)
    if name is None:
        raise RankscopeError(
            f"the tokenizer has no token of id {end_of_document}, which ends documents: give the "
            "one that the model was trained with"
        )
    encode_texts = encoding_by(tokenizer, stored)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [ids.tolist() for ids in encode_texts(texts)]

    return TextEncoder(encode, end_of_document, f"EOS {name}", ids_digest(stored, end_of_document))


@lru_cache(maxsize=4)  # of megabytes, asked for every checkpoint of a run
def ids_digest(stored: str, prefix: int | None) -> str:
    """Hash of all that the ids of a text depend on: the tokenizer, and the id before the text."""
    return hashlib.blake2b(f"{prefix}\n{stored}".encode(), digest_size=16).hexdigest()


def encoding_by(tokenizer: Tokenizer, stored: str) -> Encode:
    """Encoding by a tokenizer of the library, whose settings are changed.

    Parameters
    ----------
    tokenizer
        The tokenizer.
    stored
        The same as ``tokenizer.json``.
    """
    # A stored tokenizer may cut what it is given to a model's length, or pad it.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A document may quote <|endoftext|>, which is text there and does not end the document.
    tokenizer.encode_special_tokens = True

    pieces_of = iter_pieces if cuts_at_lines(stored) else _whole

    def encode(texts: Sequence[str]) -> list[Tokens]:
        ids = [list[Tokens]() for _ in texts]
        pieces = ((number, piece) for number, text in enumerate(texts) for piece in pieces_of(text))
        for group in iter_groups(pieces, lambda numbered: len(numbered[1]), size=GROUP):
            batch = [piece for _, piece in group]
            try:
                encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            except Exception as error:  # the library raises nothing more specific
                said = printable(str(error), limit=120)
                raise RankscopeError(f"the tokenizer cannot encode a text: {said}") from None
            for (number, _), encoding in zip(group, encodings, strict=True):
                ids[number].append(np.array(encoding.ids, dtype=np.uint32))
        return [np.concatenate(parts) for parts in ids]

    return encode


def iter_pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of about `PIECE` characters that end where a line does.

    Where `cuts_at_lines` holds, the ids of the pieces are the ids of the text.
    """
    start = 0
    while cut := _END_OF_LINE.search(text, start + PIECE):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def cuts_at_lines(stored: str) -> bool:
    """Whether a tokenizer.json never joins the end of a line with the character before it.

    GPT-2's expression for words, which `train_bpe` uses, matches either white space or other
    characters, whatever comes before. Other tokenizers join a full stop and the end of its line, or
    begin every text with a space, so they get each text whole.
    """
    described = json.loads(stored)
    words = described.get("pre_tokenizer") or {}
    return (
        words.get("type") == "ByteLevel"
        and words.get("use_regex", True)
        and not words.get("add_prefix_space")
        and described.get("normalizer") is None
        and all(token["special"] for token in described.get("added_tokens") or ())
    )


def _whole(text: str) -> Iterator[str]:
    yield text


def _byte_ids(texts: Sequence[str]) -> list[Tokens]:
    return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]


def _open(stored: str, path: Path | str | None = None) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(stored)
    except Exception as error:  # the library raises nothing more specific
        raise _unreadable(error, path) from None


def _unreadable(error: Exception, path: Path | str | None) -> RankscopeError:
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return RankscopeError(f"cannot be read as a tokenizer.json: {reason}", path=path)
