"""Tokenizers of the library tokenizers that are made here: bytes, and byte pairs from a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Bytes as they are, byte pairs learned from the corpus, or a tokenizer.json.
TokenizerKind = Literal["bytes", "bpe", "file"]

END_OF_DOCUMENT = "<|endoftext|>"
# What published tokenizers call the end of a document, the most common first.
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


def byte_tokenizer() -> Tokenizer:
    """Tokenizer whose ids are the bytes of the UTF-8 text, and 256 for `END_OF_DOCUMENT`.

    It is a byte-pair tokenizer without pairs, so the same libraries read a run's
    ``tokenizer.json`` whichever kind it is.
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


def _byte_vocabulary() -> dict[str, int]:
    """Id of each byte by the printable character that GPT-2's byte-level tokenizer shows it as.

    Printable Latin-1 characters show themselves, the other bytes in ascending order the characters
    from U+0100 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(BYTES) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(BYTES + i) for i, byte in enumerate(others)}
    return {characters[byte]: byte for byte in range(BYTES)}
