from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from rankscope.dry_run.schedule_chart import BLANK, DOTS, LABEL, schedule_chart
from rankscope.training.config_file import config_from
from rankscope.training.schedule import timeline

CONSTANT = {"schedule.decay": "constant", "schedule.warmup_steps": 0}


def chart(width: int = 40, height: int = 5, **settings: Any) -> list[str]:
    return schedule_chart(timeline(config_from(settings)), width=width, height=height)


def dots(lines: list[str], width: int = 40, height: int = 5) -> list[list[int]]:
    """Dot rows that are set, counted from the bottom, for each dot column."""
    rows = [line[LABEL + 2 :].ljust(width, chr(BLANK)) for line in lines[:height]]
    return [
        [
            4 * y + row
            for y in range(height)
            for row in range(4)
            if (ord(rows[height - 1 - y][column // 2]) - BLANK) & DOTS[column % 2][row]
        ]
        for column in range(2 * width)
    ]


def test_a_constant_rate_is_one_line_at_the_top() -> None:
    assert dots(chart(**CONSTANT)) == [[19]] * 80


def test_a_linear_decay_goes_from_the_upper_left_to_the_lower_right() -> None:
    columns = dots(chart(**CONSTANT | {"schedule.decay": "linear", "schedule.minimum_ratio": 0}))
    assert columns[0][-1] == 19
    assert columns[-1][0] == 0
    assert all(a[-1] >= b[-1] for a, b in pairwise(columns))
    assert all(column == list(range(column[0], column[-1] + 1)) for column in columns)


def test_a_dip_shorter_than_a_column_is_seen() -> None:
    relora = {"method": "relora", "schedule.restart_every": 5000, "schedule.steps": 20_000}
    columns = dots(chart(**CONSTANT | relora | {"schedule.restart_warmup_steps": 50}))
    assert [at for at, column in enumerate(columns) if column[0] == 0] == [20, 40, 60]
    assert all(column[-1] == 19 for column in columns)


@pytest.mark.parametrize("steps", [1, 2, 39, 40, 41, 1000, 12_345])
@pytest.mark.parametrize("width", [1, 40, 78])
def test_every_column_has_a_dot_and_every_line_its_place(steps: int, width: int) -> None:
    settings = {"schedule.steps": steps, "schedule.warmup_steps": 0}
    lines = chart(width=width, **settings)
    assert all(dots(lines, width))
    assert max(map(len, lines)) <= LABEL + 3 + max(width, len(f"{steps:,}"))
    assert lines[-1].endswith(f"{steps:,}")


def test_restarts_and_phases_are_marked_where_they_happen() -> None:
    phases = {"phases.methods": ["full", "relora", "full"], "phases.lengths": [250, 500]}
    lines = chart(method="phases", **phases | {"schedule.restart_every": 200})
    marks = lines[-2][LABEL + 2 :]
    assert {at: mark for at, mark in enumerate(marks) if mark != " "} == {
        10: "◆",
        18: "↑",
        26: "↑",
        30: "◆",
    }
