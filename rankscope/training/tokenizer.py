"""From documents to token ids: bytes as they are, or byte pairs learned from the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_DOCUMENT = "<|endoftext|>"
BYTES = 256  # ids 0..255 are the bytes themselves, id 256 ends a document


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


def encode_bytes(documents: Iterable[str]) -> NDArray[np.uint16]:
    """Ids of `byte_tokenizer`, an end of document after each, in one array."""
    end = np.array([BYTES], dtype=np.uint16)
    parts = [
        part
        for text in documents
        for part in (np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16), end)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint16)


def encode_bpe(tokenizer: Tokenizer, documents: Sequence[str]) -> NDArray[np.uint32]:
    """Ids of a trained tokenizer, an end of document after each, in one array."""
    end = tokenizer.token_to_id(END_OF_DOCUMENT)
    parts = [
        np.array([*tokenizer.encode(text, add_special_tokens=False).ids, end], dtype=np.uint32)
        for text in documents
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint32)


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
