import pandas as pd
import pytest

from rankscope.statistics.restart_schedules import RESTARTS, restarts_of, schedules


def rows_of(**ends: int) -> pd.DataFrame:
    """Rows of runs from step 0 to their ends."""
    return pd.concat(pd.DataFrame({"run": run, "step": [0, end]}) for run, end in ends.items())


def found(restarts: dict[str, list[int]], **ends: int) -> dict[tuple[object, ...], tuple[int, ...]]:
    return {s.names: s.steps for s in schedules(rows_of(**ends), restarts, hue="run")}


def test_restarts_are_events_of_a_log_or_recorded_merges_or_beside_the_table() -> None:
    log = pd.DataFrame({"run": "a", "step": [1, 9, 4], "event": [None, "restart", "restart"]})
    table = pd.DataFrame({"run": "b", "step": [7, 3, 3], "component": ["merge", "merge", "weight"]})
    plain = pd.DataFrame({"run": ["c"], "step": [1]})
    plain.attrs[RESTARTS] = {"c": [5, 2]}
    assert [restarts_of(t) for t in (log, table, plain)] == [
        {"a": [4, 9]},
        {"b": [3, 7]},
        {"c": [2, 5]},
    ]
    log.attrs[RESTARTS] = {"a": [400], "d": [1]}
    assert restarts_of(log) == {"a": [4, 9], "d": [1]}


@pytest.mark.parametrize(
    ("restarts", "ends", "expected"),
    [
        ({"a": [2, 4], "b": [2, 4]}, {"a": 5, "b": 5}, {("a", "b"): (2, 4)}),
        ({"a": [2, 4], "b": [2]}, {"a": 5, "b": 3}, {("a", "b"): (2, 4)}),
        ({"a": [2, 4], "b": [2]}, {"a": 5, "b": 5}, {("a",): (2, 4), ("b",): (2,)}),
        ({"a": [2, 4], "b": [3]}, {"a": 5, "b": 5}, {("a",): (2, 4), ("b",): (3,)}),
        ({"a": [2, 4, 90]}, {"a": 5, "b": 5}, {("a",): (2, 4)}),
        ({}, {"a": 5}, {}),
    ],
)
def test_series_that_restart_alike_have_one_schedule(
    restarts: dict[str, list[int]],
    ends: dict[str, int],
    expected: dict[tuple[object, ...], tuple[int, ...]],
) -> None:
    assert found(restarts, **ends) == expected
