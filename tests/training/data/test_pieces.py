from __future__ import annotations

import json
import random

import pytest

from rankscope.training.data.text_pieces import PIECE, cuts_at_lines, iter_groups, iter_pieces
from rankscope.training.data.tokenizer import byte_tokenizer, train_bpe, trained_encoder

WORDS = ["a", "cat", "won't", "1", "22", ".", "?!", "_", " ", "  ", "\n", "\n\n", " \n", "\t", "é"]
WORDS += ["\r\n", "\x1c", "\u00a0", "\u3000", "\u0085", "\u2028", "日本"]


def random_text(seed: int, length: int) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(WORDS) for _ in range(length))


@pytest.mark.parametrize("seed", range(3))
def test_the_ids_of_the_pieces_are_those_of_the_text(seed: int) -> None:
    text = random_text(seed, 2 * PIECE)
    assert len(list(iter_pieces(text))) > 2
    encoder = trained_encoder([random_text(9, 5000)], 400)
    whole = train_bpe([random_text(9, 5000)], 400).encode(text, add_special_tokens=False).ids
    assert encoder.encode([text])[0].tolist() == [*whole, encoder.end_of_document]


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


def test_groups_keep_the_order_and_end_when_they_are_long_enough() -> None:
    parts = [(i, "x" * n) for i, n in enumerate([3, 9, 1, 1, 1, 1, 20, 2])]
    groups = list(iter_groups(parts, size=4))
    assert [part for group in groups for part in group] == parts
    assert [len(group) for group in groups] == [2, 4, 1, 1]
