from __future__ import annotations

import subprocess
import sys

import pytest

from rankscope.training.data.tokenizer import BYTES, END_OF_DOCUMENT, byte_tokenizer, train_bpe

TEXTS = ["plain ascii\n\ttext ", "Stück – третий 日本", "", "".join(map(chr, range(256)))]


@pytest.mark.parametrize("text", TEXTS)
def test_byte_ids_are_the_bytes_and_give_the_text_back(text: str) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text).ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text


def test_the_byte_tokenizer_knows_the_end_of_a_document() -> None:
    assert byte_tokenizer().token_to_id(END_OF_DOCUMENT) == BYTES
    assert byte_tokenizer().get_vocab_size() == BYTES + 1


def test_trained_byte_pairs_give_any_text_back() -> None:
    tokenizer = train_bpe(["the cat sat on the mat"] * 3, 270)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_same_text_gives_the_same_tokenizer_in_every_process() -> None:
    program = (
        "import hashlib; from rankscope.training.data.document_files import read_documents;"
        "from rankscope.training.data.tokenizer import train_bpe;"
        "tokenizer = train_bpe(read_documents('pydoc_data.topics')[:20], 500);"
        "print(hashlib.blake2b(tokenizer.to_str().encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(3)
    }
    assert len(digests) == 1
