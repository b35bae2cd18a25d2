from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from rankscope.errors import RankscopeError
from rankscope.training.data.tokenizer import (
    BYTES,
    END_OF_DOCUMENT,
    byte_encoder,
    byte_tokenizer,
    read_encoder,
    train_bpe,
    trained_encoder,
)

TEXTS = ["plain ascii\n\ttext ", "Stück – третий 日本", "", "".join(map(chr, range(256)))]


def test_byte_ids_are_the_bytes_and_an_end_after_each_document() -> None:
    ids = byte_encoder().encode(["aä", "b", ""])
    assert [i.tolist() for i in ids] == [[*"aä".encode(), BYTES], [ord("b"), BYTES], [BYTES]]


@pytest.mark.parametrize("text", TEXTS)
def test_the_stored_byte_tokenizer_gives_the_same_ids_and_gives_the_text_back(text: str) -> None:
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


def test_trained_ids_have_an_end_after_each_document() -> None:
    encoder = trained_encoder(["the cat sat on the mat"] * 3, 270)
    one, two = encoder.encode(["the cat", "the mat"])
    assert one[-1] == two[-1] == encoder.end_of_document
    assert len(one) < len("the cat")


def test_an_end_of_document_in_a_text_is_text() -> None:
    text = f"of GPT-2's tokens {END_OF_DOCUMENT} is the last"
    encoder = trained_encoder([text] * 3, 300)
    (ids,) = encoder.encode([text])
    assert ids.tolist().count(encoder.end_of_document) == 1
    tokenizer = Tokenizer.from_str(encoder.tokenizer)
    assert tokenizer.decode(ids[:-1].tolist(), skip_special_tokens=True) == text


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A foreign tokenizer with a token to begin with, one that ends, and a length."""
    tokenizer = train_bpe(["the cat sat on the mat"] * 3, 270)
    tokenizer.add_special_tokens(["<s>", "</s>", "<stop>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[("<s>", tokenizer.token_to_id("<s>")),
                        ("</s>", tokenizer.token_to_id("</s>"))],
    )  # fmt: skip
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str().replace(END_OF_DOCUMENT, "<|other|>"))
    return path


def test_a_stored_tokenizer_neither_cuts_nor_pads_nor_begins_a_document(stored: Path) -> None:
    encoder = read_encoder(str(stored))
    text = "the mat sat on the cat </s> and the mat"
    (ids,) = encoder.encode([text])
    tokenizer = Tokenizer.from_file(str(stored))
    assert encoder.end_of_document == tokenizer.token_to_id("</s>") == ids[-1]
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=True) == text
    assert encoder.vocab_size > max(ids)
    assert encoder.tokenizer == stored.read_text()


def test_what_ends_a_document_can_be_named(stored: Path) -> None:
    tokenizer = Tokenizer.from_file(str(stored))
    encoder = read_encoder(str(stored), "<stop>")
    assert encoder.end_of_document == tokenizer.token_to_id("<stop>")
    with pytest.raises(RankscopeError, match=r"no token <nothing> .*--end-of-document"):
        read_encoder(str(stored), "<nothing>")


@pytest.mark.parametrize("content", [None, "", "{}", "\0"])
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RankscopeError, match=r"tokenizer\.json: cannot be read") as error:
        read_encoder(str(path))
    assert "\n" not in str(error.value)


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
