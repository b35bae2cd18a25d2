"""Which steps of a run are asked for: the first, the last and the stride."""

from __future__ import annotations

from rankscope.errors import RankscopeError

StepRange = tuple[int, int | None, int]  # first, last (None: to the end), stride


def check_range(steps: StepRange | None) -> None:
    """Raise `RankscopeError` if the stride is not positive."""
    if steps is not None and steps[2] < 1:
        raise RankscopeError(f"the stride of steps is {steps[2]}, it must be 1 or more")


def in_range(step: int, steps: StepRange | None) -> bool:
    """Whether a step is asked for; every one is where no range is given."""
    if steps is None:
        return True
    first, last, stride = steps
    return step >= first and (last is None or step <= last) and (step - first) % stride == 0
