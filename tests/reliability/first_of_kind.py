"""Which cases of a long table run each time: the first of every kind; the others are slow tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


def first_of_kind(
    cases: Iterable[T], *kinds: Callable[[T], Any], name: Callable[[T], str] = str
) -> list[Any]:
    """Parameters of a test; a case that is the first of its kind in no respect is marked slow."""
    seen: set[tuple[int, Any]] = set()
    params = []
    for case in cases:
        found = {(place, kind(case)) for place, kind in enumerate(kinds)}
        marks = [pytest.mark.slow] if found <= seen else []
        seen |= found
        params.append(pytest.param(case, id=name(case), marks=marks))
    return params
