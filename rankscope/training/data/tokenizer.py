"""From documents to token ids: bytes as they are, byte pairs learned from the text, or a file's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankscope.errors import RankscopeError
from rankscope.training.data.corpus import Tokens
from rankscope.training.data.text_pieces import cuts_at_lines, iter_groups, iter_pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
# What published tokenizers call the end of a document, the most usual first.
USUAL_ENDS = (
    END_OF_DOCUMENT,
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "<|eot|>",
    "[EOS]",
    "<｜end▁of▁sentence｜>",
)
BYTES = 256  # ids 0..255 are the bytes themselves, id 256 ends a document


@dataclass(frozen=True)
class Encoder:
    """A tokenizer and what a corpus of its tokens records of it."""

    kind: str  # "bytes", "bpe" or "file"
    tokenizer: str  # as tokenizer.json
    vocab_size: int  # largest id + 1
    end_of_document: int
    encode: Callable[[Sequence[str]], list[Tokens]]  # ids of each, the end of document the last


def byte_encoder() -> Encoder:
    """Encoder whose ids are the bytes of the UTF-8 text; it needs no training."""
    return Encoder("bytes", byte_tokenizer().to_str(), BYTES + 1, BYTES, _encode_bytes)


def trained_encoder(documents: Iterable[str], vocab_size: int) -> Encoder:
    """Encoder of byte pairs learned from the documents."""
    tokenizer = train_bpe(documents, vocab_size)
    end = tokenizer.get_vocab()[END_OF_DOCUMENT]
    return encoder_of(tokenizer, tokenizer.to_str(), kind="bpe", end_of_document=end)


def read_encoder(path: str, end_of_document: str | None = None) -> Encoder:
    """Encoder of a ``tokenizer.json``.

    Parameters
    ----------
    path
        The file, as the library tokenizers and transformers write it.
    end_of_document
        The token that ends a document; by default the first of `USUAL_ENDS` that it knows.

    Raises
    ------
    RankscopeError
        If the file cannot be read or does not know such a token.
    """
    from tokenizers import Tokenizer

    try:
        stored = Path(path).read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(stored)
    except Exception as error:  # the library raises nothing more special
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RankscopeError(f"cannot be read as a tokenizer.json: {reason}", path=path) from None
    names = USUAL_ENDS if end_of_document is None else (end_of_document,)
    known = [i for name in names if (i := tokenizer.token_to_id(name)) is not None]
    if not known:
        raise RankscopeError(
            f"has no token {' or '.join(names)} to end documents with: name the one that does, "
            "`rankscope data prepare --end-of-document TOKEN`",
            path=path,
        )
    return encoder_of(tokenizer, stored, kind="file", end_of_document=known[0])


def encoder_of(tokenizer: Tokenizer, stored: str, *, kind: str, end_of_document: int) -> Encoder:
    """Encoder of a tokenizer that has been opened; the tokenizer is changed.

    Parameters
    ----------
    tokenizer
        Of the library tokenizers.
    stored
        The same as ``tokenizer.json``.
    kind, end_of_document
        What the encoder says of itself.
    """
    # A stored tokenizer may cut what it is given to a model's length, or pad it.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A document may quote <|endoftext|>; it is text there, and no end of a document.
    tokenizer.encode_special_tokens = True

    pieces_of = iter_pieces if cuts_at_lines(stored) else _whole

    def encode(texts: Sequence[str]) -> list[Tokens]:
        found = [list[Tokens]() for _ in texts]
        pieces = ((number, piece) for number, text in enumerate(texts) for piece in pieces_of(text))
        for group in iter_groups(pieces):
            encodings = tokenizer.encode_batch_fast([p for _, p in group], add_special_tokens=False)
            for (number, _), encoding in zip(group, encodings, strict=True):
                found[number].append(np.array(encoding.ids, dtype=np.uint32))
        return [np.append(np.concatenate(parts), np.uint32(end_of_document)) for parts in found]

    vocab_size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return Encoder(kind, stored, vocab_size, end_of_document, encode)


def byte_tokenizer() -> Tokenizer:
    """Tokenizer whose ids are the bytes of the UTF-8 text, and 256 for `END_OF_DOCUMENT`.

    It is the byte-pair tokenizer without any pairs, so that a run's ``tokenizer.json`` is read by
    the same libraries whichever kind it is.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(vocab=_byte_vocabulary(), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_DOCUMENT)])
    return tokenizer


def train_bpe(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-pair tokenizer; the same documents give the same tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_DOCUMENT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def _whole(text: str) -> Iterator[str]:
    yield text


def _encode_bytes(texts: Sequence[str]) -> list[Tokens]:
    end = np.array([BYTES], dtype=np.uint16)
    return [np.append(np.frombuffer(text.encode(), dtype=np.uint8), end) for text in texts]


def _byte_vocabulary() -> dict[str, int]:
    """Printable stand-in of each byte, as GPT-2's byte-level tokenizer defines them, to the byte.

    Printable Latin-1 characters stand for themselves, the other bytes in ascending order for the
    characters from U+0100 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(BYTES) if byte not in printable]
    stand_ins = {byte: chr(byte) for byte in printable}
    stand_ins |= {byte: chr(BYTES + i) for i, byte in enumerate(others)}
    return {stand_ins[byte]: byte for byte in range(BYTES)}
