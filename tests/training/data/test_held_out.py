from __future__ import annotations

import numpy as np
import pytest

from rankscope.training.data.held_out import Split, choose_split, document_digest, hold_out


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5])
def test_whole_documents_are_held_out_until_the_fraction_is_reached(fraction: float) -> None:
    documents = [f"document {i} " * (5 + i % 7) for i in range(100)]
    training, validation = hold_out(documents, fraction)
    assert sorted(training + validation) == sorted(documents)
    held = sum(map(len, validation)) / sum(map(len, documents))
    assert fraction <= held <= fraction + max(map(len, documents)) / sum(map(len, documents))


def test_the_same_documents_are_held_out_in_any_order() -> None:
    documents = [f"document {i}" for i in range(50)]
    _, one = hold_out(documents, 0.2)
    _, two = hold_out(documents[::-1], 0.2)
    assert set(one) == set(two)


def test_copies_of_a_document_are_on_one_side() -> None:
    documents = [f"document {i % 10}" for i in range(40)]
    training, validation = hold_out(documents, 0.3)
    assert validation
    assert not set(training) & set(validation)


def test_of_one_document_the_last_part_is_held_out() -> None:
    assert hold_out(["only one"], 0.25) == (["only o"], ["ne"])


def test_of_copies_of_one_document_each_is_cut() -> None:
    assert hold_out(["only one"] * 2, 0.25) == (["only o"] * 2, ["ne"] * 2)


def test_a_document_too_short_to_cut_is_trained_on() -> None:
    assert hold_out(["one"], 0.05) == (["one"], [])


def test_of_two_documents_one_is_left_to_train_on() -> None:
    training, validation = hold_out(["a" * 100, "b"], 0.5)
    assert len(training) == len(validation) == 1


def test_copies_of_a_document_count_as_many() -> None:
    documents = [f"document {i % 10}" for i in range(400)]
    _, validation = hold_out(documents, 0.3)
    assert 120 <= len(validation) < 160


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.35, 0.55])
def test_copies_that_straddle_the_fraction_are_all_held_out(
    fraction: float,
) -> None:
    documents = [f"document {i % 10}" for i in range(400)]
    _, validation = hold_out(documents, fraction)
    held = len(validation) / len(documents)
    assert fraction <= held < fraction + 0.1 + 1e-9  # at most one document with its copies more
    assert len(validation) % 40 == 0


@pytest.mark.parametrize(("digests", "split"), [([7] * 5, Split(7, 0.5)), ([7, 8], Split(8))])
def test_documents_are_cut_only_if_all_are_copies(digests: list[int], split: Split) -> None:
    sizes = np.ones(len(digests), dtype=np.uint64)
    assert choose_split(np.array(digests, dtype=np.uint64), sizes, fraction=0.5) == split


def test_the_digest_of_ids_depends_on_no_type() -> None:
    digests = {document_digest(np.arange(9).astype(dtype)) for dtype in ("<u2", ">u2", "<u4", "u8")}
    assert len(digests) == 1
    assert digests != {document_digest(np.arange(1, 10, dtype=np.uint16))}


@pytest.mark.parametrize("document", ["text of twenty chars", np.arange(20, dtype=np.uint16)])
def test_the_last_part_of_a_single_document_is_held_out(document: str | np.ndarray) -> None:
    (first, training), (second, validation) = Split(0, cut=0.25).parts(document)
    assert (first, second) == (False, True)
    assert len(validation) == 5
    assert [*training, *validation] == [*document]
