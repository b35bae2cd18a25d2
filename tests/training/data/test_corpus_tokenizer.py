from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.corpus_tokenizer import (
    PIECE,
    CorpusTokenizer,
    cuts_at_lines,
    encoding_by,
    iter_pieces,
    text_encoder,
)
from rankscope.training.data.tokenizer import BYTES, END_OF_DOCUMENT, byte_tokenizer, train_bpe

TEXTS = [
    "The geese are late.",
    "",
    "one\n\ntwo  three\n",
    "naïve 鵞鳥 🪿",
    "it says <|endoftext|> here",
]
WORDS = ["a", "cat", "won't", "1", "22", ".", "?!", "_", " ", "  ", "\n", "\n\n", " \n", "\t", "é"]
WORDS += ["\r\n", "\x1c", "\u00a0", "\u3000", "\u0085", "\u2028", "日本"]


def tokenizers() -> list[CorpusTokenizer]:
    return [CorpusTokenizer.of_bytes(), CorpusTokenizer.learned_from(TEXTS * 20, 300)]


def test_byte_ids_are_the_bytes_and_an_end_after_each_document() -> None:
    ids = CorpusTokenizer.of_bytes().encode(["aä", "b", ""])
    assert [i.tolist() for i in ids] == [[*"aä".encode(), BYTES], [ord("b"), BYTES], [BYTES]]


def test_trained_ids_have_an_end_after_each_document() -> None:
    tokenizer = CorpusTokenizer.learned_from(["the cat sat on the mat"] * 3, 270)
    one, two = tokenizer.encode(["the cat", "the mat"])
    assert one[-1] == two[-1] == tokenizer.end_of_document
    assert len(one) < len("the cat")


def test_an_end_of_document_in_a_text_is_text() -> None:
    text = f"of GPT-2's tokens {END_OF_DOCUMENT} is the last"
    tokenizer = CorpusTokenizer.learned_from([text] * 3, 300)
    (ids,) = tokenizer.encode([text])
    assert ids.tolist().count(tokenizer.end_of_document) == 1
    tokenizer = Tokenizer.from_str(tokenizer.stored)
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


def test_a_stored_tokenizer_adds_and_drops_nothing(stored: Path) -> None:
    tokenizer = CorpusTokenizer.read(stored)
    text = "the mat sat on the cat </s> and the mat"
    (ids,) = tokenizer.encode([text])
    library = Tokenizer.from_file(str(stored))
    assert tokenizer.end_of_document == library.token_to_id("</s>") == ids[-1]
    assert library.decode(ids.tolist(), skip_special_tokens=True) == text
    assert tokenizer.vocab_size > max(ids)
    assert tokenizer.stored == stored.read_text()


def test_what_ends_a_document_can_be_named(stored: Path) -> None:
    library = Tokenizer.from_file(str(stored))
    tokenizer = CorpusTokenizer.read(stored, "<stop>")
    assert tokenizer.end_of_document == library.token_to_id("<stop>")
    with pytest.raises(WrongSettingError, match=r"no token <nothing> .*`end_of_document`"):
        CorpusTokenizer.read(stored, "<nothing>")


def test_a_missing_tokenizer_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(WrongSettingError, match=r"tokenizer\.json: does not exist"):
        CorpusTokenizer.read(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", ["", "{}", "\0"])
def test_a_damaged_tokenizer_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(RankscopeError, match=r"tokenizer\.json: cannot be read") as error:
        CorpusTokenizer.read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tokenizer", tokenizers(), ids=["bytes", "bpe"])
def test_ids_are_those_of_training_without_the_end_of_the_document(
    tokenizer: CorpusTokenizer,
) -> None:
    scoring = text_encoder(tokenizer.stored, tokenizer.end_of_document)
    assert scoring.encode(TEXTS) == [ids[:-1].tolist() for ids in tokenizer.encode(TEXTS)]
    assert all(tokenizer.end_of_document not in ids for ids in scoring.encode(TEXTS))


@pytest.mark.parametrize("tokenizer", tokenizers(), ids=["bytes", "bpe"])
def test_the_end_of_a_document_comes_before_every_text(tokenizer: CorpusTokenizer) -> None:
    scoring = text_encoder(tokenizer.stored, tokenizer.end_of_document)
    assert scoring.prefix == tokenizer.end_of_document
    assert scoring.prefix_name == "EOS <|endoftext|>"


def test_a_stored_tokenizer_no_longer_cuts_or_pads() -> None:
    described = json.loads(CorpusTokenizer.of_bytes().stored)
    described["truncation"] = {
        "max_length": 4,
        "strategy": "LongestFirst",
        "stride": 0,
        "direction": "Right",
    }
    scoring = text_encoder(json.dumps(described), 256)
    assert scoring.encode(["The geese", "a"]) == [list(b"The geese"), list(b"a")]


def test_the_digest_knows_the_tokenizer_and_the_prefix() -> None:
    stored = CorpusTokenizer.of_bytes().stored
    digests = [text_encoder(stored, end).digest for end in (256, 255)]
    digests.append(text_encoder(stored + "\n", 256).digest)
    assert len(set(digests)) == 3
    assert digests[0] == text_encoder(stored, 256).digest


@pytest.mark.parametrize(
    ("stored", "end", "said"),
    [
        ("{}", 256, "cannot be read as a tokenizer.json"),
        ("no json", 256, "cannot be read as a tokenizer.json"),
        (CorpusTokenizer.of_bytes().stored, 257, "no token of id 257"),
    ],
    ids=["empty", "text", "unknown-id"],
)
def test_a_damaged_tokenizer_is_refused_in_one_line(stored: str, end: int, said: str) -> None:
    with pytest.raises(RankscopeError, match=said) as error:
        text_encoder(stored, end)
    assert "\n" not in str(error.value)


def random_text(seed: int, length: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) for _ in range(length))


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
@pytest.mark.slow
def test_the_ids_of_the_pieces_are_those_of_the_text(seed: int) -> None:
    text = random_text(seed, 2 * PIECE)
    assert len(list(iter_pieces(text))) > 2
    tokenizer = CorpusTokenizer.learned_from([random_text(9, 5000)], 400)
    whole = train_bpe([random_text(9, 5000)], 400).encode(text, add_special_tokens=False).ids
    assert tokenizer.encode([text])[0].tolist() == [*whole, tokenizer.end_of_document]


@pytest.mark.parametrize("text", ["", "short\n", "\n" * 3 * PIECE, "a" * 3 * PIECE, "a\n" * PIECE])
def test_nothing_is_lost_between_pieces(text: str) -> None:
    assert "".join(iter_pieces(text)) == text


def test_only_a_tokenizer_that_keeps_lines_apart_gets_pieces() -> None:
    stored = json.loads(byte_tokenizer().to_str())
    words = stored["pre_tokenizer"]
    added = {"id": 300, "content": "\n\n", "special": False}
    assert cuts_at_lines(json.dumps(stored))
    for change in (
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [words]}},
        {"pre_tokenizer": words | {"add_prefix_space": True}},
        {"pre_tokenizer": words | {"use_regex": False}},
        {"normalizer": {"type": "Prepend", "prepend": "▁"}},
        {"added_tokens": [added]},
    ):
        assert not cuts_at_lines(json.dumps(stored | change))


def test_a_tokenizer_that_fails_on_a_text_is_one_line() -> None:
    """A file may have a word for the unknown that is not in its vocabulary."""
    model = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}
    tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", "model": model}))
    encode = encoding_by(tokenizer, tokenizer.to_str())
    with pytest.raises(RankscopeError, match="the tokenizer cannot encode a text"):
        encode(["b"])
