from __future__ import annotations

import json

import pytest

from rankscope.errors import RankscopeError
from rankscope.training.data.text_encoder import text_encoder
from rankscope.training.data.tokenizer import Encoder, byte_encoder, trained_encoder

TEXTS = [
    "The geese are late.",
    "",
    "one\n\ntwo  three\n",
    "naïve 鵞鳥 🪿",
    "it says <|endoftext|> here",
]


def encoders() -> list[Encoder]:
    return [byte_encoder(), trained_encoder(TEXTS * 20, 300)]


@pytest.mark.parametrize("encoder", encoders(), ids=["bytes", "bpe"])
def test_ids_are_those_of_training_without_the_end_of_the_document(encoder: Encoder) -> None:
    scoring = text_encoder(encoder.tokenizer, encoder.end_of_document)
    assert scoring.encode(TEXTS) == [ids[:-1].tolist() for ids in encoder.encode(TEXTS)]
    assert all(encoder.end_of_document not in ids for ids in scoring.encode(TEXTS))


@pytest.mark.parametrize("encoder", encoders(), ids=["bytes", "bpe"])
def test_the_end_of_a_document_stands_before_every_text(encoder: Encoder) -> None:
    scoring = text_encoder(encoder.tokenizer, encoder.end_of_document)
    assert scoring.prefix == encoder.end_of_document
    assert scoring.prefix_name == "EOS <|endoftext|>"


def test_a_tokenizer_that_cuts_or_pads_does_so_no_more() -> None:
    described = json.loads(byte_encoder().tokenizer)
    described["truncation"] = {
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    scoring = text_encoder(json.dumps(described), 256)
    assert scoring.encode(["The geese", "a"]) == [list(b"The geese"), list(b"a")]


def test_the_digest_knows_the_tokenizer_and_the_prefix() -> None:
    stored = byte_encoder().tokenizer
    digests = [text_encoder(stored, end).digest for end in (256, 255)]
    digests.append(text_encoder(stored + "\n", 256).digest)
    assert len(set(digests)) == 3
    assert digests[0] == text_encoder(stored, 256).digest


@pytest.mark.parametrize(
    ("stored", "end", "said"),
    [
        ("{}", 256, "cannot be read as a tokenizer.json"),
        ("no json", 256, "cannot be read as a tokenizer.json"),
        (byte_encoder().tokenizer, 257, "no token of id 257"),
    ],
    ids=["empty", "text", "unknown-id"],
)
def test_what_is_no_tokenizer_is_refused_in_one_line(stored: str, end: int, said: str) -> None:
    with pytest.raises(RankscopeError, match=said) as error:
        text_encoder(stored, end)
    assert "\n" not in str(error.value)
