"""The learning rate over the steps, drawn in text.

A Braille character shows 2 x 4 dots; dot columns count from the left, dot rows from the bottom.
"""

from __future__ import annotations

from bisect import bisect_left

from rankscope.training.schedule import Timeline

BLANK = 0x2800
DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))  # [column][row] of one character
RESTART, PHASE = "↑", "◆"
LABEL = 9  # width of the labels left of the axis
SAMPLES = 16  # steps per dot column that are evaluated, besides the boundaries


def schedule_chart(timeline: Timeline, *, width: int = 78, height: int = 7) -> list[str]:
    """Draw the learning rate from 0 to its maximum, with restarts and phases below.

    A dot column spans the rates of its steps, so the dip after a restart shows even where it is
    much shorter than a column. The line below has an arrow where adapters restart, and a diamond
    where a phase begins.

    Parameters
    ----------
    timeline
        The run.
    width, height
        Characters of the plot itself; the labels take 10 more on the left.
    """
    steps = timeline.schedule.steps
    ranges = [_rates(timeline, *_steps(column, 2 * width, steps)) for column in range(2 * width)]
    peak = max(high for _, high in ranges)
    rows = [
        "".join(_character(ranges[2 * x : 2 * x + 2], peak, y, height) for x in range(width))
        for y in reversed(range(height))
    ]
    labels = [f"{peak:.3g}", *[""] * (height - 2), "0"]
    lines = [f"{label:>{LABEL}} ┤{row}" for label, row in zip(labels, rows, strict=True)]
    end, marks = f"{steps:,}", _marks(timeline, width).rstrip()
    return [
        *(line.rstrip(chr(BLANK)) for line in lines),
        f"{'':{LABEL}} └{'─' * width}",
        *([f"{'':{LABEL}}  {marks}"] if marks else []),
        f"{'':{LABEL}}  0{end:>{width - 1}}",
    ]


def _steps(column: int, columns: int, steps: int) -> tuple[int, int]:
    """First step of a dot column and the step after its last; a column has at least one step."""
    first = column * steps // columns
    return first, max(first + 1, (column + 1) * steps // columns)


def _rates(timeline: Timeline, first: int, end: int) -> tuple[float, float]:
    """Lowest and highest learning rate of the steps from ``first`` to ``end``."""
    evaluated = set(range(first, end, max(1, (end - first) // SAMPLES))) | {end - 1}
    boundaries = timeline.boundaries
    at = bisect_left(boundaries, first, key=lambda boundary: boundary.step)
    while at < len(boundaries) and boundaries[at].step < end and len(evaluated) < 4 * SAMPLES:
        # The extremes are beside a boundary: the end of one ramp and the beginning of the next.
        evaluated |= {max(first, boundaries[at].step - 1), boundaries[at].step}
        at += 1
    rates = [timeline.learning_rate(step) for step in evaluated]
    return min(rates), max(rates)


def _character(ranges: list[tuple[float, float]], peak: float, y: int, height: int) -> str:
    """One character of the plot, in the y-th row above the axis."""
    code = BLANK
    for dots, (low, high) in zip(DOTS, ranges, strict=True):
        lowest, highest = (round(rate / peak * (4 * height - 1)) for rate in (low, high))
        code |= sum(dot for i, dot in enumerate(dots) if lowest <= 4 * y + i <= highest)
    return chr(code)


def _marks(timeline: Timeline, width: int) -> str:
    marks = [" "] * width
    for boundary in timeline.boundaries:
        column = boundary.step * width // timeline.schedule.steps
        if marks[column] != PHASE:
            marks[column] = RESTART if boundary.event == "restart" else PHASE
    return "".join(marks)
