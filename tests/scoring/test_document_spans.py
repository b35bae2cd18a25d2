from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.errors import WrongSettingError
from rankscope.scoring.document_spans import Cut, document_spans, first_span

PREFIX = 999
WINDOWS = st.integers(1, 12).flatmap(lambda w: st.tuples(st.just(w), st.integers(1, w)))


def contexts(length: int, window: int, stride: int, prefix: int | None) -> dict[int, int]:
    """Tokens of context of each scored token of a document of different tokens."""
    found = dict[int, int]()
    for span in document_spans(np.arange(length), context=window, stride=stride, prefix=prefix):
        first = len(span.ids) - span.counted
        for place in range(first, len(span.ids)):
            token = int(span.ids[place])
            assert token not in found
            found[token] = place
    return found


@given(length=st.integers(0, 60), cut=WINDOWS, prefix=st.sampled_from([None, PREFIX]))
def test_every_token_is_counted_exactly_once(
    length: int, cut: tuple[int, int], prefix: int | None
) -> None:
    found = contexts(length, *cut, prefix)
    assert sorted(found) == list(range(0 if prefix else 1, length))


@given(length=st.integers(0, 60), cut=WINDOWS, prefix=st.sampled_from([None, PREFIX]))
def test_a_span_is_a_piece_that_fits_the_context(
    length: int, cut: tuple[int, int], prefix: int | None
) -> None:
    window, stride = cut
    sequence = [PREFIX] * bool(prefix) + list(range(length))
    spans = document_spans(range(length), context=window, stride=stride, prefix=prefix)
    for number, span in enumerate(spans):
        ids, start = list(span.ids), sequence.index(span.ids[0])
        assert ids == sequence[start : start + len(ids)]
        assert len(ids) <= window + 1
        assert 1 <= span.counted <= (stride if number else window)
    # Only where the whole sequence is shorter has a model less to look at.
    assert all(len(span.ids) == min(window + 1, len(sequence)) for span in spans)


@given(length=st.integers(0, 60), cut=WINDOWS, prefix=st.sampled_from([None, PREFIX]))
def test_every_token_has_the_context_that_the_stride_promises(
    length: int, cut: tuple[int, int], prefix: int | None
) -> None:
    window, stride = cut
    for token, context in contexts(length, window, stride, prefix).items():
        before = token + bool(prefix)
        assert min(before, window - stride + 1) <= context <= min(before, window)


@given(
    length=st.integers(0, 80),
    window=st.integers(1, 24),
    stride=st.integers(1, 12),
    finer=st.integers(1, 4),
)
def test_a_stride_that_divides_another_gives_no_token_less_context(
    length: int, window: int, stride: int, finer: int
) -> None:
    coarse = stride * finer
    window = max(window, coarse)
    fewer = contexts(length, window, coarse, PREFIX)
    more = contexts(length, window, stride, PREFIX)
    assert all(more[token] >= fewer[token] for token in fewer)


def test_spans_without_overlap_end_with_a_full_context() -> None:
    spans = document_spans(range(10), context=4, stride=4, prefix=PREFIX)
    assert [(list(span.ids), span.counted) for span in spans] == [
        ([PREFIX, 0, 1, 2, 3], 4),
        ([3, 4, 5, 6, 7], 4),
        ([5, 6, 7, 8, 9], 2),
    ]


@pytest.mark.parametrize("prefix", [None, PREFIX])
def test_a_document_that_fits_is_one_span(prefix: int | None) -> None:
    before = [] if prefix is None else [prefix]
    (span,) = document_spans([5, 6, 7], context=9, stride=2, prefix=prefix)
    assert list(span.ids) == [*before, 5, 6, 7]
    assert span.counted == len(span.ids) - 1


@pytest.mark.parametrize(("window", "stride"), [(4, 5), (4, 0), (4, -1), (0, 0)])
def test_a_stride_that_would_pass_over_tokens_is_refused(window: int, stride: int) -> None:
    with pytest.raises(WrongSettingError, match=f"`stride` is {stride} .* `window` is {window}"):
        document_spans([1, 2, 3], context=window, stride=stride, prefix=None)


@pytest.mark.parametrize(("context", "stride"), [(0, None), (None, 0), (8, 9), (8, -1)])
def test_a_cut_that_passes_over_tokens_is_refused(context: int | None, stride: int | None) -> None:
    with pytest.raises(WrongSettingError, match=r"`(window|stride)` is .* tokens"):
        Cut(context, stride)


@pytest.mark.parametrize(
    ("length", "kept", "counted"), [(0, 0, 0), (1, 1, 0), (4, 4, 3), (5, 5, 4), (6, 5, 4)]
)
def test_the_first_span_has_the_tokens_that_it_scores(length: int, kept: int, counted: int) -> None:
    span = first_span(range(length), context=5)
    assert list(span.ids) == list(range(kept))
    assert span.counted == counted
