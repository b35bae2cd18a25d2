"""Every model with one tokenizer reads the same tokens, and each of them is counted once."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from rankscope.errors import RankscopeError
from rankscope.representing.probe_windows import (
    CHARACTERS,
    Probe,
    ProbeOptions,
    make_probe,
    probe_texts,
)
from rankscope.scoring.text_documents import TextDocument
from rankscope.scoring.text_model import TextEncoder

START = 1000
LETTERS = TextEncoder(lambda texts: [[ord(c) for c in t] for t in texts], START, "start", "letters")
BARE = TextEncoder(LETTERS.encode, None, "none", "letters")
TEXTS = [f"{i:02d}" + chr(97 + i) * (3 + 2 * i) for i in range(24)]


def documents(texts: list[str]) -> list[TextDocument]:
    return [TextDocument(text) for text in texts]


def probe(
    tokens: int = 150, longest: int = 8, encoder: TextEncoder = LETTERS, **options: object
) -> Probe:
    given = ProbeOptions(**options)  # type: ignore[arg-type]
    texts = probe_texts(documents(TEXTS), given.reach(tokens, longest), longest)
    return make_probe(encoder, texts, given, tokens, longest)


def test_the_order_of_the_documents_does_not_matter() -> None:
    shuffled = TEXTS.copy()
    random.Random(3).shuffle(shuffled)
    assert probe_texts(documents(shuffled), 100, 8) == probe_texts(documents(TEXTS), 100, 8)


def test_a_text_that_occurs_twice_is_taken_once() -> None:
    assert probe_texts(documents(TEXTS * 2), 10_000, 8) == probe_texts(documents(TEXTS), 10_000, 8)


def test_texts_that_cannot_be_needed_are_not_kept() -> None:
    texts = [f"{i:04d}" + "a" * 1000 for i in range(500)]
    ordered = probe_texts(documents(texts), 100_000, 8)
    few = probe_texts(documents(texts), 40, 8)
    assert few == [text[: 40 * CHARACTERS] for text in ordered[:5]]  # 8 · 16 letters of each count


def test_each_window_begins_with_the_prefix_and_counts_all_other_tokens() -> None:
    found = probe()
    assert found.count == 150
    for window in found.windows:
        assert window.ids[0] == START
        assert len(window.ids) <= 8
        assert window.counted.tolist() == list(range(1, len(window.ids)))


def test_the_text_is_covered_without_gap_or_overlap() -> None:
    found = probe(tokens=100_000)
    read = Counter(int(i) for window in found.windows for i in window.ids[window.counted])
    assert read == Counter(ord(c) for text in TEXTS for c in text)


def test_without_a_prefix_the_first_token_counts() -> None:
    assert all(window.counted[0] == 0 for window in probe(encoder=BARE).windows)


def test_first_windows_of_all_documents_come_before_second_ones() -> None:
    first = sum(min(len(text), 7) for text in TEXTS)
    found = probe(tokens=first)
    assert (found.documents, len(found.windows)) == (24, 24)
    assert len(probe(tokens=first + 1).windows) == 25


def test_a_document_is_in_one_block_and_blocks_have_as_many_documents() -> None:
    found = probe(tokens=100_000)
    blocks: dict[int, int] = {}
    for window in found.windows:
        letter = Counter(int(i) for i in window.ids[window.counted]).most_common(1)[0][0]
        assert blocks.setdefault(letter, window.block) == window.block or letter < 97
    counts = Counter(block for letter, block in blocks.items() if letter >= 97)
    assert set(counts) == set(range(16))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [w.block for w in found.windows] == sorted(w.block for w in found.windows)


def test_of_last_tokens_each_window_has_one() -> None:
    found = probe(tokens=20, features="last")
    assert len(found.windows) == found.count == 20
    assert all(window.counted.tolist() == [len(window.ids) - 1] for window in found.windows)


@pytest.mark.parametrize("kept", [1, 7, 150, 4000])
def test_kept_tokens_are_spread_evenly_and_have_their_blocks(kept: int) -> None:
    found = probe(kept=kept)
    places = np.concatenate(
        [np.isin(window.counted, window.kept) for window in found.windows]
    ).nonzero()[0]
    assert len(places) == len(found.kept_blocks) == min(kept, 150)
    assert np.ptp(np.diff(places)) <= 1 if len(places) > 1 else True
    expected = [w.block for w in found.windows for _ in w.kept]
    assert found.kept_blocks.tolist() == expected


@pytest.mark.parametrize(
    "change",
    [{"tokens": 149}, {"longest": 9}, {"features": "last"}, {"kept": 10}, {"encoder": BARE}],
)
def test_another_probe_has_another_digest(change: dict[str, object]) -> None:
    assert probe(**change).digest != probe().digest  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "dimensions", "wanted"),
    [("all", 96, 16384), ("all", 4096, 16384), ("all", 4097, 32768), ("last", 96, 512)],
)
def test_by_default_there_are_four_features_for_each_dimension(
    features: str, dimensions: int, wanted: int
) -> None:
    assert ProbeOptions(features).wanted(dimensions) == wanted  # type: ignore[arg-type]


def test_a_window_without_room_is_an_error() -> None:
    with pytest.raises(RankscopeError, match="`window` is 1"):
        probe(longest=1)
    with pytest.raises(RankscopeError, match="gives a token"):
        make_probe(LETTERS, ["", ""], ProbeOptions(), 10, 8)
