"""The learning rate over the steps, drawn with characters.

A Braille character shows 2 x 4 dots; dot columns count from the left, dot rows from the bottom.
"""

from __future__ import annotations

from bisect import bisect_left

from rankscope.training.schedule import Timeline

BLANK = 0x2800
DOTS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))  # [column][row] of one character
RESTART, PHASE = "↑", "◆"
LABEL = 9  # width of what stands left of the axis
SAMPLES = 16  # steps looked at in one dot column, besides the boundaries


def schedule_chart(timeline: Timeline, *, width: int = 78, height: int = 7) -> list[str]:
    """Draw the learning rate from 0 to its maximum, and what happens when below it.

    A dot column goes from the least to the greatest rate of its steps, so the dip after a restart
    is seen even where it is much shorter than a column. A line below has an arrow where adapters
    restart, and a diamond where a phase begins.

    Parameters
    ----------
    timeline
        The run.
    width, height
        Characters of the plot itself; left of it come 10 more.
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
    """First step of a dot column and the one after its last; there is always one."""
    first = column * steps // columns
    return first, max(first + 1, (column + 1) * steps // columns)


def _rates(timeline: Timeline, first: int, end: int) -> tuple[float, float]:
    """Least and greatest learning rate of some steps."""
    looked_at = set(range(first, end, max(1, (end - first) // SAMPLES))) | {end - 1}
    boundaries = timeline.boundaries
    at = bisect_left(boundaries, first, key=lambda boundary: boundary.step)
    while at < len(boundaries) and boundaries[at].step < end and len(looked_at) < 4 * SAMPLES:
        # The steps beside it have the extremes: the end of one ramp, the beginning of the next.
        looked_at |= {max(first, boundaries[at].step - 1), boundaries[at].step}
        at += 1
    rates = [timeline.learning_rate(step) for step in looked_at]
    return min(rates), max(rates)


def _character(ranges: list[tuple[float, float]], peak: float, y: int, height: int) -> str:
    """One character of the plot, y rows of characters above the axis."""
    code = BLANK
    for dots, (low, high) in zip(DOTS, ranges, strict=True):
        lowest, highest = (round(rate / peak * (4 * height - 1)) for rate in (low, high))
        code |= sum(dot for i, dot in enumerate(dots) if lowest <= 4 * y + i <= highest)
    return chr(code)


def _marks(timeline: Timeline, width: int) -> str:
    marks = [" "] * width
    for boundary in timeline.boundaries:
        place = boundary.step * width // timeline.schedule.steps
        if marks[place] != PHASE:
            marks[place] = RESTART if boundary.event == "restart" else PHASE
    return "".join(marks)
