from __future__ import annotations

import numpy as np
import pytest

from rankscope.training.data.held_out import Split, document_digest, held_out_below, hold_out


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


def test_one_document_is_not_held_out() -> None:
    assert hold_out(["only"], 0.5) == (["only"], [])


def test_of_two_documents_one_is_left_to_train_on() -> None:
    training, validation = hold_out(["a" * 100, "b"], 0.5)
    assert len(training) == len(validation) == 1


def test_many_copies_of_a_document_are_held_out_for_what_they_are() -> None:
    documents = [f"document {i % 10}" for i in range(400)]
    _, validation = hold_out(documents, 0.3)
    assert 120 <= len(validation) < 160


@pytest.mark.parametrize("fraction", [0.05, 0.15, 0.35, 0.55])
def test_copies_that_straddle_the_fraction_make_the_part_larger_and_never_smaller(
    fraction: float,
) -> None:
    documents = [f"document {i % 10}" for i in range(400)]
    _, validation = hold_out(documents, fraction)
    held = len(validation) / len(documents)
    assert fraction <= held < fraction + 0.1 + 1e-9  # at most one document with its copies more
    assert len(validation) % 40 == 0


def test_no_document_is_below_where_all_are_the_same() -> None:
    digests, sizes = np.full(5, 7, dtype=np.uint64), np.ones(5, dtype=np.uint64)
    assert held_out_below(digests, sizes, fraction=0.5) == 7


def test_ids_are_on_one_side_whatever_type_they_are_held_in() -> None:
    digests = {document_digest(np.arange(9).astype(dtype)) for dtype in ("<u2", ">u2", "<u4", "u8")}
    assert len(digests) == 1
    assert digests != {document_digest(np.arange(1, 10, dtype=np.uint16))}


@pytest.mark.parametrize("document", ["text of twenty chars", np.arange(20, dtype=np.uint16)])
def test_the_last_part_of_a_single_document_is_held_out(document: str | np.ndarray) -> None:
    (first, training), (second, validation) = Split(0, cut=0.25).parts(document)
    assert (first, second) == (False, True)
    assert len(validation) == 5
    assert [*training, *validation] == [*document]
