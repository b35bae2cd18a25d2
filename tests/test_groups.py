from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rankscope.groups import iter_groups


@given(items=st.lists(st.integers(0, 9)), size=st.integers(1, 30))
def test_a_group_ends_with_the_item_that_fills_it(items: list[int], size: int) -> None:
    groups = list(iter_groups(items, float, size=size))
    assert [item for group in groups for item in group] == items
    assert all(sum(group[:-1]) < size for group in groups)
    assert all(sum(group) >= size for group in groups[:-1])


def test_a_least_size_bounds_the_number_of_items() -> None:
    groups = list(iter_groups(range(10), lambda _: 4 / 3, size=4))
    assert [len(group) for group in groups] == [3, 3, 3, 1]


def test_items_are_taken_as_the_groups_are() -> None:
    taken = list[int]()
    groups = iter_groups((taken.append(i) or i for i in range(9)), lambda _: 1, size=3)
    next(groups)
    assert taken == [0, 1, 2]
